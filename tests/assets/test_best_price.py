"""The table rules against the row rules of `esim.pricing`, on every package of generated and recorded catalogues."""

import json
from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assets.best_price import PriceContext, described, offer_flags, price_packages, unify, with_eligibility
from assets.offer_frames import JUDGED, offers_frame
from esim.catalogue import Allowance, OfferKind, ProviderOffer, package_key
from esim.geography import Coverage
from esim.money import Cost
from esim.pricing import (
    Candidate,
    PriceEnding,
    PricingRule,
    Rates,
    RuleScope,
    best_offer,
    floor_micros,
    landed_micros,
    retail_in,
    retail_minor_usd,
    rule_for,
)
from resources.db.catalogue_store import ProviderState
from tests.assets.catalogue_builders import offer
from tests.assets.pricing_strategies import PROVIDERS, RATES, catalogues, rule_sets

DEFAULT_RULES = (PricingRule(1, RuleScope.GLOBAL, "*", 3000, 0, 750_000, 290, 300_000),)
SLOW = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def context(
    rules: Sequence[PricingRule] = DEFAULT_RULES,
    rates: Rates = RATES,
    off: Sequence[str] = (),
    failing: Sequence[str] = (),
    fee: int = 0,
) -> PriceContext:
    states = {
        slug: ProviderState(slug, slug not in off, number, fee * number, slug in failing)
        for number, slug in enumerate(PROVIDERS, start=1)
    }
    return PriceContext(states, rules, rates, ("USD", "EUR", "JPY"))


def judged(offers: Sequence[ProviderOffer]) -> pl.DataFrame:
    extra = {name: pl.lit(None, dtype=kind) for name, kind in JUDGED.items() if name not in offers_frame([]).columns}
    return offers_frame(offers).with_columns(**extra).select(list(JUDGED))


def priced(offers: Sequence[ProviderOffer], at: PriceContext) -> pl.DataFrame:
    unified, _ = unify([judged(offers)], at)
    automatic = unified.with_columns(auto_mode=pl.lit(True), is_enabled=pl.lit(False))
    return price_packages(with_eligibility(automatic, at), at)


def expected_row(package_id: str, group: Sequence[ProviderOffer], at: PriceContext) -> dict[str, object] | None:
    """The row rule's answer for one package: None when no offer may win."""
    candidates = []
    for each in group:
        state = at.providers[each.provider]
        landed = landed_micros(each.cost, at.rates, state.order_fee_micros)
        eligible = state.enabled and not state.circuit_open and each.stock != 0
        candidates.append(Candidate(each, landed, state.priority, eligible))
    best = best_offer(candidates)
    if best is None:
        return None
    plan = best.offer
    minimum = landed_micros(plan.min_retail, at.rates) if plan.min_retail else 0
    rule = rule_for(at.rules, package_id, plan.destination.code, plan.provider, plan.data_mb)
    usd = retail_minor_usd(best.landed_micros, rule, minimum)
    prices = {code: retail_in(code, usd, at.rates, rule.ending).minor for code in ("USD", "EUR", "JPY")}
    return {
        "best_offer_id": plan.offer_id,
        "best_landed_micros": best.landed_micros,
        "rule_id": rule.rule_id,
        "price_minor_usd": usd,
        "prices": prices,
        "floor_micros": floor_micros(best.landed_micros, rule),
        "offer_count": len(group),
    }


def assert_agrees(offers: Sequence[ProviderOffer], at: PriceContext) -> None:
    groups: dict[str, list[ProviderOffer]] = defaultdict(list)
    for each in offers:
        groups[package_key(each)].append(each)
    rows = {row["package_id"]: row for row in priced(offers, at).iter_rows(named=True)}
    assert set(rows) == set(groups)
    for package_id, group in groups.items():
        expected, row = expected_row(package_id, group, at), rows[package_id]
        assert row["on_sale"] is (expected is not None)
        if expected is not None:
            assert {**{name: row[name] for name in expected}, "prices": json.loads(row["prices"])} == expected
            assert row["price_minor_usd"] * 10_000 >= row["floor_micros"]


@SLOW
@given(st.data())
def test_tables_and_rows_agree_on_every_package_of_a_generated_catalogue(data: st.DataObject) -> None:
    offers = data.draw(catalogues())
    rules = data.draw(rule_sets(sorted({package_key(offer) for offer in offers})))
    off = data.draw(st.lists(st.sampled_from(PROVIDERS), max_size=2))
    failing = data.draw(st.lists(st.sampled_from(PROVIDERS), max_size=2))
    assert_agrees(offers, context(rules, off=off, failing=failing, fee=data.draw(st.sampled_from((0, 150_000)))))


@pytest.mark.parametrize("scope", list(RuleScope))
def test_every_scope_wins_over_wider_ones(scope: RuleScope) -> None:
    targets = {
        RuleScope.PACKAGE: "jp-5gb-30d",
        RuleScope.DESTINATION: "JP",
        RuleScope.PROVIDER: "airalo",
        RuleScope.DATA_BAND: "1000-5000",
        RuleScope.GLOBAL: "*",
    }
    scopes = list(RuleScope)
    wider = scopes[scopes.index(scope) :]
    rules = [PricingRule(10 - n, each, targets[each], markup_bp=100 * n) for n, each in enumerate(wider, start=1)]
    rows = priced([offer("airalo", "4.5")], context(rules))
    assert rows.item(0, "rule_id") == 9
    assert_agrees([offer("airalo", "4.5")], context(rules))


def test_the_newest_of_equal_rules_wins() -> None:
    rules = [PricingRule(n, RuleScope.DESTINATION, "JP", markup_bp=n) for n in (2, 7, 5)]
    assert priced([offer("airalo", "4.5")], context([*DEFAULT_RULES, *rules])).item(0, "rule_id") == 7


def test_ties_go_to_the_provider_with_priority() -> None:
    rivals = [offer("esim_go", "4.5"), offer("esim_access", "4.50"), offer("mobimatter", "4.5")]
    assert priced(rivals, context()).item(0, "best_offer_id") == "esim_access:1"


def test_a_quote_in_another_currency_competes_at_its_reference_rate() -> None:
    rivals = [offer("airalo", "4.9"), offer("esim_go", Cost(Decimal("4.5"), "EUR"))]
    row = priced(rivals, context()).row(0, named=True)
    assert (row["best_offer_id"], row["best_landed_micros"]) == ("esim_go:1", 4_889_444)


def test_an_offer_without_a_reference_rate_is_set_aside_with_its_reason() -> None:
    _, unpriced = unify([judged([offer("airalo", Cost(Decimal(5), "CHF"))])], context())
    assert unpriced.item(0, "reason") == "no reference rate for its cost in CHF"


def test_a_minimum_price_without_a_rate_is_not_ignored() -> None:
    plan = offer("airalo", "4.5", min_retail=Cost(Decimal(9), "CHF"))
    sellable, unpriced = unify([judged([plan])], context())
    assert sellable.is_empty()
    assert unpriced.item(0, "reason") == "no reference rate for its minimum price in CHF"


def test_an_absurd_quote_in_a_strong_currency_does_not_wrap_around() -> None:
    plan = offer("airalo", Cost(Decimal(70_000_000), "KWD"))
    _, unpriced = unify([judged([plan])], context())
    assert unpriced.item(0, "reason") == "landed cost is absurdly high"


def test_the_providers_minimum_price_is_a_floor() -> None:
    plan = offer("airalo", "4.5", min_retail=Cost(Decimal("19.5"), "USD"))
    assert priced([plan], context()).item(0, "price_minor_usd") == 1999


@pytest.mark.parametrize(
    ("ending", "usd"),
    [(PriceEnding.NONE, 694), (PriceEnding.NINETY_NINE, 699), (PriceEnding.NINE, 699), (PriceEnding.WHOLE, 700)],
)
def test_endings_round_up(ending: PriceEnding, usd: int) -> None:
    rule = PricingRule(1, RuleScope.GLOBAL, "*", 4335, payment_fee_bp=290, payment_fee_micros=300_000, ending=ending)
    assert priced([offer("airalo", "4.49")], context([rule])).item(0, "price_minor_usd") == usd
    assert_agrees([offer("airalo", "4.49")], context([rule]))


def test_without_a_global_rule_the_message_says_what_to_do() -> None:
    with pytest.raises(LookupError, match="restore the default rule"):
        priced([offer("airalo", "4.5")], context([PricingRule(1, RuleScope.DESTINATION, "JP")]))


@pytest.mark.parametrize(
    ("changes", "name", "package_id"),
    [
        ({}, "Japan 5 GB 30 days", "jp-5gb-30d"),
        ({"data_mb": 500, "validity_days": 1}, "Japan 500 MB 1 day", "jp-500mb-1d"),
        ({"data_mb": 1500}, "Japan 1.5 GB 30 days", "jp-1.5gb-30d"),
        ({"allowance": Allowance.DAILY, "data_mb": 1000}, "Japan 1 GB/day 30 days", "jp-1gb-daily-30d"),
        ({"allowance": Allowance.UNLIMITED, "data_mb": None}, "Japan Unlimited 30 days", "jp-unl-30d"),
        (
            {"allowance": Allowance.UNLIMITED, "data_mb": None, "daily_mb": 2000},
            "Japan Unlimited (2 GB/day at full speed) 30 days",
            "jp-unl-2gb-30d",
        ),
        ({"voice_minutes": 100, "sms": 50}, "Japan 5 GB 30 days + 100 min + 50 SMS", "jp-5gb-30d-100min-50sms"),
        ({"kind": OfferKind.TOP_UP}, "Japan 5 GB 30 days top-up", "jp-5gb-30d-topup"),
    ],
)
def test_packages_have_readable_names_and_ids(changes: dict[str, Any], name: str, package_id: str) -> None:
    row = described(priced([offer("airalo", "4.5", **changes)], context())).row(0, named=True)
    assert (row["name"], row["package_id"]) == (name, package_id)


def test_a_region_says_how_many_countries_it_has() -> None:
    row = described(priced([offer("airalo", "4.5", coverage=Coverage(("AT", "DE", "FR")))], context()))
    assert row.item(0, "name") == "Europe 5 GB 30 days (3 countries)"


def _flags(rows: list[tuple[str, str, bool, bool]]) -> dict[str, tuple[bool, bool]]:
    """rows: provider, cost, auto_mode, is_enabled -> provider: is_best_price, is_enabled."""
    at = context()
    unified, _ = unify([judged([offer(provider, cost) for provider, cost, _, _ in rows])], at)
    modes = pl.DataFrame(
        [(f"{provider}:1", auto, enabled) for provider, _, auto, enabled in rows],
        schema={"offer_id": pl.String, "auto_mode": pl.Boolean, "is_enabled": pl.Boolean},
        orient="row",
    )
    candidates = with_eligibility(unified.join(modes, on="offer_id"), at)
    flagged = offer_flags(candidates, price_packages(candidates, at))
    return {row["provider"]: (row["is_best_price"], row["is_enabled"]) for row in flagged.iter_rows(named=True)}


def test_auto_mode_enables_only_the_best_offer() -> None:
    flags = _flags([("airalo", "4.5", True, True), ("esim_go", "4.0", True, False)])
    assert flags == {"airalo": (False, False), "esim_go": (True, True)}


def test_an_offer_switched_off_by_hand_never_wins_and_stays_off() -> None:
    flags = _flags([("airalo", "4.5", True, False), ("esim_go", "4.0", False, False)])
    assert flags == {"airalo": (True, True), "esim_go": (False, False)}


def test_an_offer_switched_on_by_hand_stays_on_without_being_best() -> None:
    flags = _flags([("airalo", "4.5", False, True), ("esim_go", "4.0", True, True)])
    assert flags == {"airalo": (False, True), "esim_go": (True, True)}
