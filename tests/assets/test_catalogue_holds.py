"""What holds a catalogue back, what quarantines one offer, and which real moves pass."""

from collections.abc import Sequence
from decimal import Decimal

import polars as pl
import pytest

from assets.catalogue_holds import Judgement, judge
from assets.offer_frames import JUDGED, offers_frame
from esim.catalogue import ProviderOffer
from esim.geography import Coverage
from esim.money import Cost
from esim.pricing import Rates
from tests.assets.catalogue_builders import offer, plans

RATES = Rates({"EUR": 1_080_000}, "2026-03-02")
NO_PEERS = pl.DataFrame(schema={"package_id": pl.String, "peer": pl.Int64})


def good(offers: Sequence[ProviderOffer]) -> pl.DataFrame:
    return judge(offers_frame(offers), 0, None, NO_PEERS, RATES).offers


def verdict(new: Sequence[ProviderOffer], old: Sequence[ProviderOffer], *, rejected: int = 0) -> Judgement:
    return judge(offers_frame(new), rejected, good(old), NO_PEERS, RATES)


def quarantined(judgement: Judgement) -> dict[str, str]:
    rows = judgement.offers.drop_nulls("excluded_reason")
    return dict(rows.select("provider_package_id", "excluded_reason").iter_rows())


def test_the_first_catalogue_has_nothing_to_compare_with() -> None:
    first = judge(offers_frame(plans("airalo", 100)), 3, None, NO_PEERS, RATES)
    assert first.held_reason == ""
    assert first.offers.schema == pl.Schema(JUDGED)


@pytest.mark.parametrize(("left", "held"), [(80, False), (79, True)])
def test_a_catalogue_may_shrink_by_a_fifth(left: int, held: bool) -> None:
    judgement = verdict(plans("airalo", 100)[:left], plans("airalo", 100))
    assert bool(judgement.held_reason) is held
    if held:
        assert judgement.held_reason == "the catalogue shrank by over 20 %: 79 plans after 100"


@pytest.mark.parametrize(("factor", "held"), [("1.3", False), ("1.31", True), ("0.7", False), ("0.69", True)])
def test_the_median_cost_may_move_by_thirty_percent(factor: str, held: bool) -> None:
    judgement = verdict(plans("airalo", 100, factor=factor), plans("airalo", 100))
    assert bool(judgement.held_reason) is held
    assert ("the median cost moved by" in judgement.held_reason) is held


def test_renamed_plans_are_compared_by_package() -> None:
    renamed = [offer("airalo", str(p.cost.amount * 2), number=f"new-{p.provider_package_id}", coverage=p.coverage,
                     data_mb=p.data_mb) for p in plans("airalo", 60)]  # fmt: skip
    assert "the median cost moved by +100.0 % over 60" in verdict(renamed, plans("airalo", 60)).held_reason


def test_a_change_of_currency_is_judged_in_dollars() -> None:
    euros = [offer("airalo", Cost(p.cost.amount, "EUR"), number=p.provider_package_id, coverage=p.coverage,
                   data_mb=p.data_mb) for p in plans("airalo", 60)]  # fmt: skip
    judgement = verdict(euros, plans("airalo", 60))
    assert judgement.held_reason == ""
    assert "moved by +8.0 %" in {f.check: f.text for f in judgement.findings}["median_cost"]


def test_an_empty_catalogue_is_held_even_the_first_time() -> None:
    assert judge(offers_frame([]), 7, None, NO_PEERS, RATES).held_reason == "none of 7 plans can be sold"


def test_a_catalogue_of_which_most_is_unreadable_is_held() -> None:
    judgement = judge(offers_frame(plans("airalo", 40)), 60, None, NO_PEERS, RATES)
    assert judgement.held_reason == "60 of 100 plans are rejected; its units may have changed"


@pytest.mark.parametrize(("factor", "held"), [("0.09", True), ("0.11", False), ("9.9", False), ("10.1", True)])
def test_a_provider_ten_times_off_all_others_counts_in_other_units(factor: str, held: bool) -> None:
    others = good(plans("esim_go", 60))
    peers = others.select("package_id", peer="cost_micros")
    judgement = judge(offers_frame(plans("airalo", 60, factor=factor)), 0, None, peers, RATES)
    assert bool(judgement.held_reason) is held


def one_changed(cost: str) -> list[ProviderOffer]:
    changed = plans("airalo", 50)
    changed[0] = offer("airalo", cost, number="p0", coverage=changed[0].coverage, data_mb=1000)
    return changed


@pytest.mark.parametrize(("cost", "caught"), [("6.00", False), ("6.01", True), ("34", True), ("0.67", False),
                                              ("0.66", True), ("0.02", True)])  # fmt: skip
def test_one_cost_that_jumps_more_than_threefold_is_quarantined(cost: str, caught: bool) -> None:
    judgement = verdict(one_changed(cost), plans("airalo", 50))
    assert judgement.held_reason == ""
    expected = {"p0": f"cost jumped from USD 2.00 to USD {Decimal(cost):.2f}"} if caught else {}
    assert quarantined(judgement) == expected


def test_a_quarantined_offer_stays_so_until_its_cost_comes_back() -> None:
    first = verdict(one_changed("34"), plans("airalo", 50))
    again = judge(offers_frame(one_changed("35")), 0, first.offers, NO_PEERS, RATES)
    assert quarantined(again) == {"p0": "cost jumped from USD 2.00 to USD 35.00"}
    back = judge(offers_frame(plans("airalo", 50)), 0, again.offers, NO_PEERS, RATES)
    assert quarantined(back) == {}


def test_a_person_can_accept_what_was_held_and_quarantined() -> None:
    new = [*one_changed("34")[:20]]
    accepted = judge(offers_frame(new), 0, good(plans("airalo", 50)), NO_PEERS, RATES, accept=True)
    assert (accepted.held_reason, quarantined(accepted)) == ("", {})


def test_a_person_can_accept_other_units_too_but_not_an_empty_catalogue() -> None:
    many = judge(offers_frame(plans("airalo", 40)), 60, None, NO_PEERS, RATES, accept=True)
    assert many.held_reason == ""
    assert {finding.text for finding in many.findings[:3]} == {"accepted by a person"}
    empty = judge(offers_frame([]), 7, None, NO_PEERS, RATES, accept=True)
    assert empty.held_reason == "none of 7 plans can be sold"


def destination(costs: dict[str, str], country: str = "VU") -> list[ProviderOffer]:
    rest = plans("esim_go", 40)
    return rest + [offer("esim_go", cost, number=n, coverage=Coverage((country,))) for n, cost in costs.items()]


BEFORE = {"fixed-1": "15.56", "fixed-2": "30.58", "lite-1": "22.00", "lite-5": "107.80", "plus-1": "52.80",
          "plus-5": "258.72", "essential-1": "26.40", "essential-5": "129.36"}  # fmt: skip


def test_a_row_that_slipped_in_a_price_sheet_is_caught_though_prices_fell() -> None:
    slipped = BEFORE | {"essential-1": "4.26", "essential-5": "18.55"}
    assert set(quarantined(verdict(destination(slipped), destination(BEFORE)))) == {"essential-1", "essential-5"}


def test_a_slip_upwards_is_caught() -> None:
    cheap = {key: str(Decimal(cost) / 17) for key, cost in BEFORE.items()}
    slipped = cheap | {"essential-1": "26.40"}
    assert set(quarantined(verdict(destination(slipped), destination(cheap)))) == {"essential-1"}


def test_a_destination_cut_to_a_seventh_is_a_real_price_cut() -> None:
    cut = {key: str((Decimal(cost) / 7).quantize(Decimal("0.01"))) for key, cost in BEFORE.items()}
    assert quarantined(verdict(destination(cut), destination(BEFORE))) == {}


def test_a_cut_of_half_of_a_destinations_series_is_real_too() -> None:
    cut = BEFORE | {key: str((Decimal(BEFORE[key]) / 6).quantize(Decimal("0.01")))
                    for key in ("fixed-1", "fixed-2", "essential-1", "essential-5")}  # fmt: skip
    assert quarantined(verdict(destination(cut), destination(BEFORE))) == {}
