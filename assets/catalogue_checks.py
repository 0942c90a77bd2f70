"""Checks on the tables all providers share: those that money depends on block the publication.

They read the tables as written, not the frames that were meant to be, and judge with plain SQL or the store's rows.
"""

from datetime import timedelta

import dagster as dg
from sqlalchemy import text

from assets.best_price import UNIFIED
from assets.catalogue import staging_unified_offers
from assets.packages import best_price_packages, published_catalogue
from esim.catalogue import MAX_COST_MICROS, MAX_DATA_MB, MAX_VALIDITY_DAYS, MIN_DATA_MB
from resources.lake import LakeResource
from resources.provider_clients import ProviderClients

OVERDUE = timedelta(hours=13)
_EXAMPLES = 5

_BAD_UNITS = f"""
select offer_id from staging.unified_offers
where (allowance <> 'unlimited' and (data_mb is null or data_mb not between {MIN_DATA_MB} and {MAX_DATA_MB}))
    or validity_days not between 1 and {MAX_VALIDITY_DAYS}
    or landed_micros not between 1 and {MAX_COST_MICROS}
    or cost_micros <= 0
    or len(coverage) = 0
"""  # noqa: S608 - numbers only
_BELOW_FLOOR = """
select package_id from marts.best_price_packages
where price_minor_usd * 10000 < floor_micros or price_minor_usd <= 0
"""
_BEATEN = """
select package_id from marts.best_price_packages
where on_sale and second_landed_micros < best_landed_micros
"""


@dg.asset_check(asset=staging_unified_offers, blocking=True)
def offers_have_their_schema(lake: LakeResource) -> dg.AssetCheckResult:
    """Every declared column is there, and every offer has one row."""
    rows = lake.lake().read("select * from staging.unified_offers")
    missing = sorted(set(UNIFIED) - set(rows.columns))
    if missing:
        return dg.AssetCheckResult(passed=False, description=f"columns are missing: {', '.join(missing)}")
    twice = rows.get_column("offer_id").is_duplicated().sum()
    empty = rows.select("offer_id", "package_id", "landed_micros").null_count().sum_horizontal().item()
    return dg.AssetCheckResult(
        passed=not twice and not empty,
        description=f"{rows.height} offers, {twice} repeated ids, {empty} empty keys or costs",
    )


@dg.asset_check(asset=staging_unified_offers, blocking=True)
def offers_have_sane_units(lake: LakeResource) -> dg.AssetCheckResult:
    """No plan under 10 MB or over 1 TB that is not unlimited; no cost of 0, below 0 or absurdly high."""
    return _none(lake, _BAD_UNITS, "offers with impossible figures")


@dg.asset_check(asset=best_price_packages, blocking=True)
def no_package_below_its_floor(lake: LakeResource) -> dg.AssetCheckResult:
    """Every price covers the landed cost and the payment fee."""
    return _none(lake, _BELOW_FLOOR, "packages priced below their cost floor")


@dg.asset_check(asset=best_price_packages, blocking=True)
def best_offer_is_the_cheapest(lake: LakeResource) -> dg.AssetCheckResult:
    """No other offer that may win costs less than the best one."""
    return _none(lake, _BEATEN, "packages whose best offer is beaten")


@dg.asset_check(asset=published_catalogue)
def catalogue_is_fresh(providers: ProviderClients, lake: LakeResource) -> dg.AssetCheckResult:
    """Every enabled provider's catalogue was taken within 13 hours."""
    with providers.desk(lake.lake()) as desk, desk.engine.connect() as conn:
        query = text(
            "select slug, coalesce(held_reason, 'not synced for too long') as why from providers"
            " where enabled and (synced_at is null or synced_at < :since) order by slug"
        )
        late = conn.execute(query, {"since": desk.clock() - OVERDUE}).all()
    return dg.AssetCheckResult(
        passed=not late,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(f"{row.slug}: {row.why}" for row in late) or "all providers were read in time",
    )


@dg.asset_check(asset=published_catalogue)
def store_and_lake_agree(providers: ProviderClients, lake: LakeResource) -> dg.AssetCheckResult:
    """The store sells what the best prices say."""
    wanted = lake.lake().read("select count(*) from marts.best_price_packages where on_sale").item()
    with providers.desk(lake.lake()) as desk, desk.engine.connect() as conn:
        sold = conn.scalar(text("select count(*) from packages where on_sale"))
    return dg.AssetCheckResult(
        passed=sold == wanted,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{sold} packages on sale in the store, {wanted} in the lake",
    )


def _none(lake: LakeResource, query: str, what: str) -> dg.AssetCheckResult:
    found = lake.lake().read(query).to_series().to_list()
    examples = f": {', '.join(found[:_EXAMPLES])}" if found else ""
    return dg.AssetCheckResult(passed=not found, description=f"{len(found)} {what}{examples}")


catalogue_checks: list[dg.AssetChecksDefinition] = [
    offers_have_their_schema,
    offers_have_sane_units,
    no_package_below_its_floor,
    best_offer_is_the_cheapest,
    catalogue_is_fresh,
    store_and_lake_agree,
]
