"""Lost webhooks: each kind is found once and applied as the webhook would, whatever else happens meanwhile."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from threading import Thread
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from esim.errors import PaymentError
from esim.money import Money
from esim.ports import CheckoutSession, Refund
from pipelines.reconcile_payments import reconcile_payments
from resources.db.audit import Operator
from resources.db.findings import accept_finding, open_findings
from resources.db.payments import Booking
from resources.order_operations import OrderTools
from resources.payment_events import take_event
from tests.pipelines.actors import wait_until
from tests.pipelines.scripted_gateway import Account
from tests.resources.db.shop import NOW, order_state, paid_order, place_order

PAID_AT = NOW - timedelta(hours=2)
Rows = Callable[[str], list[dict[str, object]]]


def pending(engine: Engine) -> UUID:
    with engine.begin() as conn:
        return place_order(conn, now=NOW - timedelta(hours=3))


def told(rows: Rows, kind: str = "reconciled") -> list[object]:
    wanted = f"kind = '{kind}' or key like 'slack:finding:%:{kind}:%'"
    return [row["key"] for row in rows(f"select key from outbox where {wanted}")]


def test_a_lost_payment_is_applied_once_and_told_once(
    tools: OrderTools, account: Account, engine: Engine, rows: Rows
) -> None:
    order_id = pending(engine)
    event = account.pays(order_id, PAID_AT)

    report = reconcile_payments(tools)

    assert order_state(engine, order_id) == "paid"
    assert (report.lost, len(report.mended)) == (1, 1)
    assert told(rows) == [f"slack:reconciled:{event.event_id}"]
    before = rows("select * from order_events order by event_id")
    again = reconcile_payments(tools)
    assert (again.lost, again.mended) == (0, [])
    assert rows("select * from order_events order by event_id") == before
    assert len(told(rows)) == 1


def test_a_webhook_that_comes_later_changes_nothing(
    tools: OrderTools, account: Account, engine: Engine, rows: Rows
) -> None:
    event = account.pays(pending(engine), PAID_AT)
    reconcile_payments(tools)
    with engine.begin() as conn:
        assert take_event(conn, event, Booking("stripe webhook", NOW, 70)).handled == "duplicate"
    assert len(rows("select 1 from ledger_entries where posting_key like 'payment:%'")) == 2


def test_of_the_reconciler_and_a_webhook_at_once_one_wins(
    tools: OrderTools, account: Account, engine: Engine, rows: Rows
) -> None:
    order_id = pending(engine)
    event = account.pays(order_id, PAID_AT)
    looking = Thread(target=reconcile_payments, args=(tools,))
    with engine.begin() as webhook:
        take_event(webhook, event, Booking("stripe webhook", NOW, 70))
        looking.start()
        waits = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        wait_until(lambda: bool(rows(waits)))
    looking.join(timeout=20)
    assert not looking.is_alive()
    assert rows("select actor from order_events where to_status = 'paid'") == [{"actor": "stripe webhook"}]
    assert told(rows) == []


def test_a_payment_whose_event_is_gone_is_found_by_its_page(
    tools: OrderTools, account: Account, engine: Engine, rows: Rows
) -> None:
    order_id = pending(engine)
    account.pays(order_id, PAID_AT)
    account.events.clear()
    assert len(reconcile_payments(tools).mended) == 1
    assert order_state(engine, order_id) == "paid"
    assert reconcile_payments(tools).mended == []
    assert len(told(rows)) == 1


def test_an_order_pending_for_weeks_is_asked_about_by_its_page(
    tools: OrderTools, account: Account, engine: Engine
) -> None:
    with engine.begin() as conn:
        order_id = place_order(conn, now=NOW - timedelta(days=60))
        conn.execute(text("update orders set session_id = 'cs_pi_old'"))
    account.pays(order_id, NOW - timedelta(days=60), intent="pi_old")
    reconcile_payments(tools)
    assert order_state(engine, order_id) == "paid"


def test_the_end_of_a_checkout_closes_its_order(tools: OrderTools, account: Account, engine: Engine) -> None:
    order_id = pending(engine)
    opened = NOW - timedelta(hours=3)
    page = CheckoutSession("cs_1", None, "expired", "unpaid", None, Money(499, "USD"), str(order_id), opened)
    account.pages.append(page)
    report = reconcile_payments(tools)
    assert order_state(engine, order_id) == "cancelled"
    assert len(report.mended) == 1
    assert reconcile_payments(tools).mended == []


def test_a_second_payment_is_paid_back(tools: OrderTools, account: Account, engine: Engine, rows: Rows) -> None:
    order_id = paid_order(engine, now=PAID_AT)
    account.pays(order_id, PAID_AT, intent="pi_second")
    assert len(reconcile_payments(tools).mended) == 1
    assert rows("select payment_intent, amount_minor from refunds") == [
        {"payment_intent": "pi_second", "amount_minor": 499}
    ]
    assert reconcile_payments(tools).mended == []


def test_a_refund_and_a_dispute_of_the_dashboard_are_followed(
    tools: OrderTools, account: Account, engine: Engine, rows: Rows
) -> None:
    order_id = paid_order(engine, now=PAID_AT)
    intent = f"pi_{order_id.hex}"
    account.tells("charge.refunded", PAID_AT, order_id, intent, amount_refunded=100, currency="usd")
    raw = {"id": "du_1", "payment_intent": intent, "amount": 399, "currency": "usd", "status": "needs_response"}
    disputed = account.tells("charge.dispute.created", PAID_AT, "", intent)
    account.events[-1] = replace(disputed, raw=raw)
    assert len(reconcile_payments(tools).mended) == 2
    (order,) = rows("select status, refunded_minor, hold_reason from orders")
    assert order["refunded_minor"] == 100
    assert order["status"] == "attention"
    assert len(told(rows)) == 2
    assert reconcile_payments(tools).mended == []


def test_events_are_applied_in_the_order_they_happened(
    tools: OrderTools, account: Account, engine: Engine, rows: Rows
) -> None:
    order_id = paid_order(engine, now=PAID_AT)
    intent = f"pi_{order_id.hex}"
    for total in (100, 300):  # both within one second
        account.tells("charge.refunded", PAID_AT, order_id, intent, amount_refunded=total, currency="usd")
    reconcile_payments(tools)
    assert [
        row["amount_minor"] for row in rows("select amount_minor from refunds order by created_at, refund_key")
    ] == [
        100,
        200,
    ]


def test_a_young_payment_is_left_to_its_webhook(tools: OrderTools, account: Account, engine: Engine) -> None:
    order_id = pending(engine)
    account.pays(order_id, NOW - timedelta(seconds=30))
    assert reconcile_payments(tools).mended == []
    assert order_state(engine, order_id) == "pending"
    tools.clock.advance(minutes=3)  # type: ignore[attr-defined]  # a clock set by hand
    assert len(reconcile_payments(tools).mended) == 1


def test_money_for_nobody_is_listed_until_it_is_paid_back(
    tools: OrderTools, account: Account, engine: Engine, rows: Rows
) -> None:
    account.pays(uuid4(), PAID_AT, intent="pi_nobody")
    reconcile_payments(tools)
    with engine.connect() as conn:
        assert [(one.kind, one.subject) for one in open_findings(conn)] == [("money_for_nobody", "pi_nobody")]
    assert len(told(rows, "money_for_nobody")) == 1
    assert len(told(rows, "unknown_payment")) == 1
    tools.clock.advance(days=3)  # type: ignore[attr-defined]  # by now no list of pages has it
    reconcile_payments(tools)
    with engine.connect() as conn:
        assert len(open_findings(conn)) == 1
    account.pays_back("pi_nobody", 499, NOW)
    tools.clock.advance(minutes=1)  # type: ignore[attr-defined]
    reconcile_payments(tools)
    with engine.connect() as conn:
        assert open_findings(conn) == []
    assert len(told(rows, "money_for_nobody")) == 1


def test_stripe_going_away_midway_loses_nothing(
    tools: OrderTools, account: Account, engine: Engine, rows: Rows
) -> None:
    orders = [pending(engine) for _ in range(3)]
    for order_id in orders:
        account.pays(order_id, PAID_AT)
    account.breaks_after = 1
    with pytest.raises(PaymentError):
        reconcile_payments(tools)
    assert rows("select 1 from reconciliation_marks") == []
    account.breaks_after = None
    reconcile_payments(tools)
    assert {order_state(engine, order_id) for order_id in orders} == {"paid"}
    assert len(rows("select 1 from reconciliation_marks")) == 1


def test_the_next_look_begins_before_the_end_of_the_last(tools: OrderTools, account: Account) -> None:
    reconcile_payments(tools)
    tools.clock.advance(hours=5)  # type: ignore[attr-defined]
    reconcile_payments(tools)
    first, second = account.asked_since
    assert first == NOW - timedelta(days=30)
    assert NOW - timedelta(hours=2) < second < NOW


def test_an_event_that_cannot_be_applied_is_told_and_keeps_the_mark(
    tools: OrderTools, account: Account, engine: Engine, rows: Rows
) -> None:
    order_id, other = paid_order(engine, now=PAID_AT), pending(engine)
    account.tells("charge.refunded", PAID_AT, order_id, f"pi_{order_id.hex}", amount_refunded=1, currency="nope")
    account.pays(other, PAID_AT)
    report = reconcile_payments(tools)
    assert len(report.failed) == 1
    assert order_state(engine, other) == "paid"
    assert rows("select 1 from reconciliation_marks") == []
    reconcile_payments(tools)
    assert len(told(rows, "reconcile_failed")) == 1


def test_whatever_one_event_breaks_the_next_ones_are_applied(
    tools: OrderTools, account: Account, engine: Engine, rows: Rows
) -> None:
    order_id, other, paged = paid_order(engine, now=PAID_AT), pending(engine), pending(engine)
    with engine.begin() as conn:  # a row that the store refuses, as a defect of ours would write it
        conn.execute(text("alter table refunds add constraint no_hundreds check (amount_minor <> 100)"))
        conn.execute(text("alter table orders add constraint no_eights check (payment_intent <> 'pi_8')"))
    broken = account.tells(
        "charge.refunded", PAID_AT, order_id, f"pi_{order_id.hex}", amount_refunded=100, currency="usd"
    )
    account.pays(paged, PAID_AT, intent="pi_8")
    account.events.pop()
    account.pays(other, PAID_AT)
    report = reconcile_payments(tools)
    assert report.failed == [
        f"event {broken.event_id} (charge.refunded): IntegrityError",
        "payment page cs_pi_8: IntegrityError",
    ]
    assert order_state(engine, other) == "paid"
    assert rows("select 1 from reconciliation_marks") == []
    with engine.connect() as conn:
        found = open_findings(conn, ["payments"])
    assert {one.subject for one in found} == {broken.event_id, "cs_pi_8"}
    assert len(told(rows, "reconcile_failed")) == 2
    with engine.begin() as conn:
        conn.execute(text("alter table refunds drop constraint no_hundreds"))
        conn.execute(text("alter table orders drop constraint no_eights"))
    tools.clock.advance(hours=1)  # type: ignore[attr-defined]
    assert reconcile_payments(tools).failed == []
    with engine.connect() as conn:
        assert open_findings(conn, ["payments"]) == []
    assert (order_state(engine, paged), len(rows("select 1 from refunds"))) == ("paid", 1)


def test_a_store_that_is_away_ends_the_look(tools: OrderTools, account: Account, engine: Engine, rows: Rows) -> None:
    account.pays(pending(engine), PAID_AT)
    with engine.begin() as conn:
        conn.execute(
            text(
                "create function goes_away() returns trigger language plpgsql as"
                " $$ begin raise exception 'going away' using errcode = '57P01'; end $$"
            )
        )
        conn.execute(text("create trigger goes_away before update on orders execute function goes_away()"))
    with pytest.raises(OperationalError):
        reconcile_payments(tools)
    assert rows("select 1 from reconciliation_findings") == []


def test_a_failed_refunds_old_news_is_settled_by_asking(
    tools: OrderTools, account: Account, engine: Engine, rows: Rows
) -> None:
    order_id = paid_order(engine, now=PAID_AT)
    intent = f"pi_{order_id.hex}"
    key = f"refund:{order_id}:1"
    with engine.begin() as conn:
        conn.execute(
            text(
                "insert into refunds (refund_key, order_id, esim_n, payment_intent, amount_minor, currency, reason,"
                " state, stripe_refund_id) values (:key, :order_id, 1, :intent, 499, 'USD', 'test', 'failed', 're_1')"
            ),
            {"key": key, "order_id": order_id, "intent": intent},
        )
    account.paid[key] = Refund("re_1", Money(499, "USD"), "failed", intent, key)
    account.tells("charge.refunded", PAID_AT, order_id, intent, amount_refunded=499, currency="usd")
    report = reconcile_payments(tools)
    assert (report.failed, report.mended, len(rows("select 1 from refunds"))) == ([], [], 1)


def test_a_page_the_payment_service_does_not_know_stops_nothing(
    tools: OrderTools, account: Account, engine: Engine
) -> None:
    with engine.begin() as conn:
        place_order(conn, now=NOW - timedelta(days=60))
        conn.execute(text("update orders set session_id = 'cs_of_another_account'"))
    other = pending(engine)
    account.pays(other, PAID_AT)
    assert len(reconcile_payments(tools).mended) == 1


def test_accepted_money_for_nobody_is_not_told_again(
    tools: OrderTools, account: Account, engine: Engine, rows: Rows
) -> None:
    account.pays(uuid4(), PAID_AT, intent="pi_nobody")
    reconcile_payments(tools)
    with engine.begin() as conn:
        (found,) = open_findings(conn)
        accept_finding(conn, found.finding_id, Operator("anna", "the old shop's customer", NOW))
    for _ in range(2):
        tools.clock.advance(days=2)  # type: ignore[attr-defined]
        reconcile_payments(tools)
    with engine.connect() as conn:
        assert open_findings(conn) == []
    assert len(told(rows, "money_for_nobody")) == 1
