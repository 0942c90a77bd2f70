"""Look-ups: they leave room for fresh orders, survive what cannot be written, and late arrivals are never dropped."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from sqlalchemy import text

from esim.money import Cost
from esim.purchase import ErrorType, EventKind, Outcome, Pending, ProviderEvent, PurchaseRequest, Rejected, Unknown
from pipelines.unit_work import look_up_attempt
from resources.db import inbox
from resources.db.alerts import open_alerts
from resources.db.outages import REST, resting_offers
from tests.pipelines.actors import ScriptedProvider, accepts, never_hears, rejects, wait_until
from tests.pipelines.conftest import Shop
from tests.resources.db.shop import paid_order, unit_states

COST = Cost.parse("2", "USD")
Rows = Callable[[str], list[dict[str, object]]]


def test_a_provider_in_the_dark_leaves_half_of_the_workers_to_fresh_orders(shop: Shop) -> None:
    answer = Event()

    def dark(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
        assert answer.wait(20)
        return Rejected(ErrorType.NOT_BOUGHT, "in no order")

    shop.cheap.script.extend([never_hears] * 4)  # one claim takes them all; a fifth would open the provider's circuit
    lost = [paid_order(shop.engine) for _ in range(4)]
    shop.drain(max_seconds=0.5)
    assert {state for order_id in lost for state in unit_states(shop.engine, order_id)} == {"unknown"}
    shop.cheap.on_resolve = dark
    shop.clock.advance(seconds=3)
    with ThreadPoolExecutor(1) as pool:
        drain = pool.submit(shop.drain, 1.0)
        try:
            wait_until(lambda: len(shop.cheap.looked_up) == 2)
            fresh = paid_order(shop.engine)
            wait_until(lambda: unit_states(shop.engine, fresh) == ["delivered"])
            assert len(shop.cheap.looked_up) == 2
        finally:
            answer.set()
        drain.result()
    assert {state for order_id in lost for state in unit_states(shop.engine, order_id)} == {"delivered"}
    assert shop.sold == 5


def two_look_ups_of_one_purchase(shop: Shop, slow_answer: Outcome, quick_answer: Outcome) -> None:
    """Have a purchase looked up twice at a time; the slow look-up, which was first, ends last."""
    asked, go_on = Event(), Event()

    def answers(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
        if asked.is_set():
            return quick_answer
        asked.set()
        assert go_on.wait(20)
        return slow_answer

    shop.cheap.script.append(never_hears)
    paid_order(shop.engine)
    shop.drain(max_seconds=0.5)
    shop.cheap.on_resolve = answers
    shop.clock.advance(hours=1)
    with shop.engine.connect() as conn:
        attempt_id = conn.execute(text("select attempt_id from purchase_attempts")).scalar_one()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(look_up_attempt, shop.tools, attempt_id, 1, "slow", None)
        assert asked.wait(20)
        look_up_attempt(shop.tools, attempt_id, 1, "quick", None)
        go_on.set()
        slow.result(20)


def test_a_slow_look_up_is_no_late_worker(shop: Shop, rows: Rows) -> None:
    lost = Unknown(ErrorType.PROVIDER_TIMEOUT, "no answer")
    two_look_ups_of_one_purchase(shop, lost, Rejected(ErrorType.NOT_BOUGHT, "in no order"))
    assert rows("select event_id from inbox_events") == []
    assert rows("select kind from outbox where kind = 'late_doubt'") == []


def test_what_was_absent_before_it_was_accepted_is_not_given_up(shop: Shop, rows: Rows) -> None:
    two_look_ups_of_one_purchase(shop, Rejected(ErrorType.NOT_BOUGHT, "in no order"), Pending("order-77"))
    assert rows("select state, provider_order_id from purchase_attempts") == [
        {"state": "pending", "provider_order_id": "order-77"}
    ]


@pytest.mark.parametrize("words", ["no stock\x00left", "no stock \ud800 left"])
def test_answer_the_store_cannot_hold_leaves_the_purchase_unclear(shop: Shop, rows: Rows, words: str) -> None:
    shop.cheap.script.append(lambda provider, request: Pending(words))
    shop.cheap.on_resolve = lambda provider, request: Rejected(ErrorType.OUT_OF_STOCK, words)
    order_id = paid_order(shop.engine)
    shop.drain(max_seconds=0.3)
    assert unit_states(shop.engine, order_id) == ["unknown"]
    assert "cannot be kept" in str(rows("select error from purchase_attempts")[0]["error"])
    shop.clock.advance(hours=2)
    shop.drain(max_seconds=0.3)
    assert unit_states(shop.engine, order_id) == ["refunded"]  # the deadline holds for what cannot be kept too
    assert shop.gateway.calls == 1


def test_an_accepted_order_that_turns_out_sold_out_rests_its_offer(shop: Shop) -> None:
    shop.cheap.script.append(accepts)
    shop.cheap.on_status = rejects(ErrorType.OUT_OF_STOCK)
    order_id = paid_order(shop.engine)
    shop.drain(max_seconds=0.3)
    shop.clock.advance(minutes=1)
    shop.drain()
    assert unit_states(shop.engine, order_id) == ["delivered"]  # by the other
    with shop.engine.connect() as conn:
        assert resting_offers(conn, shop.clock.now) == {"airalo:plan-1"}
        assert resting_offers(conn, shop.clock.now + REST) == frozenset()
    paid_order(shop.engine)
    shop.drain()
    assert (len(shop.cheap.asked), shop.dear.purchases) == (1, 2)


def test_a_catalogue_read_since_a_purchase_knows_better_than_its_late_refusal(shop: Shop) -> None:
    shop.cheap.script.append(accepts)
    shop.cheap.on_status = rejects(ErrorType.OUT_OF_STOCK)
    paid_order(shop.engine)
    shop.drain(max_seconds=0.3)
    shop.clock.advance(minutes=1)
    with shop.engine.begin() as conn:
        conn.execute(text("update offers set stock = 5 where provider = 'airalo'"))
        synced = {"at": shop.clock.now}
        conn.execute(text("update providers set synced_at = :at where slug = 'airalo'"), synced)
    shop.clock.advance(minutes=1)
    shop.drain()
    with shop.engine.connect() as conn:
        assert resting_offers(conn, shop.clock.now) == frozenset()


def test_a_late_refusal_for_want_of_balance_takes_the_provider_out(shop: Shop) -> None:
    shop.cheap.script.append(accepts)
    shop.cheap.on_status = rejects(ErrorType.INSUFFICIENT_BALANCE)
    paid_order(shop.engine)
    shop.drain(max_seconds=0.3)
    shop.clock.advance(minutes=1)
    shop.drain()
    with shop.engine.connect() as conn:
        assert [alert.kind for alert in open_alerts(conn)] == ["provider_unfunded"]
        assert conn.scalar(text("select unfunded_micros from providers where slug = 'airalo'")) == 2_000_000


def told_late(shop: Shop, event_id: str) -> str:
    """Let a purchase be proven absent, then let the provider say that it is ready; return our reference."""
    shop.cheap.script.append(never_hears)
    paid_order(shop.engine)
    shop.drain(max_seconds=0.2)
    shop.clock.advance(seconds=2)
    shop.drain()
    return tell(shop, event_id)


def tell(shop: Shop, event_id: str) -> str:
    reference = shop.cheap.asked[0]
    hint = ProviderEvent(event_id, EventKind.ORDER_READY, reference=reference)
    with shop.engine.begin() as conn:
        work = inbox.provider_work("airalo", hint)
        inbox.record(conn, "airalo", event_id, hint.kind, None, "to be read again", work)
    return reference


def test_late_arrival_whose_reader_died_is_read_by_the_next(shop: Shop, rows: Rows) -> None:
    reference = told_late(shop, "evt-1")
    shop.cheap.sell(PurchaseRequest(reference, "plan-1", COST, COST, shop.clock.now))
    with shop.engine.begin() as conn:  # taken, and its reader died
        assert inbox.work_provider_event(conn, shop.clock.now)
    shop.drain()
    assert rows("select * from stock_esims") == []
    shop.clock.advance(seconds=181)
    shop.drain()
    assert len(rows("select * from stock_esims where profile_enc is not null")) == 1
    assert rows("select worked_at is not null as done from inbox_events") == [{"done": True}]


def test_late_arrival_that_is_still_on_its_way_is_read_until_it_is_there(shop: Shop, rows: Rows) -> None:
    reference = told_late(shop, "evt-1")
    shop.cheap.on_resolve = lambda provider, request: Pending("airalo-late")
    shop.drain()
    assert rows("select state from stock_esims where profile_enc is null") == [{"state": "stock"}]
    sold = shop.cheap.sell(PurchaseRequest(reference, "plan-1", COST, COST, shop.clock.now))
    shop.cheap.on_resolve = lambda provider, request: sold
    tell(shop, "evt-2")
    shop.drain()
    assert len(rows("select * from stock_esims where profile_enc is not null")) == 1
    assert rows("select count(*) as n from ledger_entries where account = 'stock'") == [{"n": 1}]
