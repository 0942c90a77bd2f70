"""One raw catalogue asset per registered provider, the unified offers over them, and the reference rates.

providers (at once, in threads) -> `raw.<slug>_offers` -> `staging.unified_offers`. A provider that fails or is held
keeps its last good rows, shows why in its checks and metadata, and never stops the others: that is why its checks do
not block the run. Checks that block, because money depends on them, sit on the tables all providers share. A held
provider's asset is materialised all the same, since Dagster would skip what is downstream of it; so it has no freshness
policy, and `catalogue_is_fresh` tells from the store when a provider's catalogue was last taken.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta

import dagster as dg
from pydantic import Field

from assets.best_price import UNIFIED
from assets.catalogue_figures import Metadata, received_figures, table_schema, unified_figures
from assets.catalogue_holds import CHECKS
from assets.catalogue_sync import Received, raw_tables, receive, unify_good
from assets.catalogue_tables import RAW_COMMENT, UNIFIED_COMMENT, UNIFIED_NOTES, rejected, unified_offers
from assets.offer_frames import COLUMN_NOTES, JUDGED
from assets.reference_rates import ensure_rates, lake_rows, update_rates
from resources.by_hand import decides
from resources.catalogue_desk import CatalogueDesk
from resources.db.operator_providers import accept_catalogues
from resources.lake import LakeResource
from resources.provider_clients import ProviderClients
from resources.providers.registry import FACTORIES
from resources.warehouse.writes import LakeTable, write_tables

GROUP = "catalogue"
OWNERS = ["team:catalogue"]
FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=13), warn_window=timedelta(hours=7))
DAILY = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=5), warn_window=timedelta(days=2))
RATES_COMMENT = "One row per currency and day: the European Central Bank's reference rates in micro-USD per unit."
RATES_KEY = dg.AssetKey(["raw", "reference_rates"])
Events = Iterator[dg.MaterializeResult | dg.AssetCheckResult]  # type: ignore[type-arg]  # dagster leaves it unbound


class SyncConfig(dg.Config):
    """Options of a sync."""

    accept: list[str] = Field(default=[], description="Do not hold these providers: a person has checked their moves.")
    operator: str = Field(default="", description="With accept: who accepts, kept in the audit.")
    reason: str = Field(default="", description="With accept: why their moves are right; nothing personal, it is kept.")


def offers_key(slug: str) -> dg.AssetKey:
    """Return the asset key of a provider's last good catalogue."""
    return dg.AssetKey(["raw", f"{slug}_offers"])


def offers_spec(slug: str) -> dg.AssetSpec:
    """Return the asset of one provider's last good catalogue."""
    grain = RAW_COMMENT.format(slug=slug)
    return dg.AssetSpec(
        offers_key(slug),
        description=f"{grain} Held back when it shrinks by over 20 % or its median cost moves by over 30 %.",
        group_name=GROUP,
        owners=OWNERS,
        kinds={"python", "polars", "ducklake"},
        metadata={
            "dagster/column_schema": table_schema(JUDGED, COLUMN_NOTES, grain),
            "dagster/table_name": f"lake.raw.{slug}_offers",
        },
    )


def check_specs(slug: str) -> list[dg.AssetCheckSpec]:
    """Return the checks a provider's catalogue must pass to replace the last good one."""
    texts = {
        "units": "Plans can be read; sizes, costs and their level beside other providers are sane.",
        "shrinkage": "The catalogue did not shrink by over 20 %.",
        "median_cost": "The median cost did not move by over 30 %.",
        "cost_jumps": "No single cost jumped more than threefold; offers that did are quarantined.",
    }
    return [dg.AssetCheckSpec(name, asset=offers_key(slug), description=texts[name]) for name in CHECKS]


@dg.multi_asset(
    name="provider_catalogues",
    specs=[offers_spec(slug) for slug in FACTORIES],
    check_specs=[spec for slug in FACTORIES for spec in check_specs(slug)],
    can_subset=True,
)
def provider_catalogues(
    context: dg.AssetExecutionContext, config: SyncConfig, providers: ProviderClients, lake: LakeResource
) -> Events:
    """Read the selected providers' catalogues at once, judge them, and replace those that are good."""
    slugs = [slug for slug in FACTORIES if offers_key(slug) in context.selected_asset_keys]
    with providers.desk(lake.lake()) as desk:
        _note_accepted(desk, config, slugs, context.run.run_id)
        rates = ensure_rates(desk.engine, desk.rates, desk.clock())
        if rates.failure:
            context.log.warning(f"priced with the rates of {rates.rates.quoted_on or 'no day'}: {rates.failure}")
        received = receive(desk, rates.rates, providers=slugs, accept=config.accept)
        write_tables(desk.lake, raw_tables(desk.lake, received, desk.clock()))
    for each in received:
        if each.held_reason:
            context.log.error(f"{each.provider} is held, its last good catalogue stays on sale: {each.held_reason}")
        yield dg.MaterializeResult(asset_key=offers_key(each.provider), metadata=received_figures(each))
        yield from _check_results(each)


def _note_accepted(desk: CatalogueDesk, config: SyncConfig, read: Sequence[str], run_id: str) -> None:
    """Write down who takes which catalogues as they are, before they are read; nobody's word takes none.

    Raises:
        Failure: the form does not say who or why, or means a provider that this run does not read.
    """
    if not config.accept:
        return
    who = decides(config.operator, config.reason, desk.clock(), run_id)
    if strangers := sorted(set(config.accept) - set(read)):
        raise dg.Failure(
            f"`accept` names {', '.join(strangers)}, but this run reads {', '.join(read)}", allow_retries=False
        )
    with desk.engine.begin() as conn:
        accept_catalogues(conn, config.accept, who)


def _check_results(received: Received) -> Iterator[dg.AssetCheckResult]:
    for finding in received.findings:
        yield dg.AssetCheckResult(
            check_name=finding.check,
            asset_key=offers_key(received.provider),
            passed=finding.passed,
            severity=dg.AssetCheckSeverity.ERROR if finding.blocking else dg.AssetCheckSeverity.WARN,
            description=finding.text,
        )


@dg.asset(
    key=["staging", "unified_offers"],
    deps=[*(offers_key(slug) for slug in FACTORIES), RATES_KEY],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"polars", "ducklake"},
    freshness_policy=FRESH,
    description=f"{UNIFIED_COMMENT} Held and failing providers are in it with their last good catalogue.",
    metadata={
        "dagster/column_schema": table_schema(UNIFIED, UNIFIED_NOTES, UNIFIED_COMMENT),
        "dagster/table_name": "lake.staging.unified_offers",
    },
)
def staging_unified_offers(providers: ProviderClients, lake: LakeResource) -> dg.MaterializeResult:  # type: ignore[type-arg]  # dagster leaves it unbound
    """Bring every provider's last good offers together with their landed cost in USD."""
    with providers.desk(lake.lake()) as desk:
        now = desk.clock()
        unified, unpriced = unify_good(desk, (), now)
        write_tables(desk.lake, [unified_offers(unified), *rejected(desk.lake, [], now, unpriced)])
    return dg.MaterializeResult(metadata=unified_figures(unified, unpriced))


@dg.asset(
    key=RATES_KEY,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"python", "postgres", "ducklake"},
    freshness_policy=DAILY,
    description=RATES_COMMENT,
    metadata={"dagster/table_name": "lake.raw.reference_rates"},
)
def reference_rates(
    context: dg.AssetExecutionContext, providers: ProviderClients, lake: LakeResource
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # dagster leaves it unbound
    """Fetch today's rates; one that moved by over 25 % (and 5 a day since) is not believed, and the last one stays."""
    with providers.desk(lake.lake()) as desk:
        update = update_rates(desk.engine, desk.rates)
        rows = lake_rows(update.quoted)
        key = ("currency", "quoted_on")
        write_tables(desk.lake, [LakeTable("raw", "reference_rates", rows, RATES_COMMENT, mode="merge", key=key)])
    if update.refused:
        context.log.error(f"rates that moved too far were not believed: {', '.join(update.refused)}")
    figures: Metadata = {
        "dagster/row_count": rows.height,
        "quoted_on": update.rates.quoted_on,
        "not_believed": ", ".join(update.refused) or "none",
        "usd_per_eur": f"{update.rates.usd_micros.get('EUR', 0) / 1_000_000:.4f}",
    }
    return dg.MaterializeResult(metadata=figures)
