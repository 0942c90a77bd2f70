"""The row rules: landed cost, best offer, the most specific rule, retail price, floor and endings."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esim.catalogue import Allowance, OfferKind, ProviderOffer
from esim.errors import UnsupportedCurrency
from esim.geography import Coverage
from esim.money import MICROS, Cost
from esim.pricing import (
    BASIS_POINTS,
    USD_ONLY,
    Candidate,
    PriceEnding,
    PricingRule,
    Rates,
    RuleScope,
    best_offer,
    candidate_order,
    floor_micros,
    in_band,
    landed_micros,
    rate_micros,
    retail_in,
    retail_minor_usd,
    rule_for,
    with_ending,
)

RATES = Rates({"EUR": 1_086_543, "JPY": 6_543, "KWD": 3_254_321}, "2026-03-02")
DEFAULT = PricingRule(1, RuleScope.GLOBAL, "*", 3000, 0, 750_000, 290, 300_000)
LANDED = st.integers(1, 2_500 * MICROS)
RULES = st.builds(
    PricingRule,
    rule_id=st.just(1),
    scope=st.just(RuleScope.GLOBAL),
    target=st.just("*"),
    markup_bp=st.integers(0, 50_000),
    markup_micros=st.integers(0, 10_000_000),
    min_margin_micros=st.integers(0, 10_000_000),
    payment_fee_bp=st.integers(0, 5_000),
    payment_fee_micros=st.integers(0, 1_000_000),
    ending=st.sampled_from(PriceEnding),
)


def candidate(provider: str, landed: int, number: str = "1", priority: int = 1, eligible: bool = True) -> Candidate:
    offer = ProviderOffer(
        provider=provider,
        provider_package_id=number,
        name="Japan 5 GB",
        kind=OfferKind.PLAN,
        coverage=Coverage(("JP",)),
        allowance=Allowance.TOTAL,
        data_mb=5000,
        validity_days=30,
        cost=Cost(Decimal(landed).scaleb(-6), "USD"),
    )
    return Candidate(offer, landed, priority, eligible)


def test_landed_cost_is_quote_times_rate_plus_fee_rounded_half_up() -> None:
    assert landed_micros(Cost.parse("4.5", "USD"), USD_ONLY) == 4_500_000
    assert landed_micros(Cost.parse("4.5", "EUR"), RATES) == 4_889_444  # 4,889,443.5
    assert landed_micros(Cost.parse("4.5", "EUR"), RATES, 150_000) == 5_039_444


def test_a_currency_without_a_rate_is_refused() -> None:
    with pytest.raises(UnsupportedCurrency, match="no reference rate for CHF; run the rates asset"):
        landed_micros(Cost.parse("1", "CHF"), RATES)


def test_the_cheapest_eligible_offer_wins() -> None:
    offers = [candidate("a", 5), candidate("b", 3, eligible=False), candidate("c", 4)]
    assert best_offer(offers) is offers[2]
    assert best_offer([offers[1]]) is None
    assert best_offer([]) is None


def test_ties_go_by_priority_then_provider_then_id() -> None:
    rivals = [
        candidate("b", 5, "1", priority=2),
        candidate("c", 5, "2", priority=1),
        candidate("c", 5, "1", priority=1),
        candidate("d", 5, "0", priority=1),
    ]
    assert [rivals.index(each) for each in sorted(rivals, key=candidate_order)] == [2, 1, 3, 0]
    assert best_offer(rivals) is rivals[2]


@given(costs=st.lists(st.tuples(st.integers(1, 50), st.booleans()), min_size=1, max_size=20))
def test_no_eligible_offer_is_cheaper_than_the_best(costs: list[tuple[int, bool]]) -> None:
    offers = [candidate("p", cost, str(n), eligible=ok) for n, (cost, ok) in enumerate(costs)]
    best = best_offer(offers)
    eligible = [cost for cost, ok in costs if ok]
    assert (best is None) is (not eligible)
    assert best is None or best.landed_micros == min(eligible)


def rule(number: int, scope: RuleScope, target: str) -> PricingRule:
    return PricingRule(number, scope, target)


def test_the_most_specific_rule_wins_whatever_its_age() -> None:
    rules = [
        rule(9, RuleScope.GLOBAL, "*"),
        rule(8, RuleScope.DATA_BAND, "1000-5000"),
        rule(7, RuleScope.PROVIDER, "airalo"),
        rule(6, RuleScope.DESTINATION, "JP"),
        rule(5, RuleScope.PACKAGE, "jp-5gb-30d"),
    ]
    for left in range(5):
        assert rule_for(rules[: 5 - left], "jp-5gb-30d", "JP", "airalo", 5000).rule_id == 5 + left


def test_rules_for_others_do_not_apply() -> None:
    rules = [DEFAULT, rule(2, RuleScope.PROVIDER, "esim_go"), rule(3, RuleScope.DESTINATION, "US")]
    assert rule_for(rules, "jp-5gb-30d", "JP", "airalo", 5000) is DEFAULT


def test_without_any_rule_the_message_says_what_to_do() -> None:
    with pytest.raises(LookupError, match="restore the default rule"):
        rule_for([rule(2, RuleScope.PROVIDER, "esim_go")], "jp-5gb-30d", "JP", "airalo", 5000)


@pytest.mark.parametrize(
    ("band", "size", "inside"),
    [
        ("1000-5000", 1000, True),
        ("1000-5000", 5000, True),
        ("1000-5000", 5001, False),
        ("1000-5000", 999, False),
        ("-999", 10, True),
        ("-999", 1000, False),
        ("20000-", 20_000, True),
        ("20000-", None, True),
        ("-999", None, False),
        ("-", None, True),
    ],
)
def test_bands_include_both_ends_and_unlimited_needs_an_open_one(band: str, size: int | None, inside: bool) -> None:
    assert in_band(band, size) is inside


@given(landed=LANDED, pricing=RULES, minimum=st.integers(0, 100 * MICROS))
def test_a_retail_price_keeps_every_promise(landed: int, pricing: PricingRule, minimum: int) -> None:
    price = retail_minor_usd(landed, pricing, minimum) * (MICROS // 100)
    kept = Fraction(price * (BASIS_POINTS - pricing.payment_fee_bp), BASIS_POINTS) - pricing.payment_fee_micros
    assert price >= floor_micros(landed, pricing)
    assert price >= minimum
    assert kept >= landed + pricing.min_margin_micros
    assert kept >= Fraction(landed * (BASIS_POINTS + pricing.markup_bp), BASIS_POINTS) + pricing.markup_micros


@given(landed=LANDED, more=st.integers(0, MICROS), pricing=RULES)
def test_a_dearer_offer_is_never_sold_cheaper(landed: int, more: int, pricing: PricingRule) -> None:
    assert retail_minor_usd(landed + more, pricing) >= retail_minor_usd(landed, pricing)


def test_the_default_rule_on_a_usual_plan() -> None:
    assert retail_minor_usd(4_500_000, DEFAULT) == 699
    assert floor_micros(4_500_000, DEFAULT) == 4_943_358


@pytest.mark.parametrize(
    ("ending", "minor", "pretty"),
    [
        (PriceEnding.NONE, 501, 501),
        (PriceEnding.NINETY_NINE, 499, 499),
        (PriceEnding.NINETY_NINE, 500, 599),
        (PriceEnding.NINETY_NINE, 1, 99),
        (PriceEnding.NINE, 500, 509),
        (PriceEnding.NINE, 509, 509),
        (PriceEnding.WHOLE, 500, 500),
        (PriceEnding.WHOLE, 501, 600),
    ],
)
def test_endings_go_upwards(ending: PriceEnding, minor: int, pretty: int) -> None:
    assert with_ending(minor, ending) == pretty


@given(minor=st.integers(0, 10**9), ending=st.sampled_from(PriceEnding))
def test_an_ending_is_reached_within_a_dollar_and_kept(minor: int, ending: PriceEnding) -> None:
    pretty = with_ending(minor, ending)
    assert 0 <= pretty - minor < 100
    assert with_ending(pretty, ending) == pretty


@pytest.mark.parametrize(
    ("currency", "ending", "minor"),
    [
        ("USD", PriceEnding.NINETY_NINE, 699),
        ("EUR", PriceEnding.NINETY_NINE, 699),  # 643.33 cents
        ("EUR", PriceEnding.NONE, 644),
        ("JPY", PriceEnding.NINETY_NINE, 1069),  # yen have no cents: rounded up, no ending
        ("KWD", PriceEnding.NINETY_NINE, 2148),
    ],
)
def test_other_currencies_are_converted_upwards(currency: str, ending: PriceEnding, minor: int) -> None:
    price = retail_in(currency, 699, RATES, ending)
    assert (price.minor, price.currency) == (minor, currency)


@given(usd=st.integers(1, 10**6), currency=st.sampled_from(("EUR", "JPY", "KWD")), ending=st.sampled_from(PriceEnding))
def test_a_converted_price_is_worth_at_least_the_dollar_price(usd: int, currency: str, ending: PriceEnding) -> None:
    price = retail_in(currency, usd, RATES, ending)
    assert price.micros * RATES.micros_of(currency) >= usd * 10_000 * MICROS


def test_a_rate_is_kept_in_micro_dollars() -> None:
    assert rate_micros(Decimal("1.08654349")) == 1_086_543
    assert rate_micros(Decimal("0.0065475")) == 6_548
