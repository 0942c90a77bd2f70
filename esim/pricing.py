"""What a plan costs us, which offer wins, and what the customer pays: the row rules.

Everything is integer arithmetic in micro-USD (10^-6 USD) so that the polars expressions in `assets` give the same
digits; these functions are their test oracle. Retail prices are in minor units, rounded up.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum

from esim.catalogue import ProviderOffer
from esim.errors import UnsupportedCurrency
from esim.money import MICROS, Cost, Money, exponent

BASIS_POINTS = 10_000


@dataclass(frozen=True, slots=True)
class Rates:
    """How many micro-USD one major unit of each currency is worth, with the day of the quotation."""

    usd_micros: Mapping[str, int]
    quoted_on: str = ""

    def micros_of(self, currency: str) -> int:
        """Return the USD value of one unit of `currency` in micro-USD.

        Raises:
            UnsupportedCurrency: no reference rate is known.
        """
        if currency == "USD":
            return MICROS
        try:
            return self.usd_micros[currency]
        except KeyError:
            raise UnsupportedCurrency(
                f"no reference rate for {currency}; run the rates asset", field="currency"
            ) from None


USD_ONLY = Rates({})


class RuleScope(StrEnum):
    """What a pricing rule applies to; a more specific scope wins over a wider one."""

    PACKAGE = "package"
    DESTINATION = "destination"
    PROVIDER = "provider"
    DATA_BAND = "data_band"
    GLOBAL = "global"


SCOPE_ORDER: Mapping[RuleScope, int] = {scope: rank for rank, scope in enumerate(RuleScope)}


class PriceEnding(StrEnum):
    """How a price is made pretty; always upwards."""

    NONE = "none"
    NINETY_NINE = "99"
    NINE = "9"
    WHOLE = "00"


@dataclass(frozen=True, slots=True)
class PricingRule:
    """One rule: applies to `scope`/`target`, and says how to get from landed cost to retail price.

    `target` is a package id, destination code, provider slug, `min-max` in MB for a data band (either side may be
    empty; unlimited plans match the empty maximum), or `*`. Amounts are micro-USD, percentages basis points.
    """

    rule_id: int
    scope: RuleScope
    target: str
    markup_bp: int = 0
    markup_micros: int = 0
    min_margin_micros: int = 0
    payment_fee_bp: int = 0
    payment_fee_micros: int = 0
    ending: PriceEnding = PriceEnding.NINETY_NINE


@dataclass(frozen=True, slots=True)
class Candidate:
    """One offer that could serve a package, with what it costs us landed in USD and whether it may be bought now."""

    offer: ProviderOffer
    landed_micros: int
    provider_priority: int
    eligible: bool = True
    reason: str = ""


def landed_micros(cost: Cost, rates: Rates, order_fee_micros: int = 0) -> int:
    """Return the landed cost in micro-USD: quote x reference rate, rounded half up, plus the provider's order fee."""
    return (cost.micros * rates.micros_of(cost.currency) + MICROS // 2) // MICROS + order_fee_micros


def best_offer(candidates: Iterable[Candidate]) -> Candidate | None:
    """Return the eligible candidate with the lowest landed cost; ties by provider priority, then provider, then id."""
    return min((c for c in candidates if c.eligible), key=candidate_order, default=None)


def candidate_order(candidate: Candidate) -> tuple[int, int, str, str]:
    """Return the sort key in which candidates are tried: landed cost, priority, provider, id."""
    return (
        candidate.landed_micros,
        candidate.provider_priority,
        candidate.offer.provider,
        candidate.offer.provider_package_id,
    )


def rule_for(
    rules: Sequence[PricingRule], package_id: str, destination: str, provider: str, data_mb: int | None
) -> PricingRule:
    """Return the most specific rule that applies; among equals the highest rule id (the newest) wins.

    Raises:
        LookupError: not even a global rule exists; the migration ships one.
    """
    matching = [rule for rule in rules if _applies(rule, package_id, destination, provider, data_mb)]
    if not matching:
        raise LookupError("no pricing rule applies and there is no global rule; restore the default rule")
    return min(matching, key=lambda rule: (SCOPE_ORDER[rule.scope], -rule.rule_id))


def _applies(rule: PricingRule, package_id: str, destination: str, provider: str, data_mb: int | None) -> bool:
    if rule.scope is RuleScope.GLOBAL:
        return True
    if rule.scope is RuleScope.DATA_BAND:
        return in_band(rule.target, data_mb)
    key = {RuleScope.PACKAGE: package_id, RuleScope.DESTINATION: destination, RuleScope.PROVIDER: provider}[rule.scope]
    return rule.target == key


def in_band(target: str, data_mb: int | None) -> bool:
    """Return whether a size lies in the band `min-max` (MB, both ends included; None, unlimited, needs an open end)."""
    low, _, high = target.partition("-")
    if data_mb is None:
        return not high
    return (not low or data_mb >= int(low)) and (not high or data_mb <= int(high))


def retail_minor_usd(landed: int, rule: PricingRule, min_retail_micros: int = 0) -> int:
    """Return the retail price in US cents for a landed cost in micro-USD.

    markup (percentage, then fixed) -> at least the minimum margin -> payment fee covered -> at least the provider's
    minimum selling price -> rounded up to a cent -> rounded up to the ending.
    """
    price = _ceil_div(landed * (BASIS_POINTS + rule.markup_bp), BASIS_POINTS) + rule.markup_micros
    price = max(price, landed + rule.min_margin_micros)
    price = _ceil_div((price + rule.payment_fee_micros) * BASIS_POINTS, BASIS_POINTS - rule.payment_fee_bp)
    price = max(price, min_retail_micros)
    return with_ending(_ceil_div(price, MICROS // 100), rule.ending)


def with_ending(minor: int, ending: PriceEnding) -> int:
    """Return the smallest amount of minor units at or above `minor` with that ending."""
    if ending is PriceEnding.NONE:
        return minor
    step, last = {PriceEnding.NINETY_NINE: (100, 99), PriceEnding.NINE: (10, 9), PriceEnding.WHOLE: (100, 0)}[ending]
    return minor + (last - minor) % step


def floor_micros(landed: int, rule: PricingRule) -> int:
    """Return the cost floor of a package: what a sale must bring in so that it does not lose money after the fee."""
    return _ceil_div((landed + rule.payment_fee_micros) * BASIS_POINTS, BASIS_POINTS - rule.payment_fee_bp)


def retail_in(currency: str, minor_usd: int, rates: Rates, ending: PriceEnding) -> Money:
    """Return a USD retail price in another currency: converted at the reference rate, rounded up to the ending.

    Endings apply to currencies with two decimal places; others are rounded up to whole minor units.
    """
    if currency == "USD":
        return Money(minor_usd, "USD")
    rate = rates.micros_of(currency)
    minor = _ceil_div(minor_usd * (MICROS // 100) * 10 ** exponent(currency), rate)
    return Money(with_ending(minor, ending) if exponent(currency) == 2 else minor, currency)


def rate_micros(usd_per_unit: Decimal) -> int:
    """Return a reference rate as micro-USD per unit, rounded half up."""
    return int((usd_per_unit * MICROS).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def _ceil_div(value: int, divisor: int) -> int:
    return -(-value // divisor)
