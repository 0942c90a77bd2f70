"""From every provider's offers to priced packages: pure functions over whole tables.

judged catalogues -> `unify` (landed cost) -> `with_eligibility` -> `price_packages` (best offer, rule, prices) and
`offer_flags`. Reads and writes nothing; the assets and `assets.publishing` do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from assets.offer_frames import JUDGED
from assets.price_expressions import (
    best_offers,
    floor_micros_of,
    landed_micros_of,
    retail_minor_of,
    retail_minor_usd_of,
    usd_micros_of,
    with_rules,
)
from esim.catalogue import MAX_COST_MICROS
from esim.geography import DestinationType
from esim.pricing import PricingRule, Rates
from resources.db.catalogue_store import ProviderState
from resources.geography_names import destination_name

UNIFIED: dict[str, pl.DataType] = {
    **{name: kind for name, kind in JUDGED.items() if not name.startswith("trusted_")},
    "landed_micros": pl.Int64(),
    "min_retail_micros_usd": pl.Int64(),
}
PACKAGES: dict[str, pl.DataType] = {
    "package_id": pl.String(),
    "name": pl.String(),
    "destination_code": pl.String(),
    "destination_name": pl.String(),
    "destination_type": pl.String(),
    "kind": pl.String(),
    "coverage": pl.List(pl.String()),
    "allowance": pl.String(),
    "data_mb": pl.Int64(),
    "daily_mb": pl.Int64(),
    "throttle_kbps": pl.Int64(),
    "validity_days": pl.Int64(),
    "voice_minutes": pl.Int64(),
    "sms": pl.Int64(),
    "networks": pl.List(pl.String()),
    "supports_top_up": pl.Boolean(),
    "price_minor_usd": pl.Int64(),
    "prices": pl.String(),
    "floor_micros": pl.Int64(),
    "rule_id": pl.Int64(),
    "best_offer_id": pl.String(),
    "best_landed_micros": pl.Int64(),
    "offer_count": pl.Int64(),
    "on_sale": pl.Boolean(),
}
PRICED = ("price_minor_usd", "prices", "floor_micros", "rule_id", "best_offer_id", "best_landed_micros", "offer_count")


@dataclass(frozen=True, slots=True)
class PriceContext:
    """What decides prices besides the offers: providers' states, rules, rates, our currencies, offers that rest."""

    providers: Mapping[str, ProviderState]
    rules: Sequence[PricingRule]
    rates: Rates
    currencies: Sequence[str] = ("USD",)
    resting: frozenset[str] = frozenset()  # offer ids: a purchase was refused as sold out


def unify(catalogues: Sequence[pl.DataFrame], context: PriceContext) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return all offers with their landed cost in micro-USD, and those that cannot be priced with a `reason`."""
    empty = pl.DataFrame(schema=JUDGED)
    offers = pl.concat([empty, *catalogues], how="vertical")
    fees = {slug: state.order_fee_micros for slug, state in context.providers.items()}
    fee = pl.col("provider").replace_strict(fees, default=0, return_dtype=pl.Int64)
    priced = offers.with_columns(
        landed_micros=landed_micros_of(pl.col("cost_micros"), _rate(context, "cost_currency"), fee),
        min_retail_micros_usd=usd_micros_of(pl.col("min_retail_micros"), _rate(context, "min_retail_currency")),
    )
    # A minimum price that cannot be converted could be broken unseen, so such an offer is not sold either.
    floorless = pl.col("min_retail_micros").is_not_null() & pl.col("min_retail_micros_usd").is_null()
    reason = (
        pl.when(pl.col("landed_micros").is_null())
        .then(pl.concat_str(pl.lit("no reference rate for its cost in "), "cost_currency"))
        .when(floorless)
        .then(pl.concat_str(pl.lit("no reference rate for its minimum price in "), "min_retail_currency"))
        .when(pl.col("landed_micros") > MAX_COST_MICROS)
        .then(pl.lit("landed cost is absurdly high"))
        .when(pl.col("landed_micros") <= 0)
        .then(pl.lit("landed cost is zero"))
    )
    judged = priced.with_columns(reason=reason)
    sellable = judged.filter(pl.col("reason").is_null()).select(list(UNIFIED)).sort("offer_id")
    return sellable, judged.filter(pl.col("reason").is_not_null())


def _rate(context: PriceContext, column: str) -> pl.Expr:
    known = {code: context.rates.micros_of(code) for code in ("USD", *context.rates.usd_micros)}
    return pl.col(column).replace_strict(known, default=None, return_dtype=pl.Int64)


def with_eligibility(offers: pl.DataFrame, context: PriceContext) -> pl.DataFrame:
    """Add `priority`, `eligible` and, where an offer may not win, the `reason`.

    Wants `auto_mode` and `is_enabled` as the store has them besides the offer's own columns.
    """
    states = context.providers
    priority = {slug: state.priority for slug, state in states.items()}
    switched_off = [slug for slug, state in states.items() if not state.enabled]
    failing = [slug for slug, state in states.items() if state.circuit_open]
    unfunded = [slug for slug, state in states.items() if state.unfunded]
    degraded = [slug for slug, state in states.items() if state.degraded]
    provider = pl.col("provider")
    reason = (
        pl.when(pl.col("excluded_reason").is_not_null())
        .then(pl.concat_str(pl.lit("quarantined: "), "excluded_reason"))
        .when(provider.is_in(switched_off) | ~provider.is_in(list(states)))
        .then(pl.lit("the provider is switched off"))
        .when(provider.is_in(failing))
        .then(pl.lit("the provider is failing (its circuit is open)"))
        .when(provider.is_in(unfunded))
        .then(pl.lit("our balance at the provider does not suffice"))
        .when(provider.is_in(degraded))
        .then(pl.lit("the provider is degraded (too few purchases succeed)"))
        .when(pl.col("stock") <= 0)
        .then(pl.lit("out of stock"))
        .when(pl.col("offer_id").is_in(sorted(context.resting)))
        .then(pl.lit("out of stock (a purchase was refused)"))
        .when(~pl.col("auto_mode") & ~pl.col("is_enabled"))
        .then(pl.lit("switched off by hand"))
    )
    ranked = provider.replace_strict(priority, default=None, return_dtype=pl.Int64).fill_null(1_000_000)
    return offers.with_columns(priority=ranked, reason=reason).with_columns(eligible=pl.col("reason").is_null())


def price_packages(candidates: pl.DataFrame, context: PriceContext) -> pl.DataFrame:
    """Return every package, one row each: its best offer, rule, prices and floor.

    A package whose offers may all not win keeps its cheapest as the best offer and is not on sale.
    """
    best = best_offers(candidates).with_columns(on_sale=pl.lit(True))
    idle = candidates.join(best.select("package_id"), on="package_id", how="anti")
    shown = best_offers(idle.with_columns(eligible=pl.lit(True))).with_columns(on_sale=pl.lit(False))
    counts = candidates.group_by("package_id").agg(offer_count=pl.len().cast(pl.Int64))
    chosen = pl.concat([best, shown]).join(counts, on="package_id", how="left").sort("package_id")
    return _priced(with_rules(chosen, context.rules), context)


def _priced(chosen: pl.DataFrame, context: PriceContext) -> pl.DataFrame:
    landed = pl.col("landed_micros")
    priced = chosen.with_columns(
        price_minor_usd=retail_minor_usd_of(landed, pl.col("min_retail_micros_usd")),
        floor_micros=floor_micros_of(landed),
        best_offer_id=pl.col("offer_id"),
        best_landed_micros=landed,
    )
    sold = sorted({"USD", *(code for code in context.currencies if code in context.rates.usd_micros)})
    parts: list[pl.Expr] = []
    for code in sold:
        minor = retail_minor_of(code, pl.col("price_minor_usd"), context.rates.micros_of(code))
        parts += [pl.lit(f'{", " if parts else ""}"{code}": '), minor.cast(pl.String)]
    return priced.with_columns(prices=pl.concat_str(pl.lit("{"), *parts, pl.lit("}")))


def described(priced: pl.DataFrame) -> pl.DataFrame:
    """Return priced packages with the names customers see, in the columns of `PACKAGES`."""
    codes = {code: destination_name(code) for code in priced.get_column("destination_code").unique()}
    named = priced.with_columns(
        destination_name=pl.col("destination_code").replace_strict(codes, default=None, return_dtype=pl.String)
    )
    return named.with_columns(name=package_name()).select(list(PACKAGES))


def package_name() -> pl.Expr:
    """Return the name customers see: `Japan 5 GB 30 days`, `Europe 1 GB/day 7 days (42 countries)`."""
    unlimited = pl.when(pl.col("daily_mb").is_null()).then(pl.lit("Unlimited"))
    unlimited_fast = pl.concat_str(pl.lit("Unlimited ("), _size("daily_mb"), pl.lit("/day at full speed)"))
    size = (
        pl.when(pl.col("allowance") == "unlimited")
        .then(unlimited.otherwise(unlimited_fast))
        .when(pl.col("allowance") == "daily")
        .then(pl.concat_str(_size("data_mb"), pl.lit("/day")))
        .otherwise(_size("data_mb"))
    )
    days = pl.when(pl.col("validity_days") == 1).then(pl.lit(" day")).otherwise(pl.lit(" days"))
    several = pl.col("destination_type") != DestinationType.COUNTRY.value
    countries = pl.concat_str(pl.lit(" ("), pl.col("coverage").list.len(), pl.lit(" countries)"))
    return pl.concat_str(
        "destination_name",
        pl.lit(" "),
        size,
        pl.lit(" "),
        "validity_days",
        days,
        _when(pl.col("voice_minutes") > 0, pl.concat_str(pl.lit(" + "), "voice_minutes", pl.lit(" min"))),
        _when(pl.col("sms") > 0, pl.concat_str(pl.lit(" + "), "sms", pl.lit(" SMS"))),
        _when(pl.col("kind") == "top_up", pl.lit(" top-up")),
        _when(several, countries),
    )


def _size(column: str) -> pl.Expr:
    mb = pl.col(column)
    fraction = pl.concat_str(pl.lit("."), (mb % 1000).cast(pl.String).str.zfill(3).str.strip_chars_end("0"))
    gigabytes = pl.concat_str(mb // 1000, _when(mb % 1000 > 0, fraction), pl.lit(" GB"))
    return pl.when(mb < 1000).then(pl.concat_str(mb, pl.lit(" MB"))).otherwise(gigabytes)


def _when(condition: pl.Expr, text: pl.Expr) -> pl.Expr:
    return pl.when(condition).then(text).otherwise(pl.lit(""))


def offer_flags(candidates: pl.DataFrame, packages: pl.DataFrame) -> pl.DataFrame:
    """Add `is_best_price` and the new `is_enabled`: auto mode enables only the best offer, a person's choice stays."""
    best = packages.filter("on_sale").get_column("best_offer_id")
    flagged = candidates.with_columns(is_best_price=pl.col("offer_id").is_in(best.implode()))
    enabled = pl.when("auto_mode").then(pl.col("is_best_price")).otherwise(pl.col("is_enabled"))
    return flagged.with_columns(is_enabled=enabled)
