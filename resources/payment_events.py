"""What each event of the payment service does to its order: one table for the webhook and for the reconciler.

`HANDLERS` is the list of events we act on; any other is only noted. A handler changes the database and nothing else:
no outside call, so that the whole of it can be rolled back and applied again: where an event alone does not tell
enough, `take_event_asking` asks in between. The inbox's key makes a repeat harmless, whoever brings it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, Engine

from esim.errors import RefundsUnclear
from esim.money import Money
from esim.orders import OrderStatus
from esim.ports import PaymentEvent, PaymentGateway, Refund
from resources.db import inbox, notices
from resources.db.disputes import dispute_told
from resources.db.outbox import Channel, enqueue
from resources.db.payments import (
    Booking,
    Payment,
    PaymentResult,
    cancel_unpaid,
    first_payments,
    note_failed_payment,
    order_exists,
    order_of_payment,
    record_payment,
    take_payments,
)
from resources.db.refund_events import refund_told, refunded_in_all
from resources.db.tellers import Teller
from resources.db.transitions import Event, lock_order, note
from resources.payments.stripe_disputes import read_dispute
from resources.payments.stripe_objects import refund_key, whole_money

SOURCE = "stripe"
DUPLICATE = "duplicate"
UNKNOWN_ORDER = "no such order"
UNLISTED = "not on the list"
TOLD_BY_CHARGE = "noted: a refund of a payment that is not heard of; its charge.refunded tells of it"
_TAKEN = frozenset({"paid", "no_payment_required"})
_NOTHING = Money(0, "USD")


@dataclass(frozen=True, slots=True)
class Case:
    """One event about one order, inside its transaction."""

    conn: Connection
    event: PaymentEvent
    order_id: UUID
    booking: Booking
    listed: Sequence[Refund] | None = None  # all refunds of its payment, where the payment service was asked


@dataclass(frozen=True, slots=True)
class TakenEvent:
    """An authentic event, in a few words what was done with it, and the order it is about, if it is one of ours."""

    type: str
    handled: str
    order_id: UUID | None = None


Handler = Callable[[Case], str]


def take_event_asking(
    engine: Engine,
    gateway: PaymentGateway,
    event: PaymentEvent,
    booking: Booking,
    then: Callable[[Connection, TakenEvent], None] = lambda conn, taken: None,
) -> TakenEvent:
    """Apply an authentic event in a transaction of its own, with `then`; ask the payment service where it is unclear.

    Raises:
        PaymentError: it had to be asked and did not answer; nothing was changed.
    """

    def take(listed: Sequence[Refund] | None) -> TakenEvent:
        with engine.begin() as conn:
            taken = take_event(conn, event, booking, listed)
            then(conn, taken)
            return taken

    try:
        return take(None)
    except RefundsUnclear as unclear:
        listed = gateway.refunds_of(unclear.payment_intent)
    return take(listed)


def take_event(
    conn: Connection, event: PaymentEvent, booking: Booking, listed: Sequence[Refund] | None = None
) -> TakenEvent:
    """Apply an authentic event, once: whoever brings it a second time changes nothing.

    Raises:
        RefundsUnclear: the refunds of its payment must be `listed` to apply it.
    """
    order_id = order_of_event(conn, event)
    if order_id is not None:
        lock_order(conn, order_id)  # before the event's row, as a batch of payments does
    if not inbox.record(conn, SOURCE, event.event_id, event.type, order_id, "received"):
        return TakenEvent(event.type, DUPLICATE, order_id)
    handled = _apply(conn, event, order_id, booking, listed)
    inbox.note_handled(conn, SOURCE, event.event_id, handled)
    return TakenEvent(event.type, handled, order_id)


def take_first_payments(engine: Engine, events: Sequence[tuple[PaymentEvent, Booking]]) -> list[TakenEvent | None]:
    """Apply, in one transaction, the events that are an order's first and fitting payment; None for every other.

    What nearly every event is, at a fraction of the statements; whatever is None is for `take_event`.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: nothing was written.
    """
    payments = [(payment, booking) for event, booking in events if (payment := _payment_told_by(event)) is not None]
    if not payments:
        return [None] * len(events)
    kinds = {event.event_id: event.type for event, _ in events}
    with engine.begin() as conn:
        found = first_payments(conn, payments)
        told = [(one.payment.told_by, kinds[one.payment.told_by], one.payment.order_id) for one in found]
        fresh = inbox.record_many(conn, SOURCE, told, PaymentResult.PAID)
        take_payments(conn, [one for one in found if one.payment.told_by in fresh])
    taken = {event_id: order_id for event_id, _, order_id in told if event_id in fresh}
    return [
        TakenEvent(event.type, PaymentResult.PAID, taken[event.event_id]) if event.event_id in taken else None
        for event, _ in events
    ]


def _payment_told_by(event: PaymentEvent) -> Payment | None:
    """Return the payment a checkout event tells of, when it names its order itself."""
    if HANDLERS.get(event.type) is not _session_paid or event.payment_status not in _TAKEN or event.amount is None:
        return None
    try:
        order_id = UUID(event.order_id)
    except ValueError:
        return None
    return Payment(order_id, event.payment_intent, event.session_id, event.amount, event.event_id)


def order_of_event(conn: Connection, event: PaymentEvent) -> UUID | None:
    """Return the order an event is about; None for one that is not ours."""
    try:
        named = UUID(event.order_id)
    except ValueError:
        return order_of_payment(conn, session_id=event.session_id, payment_intent=event.payment_intent)
    return named if order_exists(conn, named) else None


def _apply(
    conn: Connection,
    event: PaymentEvent,
    order_id: UUID | None,
    booking: Booking,
    listed: Sequence[Refund] | None,
) -> str:
    handler = HANDLERS.get(event.type)
    if handler is None:
        return UNLISTED
    if order_id is None:
        if handler is _refund_changed:  # it names no order; the charge's own event does, and tells of the same money
            return TOLD_BY_CHARGE
        if handler is _disputed:  # its payment may be on the way
            dispute_told(conn, None, read_dispute(event.raw), event.created_at, Teller(booking.actor, booking.now))
        whose = "an order that is not ours" if event.order_id else "a payment that no order of ours is known to have"
        text = f"Stripe told of {event.type} ({event.event_id}) for {whose}. Look it up in Stripe."
        notices.tell_operations(conn, None, "unknown_payment", f"unknown_payment:{event.event_id}", text)
        return UNKNOWN_ORDER
    return handler(Case(conn, event, order_id, booking, listed))


def _session_paid(case: Case) -> str:
    event = case.event
    if event.payment_status not in _TAKEN:
        return _note(case, "the bank has still to confirm the payment")
    payment = Payment(case.order_id, event.payment_intent, event.session_id, event.amount or _NOTHING, event.event_id)
    return record_payment(case.conn, payment, case.booking)


def _bank_refused(case: Case) -> str:
    booking, reason = case.booking, "the bank did not confirm the payment"
    order = lock_order(case.conn, case.order_id)
    if not note_failed_payment(case.conn, order, reason=reason, actor=case.booking.actor, now=booking.now):
        return "paid meanwhile"
    cancel_unpaid(
        case.conn, case.order_id, reason=reason, actor=booking.actor, now=booking.now, into=OrderStatus.FAILED
    )
    key = f"payment_failed:{case.order_id}"
    enqueue(case.conn, key=key, channel=Channel.MAIL, kind="payment_failed", order_id=case.order_id)
    text = f"Order {order.display_id} failed: {reason}. The customer is written to; nothing was charged."
    notices.tell_operations(case.conn, case.order_id, "payment_failed", key, text)
    return "payment failed"


def _attempt_failed(case: Case) -> str:
    """Note a declined card: the customer sees it on the payment page and may try again there, so no mail goes out."""
    order = lock_order(case.conn, case.order_id)
    reason = "an attempt to pay was declined"
    noted = note_failed_payment(case.conn, order, reason=reason, actor=case.booking.actor, now=case.booking.now)
    return "noted" if noted else "paid meanwhile"


def _session_expired(case: Case) -> str:
    done = cancel_unpaid(
        case.conn, case.order_id, reason="the checkout expired", actor=case.booking.actor, now=case.booking.now
    )
    return "cancelled" if done else "nothing to cancel"


def _disputed(case: Case) -> str:
    event, teller = case.event, Teller(case.booking.actor, case.booking.now)
    return dispute_told(case.conn, case.order_id, read_dispute(event.raw), event.created_at, teller)


def _note(case: Case, reason: str) -> str:
    order = lock_order(case.conn, case.order_id)
    details = {"told_by": case.event.event_id}
    event = Event(
        order.order_id, order.status, order.status, reason, case.booking.actor, case.booking.now, None, None, details
    )
    note(case.conn, [event])
    return f"noted: {reason}"


def _refund_changed(case: Case) -> str:
    raw, amount = case.event.raw, case.event.amount
    if amount is None:
        return "no amount"
    told = Refund(str(raw["id"]), amount, str(raw.get("status") or ""), case.event.payment_intent)
    teller = Teller(case.booking.actor, case.booking.now)
    return refund_told(case.conn, case.order_id, told, refund_key(raw), teller, case.listed)


def _charge_refunded(case: Case) -> str:
    total = whole_money(case.event.raw.get("amount_refunded"), case.event.raw.get("currency"))
    teller = Teller(case.booking.actor, case.booking.now)
    return refunded_in_all(case.conn, case.order_id, case.event.payment_intent, total, teller, case.listed)


HANDLERS: Mapping[str, Handler] = {
    "checkout.session.completed": _session_paid,
    "checkout.session.async_payment_succeeded": _session_paid,
    "checkout.session.async_payment_failed": _bank_refused,
    "checkout.session.expired": _session_expired,
    "payment_intent.payment_failed": _attempt_failed,
    "charge.refunded": _charge_refunded,
    "refund.created": _refund_changed,
    "refund.updated": _refund_changed,
    "refund.failed": _refund_changed,
    "charge.dispute.created": _disputed,
    "charge.dispute.updated": _disputed,
    "charge.dispute.funds_withdrawn": _disputed,
    "charge.dispute.funds_reinstated": _disputed,
    "charge.dispute.closed": _disputed,
}
