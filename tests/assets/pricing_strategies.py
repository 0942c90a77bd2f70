"""Generated catalogues, rules and rates for the property tests of pricing."""

from collections.abc import Sequence
from decimal import Decimal

from hypothesis import strategies as st

from esim.catalogue import Allowance, OfferKind, ProviderOffer
from esim.geography import COUNTRIES, Coverage
from esim.money import Cost
from esim.pricing import PriceEnding, PricingRule, Rates, RuleScope

PROVIDERS = ("airalo", "esim_access", "esim_go", "mobimatter", "esim_card")
RATES = Rates({"EUR": 1_086_543, "GBP": 1_271_009, "JPY": 6_543, "KWD": 3_254_321}, "2026-03-02")
_DESTINATIONS = (("JP",), ("US",), ("DE",), ("AT", "DE", "FR"), tuple(sorted(COUNTRIES))[:120])
_SIZES = (100, 500, 1000, 5000, 20_000, 50_000)

costs = st.builds(
    Cost,
    st.decimals(min_value=Decimal("0.01"), max_value=1900, places=4),
    st.sampled_from(("USD", "USD", "USD", "EUR", "GBP")),
)


@st.composite
def offers(draw: st.DrawFn, number: int) -> ProviderOffer:
    """One sane offer, out of a narrow choice so that packages have several candidates and costs tie."""
    allowance = draw(st.sampled_from(tuple(Allowance)))
    cheap = st.sampled_from((Cost(Decimal("4.5"), "USD"), Cost(Decimal("4.6"), "USD")))
    return ProviderOffer(
        provider=draw(st.sampled_from(PROVIDERS)),
        provider_package_id=f"P{draw(st.integers(0, 9))}-{number}",
        name=f"Plan {number}",
        kind=draw(st.sampled_from(tuple(OfferKind))),
        coverage=Coverage(draw(st.sampled_from(_DESTINATIONS))),
        allowance=allowance,
        data_mb=None if allowance is Allowance.UNLIMITED else draw(st.sampled_from(_SIZES)),
        validity_days=draw(st.sampled_from((7, 30))),
        cost=draw(costs | cheap),
        min_retail=draw(st.none() | costs),
        stock=draw(st.sampled_from((None, 0, 3))),
    )


@st.composite
def catalogues(draw: st.DrawFn, most: int = 40) -> list[ProviderOffer]:
    """A handful of offers of all providers."""
    return [draw(offers(number)) for number in range(draw(st.integers(1, most)))]


@st.composite
def rule_sets(draw: st.DrawFn, package_ids: Sequence[str]) -> list[PricingRule]:
    """A global rule and up to eight others of every scope, with targets that often match."""
    targets = {
        RuleScope.PACKAGE: st.sampled_from((*package_ids, "nowhere")),
        RuleScope.DESTINATION: st.sampled_from(("JP", "US", "europe", "global")),
        RuleScope.PROVIDER: st.sampled_from(PROVIDERS),
        RuleScope.DATA_BAND: st.sampled_from(("-999", "1000-5000", "20000-", "-", "0-")),
        RuleScope.GLOBAL: st.just("*"),
    }
    scopes = [RuleScope.GLOBAL, *draw(st.lists(st.sampled_from(tuple(RuleScope)), max_size=8))]
    return [draw(_rules(number, scope, targets[scope])) for number, scope in enumerate(scopes, start=1)]


def _rules(number: int, scope: RuleScope, targets: st.SearchStrategy[str]) -> st.SearchStrategy[PricingRule]:
    return st.builds(
        PricingRule,
        rule_id=st.just(number),
        scope=st.just(scope),
        target=targets,
        markup_bp=st.integers(0, 20_000),
        markup_micros=st.integers(0, 5_000_000),
        min_margin_micros=st.integers(0, 3_000_000),
        payment_fee_bp=st.integers(0, 1_500),
        payment_fee_micros=st.integers(0, 500_000),
        ending=st.sampled_from(tuple(PriceEnding)),
    )
