"""What a payment does to an order: one function for webhooks, the order page and the reconciler, safe to repeat.

The order's lock decides: the first payment that fits makes the order paid and its units wait for a worker; the same
payment again changes nothing; another payment for the same order is paid back and delivers nothing; money that does
not fit the order waits for a person.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Connection, or_, select, text, update

from esim.money import Money
from esim.orders import OrderStatus, UnitStatus
from resources.db import ledger, notices
from resources.db.disputes import take_up_disputes
from resources.db.fees import ask_for_fee
from resources.db.hand_refunds import book_early_refunds, hold_if_paid_back
from resources.db.payment_writes import PaymentWrites
from resources.db.refunds import request_refund
from resources.db.tables import ledger_entries, orders, refunds
from resources.db.tellers import Teller
from resources.db.transitions import (
    Event,
    OrderMove,
    OrderRow,
    UnitMove,
    UnitRow,
    lock_order,
    lock_orders,
    lock_units,
    lock_units_of,
    move_order,
    move_unit,
    note,
    step_order,
    step_unit,
)
from resources.db.valuation import sold_micros, usd_micros

_TAKEN_BACK = text(
    "select payment_intent from refunds where payment_intent = any(:intents)"
    " union select payment_intent from disputes where payment_intent = any(:intents)"
)
SECOND_PAYMENT = "second payment for the same order"


class PaymentResult(StrEnum):
    """What a payment did."""

    PAID = "paid"
    KNOWN = "known already"
    SECOND = "second payment: refund requested"
    MISMATCH = "amount differs: a person must look"
    HELD = "taken, but the order waits for a person"


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment that the payment service vouches for; `told_by` is an event id or who asked."""

    order_id: UUID
    payment_intent: str
    session_id: str
    amount: Money
    told_by: str


@dataclass(frozen=True, slots=True)
class Booking:
    """Who records, when, and within how many minutes the customer has the eSIM or the money back."""

    actor: str
    now: datetime
    deadline_minutes: int


@dataclass(frozen=True, slots=True)
class FirstPayment:
    """A payment with its locked order and units."""

    order: OrderRow
    units: Sequence[UnitRow]
    payment: Payment
    booking: Booking

    @property
    def fits(self) -> bool:
        """Whether it is what the order asks for, and the order has not been paid."""
        order, payment = self.order, self.payment
        asked = Money(order.amount_minor, order.currency)
        return order.payment_intent is None and bool(payment.payment_intent) and payment.amount == asked


def record_payment(conn: Connection, payment: Payment, booking: Booking) -> PaymentResult:
    """Apply a payment to its order, under the order's lock; the same payment again changes nothing.

    Raises:
        NotFound: there is no such order.
    """
    result = _record_payment(conn, payment, booking)
    if result is PaymentResult.KNOWN or not payment.payment_intent:
        return result
    order, teller = lock_order(conn, payment.order_id), Teller(booking.actor, booking.now)
    held = take_up_disputes(conn, order, payment.payment_intent, teller)
    return PaymentResult.HELD if held and result is PaymentResult.PAID else result


def _record_payment(conn: Connection, payment: Payment, booking: Booking) -> PaymentResult:
    order = lock_order(conn, payment.order_id)
    if order.payment_intent == payment.payment_intent:
        return PaymentResult.KNOWN
    if order.payment_intent is not None:
        return _second_payment(conn, order, payment, booking)
    if payment.amount != Money(order.amount_minor, order.currency) or not payment.payment_intent:
        return _mismatch(conn, order, payment, booking)
    if order.status is OrderStatus.ATTENTION:
        _note_payment(conn, order, payment, booking)
        _book(conn, order, payment)
        book_early_refunds(conn, order, payment.payment_intent, Teller(booking.actor, booking.now))
        reason = "paid while it waits for a person; nothing is delivered until somebody decides"
        _note_event(conn, order, reason, payment, booking)
        _tell(conn, order, "payment_held", payment, reason)
        return PaymentResult.HELD
    take_payments(conn, [FirstPayment(order, lock_units(conn, order.order_id), payment, booking)])
    teller = Teller(booking.actor, booking.now)
    early = book_early_refunds(conn, order, payment.payment_intent, teller)
    if early is not None and hold_if_paid_back(conn, order, teller, early):
        reason = f"{early} of it was paid back by hand before its payment was heard of. Nothing is bought for it"
        _tell(conn, order, "paid_back_early", payment, reason)
        return PaymentResult.HELD
    return PaymentResult.PAID


def first_payments(conn: Connection, payments: Sequence[tuple[Payment, Booking]]) -> list[FirstPayment]:
    """Lock the orders of payments and return those that need no second thought: `take_payments` may take them.

    That is a payment of the right amount for an order that waits for it, none of it paid back or disputed before, and
    the only one for this order here. All others are for `record_payment`.
    """
    times = Counter(payment.order_id for payment, _ in payments)
    orders_by_id = lock_orders(conn, list(times))
    waiting = {order_id for order_id, order in orders_by_id.items() if order.status is OrderStatus.PENDING}
    units = lock_units_of(conn, waiting)
    found = [
        FirstPayment(orders_by_id[payment.order_id], units[payment.order_id], payment, booking)
        for payment, booking in payments
        if payment.order_id in waiting and times[payment.order_id] == 1
    ]
    intents = [payment.payment_intent for payment, _ in payments]
    back = set(conn.scalars(_TAKEN_BACK, {"intents": intents}))
    return [first for first in found if first.fits and first.payment.payment_intent not in back]


def take_payments(conn: Connection, taken: Sequence[FirstPayment]) -> None:
    """Make locked orders paid and their units wait for a worker, and book the money."""
    foreign = [first.order.order_id for first in taken if first.order.currency != "USD"]
    sold = sold_micros(conn, foreign) if foreign else {}
    writes = PaymentWrites()
    for first in taken:
        payment = first.payment
        micros = sold.get(payment.order_id, payment.amount.micros)
        entries = ledger.payment_received(payment.amount, micros)
        writes.entries += ledger.rows_of(ledger.Posting(f"payment:{payment.payment_intent}", payment.order_id, entries))
        for unit in first.units:
            move = UnitMove(unit, UnitStatus.QUEUED, "paid", first.booking.actor, first.booking.now)
            if step := step_unit(move):
                writes.units.append({"esim_id": unit.esim_id, **step[0]})
                writes.events.append(step[1])
        if step := step_order(_paid_move(first)):
            writes.orders.append({"order_id": first.order.order_id, **step[0]})
            writes.events.append(step[1])
    if taken:
        writes.write(conn)


def _paid_move(first: FirstPayment) -> OrderMove:
    order, payment, booking = first.order, first.payment, first.booking
    values = _payment_columns(order, payment, booking)
    order.payment_intent, order.payment_status = payment.payment_intent, "paid"
    details = _details(payment)
    return OrderMove(order, OrderStatus.PAID, "payment received", booking.actor, booking.now, None, details, values)


def cancel_unpaid(
    conn: Connection,
    order_id: UUID,
    *,
    reason: str,
    actor: str,
    now: datetime,
    into: OrderStatus = OrderStatus.CANCELLED,
) -> bool:
    """Close an order that still waits for its payment and cancel its units; return whether anything changed.

    `into` is its last status: failed, where somebody tried to pay and the bank refused.

    Raises:
        NotFound: there is no such order.
    """
    order = lock_order(conn, order_id)
    if order.status is not OrderStatus.PENDING:
        return False
    for unit in lock_units(conn, order_id):
        move_unit(conn, unit, UnitStatus.CANCELLED, reason=reason, actor=actor, now=now)
    return move_order(conn, order, into, reason=reason, actor=actor, now=now)


def note_failed_payment(conn: Connection, order: OrderRow, *, reason: str, actor: str, now: datetime) -> bool:
    """Note on a locked, unpaid order that an attempt to pay failed; return False when it is paid meanwhile."""
    if order.payment_intent is not None:
        return False
    statement = update(orders).where(orders.c.order_id == order.order_id)
    conn.execute(statement.values(payment_status="failed", updated_at=now))
    note(conn, [Event(order.order_id, order.status, order.status, reason, actor, now)])
    return True


def order_of_payment(conn: Connection, *, session_id: str, payment_intent: str) -> UUID | None:
    """Return the order that a session or a payment (the first, or a second that is paid back) belongs to."""
    known = [orders.c.session_id == session_id] if session_id else []
    known += [orders.c.payment_intent == payment_intent] if payment_intent else []
    if not known:
        return None
    found: UUID | None = conn.scalar(select(orders.c.order_id).where(or_(*known)).limit(1))
    if found is None and payment_intent:
        found = conn.scalar(select(refunds.c.order_id).where(refunds.c.payment_intent == payment_intent).limit(1))
    return found


def order_exists(conn: Connection, order_id: UUID) -> bool:
    """Return whether there is such an order."""
    return conn.scalar(select(orders.c.order_id).where(orders.c.order_id == order_id)) is not None


def _second_payment(conn: Connection, order: OrderRow, payment: Payment, booking: Booking) -> PaymentResult:
    """Pay back what was paid twice: all of it, whatever state the order is in, and deliver nothing for it."""
    if _is_booked(conn, payment):
        return PaymentResult.KNOWN
    _book(conn, order, payment)
    ask_for_fee(conn, order.order_id)
    early = book_early_refunds(conn, order, payment.payment_intent, Teller(booking.actor, booking.now))
    left = payment.amount - early if early is not None else payment.amount
    if left.minor <= 0:  # somebody was quicker
        _note_event(conn, order, f"{SECOND_PAYMENT}, paid back by hand already", payment, booking)
        return PaymentResult.SECOND
    asked = request_refund(
        conn,
        key=f"second:{payment.payment_intent}",
        order_id=order.order_id,
        payment_intent=payment.payment_intent,
        amount=left,
        reason=SECOND_PAYMENT,
        esim_n=None,
    )
    if not asked:
        return PaymentResult.KNOWN
    _note_event(conn, order, SECOND_PAYMENT, payment, booking)
    _tell(conn, order, "second_payment", payment, f"{SECOND_PAYMENT}: {left} is being refunded")
    return PaymentResult.SECOND


def _mismatch(conn: Connection, order: OrderRow, payment: Payment, booking: Booking) -> PaymentResult:
    expected = Money(order.amount_minor, order.currency)
    reason = f"{payment.amount} was paid instead of {expected}; nothing is delivered until somebody decides"
    if payment.payment_intent:
        _note_payment(conn, order, payment, booking)
        _book(conn, order, payment)
        book_early_refunds(conn, order, payment.payment_intent, Teller(booking.actor, booking.now))
    moved = move_order(
        conn,
        order,
        OrderStatus.ATTENTION,
        reason=reason,
        actor=booking.actor,
        now=booking.now,
        details=_details(payment),
    )
    if not moved:
        _note_event(conn, order, reason, payment, booking)
    _tell(conn, order, "amount_mismatch", payment, reason)
    return PaymentResult.MISMATCH


def _note_payment(conn: Connection, order: OrderRow, payment: Payment, booking: Booking) -> None:
    values = _payment_columns(order, payment, booking)
    conn.execute(update(orders).where(orders.c.order_id == order.order_id).values(**values))
    order.payment_intent, order.payment_status, order.paid_at = payment.payment_intent, "paid", booking.now


def _payment_columns(order: OrderRow, payment: Payment, booking: Booking) -> dict[str, object]:
    return {
        "payment_intent": payment.payment_intent,
        "payment_status": "paid",
        "paid_at": booking.now,
        "deadline_at": booking.now + timedelta(minutes=booking.deadline_minutes),
        "updated_at": booking.now,
        "session_id": order.session_id or payment.session_id or None,
    }


def _book(conn: Connection, order: OrderRow, payment: Payment) -> bool:
    """Book a payment; return False where its currency has no rate, which a person has to settle."""
    micros = usd_micros(conn, order.order_id, payment.amount)
    if micros is None or not payment.payment_intent:
        return False
    entries = ledger.payment_received(payment.amount, micros)
    return ledger.post(conn, f"payment:{payment.payment_intent}", order.order_id, entries)


def _is_booked(conn: Connection, payment: Payment) -> bool:
    key = f"payment:{payment.payment_intent}"
    return (
        conn.scalar(select(ledger_entries.c.entry_id).where(ledger_entries.c.posting_key == key).limit(1)) is not None
    )


def _note_event(conn: Connection, order: OrderRow, reason: str, payment: Payment, booking: Booking) -> None:
    details = _details(payment)
    event = Event(order.order_id, order.status, order.status, reason, booking.actor, booking.now, None, None, details)
    note(conn, [event])


def _details(payment: Payment) -> dict[str, object]:
    return {
        "payment_intent": payment.payment_intent,
        "session_id": payment.session_id,
        "amount_minor": payment.amount.minor,
        "currency": payment.amount.currency,
        "told_by": payment.told_by,
    }


def _tell(conn: Connection, order: OrderRow, kind: str, payment: Payment, reason: str) -> None:
    key = f"{kind}:{order.order_id}:{payment.payment_intent or payment.session_id}"
    notices.tell_operations(conn, order.order_id, kind, key, f"Order {order.display_id}: {reason}.")
