"""Random histories of one order on the real store: paid, bought, lost, found late, refunded, disputed, in any order.

Every step calls what workers, webhooks and operators call; after every step the books must balance and the events must
explain every state. `make histories` plays ten thousand; the test run plays a few.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any, TypeVar, cast
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, Engine, text

from esim.disputes import Dispute, DisputeMovement
from esim.errors import LeaseLost, RefundsUnclear
from esim.money import Cost, Money
from esim.orders import UnitStatus, status_from_units
from esim.ports import Provider, Refund
from esim.provisioning import BuyableOffer, Exhausted, Held, Skipped, Waiting
from esim.purchase import (
    ErrorType,
    EsimProfile,
    Outcome,
    Pending,
    Provisioned,
    PurchaseRequest,
    Rejected,
    Unknown,
)
from resources.db.attempts import Lease, UnitJournal
from resources.db.disputes import dispute_told
from resources.db.leases import reclaim_expired
from resources.db.order_store import Claim, claim_units
from resources.db.payments import Booking, Payment, PaymentResult, cancel_unpaid, record_payment
from resources.db.purchase_desk import PurchaseDesk, TrialOrder
from resources.db.refund_events import refund_told, refunded_in_all
from resources.db.refunds import claim_refunds, record_refund, record_refusal, still_due
from resources.db.rounds import RetryPolicy, end_round
from resources.db.settlement import Scribe, keep_outcome
from resources.db.stuck import nudge_order, refund_failed_units
from resources.db.tellers import Teller
from resources.db.transitions import lock_order, lock_units, move_unit, settle_order
from resources.db.vault import Vault
from tests.pipelines.actors import ScriptedProvider
from tests.resources.db.shop import NOW, OfferSpec, open_shop, place_order

HISTORIES = int(os.environ.get("HISTORIES", "40"))
STEPS = 24
PRICE = 499
OFFERS = tuple(
    BuyableOffer(f"{slug}:plan-1", slug, "plan-1", slug, Cost.parse("2", "USD"), Cost.parse("4", "USD"), 2_000_000)
    for slug in ("airalo", "esim_go")
)
REFUSALS = st.sampled_from((ErrorType.OUT_OF_STOCK, ErrorType.INVALID_PRODUCT, ErrorType.NOT_BOUGHT))
POLICY = RetryPolicy(2, True)
ENDS = (
    Waiting(30, "resting"),
    Exhausted(True, ErrorType.OUT_OF_STOCK, "none"),
    Exhausted(False, ErrorType.OUT_OF_STOCK, "none"),
    Held(),
)
# Always the same, since what is claimed first among equals goes by id: the same draws must lead to the same history.
ORDER_ID = UUID("0193a1c2-5b7e-7c11-9d0e-2f6f0a1b2c3d")

# All that the invariants look at, in one question.
_SEEN = text(
    """
    select o.status, o.hold_reason, o.refunded_minor::bigint as refunded,
        (select jsonb_object_agg(n, status) from esims) as units,
        (select jsonb_agg(jsonb_build_array(esim_n, from_status, to_status) order by event_id) from order_events)
            as events,
        (select count(*) from (select 1 from ledger_entries group by posting_key having sum(amount_micros) <> 0) x)
            as unbalanced,
        (select count(*) from (select 1 from purchase_attempts where state in
            ('intent', 'prepared', 'pending', 'unknown', 'provisioned') group by esim_id having count(*) > 1) x)
            as live_twice,
        (select count(*) from esims e where status = 'delivered' and not exists (select 1 from purchase_attempts a
            where a.esim_id = e.esim_id and a.state = 'provisioned')) as delivered_unbought,
        (select count(*) from esims e where status = 'refunded' and not exists (select 1 from refunds r
            where r.order_id = e.order_id and r.esim_n = e.n and r.state in ('sent', 'succeeded', 'failed')))
            as refunded_unpaid,
        (select -coalesce(sum(amount_micros), 0)::bigint from ledger_entries where account = 'provider_balance')
            as costs,
        (select count(*) from purchase_attempts where state in ('provisioned', 'stocked')) as bought,
        (select count(*) from stock_esims t join esims e on e.provider = t.provider
            and (e.iccid_hash = t.iccid_hash or e.provider_order_id = t.provider_order_id)) as in_stock_too,
        (select coalesce(sum(amount_minor), 0)::bigint from refunds r where r.payment_intent = o.payment_intent
            and r.state in ('sent', 'succeeded')) as went_back,
        (select coalesce(sum(amount_micros), 0)::bigint from ledger_entries where account = 'refunds') as refunds,
        (select coalesce(sum(amount_micros), 0)::bigint from ledger_entries
            where account = 'disputes' or posting_key like 'dispute\\_lost%' and account = 'loss') as disputed,
        (select -coalesce(sum(amount_minor), 0)::bigint from dispute_movements) as withdrawn,
        (select coalesce(sum(amount_minor), 0)::bigint from refunds where state in ('sent', 'succeeded') and exists
            (select 1 from ledger_entries where posting_key = 'payment:' || payment_intent)) as went_back_booked,
        (select count(*) from outbox, jsonb_array_elements(payload -> 'esims') where channel = 'mail') as told,
        (select count(distinct (kind, n)) from outbox, jsonb_array_elements(payload -> 'esims') n
            where channel = 'mail') as told_apart
    from orders o
    """
)


class OneTransaction:
    """An engine whose transactions are savepoints of one that is rolled back: a history leaves nothing behind."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        with self._conn.begin_nested():
            yield self._conn

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        yield self._conn

    def execution_options(self, **_: object) -> "OneTransaction":
        return self


T = TypeVar("T")


@dataclass
class Work:
    """What one worker holds, or held: its claim and the purchase it began, if any."""

    claim: Claim
    journal: UnitJournal
    request: PurchaseRequest | None = None
    sent: bool = False
    concluded: bool = False


class OrderHistory(RuleBasedStateMachine):
    """One order and everything that can happen to it."""

    real: Engine
    vault: Vault
    played: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self._opened = self.real.connect()
        self._all = self._opened.begin()
        self.conn = self._opened
        self.engine = cast(Engine, OneTransaction(self.conn))
        self.now: datetime = NOW
        self.providers = cast(Mapping[str, Provider], {o.provider: ScriptedProvider(o.provider) for o in OFFERS})
        trial = TrialOrder("landed_cost", 0)
        self.desk = PurchaseDesk(self.engine, self.vault, lambda: self.now, self.providers, trial)
        self.works: list[Work] = []
        self.by_hand: list[Refund] = []  # at the payment service
        self.esims: dict[str, EsimProfile] = {}
        self.serial = count(1)
        self.may_dispute, self.by_hand_left, self.payments_left = False, 0, 3
        self.order_id: UUID = place_order(self.conn, units=2, price_minor=PRICE, now=NOW, order_id=ORDER_ID)
        self.intent = f"pi_{self.order_id.hex}"
        self.played["histories"] += 1

    def teardown(self) -> None:
        self._all.rollback()
        self._opened.close()

    @initialize(paid=st.sampled_from((True, True, True, False)), bank=st.sampled_from((0, 0, 0, 1, 2)))
    def begin(self, paid: bool, bank: int) -> None:
        """Begin, mostly with a payment; in most histories nobody asks for money back, so that more is bought."""
        self.may_dispute, self.by_hand_left, self.payments_left = bank == 1, 2 * (bank == 2), 2
        if paid:
            self.pay(False, 2 * PRICE)

    # --- the payment ----------------------------------------------------------------------------------------------

    @precondition(lambda self: self.payments_left > 0)
    @rule(again=st.booleans(), amount=st.sampled_from((2 * PRICE, 2 * PRICE, 2 * PRICE, PRICE)))
    def pay(self, again: bool, amount: int) -> None:
        self.payments_left -= 1
        intent = f"{self.intent}_{next(self.serial)}" if again else self.intent
        payment = Payment(self.order_id, intent, f"cs_{intent}", Money(amount, "USD"), "test")
        done = record_payment(self.conn, payment, Booking("stripe", self.now, 70))
        self.played[f"payment: {done}"] += 1
        if done in {PaymentResult.PAID, PaymentResult.HELD, PaymentResult.MISMATCH} and self._first_intent() == intent:
            self.intent = intent

    @rule()
    def the_checkout_expires(self) -> None:
        cancel_unpaid(self.conn, self.order_id, reason="expired", actor="stripe", now=self.now)

    @precondition(lambda self: self.may_dispute)
    @rule(status=st.sampled_from(("warning_needs_response", "needs_response", "under_review", "won", "lost")))
    def the_bank_disputes(self, status: str) -> None:
        moved = [] if status.startswith("warning_") else [("txn_out", -2 * PRICE, 1500)]
        moved += [("txn_back", 2 * PRICE, 0)] if status == "won" else []
        movements = tuple(
            DisputeMovement(name, "du_1", self.intent, Money(minor, "USD"), Money(fee, "USD"), self.now)
            for name, minor, fee in moved
        )
        told = Dispute("du_1", self.intent, Money(2 * PRICE, "USD"), status, None, movements)
        self.played[f"dispute: {dispute_told(self.conn, self.order_id, told, self.now, self._teller())}"] += 1

    @rule(minor=st.integers(1, 2 * PRICE))
    @precondition(lambda self: self.by_hand_left > 0)
    def some_is_paid_back_by_hand(self, minor: int) -> None:
        [(machine,)] = self._rows(
            "select coalesce(sum(amount_minor), 0)::bigint from refunds where payment_intent = :intent"
            " and esim_n is not null and state in ('requested', 'sent', 'succeeded')",
            intent=self.intent,
        )
        before = int(str(machine)) + self._standing_by_hand()
        self.by_hand_left -= 1
        if before < 2 * PRICE:  # the payment service pays back no more than was paid
            amount = Money(min(minor, 2 * PRICE - before), "USD")
            self.by_hand.append(Refund(f"re_hand_{next(self.serial)}", amount, "succeeded", self.intent))
            total = Money(before + amount.minor, "USD")
            self._hear(lambda listed: refunded_in_all(*self._about(), self.intent, total, self._teller(), listed))

    @rule(pick=st.integers(0, 9))
    @precondition(lambda self: self._standing_by_hand() > 0)
    def a_refund_by_hand_fails(self, pick: int) -> None:
        made = self._pick([one for one in self.by_hand if one.status == "succeeded"], pick)
        lost = replace(made, status="failed")
        self.by_hand[self.by_hand.index(made)] = lost
        self._hear(lambda listed: refund_told(*self._about(), lost, "", self._teller(), listed))

    def _hear(self, news: Callable[[Sequence[Refund] | None], str]) -> None:
        try:
            told = news(None)
        except RefundsUnclear:
            told = news(self._listed())
        self.played[f"by hand: {told}"] += 1

    def _about(self) -> tuple[Connection, UUID]:
        return self.conn, self.order_id

    def _standing_by_hand(self) -> int:
        mine = (one for one in self.by_hand if one.payment_intent == self.intent and one.status == "succeeded")
        return sum(one.amount.minor for one in mine)

    def _listed(self) -> list[Refund]:
        """Return the payment's refunds as the payment service lists them: ours, and all that were made by hand."""
        rows = self._rows(
            "select stripe_refund_id, amount_minor, state from refunds where payment_intent = :intent"
            " and esim_n is not null and stripe_refund_id is not null order by refund_key",
            intent=self.intent,
        )
        ours = [
            Refund(str(name), Money(int(str(minor)), "USD"), "failed" * (state == "failed") or "succeeded", self.intent)
            for name, minor, state in rows
        ]
        return [*ours, *(one for one in self.by_hand if one.payment_intent == self.intent)]

    # --- workers --------------------------------------------------------------------------------------------------

    @rule()
    def a_worker_claims(self) -> None:
        owner = f"drain-{next(self.serial)}"
        for claim in claim_units(self.engine, owner, 1, self.now, deadline_minutes=70):
            lease = Lease(claim, 0.0)
            self.works.append(Work(claim, UnitJournal(self.desk, lease)))

    @rule(offer=st.sampled_from(OFFERS))
    def a_worker_comes_to_the_wire(self, offer: BuyableOffer) -> None:
        self.a_worker_claims()
        if self.works and self.works[-1].request is None:
            self.a_worker_intends(len([work for work in self.works if work.request is None]) - 1, offer)
        if self.works and self.works[-1].request is not None and not self.works[-1].sent:
            self.a_worker_sends(len([work for work in self.works if work.request and not work.sent]) - 1)

    @rule(pick=st.integers(0, 9), offer=st.sampled_from(OFFERS))
    @precondition(lambda self: any(work.request is None for work in self.works))
    def a_worker_intends(self, pick: int, offer: BuyableOffer) -> None:
        work = self._pick([work for work in self.works if work.request is None], pick)
        try:
            begun = work.journal.begin(offer, 0)
        except LeaseLost:
            return
        work.request = None if isinstance(begun, Skipped) else begun
        assert work.request is None or not self._is_held(), "nothing is begun for an order that is held"

    @rule(pick=st.integers(0, 9))
    @precondition(lambda self: any(work.request and not work.sent for work in self.works))
    def a_worker_sends(self, pick: int) -> None:
        work = self._pick([work for work in self.works if work.request and not work.sent], pick)
        assert work.request is not None
        try:
            skipped = work.journal.prepared(work.request, {"read": True})
        except LeaseLost:
            self.works.remove(work)
            return
        if skipped is None:
            assert not self._is_held(), "nothing is sent for an order that is held"
            work.sent = True
            return
        work.journal.conclude(work.request, Rejected(ErrorType.NOT_BOUGHT, "held"), 5)
        work.request = None
        self.played["stopped by a hold"] += 1

    @rule(pick=st.integers(0, 9), data=st.data())
    @precondition(lambda self: any(work.sent and not work.concluded for work in self.works))
    def a_worker_concludes_however_late(self, pick: int, data: st.DataObject) -> None:
        work = self._pick([work for work in self.works if work.sent and not work.concluded], pick)
        assert work.request is not None
        outcome = self._outcome(work.request.reference, data)
        work.journal.conclude(work.request, outcome, 5)
        work.concluded = True
        self.played[f"concluded: {type(outcome).__name__}"] += 1

    @rule(pick=st.integers(0, 9), result=st.sampled_from(ENDS))
    @precondition(lambda self: bool(self.works))
    def a_round_ends_without_a_purchase(self, pick: int, result: Exhausted | Waiting | Held) -> None:
        work = self._pick(self.works, pick)
        state = self._rows(
            "select 1 from purchase_attempts where esim_id = :id and fence = :fence and state <> 'rejected'",
            id=work.claim.esim_id,
            fence=work.claim.fence,
        )
        if state:
            return  # a worker ends its round only when every purchase of it is proven absent
        try:
            status = end_round(self.engine, work.claim, result, POLICY, self._scribe(work.claim.owner))
        except LeaseLost:
            return
        assert (status is UnitStatus.ATTENTION) == self._is_held(), "a unit of a held order waits for a person"
        self.works.remove(work)

    @rule(seconds=st.sampled_from((1, 61, 400, 4_000)))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def lost_workers_are_noticed(self) -> None:
        self.played["units taken back"] += reclaim_expired(self.engine, "drain-b", self.now)

    @rule(pick=st.integers(0, 9), data=st.data())
    def an_attempt_is_looked_up(self, pick: int, data: st.DataObject) -> None:
        attempts = self._rows(
            "select attempt_id, reference, state from purchase_attempts where sent_at is not null"
            " and state <> 'prepared' order by 1"  # a prepared one is its worker's own
        )
        if not attempts:
            return
        attempt_id, reference, state = attempts[pick % len(attempts)]
        outcome = self._outcome(str(reference), data)
        if state in {"pending", "unknown"} or not isinstance(outcome, Rejected | Unknown):
            keep_outcome(self.engine, int(str(attempt_id)), outcome, self._scribe("look-up"))
            self.played[f"looked up {state}: {type(outcome).__name__}"] += 1

    # --- refunds --------------------------------------------------------------------------------------------------

    @rule(how=st.sampled_from(("succeeded", "pending", "refused", "away")))
    def a_refund_is_paid(self, how: str) -> None:
        self.conn.execute(text("update refunds set next_attempt_at = now() where state = 'requested'"))
        for due in claim_refunds(self.engine, 1):
            if not still_due(self.conn, due, self.now):
                return
            if how in {"succeeded", "pending"}:
                paid = Refund(f"re_{due.refund_key}", due.amount, how, due.payment_intent)
                record_refund(self.conn, due, paid, actor="drain", now=self.now)
            else:
                record_refusal(self.conn, due, how, final=how == "refused", actor="drain", now=self.now)
            self.played[f"refund: {how}"] += 1

    @rule(status=st.sampled_from(("succeeded", "failed")), pick=st.integers(0, 9))
    def the_payment_service_tells_of_a_refund(self, status: str, pick: int) -> None:
        made = self._rows(
            "select refund_key, amount_minor, payment_intent from refunds where esim_n is not null order by 1"
        )
        if made:
            key, minor, intent = made[pick % len(made)]
            told = Refund(f"re_{key}", Money(int(str(minor)), "USD"), status, str(intent))
            self.played[f"told: {refund_told(self.conn, self.order_id, told, str(key), self._teller())}"] += 1

    # --- operators ------------------------------------------------------------------------------------------------

    @rule(n=st.integers(1, 2))
    def an_operator_tries_a_given_up_unit_again(self, n: int) -> None:
        lock_order(self.conn, self.order_id)
        unit = next(unit for unit in lock_units(self.conn, self.order_id) if unit.n == n)
        if unit.status is UnitStatus.FAILED:
            move_unit(self.conn, unit, UnitStatus.QUEUED, reason="tried again", actor="ops", now=self.now)
            settle_order(self.conn, self.order_id, reason="tried again", actor="ops", now=self.now)
            self.played["operator retries"] += 1

    @rule()
    def jobs_sweep(self) -> None:
        nudge_order(self.engine, self.order_id, "sweep", self.now)
        asked = refund_failed_units(self.engine, "sweep", self.now)
        assert not (asked and self._is_held()), "what is held is not paid back by itself"

    # --- what must hold -------------------------------------------------------------------------------------------

    @invariant()
    def what_must_hold(self) -> None:
        [seen] = self.conn.execute(_SEEN).mappings()
        assert seen["unbalanced"] == 0, "the ledger sums to zero"
        assert seen["live_twice"] == 0, "a unit has one live purchase"
        assert seen["delivered_unbought"] == 0, "a unit is delivered by a purchase of its own"
        assert seen["refunded_unpaid"] == 0, "a refunded unit was paid back"
        assert seen["in_stock_too"] == 0, "what is in stock is no customer's"
        assert seen["costs"] == seen["bought"] * 2_000_000, "costs are booked once"
        assert seen["told"] == seen["told_apart"], "no unit is told of twice"
        assert seen["refunded"] == min(seen["went_back"], 2 * PRICE), "the order knows what went back"
        assert seen["refunds"] == seen["went_back_booked"] * 10_000, "what went back is booked"
        assert seen["disputed"] == seen["withdrawn"] * 10_000, "what banks took and gave is booked once"
        booked = "select coalesce(sum(amount_minor), 0)::bigint from refunds where refund_key like 'external%'"
        [(by_hand,)] = self._rows(f"{booked} and state = 'succeeded' and payment_intent = :intent", intent=self.intent)
        assert by_hand == self._standing_by_hand(), "what was paid back by hand, and no more, is written down"
        self._events_explain(seen)
        units = [UnitStatus(status) for status in seen["units"].values()]
        if seen["hold_reason"] is None and seen["status"] not in {"pending", "cancelled", "attention", "paid"}:
            assert seen["status"] == status_from_units(units), "the order is what its units say"

    def _events_explain(self, seen: Mapping[str, Any]) -> None:
        states: dict[str | None, str] = {}
        for n, before, after in seen["events"] or []:
            assert states.setdefault(n, before) == before, "events lead step by step"
            states[n] = after
        assert states.pop(None, "pending") == seen["status"], "events explain the order's state"
        unpaid = dict.fromkeys(seen["units"], "unpaid")
        assert unpaid | {str(n): state for n, state in states.items()} == seen["units"], "events explain the units"

    # --- how it is done -------------------------------------------------------------------------------------------

    def _outcome(self, reference: str, data: st.DataObject) -> Outcome:
        """Draw an outcome that agrees with what was said of this purchase before: what was sold stays sold."""
        sold = self.esims.get(reference)
        kind = data.draw(st.sampled_from(("sold", "pending", "unknown", "refused")))
        if kind == "unknown":
            return Unknown(ErrorType.UNKNOWN, "no answer")
        if kind == "pending":
            return Pending(f"order-{reference}", cost=Cost(Decimal(2), "USD"))
        if kind == "refused" and sold is None:
            return Rejected(data.draw(REFUSALS), "refused")
        profile = self.esims.setdefault(reference, EsimProfile(f"89{next(self.serial):017d}", "smdp.example", "CODE"))
        return Provisioned(profile, f"order-{reference}", Cost(Decimal(2), "USD"))

    def _pick(self, some: list[T], pick: int) -> T:
        return some[pick % len(some)]

    def _is_held(self) -> bool:
        return self._rows("select 1 from orders where hold_reason is not null") != []

    def _first_intent(self) -> str | None:
        [(intent,)] = self._rows("select payment_intent from orders")
        return None if intent is None else str(intent)

    def _rows(self, statement: str, **values: object) -> list[tuple[object, ...]]:
        return [tuple(row) for row in self.conn.execute(text(statement), values)]

    def _scribe(self, actor: str) -> Scribe:
        return Scribe(self.vault, actor, self.now)

    def _teller(self) -> Teller:
        return Teller("stripe", self.now)


@pytest.mark.timeout(7_200)
def test_every_history_keeps_the_books_balanced(engine: Engine, tmp_path: object) -> None:
    from resources.settings import load_settings

    open_shop(engine, [OfferSpec("airalo", "2.00"), OfferSpec("esim_go", "2.00")])
    played: Counter[str] = Counter()
    parts = {"real": engine, "vault": Vault.from_settings(load_settings()), "played": played}
    machine = type("PlayedHistory", (OrderHistory,), parts)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=HISTORIES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    lines = "\n".join(f"{times:>8,} {what}" for what, times in sorted(played.items()))
    print(f"\n{played['histories']:,} histories of {STEPS} steps at most\n{lines}")
    assert played["histories"] >= HISTORIES
