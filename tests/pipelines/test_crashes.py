"""A worker dies, sleeps or wakes late at every step of the purchase protocol: never two purchases, never a lost one."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from time import monotonic
from uuid import UUID

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError

from esim.errors import LeaseLost
from esim.money import Cost
from esim.ports import Serialise
from esim.provisioning import Exhausted, Held, Waiting
from esim.purchase import ErrorType, EventKind, Evidence, Outcome, Prepared, ProviderEvent, PurchaseRequest, Rejected
from pipelines.unit_work import UnitReport, work_unit
from resources.db import inbox
from resources.db.attempts import Lease
from resources.db.databases import Databases, make_engine
from resources.db.leases import extend_leases, lock_unit, reclaim_expired
from resources.db.order_store import LEASE_SECONDS, Claim, claim_units
from resources.db.rounds import RetryPolicy, end_round
from resources.db.settlement import Scribe
from resources.db.transitions import lock_order
from resources.order_operations import IDLE_TRANSACTION_SECONDS
from tests.pipelines.actors import ScriptedProvider, never_hears, rejects, sells_without_answer
from tests.pipelines.conftest import Shop
from tests.resources.db.shop import order_state, paid_order, unit_states

COST = Cost.parse("2", "USD")
Rows = Callable[[str], list[dict[str, object]]]


class Crash(BaseException):
    """The process is gone: nothing of ours catches this."""


def claim_one(shop: Shop, owner: str = "drain-a") -> Claim:
    [claim] = claim_units(shop.engine, owner, 1, shop.clock.now, deadline_minutes=70)
    return claim


def work_one(shop: Shop, owner: str = "drain-a", taken_at: float | None = None) -> list[UnitReport]:
    return work_unit(shop.tools, Lease(claim_one(shop, owner), monotonic() if taken_at is None else taken_at), None)


def crash(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
    raise Crash


def crash_after_selling(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
    provider.sell(request)
    raise Crash


class DiesPreparing(ScriptedProvider):
    def prepare(self, request: PurchaseRequest) -> Prepared | Rejected:
        self.prepare_calls = getattr(self, "prepare_calls", 0) + 1
        if self.prepare_calls == 1:
            raise Crash
        return super().prepare(request)


def recover(shop: Shop) -> None:
    """Let the dead worker's lease run out, then let another drain work until nothing is open."""
    shop.clock.advance(seconds=LEASE_SECONDS + 1)
    for _ in range(3):
        shop.drain(max_seconds=0.2)
        with shop.engine.connect() as conn:
            if not conn.scalar(text("select count(*) from esims where status <> 'delivered'")):
                return
        shop.clock.advance(seconds=2)


def assert_delivered_once(shop: Shop, order_id: UUID) -> None:
    assert (order_state(shop.engine, order_id), unit_states(shop.engine, order_id)) == ("completed", ["delivered"])
    assert shop.sold == 1
    assert [key for key, _ in shop.mailer.sent] == [f"confirmation:{order_id}"]


def test_worker_dies_after_the_claim(shop: Shop) -> None:
    order_id = paid_order(shop.engine)
    claim_one(shop)
    recover(shop)
    assert_delivered_once(shop, order_id)


def test_worker_dies_between_intent_and_clearance(shop: Shop, rows: Rows) -> None:
    shop.cheap = DiesPreparing("airalo")
    shop.tools = shop.tools_with()
    order_id = paid_order(shop.engine)
    with pytest.raises(Crash):
        work_one(shop)
    assert rows("select state from purchase_attempts") == [{"state": "intent"}]
    recover(shop)
    assert_delivered_once(shop, order_id)
    assert shop.cheap.purchases == 1  # the offer was never tried, so it is not passed over


def test_worker_dies_before_the_request_leaves(shop: Shop, rows: Rows) -> None:
    shop.cheap.script.append(crash)
    order_id = paid_order(shop.engine)
    with pytest.raises(Crash):
        work_one(shop)
    assert rows("select state from purchase_attempts") == [{"state": "prepared"}]
    recover(shop)
    assert_delivered_once(shop, order_id)
    assert shop.cheap.looked_up  # it was looked up before anybody else was asked


def test_worker_dies_after_the_purchase_and_before_its_outcome_is_written(shop: Shop) -> None:
    shop.cheap.script.append(crash_after_selling)
    order_id = paid_order(shop.engine)
    with pytest.raises(Crash):
        work_one(shop)
    recover(shop)
    assert_delivered_once(shop, order_id)
    assert shop.dear.asked == []


def test_worker_dies_after_a_refusal_was_written(shop: Shop) -> None:
    shop.cheap.script.append(rejects(ErrorType.OUT_OF_STOCK))
    shop.dear = DiesPreparing("esim_go")
    shop.tools = shop.tools_with()
    order_id = paid_order(shop.engine)
    with pytest.raises(Crash):
        work_one(shop)
    recover(shop)
    assert_delivered_once(shop, order_id)
    assert len(shop.cheap.asked) == 1  # the refusal is remembered


@pytest.mark.parametrize("failing", range(1, 17))
def test_any_statement_of_the_protocol_may_fail(shop: Shop, engine: Engine, failing: int) -> None:
    """The connection is killed at the n-th statement of a worker; whatever was committed before counts."""
    order_id = paid_order(shop.engine)
    claim = claim_one(shop)
    seen = 0

    def kill(conn: object, cursor: object, statement: str, *_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == failing:
            raise Crash

    event.listen(shop.tools.engine, "before_cursor_execute", kill)
    try:
        work_unit(shop.tools, Lease(claim, monotonic()), None)
    except Crash:
        pass
    finally:
        event.remove(shop.tools.engine, "before_cursor_execute", kill)
    recover(shop)
    assert_delivered_once(shop, order_id)


def test_sleeping_worker_that_wakes_before_sending_sends_nothing(shop: Shop, rows: Rows) -> None:
    order_id = paid_order(shop.engine)
    reports = work_one(shop, taken_at=monotonic() - LEASE_SECONDS + 5)  # 5 s left when it comes to sending
    assert [report.outcome for report in reports] == ["lease lost"]
    assert shop.cheap.asked == []
    recover(shop)
    assert_delivered_once(shop, order_id)


class SleepsBuying(ScriptedProvider):
    """A provider whose first purchase hangs until it is told to go on, before or after selling."""

    def __init__(self, slug: str, *, sells_first: bool) -> None:
        super().__init__(slug)
        self.sells_first, self.asleep, self.wake = sells_first, Event(), Event()

    def purchase(self, request: PurchaseRequest, evidence: Evidence) -> Outcome:
        if self.asleep.is_set():
            return super().purchase(request, evidence)
        outcome = self.sell(request) if self.sells_first else None
        self.asleep.set()
        assert self.wake.wait(30)
        return outcome or self.sell(request)


@pytest.mark.parametrize("sells_first", [True, False])
def test_worker_that_wakes_long_after_its_lease(shop: Shop, rows: Rows, *, sells_first: bool) -> None:
    """It sold before it slept: the look-up finds it. It sells after it woke, too late: that eSIM goes to stock."""
    shop.cheap = sleeper = SleepsBuying("airalo", sells_first=sells_first)
    shop.tools = shop.tools_with()
    order_id = paid_order(shop.engine)
    claim = claim_one(shop)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(work_unit, shop.tools, Lease(claim, monotonic()), None)
        assert sleeper.asleep.wait(10)
        recover(shop)
        assert unit_states(shop.engine, order_id) == ["delivered"]
        sleeper.wake.set()
        late.result(timeout=10)
    assert (order_state(shop.engine, order_id), unit_states(shop.engine, order_id)) == ("completed", ["delivered"])
    stock = rows("select provider, state, profile_enc is not null as kept from stock_esims")
    if sells_first:
        assert (stock, shop.sold) == ([], 1)
    else:
        assert stock == [{"provider": "airalo", "state": "stock", "kept": True}]
        assert (shop.cheap.purchases, shop.dear.purchases) == (1, 1)
        assert [key for key, _ in posted(shop, "late")] == ["slack:late:1"]
        assert rows("select sum(amount_micros)::bigint as s from ledger_entries where account = 'stock'") == [
            {"s": 2_000_000}
        ]
    assert rows("select count(distinct iccid_hash) as n from esims") == [{"n": 1}]
    assert len(shop.mailer.sent) == 1


def posted(shop: Shop, word: str) -> list[tuple[str, str]]:
    shop.drain(max_seconds=0.2)
    return [(key, text) for key, text in shop.notifier.posted if f":{word}:" in key]


def test_late_webhook_about_an_absent_purchase_keeps_the_esim_as_stock(shop: Shop, rows: Rows) -> None:
    shop.cheap.script.append(never_hears)
    order_id = paid_order(shop.engine)
    shop.drain(max_seconds=0.2)
    shop.clock.advance(seconds=2)
    shop.drain()
    [attempt] = rows("select reference, attempt_id from purchase_attempts where state = 'rejected'")
    reference = str(attempt["reference"])
    shop.cheap.sell(PurchaseRequest(reference, "plan-1", COST, COST, shop.clock.now))  # it was bought after all
    hint = ProviderEvent("evt-9", EventKind.ORDER_READY, reference=reference)
    with shop.engine.begin() as conn:
        inbox.record(conn, "airalo", "evt-9", hint.kind, None, "to be read again", inbox.provider_work("airalo", hint))
    shop.drain()
    assert rows("select state from purchase_attempts order by number") == [
        {"state": "stocked"},
        {"state": "provisioned"},
    ]
    assert (len(rows("select * from stock_esims")), unit_states(shop.engine, order_id)) == (1, ["delivered"])


def test_writes_of_a_lost_lease_change_nothing(shop: Shop, rows: Rows) -> None:
    paid_order(shop.engine)
    old = claim_one(shop, "drain-a")
    shop.clock.advance(seconds=LEASE_SECONDS + 1)
    assert reclaim_expired(shop.engine, "drain-b", shop.clock.now) == 1
    new = claim_one(shop, "drain-a")  # the same drain claims it again: only the fence tells the two apart
    assert (new.owner, new.fence) == (old.owner, old.fence + 2)
    before = rows("select status, fence, lease_until, changed_xid::text as x from esims")
    reports = work_unit(shop.tools, Lease(old, monotonic()), None)
    assert [report.outcome for report in reports] == ["lease lost"]
    assert rows("select status, fence, lease_until, changed_xid::text as x from esims") == before
    assert (rows("select * from purchase_attempts"), shop.cheap.asked) == ([], [])
    assert extend_leases(shop.engine, "drain-b", [old.esim_id], shop.clock.now) == {}
    assert extend_leases(shop.engine, "drain-a", [old.esim_id], shop.clock.now) == {old.esim_id: new.fence}


@pytest.mark.parametrize(
    "result", [Exhausted(False, ErrorType.OUT_OF_STOCK, "all refused"), Waiting(60.0, "resting"), Held()], ids=repr
)
def test_a_lost_lease_ends_no_round(shop: Shop, rows: Rows, result: Exhausted | Waiting | Held) -> None:
    order_id = paid_order(shop.engine)
    old = claim_one(shop, "drain-a")
    shop.clock.advance(seconds=LEASE_SECONDS + 1)
    reclaim_expired(shop.engine, "drain-b", shop.clock.now)
    claim_one(shop, "drain-b")
    before = rows("select (select xmin::text from esims) as unit, (select xmin::text from orders) as its_order")
    with pytest.raises(LeaseLost):
        end_round(shop.engine, old, result, RetryPolicy(0, True), Scribe(shop.tools.vault, "drain-a", shop.clock.now))
    assert rows("select (select xmin::text from esims) as unit, (select xmin::text from orders) as its_order") == before
    assert (unit_states(shop.engine, order_id), rows("select * from refunds")) == (["working"], [])


def test_busy_slot_makes_others_wait_without_a_failure(shop: Shop, rows: Rows) -> None:
    shop.cheap.capabilities = replace(shop.cheap.capabilities, serialise=Serialise.ACCOUNT)
    shop.cheap.script.append(sells_without_answer)
    first, second = paid_order(shop.engine), paid_order(shop.engine)
    work_one(shop)
    reports = work_one(shop)
    assert [report.outcome for report in reports] == ["waits (another purchase is open where only one may be)"]
    states = {unit_states(shop.engine, one)[0] for one in (first, second)}
    assert states == {"unknown", "queued"}
    assert rows("select failures, slot_wait_since is not null as w from esims where status = 'queued'") == [
        {"failures": 0, "w": True}
    ]
    for _ in range(4):
        shop.clock.advance(seconds=2)
        shop.drain(max_seconds=0.3)
    assert {order_state(shop.engine, one) for one in (first, second)} == {"completed"}
    assert (shop.cheap.purchases, shop.dear.purchases) == (2, 0)


def test_slot_that_stays_busy_is_passed_over_after_twenty_seconds(shop: Shop) -> None:
    shop.cheap.capabilities = replace(shop.cheap.capabilities, serialise=Serialise.PACKAGE)
    shop.cheap.script.append(sells_without_answer)
    shop.cheap.on_resolve = never_hears
    paid_order(shop.engine)
    work_one(shop)
    waiting = paid_order(shop.engine)
    work_one(shop)
    assert unit_states(shop.engine, waiting) == ["queued"]
    shop.clock.advance(seconds=21)
    shop.drain(max_seconds=0.5)
    assert (unit_states(shop.engine, waiting), shop.dear.purchases) == (["delivered"], 1)


def test_same_esim_for_two_units_needs_a_person(shop: Shop, rows: Rows) -> None:
    order_id = paid_order(shop.engine, units=2)
    shop.drain(max_seconds=0.0, tools=shop.tools_with(drain_workers=1))
    [delivered] = [unit for unit in unit_states(shop.engine, order_id) if unit == "delivered"][:1]
    assert delivered
    first = next(iter(shop.cheap.sold))
    shop.cheap.script.append(lambda provider, request: provider.found(replace(request, reference=first)))
    other = paid_order(shop.engine)
    shop.drain()
    assert (order_state(shop.engine, other), unit_states(shop.engine, other)) == ("attention", ["attention"])
    assert rows("select count(*) as n from esims where status = 'delivered'") == [{"n": 2}]


def test_statement_killing_reaches_every_statement_of_the_protocol(shop: Shop) -> None:
    """The range above is wide enough: a whole delivery takes at most sixteen statements."""
    paid_order(shop.engine)
    claim, statements = claim_one(shop), []

    def count(conn: object, cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(shop.tools.engine, "before_cursor_execute", count)
    work_unit(shop.tools, Lease(claim, monotonic()), None)
    event.remove(shop.tools.engine, "before_cursor_execute", count)
    with shop.engine.connect() as conn:
        assert conn.scalar(text("select count(*) from esims where status = 'delivered'")) == 1
    assert 8 <= len(statements) <= 16


def test_worker_that_sends_after_its_purchase_was_proven_absent_and_hears_nothing_is_not_forgotten(
    shop: Shop, rows: Rows
) -> None:
    asleep, awake = Event(), Event()

    def sleeps_before_the_wire(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
        asleep.set()
        assert awake.wait(30)
        return sells_without_answer(provider, request)

    shop.cheap.script.append(sleeps_before_the_wire)
    order_id = paid_order(shop.engine)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(work_one, shop)
        assert asleep.wait(30)
        recover(shop)
        assert order_state(shop.engine, order_id) == "completed"
        awake.set()
        late.result(timeout=30)
    shop.clock.advance(seconds=2)
    shop.drain()
    assert rows("select provider, state from stock_esims") == [{"provider": "airalo", "state": "stock"}]
    assert unit_states(shop.engine, order_id) == ["delivered"]
    [(_, told)] = [note for note in shop.notifier.posted if "late_doubt" in note[0]]
    assert "woke up late" in told


def test_worker_that_stands_still_inside_a_transaction_keeps_nobody_waiting(shop: Shop, databases: Databases) -> None:
    order_id = paid_order(shop.engine)
    with shop.engine.connect() as conn:
        esim_id = conn.scalars(text("select esim_id from esims")).one()
    frozen = make_engine(databases.operational, pool_size=1, idle_transaction_seconds=1)
    with frozen.connect() as conn:
        lock_order(conn, order_id)
        lock_unit(conn, esim_id)
        with shop.engine.begin() as other:
            other.execute(text("set local lock_timeout = '20s'"))  # without the limit it would wait for ever
            assert lock_order(other, order_id).order_id == order_id  # the store gives the row free
            assert lock_unit(other, esim_id).esim_id == esim_id
        with pytest.raises(DBAPIError):
            conn.execute(text("select 1"))
    frozen.dispose()


def test_every_engine_of_the_order_tools_ends_transactions_that_stand_still(shop: Shop) -> None:
    fresh = shop.tools_with()
    with fresh.engine.connect() as conn:
        assert conn.scalar(text("show idle_in_transaction_session_timeout")) == f"{IDLE_TRANSACTION_SECONDS}s"
    fresh.close()
    assert 0 < IDLE_TRANSACTION_SECONDS <= 20
