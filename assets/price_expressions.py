"""Landed cost, best offer and retail price for whole tables: the polars twins of the row rules in `esim.pricing`.

offers -> `landed_micros_of` -> `best_offers` -> `with_rules` -> `retail_minor_usd_of`, `floor_micros_of` and the like.
Integer arithmetic throughout, so that a table and a row give the same digits; tests hold both against each other.
"""

from collections.abc import Sequence

import polars as pl

from esim.money import MICROS, exponent
from esim.pricing import BASIS_POINTS, PriceEnding, PricingRule, RuleScope

# price ending -> (step, last digits) in minor units; every price ends on `last` modulo `step`
_ENDINGS = {
    PriceEnding.NONE: (1, 0),
    PriceEnding.NINETY_NINE: (100, 99),
    PriceEnding.NINE: (10, 9),
    PriceEnding.WHOLE: (100, 0),
}
_RULE_SCHEMA = {
    "rule_id": pl.Int64,
    "markup_bp": pl.Int64,
    "markup_micros": pl.Int64,
    "min_margin_micros": pl.Int64,
    "payment_fee_bp": pl.Int64,
    "payment_fee_micros": pl.Int64,
    "ending_step": pl.Int64,
    "ending_last": pl.Int64,
}
TRIAL_ORDER = ("landed_micros", "priority", "provider", "provider_package_id")


def usd_micros_of(micros: pl.Expr, rate: pl.Expr) -> pl.Expr:
    """Return an amount in micro-USD, rounded half up; null where it does not fit or has no rate."""
    # A product of two 64-bit numbers needs more than 64 bits for absurd quotes, and polars wraps silently.
    product = micros.cast(pl.Int128) * rate.cast(pl.Int128)
    return ((product + MICROS // 2) // MICROS).cast(pl.Int64, strict=False)


def landed_micros_of(cost_micros: pl.Expr, rate: pl.Expr, order_fee_micros: pl.Expr) -> pl.Expr:
    """Return the landed cost in micro-USD: quote x reference rate, rounded half up, plus the provider's order fee."""
    return usd_micros_of(cost_micros, rate) + order_fee_micros


def best_offers(offers: pl.DataFrame) -> pl.DataFrame:
    """Return one row per package: its cheapest eligible offer; ties by priority, then provider, then id.

    Wants the columns `package_id`, `eligible` and those of `TRIAL_ORDER`.
    """
    # The minimum is taken over a masked column, so that the text columns of losing rows are never copied.
    may_win = pl.when("eligible").then(pl.col("landed_micros"))
    cheapest = may_win == may_win.min().over("package_id")
    lowest = offers.lazy().filter(cheapest).collect(engine="streaming")
    # Few packages have two cheapest offers, so only those are sorted by the text columns.
    tied = lowest.get_column("package_id").is_duplicated()
    settled = lowest.filter(tied).sort(*TRIAL_ORDER[1:]).unique("package_id", keep="first", maintain_order=True)
    return pl.concat([lowest.filter(~tied), settled])


def rules_frame(rules: Sequence[PricingRule]) -> pl.DataFrame:
    """Return the figures of the rules, one row per rule id."""
    rows = [
        (r.rule_id, r.markup_bp, r.markup_micros, r.min_margin_micros, r.payment_fee_bp, r.payment_fee_micros)
        + _ENDINGS[r.ending]
        for r in rules
    ]
    return pl.DataFrame(rows, schema=_RULE_SCHEMA, orient="row")


def with_rules(packages: pl.DataFrame, rules: Sequence[PricingRule]) -> pl.DataFrame:
    """Add the figures of the most specific rule to every package; among equal scopes the newest rule wins.

    Wants `package_id`, `destination_code`, `provider` (of the best offer) and `data_mb`.

    Raises:
        LookupError: there is no global rule, so some package might have none; the migration ships one.
    """
    if not any(rule.scope is RuleScope.GLOBAL for rule in rules):
        raise LookupError("there is no global pricing rule; restore the default rule")
    scopes = (
        _by_target(RuleScope.PACKAGE, "package_id", rules),
        _by_target(RuleScope.DESTINATION, "destination_code", rules),
        _by_target(RuleScope.PROVIDER, "provider", rules),
        _by_band(rules),
        pl.lit(max(rule.rule_id for rule in rules if rule.scope is RuleScope.GLOBAL), dtype=pl.Int64),
    )
    return packages.with_columns(rule_id=pl.coalesce(scopes)).join(
        rules_frame(rules), on="rule_id", how="left", maintain_order="left"
    )


def _by_target(scope: RuleScope, column: str, rules: Sequence[PricingRule]) -> pl.Expr:
    newest: dict[str, int] = {}
    for rule in rules:
        if rule.scope is scope:
            newest[rule.target] = max(rule.rule_id, newest.get(rule.target, rule.rule_id))
    return pl.col(column).replace_strict(newest, default=None, return_dtype=pl.Int64)


def _by_band(rules: Sequence[PricingRule]) -> pl.Expr:
    bands = sorted((r for r in rules if r.scope is RuleScope.DATA_BAND), key=lambda rule: -rule.rule_id)
    none = pl.lit(None, dtype=pl.Int64)
    return pl.coalesce(*(pl.when(_in_band(r.target)).then(pl.lit(r.rule_id, dtype=pl.Int64)) for r in bands), none)


def _in_band(target: str) -> pl.Expr:
    low, _, high = target.partition("-")
    size = pl.col("data_mb")
    sized = (size >= int(low) if low else pl.lit(True)) & (size <= int(high) if high else pl.lit(True))
    return pl.when(size.is_null()).then(pl.lit(not high)).otherwise(sized)


def retail_minor_usd_of(landed: pl.Expr, min_retail_micros: pl.Expr) -> pl.Expr:
    """Return the retail price in US cents of rows that carry a rule's columns; see `esim.pricing.retail_minor_usd`."""
    price = _ceil_div(landed * (BASIS_POINTS + pl.col("markup_bp")), BASIS_POINTS) + pl.col("markup_micros")
    price = pl.max_horizontal(price, landed + pl.col("min_margin_micros"))
    price = _fee_covered(price)
    price = pl.max_horizontal(price, min_retail_micros.fill_null(0))
    return _with_ending(_ceil_div(price, MICROS // 100))


def floor_micros_of(landed: pl.Expr) -> pl.Expr:
    """Return the cost floor of rows that carry a rule's columns; see `esim.pricing.floor_micros`."""
    return _fee_covered(landed)


def retail_minor_of(currency: str, minor_usd: pl.Expr, rate: int) -> pl.Expr:
    """Return a USD retail price in another currency's minor units; see `esim.pricing.retail_in`."""
    if currency == "USD":
        return minor_usd
    places = exponent(currency)
    minor = _ceil_div(minor_usd * (MICROS // 100) * 10**places, rate)
    return _with_ending(minor) if places == 2 else minor


def _fee_covered(micros: pl.Expr) -> pl.Expr:
    return _ceil_div((micros + pl.col("payment_fee_micros")) * BASIS_POINTS, BASIS_POINTS - pl.col("payment_fee_bp"))


def _with_ending(minor: pl.Expr) -> pl.Expr:
    return minor + (pl.col("ending_last") - minor) % pl.col("ending_step")


def _ceil_div(value: pl.Expr, divisor: int | pl.Expr) -> pl.Expr:
    return -((-value) // divisor)
