"""Transitions, outbox, inbox and ledger on a real Postgres: once each, under the lock, with an event."""

from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine, func, select, update

from esim.errors import IllegalTransition, InvalidMoney, NotFound
from esim.money import Cost, Money
from esim.orders import OrderStatus, UnitStatus
from resources.db import inbox, ledger, outbox
from resources.db.payments import Booking, Payment, PaymentResult, cancel_unpaid, record_payment
from resources.db.tables import inbox_events, ledger_entries, order_events, orders
from resources.db.tables import outbox as outbox_table
from resources.db.transitions import lock_order, lock_units, move_order, move_unit, settle_order
from tests.resources.db.shop import NOW, order_state, paid_order, place_order


def test_move_order_changes_once_and_leaves_an_event(engine: Engine) -> None:
    with engine.begin() as conn:
        order = lock_order(conn, place_order(conn))
        assert move_order(conn, order, OrderStatus.PAID, reason="paid", actor="stripe", now=NOW, details={"a": 1})
        assert not move_order(conn, order, OrderStatus.PAID, reason="again", actor="stripe", now=NOW)
        events = conn.execute(select(*order_events.c["from_status", "to_status", "reason", "details"])).all()
        row = conn.execute(select(*orders.c["status", "paid_at"])).one()
    assert [tuple(event) for event in events] == [("pending", "paid", "paid", {"a": 1})]
    assert tuple(row) == ("paid", NOW)
    assert order.paid_at == NOW


def test_illegal_step_raises_and_changes_nothing(engine: Engine) -> None:
    with engine.begin() as conn:
        order_id = place_order(conn)
        with pytest.raises(IllegalTransition, match="cannot become completed"):
            move_order(conn, lock_order(conn, order_id), OrderStatus.COMPLETED, reason="", actor="t", now=NOW)
        assert conn.scalar(select(func.count()).select_from(order_events)) == 0
    assert order_state(engine, order_id) == "pending"


def test_unknown_order_is_not_found(engine: Engine) -> None:
    with engine.begin() as conn, pytest.raises(NotFound):
        lock_order(conn, uuid4())


def test_settle_follows_the_units_and_attention_carries_its_reason(engine: Engine) -> None:
    order_id = paid_order(engine, units=2)
    with engine.begin() as conn:
        first, second = lock_units(conn, order_id)
        assert first.next_attempt_at is not None
        move_unit(conn, first, UnitStatus.WORKING, reason="claimed", actor="t", now=NOW)
        move_unit(conn, first, UnitStatus.DELIVERED, reason="bought", actor="t", now=NOW)
        assert settle_order(conn, order_id, reason="worked", actor="t", now=NOW).status is OrderStatus.PROCESSING
        move_unit(conn, second, UnitStatus.ATTENTION, reason="unclear", actor="t", now=NOW)
        order = settle_order(conn, order_id, reason="unclear", actor="t", now=NOW)
        assert (order.status, order.attention_reason) == (OrderStatus.ATTENTION, "unclear")
        move_unit(conn, second, UnitStatus.REFUNDED, reason="by hand", actor="t", now=NOW)
        later = NOW + timedelta(minutes=1)
        order = settle_order(conn, order_id, reason="done", actor="t", now=later)
        assert (order.status, order.attention_reason, order.completed_at) == (OrderStatus.COMPLETED, None, later)


def test_unpaid_order_is_not_settled(engine: Engine) -> None:
    with engine.begin() as conn:
        order_id = place_order(conn)
        assert settle_order(conn, order_id, reason="", actor="t", now=NOW).status is OrderStatus.PENDING


@pytest.mark.parametrize("cancelled", [False, True])
def test_order_that_waits_for_a_person_with_nothing_begun_is_left_to_that_person(
    engine: Engine, cancelled: bool
) -> None:
    with engine.begin() as conn:
        order_id = place_order(conn)
        if cancelled:
            cancel_unpaid(conn, order_id, reason="expired", actor="test", now=NOW)
        too_little = Payment(order_id, "pi_1", "cs_1", Money(1, "USD"), "test")
        assert record_payment(conn, too_little, Booking("test", NOW, 70)) is PaymentResult.MISMATCH
        settle_order(conn, order_id, reason="looked at", actor="test", now=NOW)
    assert order_state(engine, order_id) == "attention"


def test_outbox_key_exists_once(engine: Engine) -> None:
    with engine.begin() as conn:
        assert outbox.enqueue(conn, key="k", channel="mail", kind="hello", order_id=None, payload={"n": 1})
        assert not outbox.enqueue(conn, key="k", channel="slack", kind="other", order_id=None)
        assert conn.scalars(select(outbox_table.c.kind)).all() == ["hello"]


def test_mail_that_keeps_failing_is_told_of_and_tried_on(engine: Engine) -> None:
    with engine.begin() as conn:
        outbox.enqueue(conn, key="k", channel="mail", kind="hello", order_id=None)
        for attempt in range(1, 201):
            conn.execute(update(outbox_table).values(next_attempt_at=func.now()))
            if attempt == 199:
                assert len(told(conn)) == 1
            notice = outbox.DueNotice(1, "k", outbox.Channel.MAIL, "hello", None, {}, attempt)
            outbox.note_not_sent(conn, notice, "HTTP 401")
        assert [text.split("; ")[1].split(".")[0] for text in told(conn)] == [
            "it is tried on",
            "it is not tried any more",
        ]


def told(conn: Connection) -> list[str]:
    slack = select(outbox_table.c.payload).where(outbox_table.c.channel == "slack").order_by(outbox_table.c.outbox_id)
    return [payload["text"] for payload in conn.scalars(slack)]


def test_inbox_event_counts_once_per_source(engine: Engine) -> None:
    with engine.begin() as conn:
        assert inbox.record(conn, "stripe", "evt_1", "checkout.session.completed", None, "received")
        assert not inbox.record(conn, "stripe", "evt_1", "checkout.session.completed", None, "received")
        assert inbox.record(conn, "esim_access", "evt_1", "ORDER_STATUS", None, "queued", {"provider_order_id": "B1"})
        order_id = uuid4()
        inbox.note_handled(conn, "stripe", "evt_1", "order paid", order_id)
        rows = conn.execute(
            select(*inbox_events.c["handled", "order_id", "work"]).order_by(inbox_events.c.source)
        ).all()
    assert [tuple(row) for row in rows] == [
        ("queued", None, {"provider_order_id": "B1"}),
        ("order paid", order_id, None),
    ]


def test_posting_is_booked_once_and_sums_to_zero(engine: Engine) -> None:
    order_id, cost = uuid4(), Cost.parse("2.35", "EUR")
    with engine.begin() as conn:
        entries = ledger.payment_received(Money(499, "USD"), 4_990_000)
        assert ledger.post(conn, "payment:1", order_id, entries)
        assert not ledger.post(conn, "payment:1", order_id, entries)
        ledger.post(conn, "fee:1", order_id, ledger.payment_fee(Money(44, "USD"), 440_000))
        ledger.post(conn, "cost:1", order_id, ledger.provider_cost(cost, 2_585_000), 1)
        ledger.post(conn, "refund:1", order_id, ledger.refund(Money(499, "USD"), 4_990_000), 1)
        ledger.post(conn, "stock:1", order_id, ledger.stock_purchase(cost, 2_585_000))
        ledger.post(conn, "loss:1", order_id, ledger.loss(cost, 2_585_000))
        totals = ledger.balance(conn, order_id)
        assert ledger.unbalanced_postings(conn) == []
        amounts = conn.scalars(select(ledger_entries.c.original_amount)).all()
    assert sum(totals.values()) == 0
    assert (totals["cash"], totals["loss"], totals["stock"]) == (-440_000, 2_585_000, 0)
    assert sum(amounts, Decimal(0)) == 0


def test_unbalanced_posting_is_refused(engine: Engine) -> None:
    one = ledger.Entry(ledger.Account.CASH, 5, Decimal("0.000005"), "USD")
    other = ledger.Entry(ledger.Account.LOSS, -5, Decimal("-0.000004"), "USD")
    with engine.begin() as conn:
        for entries in ([], [one], [one, other]):
            with pytest.raises(InvalidMoney, match="does not sum to zero"):
                ledger.post(conn, "odd", uuid4(), entries)
        assert conn.scalar(select(func.count()).select_from(ledger_entries)) == 0
