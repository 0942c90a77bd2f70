"""Drains on a real Postgres with providers that misbehave: every unit ends once, nothing is bought twice."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from threading import Barrier
from uuid import UUID

from sqlalchemy import select, text

from esim.purchase import ErrorType, EventKind, Pending, ProviderEvent
from pipelines.hand_over import send_notices
from resources.db import inbox
from resources.db.attempts import stored_request
from resources.db.purchase_desk import MOST_GAP_SECONDS
from resources.db.tables import purchase_attempts
from resources.db.transitions import hold_order, lock_order
from resources.order_operations import OrderTools, utc_now
from tests.pipelines.actors import (
    accepts,
    breaks_after_selling,
    drains_alive,
    never_hears,
    rejects,
    sells,
    sells_without_answer,
    wait_until,
)
from tests.pipelines.conftest import Shop
from tests.resources.db.shop import order_state, paid_order, unit_states

Rows = Callable[[str], list[dict[str, object]]]


def test_paid_order_is_delivered_confirmed_and_booked(shop: Shop, rows: Rows) -> None:
    order_id = paid_order(shop.engine, units=2)
    report = shop.drain()
    assert (order_state(shop.engine, order_id), unit_states(shop.engine, order_id)) == ("completed", ["delivered"] * 2)
    assert report.counts == {("airalo", "provisioned"): 2}
    assert [key for key, _ in shop.mailer.sent] == [f"confirmation:{order_id}"]
    assert len(shop.mailer.sent[0][1].images) == 2
    assert [key for key, _ in shop.notifier.posted] == [f"slack:completed:{order_id}"]
    ledger = rows("select account, sum(amount_micros)::bigint as micros from ledger_entries group by 1 order by 1")
    assert {row["account"]: row["micros"] for row in ledger} == {
        "cash": 9_980_000,
        "cost_of_sales": 4_000_000,
        "customer_payment": -9_980_000,
        "provider_balance": -4_000_000,
    }
    assert rows("select busy, ended_at is not null as ended from drains") == [{"busy": 0, "ended": True}]


def test_clear_refusal_goes_to_the_next_offer(shop: Shop, rows: Rows) -> None:
    shop.cheap.script.append(rejects(ErrorType.OUT_OF_STOCK))
    order_id = paid_order(shop.engine)
    shop.drain()
    assert order_state(shop.engine, order_id) == "completed"
    assert (shop.cheap.purchases, shop.dear.purchases) == (0, 1)
    attempts = rows("select provider, state, failover_step from purchase_attempts order by number")
    assert [tuple(row.values()) for row in attempts] == [("airalo", "rejected", 0), ("esim_go", "provisioned", 1)]


def test_a_failing_look_for_offers_ends_no_drain(shop: Shop, rows: Rows) -> None:
    order_id = paid_order(shop.engine)
    rename = "alter table {} rename to {}"
    with shop.engine.begin() as conn:
        conn.execute(text(rename.format("offers", "offers_away")))
    assert shop.drain().errors == 1
    assert rows("select lease_until from esims") == [{"lease_until": shop.clock.now + timedelta(seconds=60)}]
    with shop.engine.begin() as conn:
        conn.execute(text(rename.format("offers_away", "offers")))
    shop.clock.advance(seconds=61)
    shop.drain(idle_seconds=0.5)
    assert (order_state(shop.engine, order_id), shop.sold) == ("completed", 1)


def test_steps_wait_for_company_only_while_others_are_in_work(shop: Shop) -> None:
    gaps: list[float] = []
    all_there = Barrier(4)

    def together() -> None:
        all_there.wait(20)  # the drain has started all four by then
        wait_until(lambda: shop.tools.desk.gap() > 0)
        gaps.append(shop.tools.desk.gap())

    shop.cheap.while_preparing = lambda: gaps.append(shop.tools.desk.gap())
    paid_order(shop.engine)
    shop.drain()
    assert gaps == [0.0]
    shop.cheap.while_preparing = together
    paid_order(shop.engine, units=4)
    shop.drain()
    assert all(0 < gap <= MOST_GAP_SECONDS for gap in gaps[1:])
    assert (len(gaps), shop.sold, shop.tools.desk.gap()) == (5, 5, 0.0)


def test_timeout_after_send_does_not_try_next_provider(shop: Shop) -> None:
    shop.cheap.script.append(sells_without_answer)
    order_id = paid_order(shop.engine)
    shop.drain(max_seconds=0.5)
    assert unit_states(shop.engine, order_id) == ["unknown"]
    assert (shop.sold, shop.dear.asked, shop.mailer.sent) == (1, [], [])
    shop.clock.advance(seconds=2)
    shop.drain()
    assert order_state(shop.engine, order_id) == "completed"
    assert (shop.cheap.purchases, shop.dear.purchases) == (1, 0)


def test_lost_purchase_proven_absent_goes_on_with_the_next_offer(shop: Shop, rows: Rows) -> None:
    shop.cheap.script.append(never_hears)
    order_id = paid_order(shop.engine)
    shop.drain(max_seconds=0.5)
    assert unit_states(shop.engine, order_id) == ["unknown"]
    shop.clock.advance(seconds=2)
    shop.drain()
    assert order_state(shop.engine, order_id) == "completed"
    assert (len(shop.cheap.asked), shop.dear.purchases) == (1, 1)
    assert rows("select state from purchase_attempts order by number") == [
        {"state": "rejected"},
        {"state": "provisioned"},
    ]


def test_absence_counts_only_after_the_settle_time(shop: Shop) -> None:
    shop.cheap.capabilities = replace(shop.cheap.capabilities, settle_seconds=60.0)
    shop.cheap.script.append(never_hears)
    order_id = paid_order(shop.engine)
    shop.drain(max_seconds=0.3)
    for _ in range(4):
        shop.clock.advance(seconds=14)
        shop.drain(max_seconds=0.3)
        assert unit_states(shop.engine, order_id) == ["unknown"]
    assert len(shop.cheap.looked_up) >= 2
    shop.clock.advance(seconds=60)
    shop.drain()
    assert (order_state(shop.engine, order_id), shop.sold) == ("completed", 1)


def test_a_look_up_knows_when_the_purchase_was_sent(shop: Shop) -> None:
    shop.cheap.script.append(never_hears)
    paid_order(shop.engine)
    shop.drain(max_seconds=0.3)
    with shop.engine.connect() as conn:
        attempt = conn.execute(select(purchase_attempts)).one()
    assert attempt.sent_at is not None
    assert stored_request(attempt).left_at == attempt.sent_at


def test_adapter_that_breaks_while_buying_leaves_it_open(shop: Shop) -> None:
    shop.cheap.script.append(breaks_after_selling)
    order_id = paid_order(shop.engine)
    shop.drain(max_seconds=0.5)
    assert unit_states(shop.engine, order_id) == ["unknown"]
    shop.clock.advance(seconds=2)
    shop.drain()
    assert (order_state(shop.engine, order_id), shop.sold) == ("completed", 1)


def test_adapter_that_breaks_while_preparing_is_a_refusal(shop: Shop) -> None:
    shop.cheap.refuse_to_prepare = RuntimeError("a defect in the adapter")
    order_id = paid_order(shop.engine)
    shop.drain()
    assert (order_state(shop.engine, order_id), shop.dear.purchases, shop.cheap.asked) == ("completed", 1, [])


def test_accepted_order_is_finished_by_the_same_drain(shop: Shop) -> None:
    shop.cheap.script.append(accepts)
    shop.tools.clock = utc_now
    order_id = paid_order(shop.engine, now=utc_now())
    shop.drain()
    assert (order_state(shop.engine, order_id), shop.sold) == ("completed", 1)


def test_drain_takes_units_that_are_paid_while_it_lingers(shop: Shop) -> None:
    shop.tools.clock = utc_now
    with ThreadPoolExecutor(1) as pool:
        drain = pool.submit(shop.drain, idle_seconds=1.0)
        wait_until(lambda: drains_alive(shop.engine) == 1)
        order_id = paid_order(shop.engine, now=utc_now())
        wait_until(lambda: order_state(shop.engine, order_id) == "completed", seconds=1.0)
        wait_until(lambda: len(shop.mailer.sent) == 1, seconds=1.0)
        assert drain.result(timeout=10).counts == {("airalo", "provisioned"): 1}


def test_two_drains_at_once_buy_every_unit_once(shop: Shop, rows: Rows) -> None:
    orders = [paid_order(shop.engine, units=3) for _ in range(15)]
    with ThreadPoolExecutor(2) as pool:
        reports = [one.result(timeout=30) for one in [pool.submit(shop.drain), pool.submit(shop.drain)]]
    assert {order_state(shop.engine, order_id) for order_id in orders} == {"completed"}
    assert (shop.sold, sum(sum(report.counts.values()) for report in reports)) == (45, 45)
    assert rows("select count(*) as n from purchase_attempts") == [{"n": 45}]
    assert len(shop.mailer.sent) == 15
    assert rows("select count(*) as n from order_events where to_status = 'completed'") == [{"n": 15}]


def test_non_retryable_exhaustion_is_refunded_at_once(shop: Shop, rows: Rows) -> None:
    shop.cheap.script.append(rejects(ErrorType.INVALID_PRODUCT))
    shop.dear.script.append(rejects(ErrorType.PAYMENT_FAILED))
    order_id = paid_order(shop.engine)
    shop.drain()
    assert (order_state(shop.engine, order_id), unit_states(shop.engine, order_id)) == ("refunded", ["refunded"])
    assert list(shop.gateway.paid) == [f"refund:{order_id}:1"]
    assert [key for key, _ in shop.mailer.sent] == [f"refunded:{order_id}"]
    assert "4.99 USD" in shop.mailer.sent[0][1].text
    [order] = rows("select payment_status, refunded_minor from orders")
    assert order == {"payment_status": "refunded", "refunded_minor": 499}
    assert rows("select sum(amount_micros)::bigint as s from ledger_entries where account = 'cash'") == [{"s": 0}]


def test_partial_delivery_is_confirmed_and_the_rest_refunded(shop: Shop, rows: Rows) -> None:
    shop.cheap.script += [sells, rejects(ErrorType.INVALID_PRODUCT)]
    shop.dear.script.append(rejects(ErrorType.INVALID_PRODUCT))
    order_id = paid_order(shop.engine, units=2)
    shop.drain()
    assert (order_state(shop.engine, order_id), sorted(unit_states(shop.engine, order_id))) == (
        "completed",
        ["delivered", "refunded"],
    )
    assert sorted(key for key, _ in shop.mailer.sent) == [f"confirmation:{order_id}", f"refunded:{order_id}"]
    assert rows("select payment_status, refunded_minor from orders") == [
        {"payment_status": "partially_refunded", "refunded_minor": 499}
    ]


def test_retries_wait_5_15_and_60_minutes_within_the_deadline_then_the_money_goes_back(shop: Shop, rows: Rows) -> None:
    refusing = rejects(ErrorType.PROVIDER_API_ERROR)
    shop.cheap.script.extend([refusing] * 9)
    shop.dear.script.extend([refusing] * 9)
    order_id = paid_order(shop.engine)
    waits = []
    for failures in range(4):
        shop.drain()
        assert len(shop.cheap.asked) == failures + 1
        [unit] = rows("select status, failures, next_attempt_at from esims")
        if unit["status"] != "queued":
            break
        assert isinstance(unit["next_attempt_at"], datetime)
        waits.append((unit["next_attempt_at"] - shop.clock.now).total_seconds() / 60)
        shop.clock.advance(seconds=(unit["next_attempt_at"] - shop.clock.now).total_seconds() - 1)
        shop.drain()
        assert len(shop.cheap.asked) == failures + 1  # not a second too early
        shop.clock.advance(seconds=1)
    assert waits == [5, 15, 49]  # the deadline is 70 minutes after payment: the last chance starts a minute before it
    assert order_state(shop.engine, order_id) == "refunded"
    assert (shop.sold, len(shop.gateway.paid), len(shop.mailer.sent)) == (0, 1, 1)


def test_deadline_refunds_without_asking_anybody(shop: Shop) -> None:
    order_id = paid_order(shop.engine)
    shop.clock.advance(minutes=71)
    shop.drain()
    assert (order_state(shop.engine, order_id), shop.cheap.asked, shop.dear.asked) == ("refunded", [], [])


def test_failover_can_be_switched_off(shop: Shop) -> None:
    shop.cheap.script.append(rejects(ErrorType.INVALID_PRODUCT))
    order_id = paid_order(shop.engine)
    shop.drain(tools=shop.tools_with(enable_multi_provider_failover=False))
    assert (order_state(shop.engine, order_id), shop.dear.asked) == ("refunded", [])


def test_without_auto_refund_a_failed_order_waits_for_a_person(shop: Shop) -> None:
    shop.cheap.script.append(rejects(ErrorType.INVALID_PRODUCT))
    shop.dear.script.append(rejects(ErrorType.INVALID_PRODUCT))
    order_id = paid_order(shop.engine)
    shop.drain(tools=shop.tools_with(enable_auto_refund=False))
    assert (order_state(shop.engine, order_id), shop.gateway.calls) == ("failed", 0)
    assert [key.split(":")[1] for key, _ in shop.notifier.posted] == ["failed"]


def test_throttling_waits_and_counts_as_no_failure(shop: Shop, rows: Rows) -> None:
    shop.cheap.script.append(rejects(ErrorType.RATE_LIMITED, 2.0))
    shop.dear.script.append(rejects(ErrorType.RATE_LIMITED, 7.0))
    order_id = paid_order(shop.engine)
    shop.drain(max_seconds=0.2)
    [unit] = rows("select failures, next_attempt_at from esims")
    assert unit == {"failures": 0, "next_attempt_at": shop.clock.now + timedelta(seconds=2)}
    shop.clock.advance(seconds=2)
    shop.drain()
    assert (order_state(shop.engine, order_id), shop.cheap.purchases) == ("completed", 1)


def overdue_order(shop: Shop, tools: OrderTools | None = None) -> UUID:
    """Leave a purchase that took place without any answer until its customer's deadline is over."""
    shop.cheap.script.append(sells_without_answer)
    shop.cheap.on_resolve = never_hears
    order_id = paid_order(shop.engine)
    shop.drain(max_seconds=0.2, tools=tools)
    shop.clock.advance(minutes=75)
    shop.drain(max_seconds=0.5, tools=tools)
    return order_id


def test_open_purchase_past_the_deadline_is_refunded_and_what_turns_up_goes_to_stock(shop: Shop, rows: Rows) -> None:
    order_id = overdue_order(shop)
    assert (order_state(shop.engine, order_id), unit_states(shop.engine, order_id)) == ("refunded", ["refunded"])
    assert (shop.gateway.calls, shop.dear.asked) == (1, [])
    assert rows("select state from purchase_attempts") == [{"state": "unknown"}]
    shop.cheap.on_resolve = None  # the provider answers at last
    shop.clock.advance(minutes=6)
    shop.drain(max_seconds=0.5)
    assert unit_states(shop.engine, order_id) == ["refunded"]
    assert rows("select state from purchase_attempts") == [{"state": "stocked"}]
    assert rows("select provider, state from stock_esims") == [{"provider": "airalo", "state": "stock"}]
    assert [key.split(":")[0] for key, _ in shop.mailer.sent] == ["refunded"]
    shop.clock.advance(days=2)
    asked = len(shop.cheap.looked_up)
    shop.drain(max_seconds=0.2)
    assert len(shop.cheap.looked_up) == asked  # what has an end is not looked up any more


def test_look_up_that_comes_too_late_for_everybody_still_delivers_what_was_bought(shop: Shop) -> None:
    shop.cheap.script.append(sells_without_answer)
    shop.cheap.on_resolve = never_hears
    order_id = paid_order(shop.engine)
    shop.drain(max_seconds=0.2)
    shop.cheap.on_resolve = None
    shop.clock.advance(hours=3)  # nobody worked; the first look-up finds the eSIM
    shop.drain(max_seconds=0.5)
    assert (order_state(shop.engine, order_id), shop.gateway.calls) == ("completed", 0)


def test_open_purchase_past_the_deadline_needs_a_person_where_refunds_are_not_automatic(shop: Shop, rows: Rows) -> None:
    order_id = overdue_order(shop, shop.tools_with(enable_auto_refund=False))
    assert (order_state(shop.engine, order_id), unit_states(shop.engine, order_id)) == ("attention", ["attention"])
    assert (shop.gateway.calls, shop.dear.asked) == (0, [])
    assert [key.split(":")[1] for key, _ in shop.notifier.posted] == ["attention"]
    shop.cheap.on_resolve = None  # the provider answers at last
    shop.clock.advance(minutes=6)
    shop.drain(max_seconds=0.5)
    assert (order_state(shop.engine, order_id), shop.sold) == ("completed", 1)
    assert rows("select attention_reason from orders") == [{"attention_reason": None}]


def test_open_purchase_of_a_disputed_order_is_not_refunded_at_the_deadline(shop: Shop) -> None:
    shop.cheap.script.append(sells_without_answer)
    shop.cheap.on_resolve = never_hears
    order_id = paid_order(shop.engine)
    shop.drain(max_seconds=0.2)
    with shop.engine.begin() as conn:
        hold_order(conn, lock_order(conn, order_id), reason="a dispute", actor="stripe", now=shop.clock.now)
    shop.clock.advance(minutes=75)
    shop.drain(max_seconds=0.5)
    assert (unit_states(shop.engine, order_id), shop.gateway.calls) == (["attention"], 0)


def test_provider_webhook_makes_an_accepted_order_due_at_once(shop: Shop) -> None:
    shop.cheap.script.append(lambda provider, request: Pending("B-1", poll_after_seconds=600))
    order_id = paid_order(shop.engine)
    shop.drain(max_seconds=0.2)
    assert unit_states(shop.engine, order_id) == ["pending"]
    event = ProviderEvent("evt-1", EventKind.ORDER_READY, provider_order_id="B-1")
    with shop.engine.begin() as conn:
        inbox.record(
            conn, "airalo", "evt-1", event.kind, None, "to be read again", inbox.provider_work("airalo", event)
        )
    shop.drain()
    assert (order_state(shop.engine, order_id), shop.sold) == ("completed", 1)


def test_mail_that_fails_is_sent_again_once(shop: Shop) -> None:
    shop.mailer.failures = 1
    paid_order(shop.engine)
    shop.drain()
    assert shop.mailer.sent == []
    with shop.engine.begin() as conn:
        conn.execute(text("update outbox set next_attempt_at = now() where sent_at is null"))
    assert send_notices(shop.tools) == (1, 0)
    assert send_notices(shop.tools) == (0, 0)
    assert len(shop.mailer.sent) == 1


def test_nothing_personal_is_told_to_operations(shop: Shop, rows: Rows) -> None:
    order_id = paid_order(shop.engine)
    report = shop.drain()
    profile = next(iter(shop.cheap.sold.values()))[0]
    public = repr(
        [report.reports, shop.notifier.posted, rows("select * from order_events"), rows("select * from outbox")]
    )
    assert str(order_id) in public
    for secret in (profile.iccid, profile.activation_code, "customer@numnaroad.test"):
        assert secret not in public
    stored = rows("select iccid_enc, profile_enc, iccid_hash from esims")
    assert profile.iccid.encode() not in b"".join(
        bytes(value) for value in stored[0].values() if isinstance(value, bytes)
    )
