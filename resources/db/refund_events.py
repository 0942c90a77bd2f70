"""What the payment service tells of refunds, applied to ours: accepted, arrived, failed after all, or made by hand."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from esim.money import Money
from esim.orders import UnitStatus
from esim.ports import Refund
from resources.db import ledger, notices
from resources.db.refunds import DueRefund, paid_back, record_refund
from resources.db.tables import ledger_entries, orders, refunds
from resources.db.transitions import Event, OrderRow, lock_order, lock_units, note
from resources.db.valuation import share_of_payment

_NOT_PAID_HERE = ("failed", "called_off", "elsewhere")  # elsewhere: an operator paid it another way
_FINISHED = frozenset({UnitStatus.DELIVERED, UnitStatus.REFUNDED, UnitStatus.CANCELLED})


@dataclass(frozen=True, slots=True)
class Teller:
    """Who tells, and when."""

    actor: str
    now: datetime


def refund_told(conn: Connection, order_id: UUID, told: Refund, refund_key: str, teller: Teller) -> str:
    """Apply what became of a refund; return in a few words what changed. The same news again changes nothing."""
    order = lock_order(conn, order_id)
    known = or_(refunds.c.stripe_refund_id == told.refund_id, refunds.c.refund_key == refund_key)
    row = conn.execute(select(refunds).where(known, refunds.c.order_id == order_id).with_for_update()).one_or_none()
    if row is None:
        return "not a refund of ours"
    if row.state == "requested" and paid_back(told):
        # Paid, but whoever paid it did not live to write it down.
        record_refund(conn, _due(row), told, actor=teller.actor, now=teller.now)
        return "refund recorded"
    if row.state == "sent" and told.status == "succeeded":
        conn.execute(update(refunds).where(refunds.c.refund_key == row.refund_key).values(state="succeeded"))
        return "refund arrived"
    if row.state in {"sent", "succeeded"} and not paid_back(told):
        return _failed_after_all(conn, order, row, told, teller)
    return "known already"


def refunded_in_all(conn: Connection, order_id: UUID, payment_intent: str, total: Money, teller: Teller) -> str:
    """Compare what was paid back of a payment with what we paid back; the rest was refunded by hand and is booked."""
    order = lock_order(conn, order_id)
    of_payment = (refunds.c.payment_intent == payment_intent) & refunds.c.state.not_in(_NOT_PAID_HERE)
    ours = int(conn.scalar(select(func.coalesce(func.sum(refunds.c.amount_minor), 0)).where(of_payment)) or 0)
    if total.minor <= ours:
        return "known already"
    by_hand = Money(total.minor - ours, total.currency)
    key = f"external:{payment_intent}:{total.minor}"
    row = {"refund_key": key, "order_id": order_id, "payment_intent": payment_intent, "reason": "refunded by hand"}
    row |= {"amount_minor": by_hand.minor, "currency": by_hand.currency, "state": "succeeded"}
    conn.execute(insert(refunds).values(**row, finished_at=teller.now))
    micros = share_of_payment(conn, payment_intent, by_hand)
    if micros is not None:
        ledger.post(conn, key, order_id, ledger.refund(by_hand, micros))
    if order.payment_intent == payment_intent:
        _change_refunded(conn, order, by_hand.minor, teller)
    reason = _by_hand(by_hand)
    _note(conn, order, reason, {"payment_intent": payment_intent}, teller)
    held = order.payment_intent == payment_intent and hold_if_paid_back(conn, order, by_hand, teller)
    goes_on = "Nothing more is bought for it." if held else "eSIMs in work go on."
    if order.payment_intent is None:
        goes_on = "Its payment is not heard of yet; what went back of it is booked when it is."
    text = f"Order {order.display_id}: {reason}. {goes_on}"
    notices.tell_operations(conn, order_id, "external_refund", key, text)
    return "refund by hand recorded"


def book_early_refunds(conn: Connection, order: OrderRow, payment_intent: str, teller: Teller) -> Money | None:
    """Book what was refunded by hand of a payment before anybody told us of the payment; None where nothing was.

    Called once, when the payment of a locked order is booked: until then a refund of it has nothing to be booked
    against, and nothing to be taken from.
    """
    r = refunds.c
    early = (r.payment_intent == payment_intent, r.refund_key.startswith("external:"), r.state.not_in(_NOT_PAID_HERE))
    total: Money | None = None
    for row in conn.execute(select(refunds).where(*early).with_for_update()):
        amount = Money(int(row.amount_minor), row.currency)
        total = amount if total is None else total + amount
        micros = share_of_payment(conn, payment_intent, amount)
        if micros is not None:
            ledger.post(conn, row.refund_key, order.order_id, ledger.refund(amount, micros))
    if total is not None and order.payment_intent == payment_intent:
        _change_refunded(conn, order, total.minor, teller)
    return total


def hold_if_paid_back(conn: Connection, order: OrderRow, by_hand: Money, teller: Teller) -> bool:
    """Stop buying for a locked order all of which was paid back while something of it is still to be delivered."""
    if order.refunded_minor < order.amount_minor or not _is_unfinished(conn, order):
        return False
    return notices.hold_and_tell(
        conn, order, reason=f"{_by_hand(by_hand)}, all of it", actor=teller.actor, now=teller.now
    )


def _by_hand(amount: Money) -> str:
    return f"{amount} was refunded at the payment service by hand"


def _is_unfinished(conn: Connection, order: OrderRow) -> bool:
    return any(unit.status not in _FINISHED for unit in lock_units(conn, order.order_id))


def _failed_after_all(conn: Connection, order: OrderRow, row: Row[Any], told: Refund, teller: Teller) -> str:
    """Take a booked refund back: the money is with us again, and a person must find another way to the customer."""
    amount = Money(int(row.amount_minor), row.currency)
    values = {"state": "failed", "last_error": f"the payment service reports it as {told.status}"}
    conn.execute(update(refunds).where(refunds.c.refund_key == row.refund_key).values(**values))
    micros = _booked_micros(conn, row.refund_key)
    if micros:  # a refund of a payment that was never booked is not booked either
        ledger.post(conn, f"{row.refund_key}:failed", order.order_id, ledger.refund(-amount, -micros), row.esim_n)
    if row.esim_n is not None:
        _change_refunded(conn, order, -amount.minor, teller)
    reason = f"refund {row.refund_key} of {amount} did not reach the customer"
    if not notices.hold_and_tell(conn, order, reason=reason, actor=teller.actor, now=teller.now):
        _note(conn, order, reason, {"refund": told.refund_id}, teller)
    text = f"Order {order.display_id} needs a person: {reason}. Pay it another way."
    notices.tell_operations(conn, order.order_id, "attention", f"refund_failed:{row.refund_key}", text)
    return "refund failed after all"


def _due(row: Row[Any]) -> DueRefund:
    amount = Money(int(row.amount_minor), row.currency)
    return DueRefund(
        row.refund_key, row.order_id, row.esim_n, row.payment_intent, amount, row.reason, int(row.attempts)
    )


def _change_refunded(conn: Connection, order: OrderRow, by_minor: int, teller: Teller) -> None:
    refunded = min(max(order.refunded_minor + by_minor, 0), order.amount_minor)
    status = "refunded" if refunded == order.amount_minor else "partially_refunded" if refunded else "paid"
    values = {"refunded_minor": refunded, "payment_status": status, "updated_at": teller.now}
    conn.execute(update(orders).where(orders.c.order_id == order.order_id).values(**values))
    order.refunded_minor, order.payment_status = refunded, status


def _booked_micros(conn: Connection, posting_key: str) -> int:
    entries = ledger_entries.c
    booked = select(entries.amount_micros).where(
        entries.posting_key == posting_key, entries.account == ledger.Account.REFUNDS
    )
    return int(conn.scalar(booked) or 0)


def _note(conn: Connection, order: OrderRow, reason: str, details: dict[str, object], teller: Teller) -> None:
    event = Event(order.order_id, order.status, order.status, reason, teller.actor, teller.now, None, None, details)
    note(conn, [event])
