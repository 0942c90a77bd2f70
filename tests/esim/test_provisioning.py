"""The purchase protocol, without a store: one purchase at a time, proof before the next offer, every step in order."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esim.errors import LeaseLost
from esim.money import Cost
from esim.ports import Capabilities
from esim.provisioning import (
    BuyableOffer,
    Exhausted,
    Held,
    Refusal,
    Round,
    Skipped,
    Waiting,
    failover_sequence,
    provision,
    resolve_delay_seconds,
    retry_delay_minutes,
)
from esim.purchase import (
    RETRYABLE,
    ErrorType,
    EsimProfile,
    Evidence,
    Outcome,
    Pending,
    Provisioned,
    PurchaseRequest,
    Rejected,
    Unknown,
)
from tests.pipelines.actors import ScriptedProvider, breaks_after_selling

NOW = datetime(2026, 11, 21, tzinfo=UTC)
COST = Cost(Decimal("2.00"), "USD")
BOUGHT = Provisioned(EsimProfile("8900", "smdp.example.com", "CODE"), "o-1", COST)


def offer(provider: str, plan: str = "p") -> BuyableOffer:
    return BuyableOffer(f"{provider}:{plan}", provider, plan, plan, COST, COST, 2_000_000)


@dataclass
class ListJournal:
    """A journal in a list; it may lose the lease at a step, skip offers, or hear of a hold while preparing."""

    lose_at: str = ""
    held_at: str = ""
    skip: dict[str, Skipped] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def begin(self, chosen: BuyableOffer, failover_step: int) -> PurchaseRequest | Skipped:
        if chosen.provider in self.skip:
            return self.skip[chosen.provider]
        self._write(f"begin {chosen.provider} {failover_step}")
        return PurchaseRequest(chosen.provider, chosen.provider_package_id, COST, COST, NOW)

    def prepared(self, request: PurchaseRequest, evidence: Evidence) -> Skipped | None:
        if request.reference == self.held_at:
            return Skipped.HELD
        self._write(f"prepared {request.reference}")
        return None

    def may_send(self) -> None:
        self._write("may_send")

    def conclude(self, request: PurchaseRequest, outcome: Outcome, latency_ms: int) -> None:
        self._write(f"conclude {request.reference} {type(outcome).__name__}")

    def _write(self, line: str) -> None:
        if self.lose_at and line.startswith(self.lose_at):
            raise LeaseLost
        self.lines.append(line)


def play(outcomes: dict[str, Outcome], journal: ListJournal, so_far: Round | None = None) -> tuple[object, list[str]]:
    """Offer one plan of each provider; return the result and who was asked, in order."""
    asked: list[str] = []

    def script(slug: str) -> ScriptedProvider:
        def step(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
            asked.append(slug)
            return outcomes[slug]

        return ScriptedProvider(slug, step)

    providers = {slug: script(slug) for slug in outcomes}
    worked = provision([offer(slug) for slug in outcomes], providers, journal, so_far or Round())
    return worked.result, asked


def test_every_step_is_written_before_the_next() -> None:
    journal = ListJournal()
    result, _ = play({"a": Rejected(ErrorType.OUT_OF_STOCK, ""), "b": BOUGHT}, journal)
    assert result is BOUGHT
    assert journal.lines == [
        "begin a 0",
        "prepared a",
        "may_send",
        "conclude a Rejected",
        "begin b 1",
        "prepared b",
        "may_send",
        "conclude b Provisioned",
    ]


OUTCOMES = st.one_of(
    st.just(BOUGHT),
    st.builds(Pending, st.just("o-2")),
    st.builds(Rejected, st.sampled_from(ErrorType), st.just("no")),
    st.builds(Unknown, st.sampled_from(ErrorType), st.just("?")),
)


@given(st.lists(OUTCOMES, max_size=5))
def test_only_a_proof_of_nothing_bought_leads_to_the_next_offer(script: list[Outcome]) -> None:
    outcomes = {f"p{n}": outcome for n, outcome in enumerate(script)}
    result, asked = play(outcomes, ListJournal())
    stop = next((n for n, outcome in enumerate(script) if not isinstance(outcome, Rejected)), None)
    expected = len(script) if stop is None else stop + 1
    assert asked == list(outcomes)[:expected]
    if stop is not None:
        assert result is script[stop]
    elif script and all(isinstance(one, Rejected) and one.error_type is ErrorType.RATE_LIMITED for one in script):
        assert isinstance(result, Waiting)
    else:
        assert isinstance(result, Exhausted)
        types = {one.error_type for one in script if isinstance(one, Rejected)}
        assert result.retryable is (not types or bool(types & RETRYABLE))


def test_held_order_ends_the_round_before_the_next_offer_without_another_refusal() -> None:
    refused = Rejected(ErrorType.OUT_OF_STOCK, "none")
    outcomes: dict[str, Outcome] = {"a": refused, "b": BOUGHT, "c": BOUGHT}
    assert play(outcomes, ListJournal(skip={"b": Skipped.HELD})) == (Held(), ["a"])
    journal = ListJournal(held_at="b")
    assert play(outcomes, journal) == (Held(), ["a"])
    assert journal.lines[-2:] == ["begin b 1", "conclude b Rejected"]


@pytest.mark.parametrize("lose_at", ["begin", "prepared", "may_send"])
def test_without_the_lease_nothing_is_sent(lose_at: str) -> None:
    provider = ScriptedProvider("a")
    with pytest.raises(LeaseLost):
        provision([offer("a"), offer("b")], {"a": provider}, ListJournal(lose_at=lose_at), Round())
    assert provider.asked == []


def test_offers_refused_earlier_in_the_round_are_passed_over_and_remembered() -> None:
    so_far = Round((Refusal("a:p", ErrorType.INVALID_PRODUCT),))
    journal = ListJournal()
    result, asked = play({"a": BOUGHT, "b": Rejected(ErrorType.PAYMENT_FAILED, "no")}, journal, so_far)
    assert (asked, journal.lines[0]) == (["b"], "begin b 1")
    assert result == Exhausted(False, ErrorType.PAYMENT_FAILED, "no")


def test_without_failover_the_first_refusal_ends_the_round() -> None:
    refused = Rejected(ErrorType.NETWORK_ERROR, "never sent")
    result, asked = play({"a": refused, "b": BOUGHT}, ListJournal(), Round(failover=False))
    assert asked == ["a"]
    assert result == Exhausted(True, ErrorType.NETWORK_ERROR, "never sent")


def test_busy_slot_is_waited_for_and_later_passed_over() -> None:
    busy = {"a": Skipped.SLOT_BUSY}
    result, asked = play({"a": BOUGHT, "b": BOUGHT}, ListJournal(skip=busy))
    assert (result, asked) == (Waiting(2.0, "another purchase is open where only one may be", for_slot=True), [])
    result, asked = play({"a": BOUGHT, "b": BOUGHT}, ListJournal(skip=busy), Round(wait_for_slot=False))
    assert (result, asked) == (BOUGHT, ["b"])


def test_providers_that_may_leave_a_doubt_for_good_come_last_unless_they_are_the_first_choice() -> None:
    sure, unsure = Capabilities(), Capabilities(resolves_for_certain=False)
    providers = {"a": ScriptedProvider("a", capabilities=unsure), "b": ScriptedProvider("b", capabilities=sure)}

    def sequence(*slugs: str) -> list[str]:
        return [one.provider for one in failover_sequence([offer(slug) for slug in slugs], providers)]

    assert sequence("b", "a", "b") == ["b", "b", "a"]
    assert sequence("a", "a", "b") == ["a", "b", "a"]
    assert sequence() == []


def test_resting_providers_are_waited_for_without_a_failure() -> None:
    result, _ = play({}, ListJournal(), Round(held_back=True))
    assert isinstance(result, Waiting)
    result, _ = play({"a": BOUGHT}, ListJournal(skip={"a": Skipped.CIRCUIT_OPEN}))
    assert isinstance(result, Waiting)
    result, _ = play({"a": Rejected(ErrorType.INVALID_PRODUCT, "gone")}, ListJournal(), Round(held_back=True))
    assert result == Exhausted(True, ErrorType.INVALID_PRODUCT, "gone")


def test_no_offer_at_all_is_tried_again_later() -> None:
    result, _ = play({}, ListJournal())
    assert isinstance(result, Exhausted)
    assert result.retryable


def test_adapter_that_raises_is_a_refusal_before_the_purchase_and_a_doubt_after() -> None:
    early, late = ScriptedProvider("a"), ScriptedProvider("b", breaks_after_selling)
    early.refuse_to_prepare = ValueError("defect")
    journal = ListJournal()
    worked = provision([offer("a"), offer("b"), offer("c")], {"a": early, "b": late}, journal, Round())
    assert [type(trial.outcome) for trial in worked.trials] == [Rejected, Unknown]
    assert journal.lines[-1] == "conclude b Unknown"


def test_delays() -> None:
    assert [retry_delay_minutes(n) for n in (1, 2, 3, 9)] == [5, 15, 60, 60]
    looked, at = [], 0.0
    while at < 1_300:
        at += resolve_delay_seconds(at)
        looked.append(at)
    assert looked[:6] == [1, 3, 8, 18, 48, 108]
    assert looked[-1] - looked[-2] == 300
