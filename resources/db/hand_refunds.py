"""Refunds made by hand at the payment service: booked by what they add up to, and taken back where one failed.

Events tell the total that went back of a payment, so that one row may stand for several refunds made by hand.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import insert

from esim.money import Money
from esim.orders import UnitStatus
from esim.ports import Refund
from resources.db import ledger, notices
from resources.db.failed_refunds import take_back, tell_in_vain, why_failed
from resources.db.refunded import count_refunded
from resources.db.tables import refunds
from resources.db.tellers import Teller, note_told
from resources.db.transitions import OrderRow, lock_units
from resources.db.valuation import share_of_payment

NOT_PAID_HERE = ("failed", "called_off", "elsewhere")  # elsewhere: an operator paid it another way
EXTERNAL = "external:"  # one row for what was refunded by hand, by the total at the payment service
_FINISHED = frozenset({UnitStatus.DELIVERED, UnitStatus.REFUNDED, UnitStatus.CANCELLED})


@dataclass(frozen=True, slots=True)
class ByHand:
    """What was refunded by hand of a payment, and all that was refunded of it by then."""

    payment_intent: str
    amount: Money
    total: Money


def book_by_hand(conn: Connection, order: OrderRow, found: ByHand, teller: Teller, *, hold: bool) -> None:
    """Book a refund by hand of a locked order and tell operations; `hold` keeps an order all of which went back."""
    intent, amount, key = found.payment_intent, found.amount, _book(conn, order, found, teller)
    reason = _by_hand(amount)
    note_told(conn, order, reason, {"payment_intent": intent}, teller)
    if order.payment_intent == intent:
        count_refunded(conn, order, teller.now)
        if hold and not _hold_if_twice(conn, order, amount, teller):
            hold_if_paid_back(conn, order, teller, amount)
    text = f"Order {order.display_id}: {reason}. {_what_follows(conn, order, amount)}"
    notices.tell_operations(conn, order.order_id, "external_refund", key, text)


def note_hand_failed(
    conn: Connection, order: OrderRow, told: Refund, booked: Money, teller: Teller, *, hold: bool
) -> None:
    """Write down a refund by hand that failed, and take back what was `booked` of it on a locked order.

    The newest bookings go first; one that held another refund too is booked anew without this one. With `hold` the
    order is held where anything of it is left to do, and operations are told.
    """
    intent, r = told.payment_intent, refunds.c
    row = {"refund_key": f"{EXTERNAL}{intent}:{told.refund_id}", "order_id": order.order_id, "payment_intent": intent}
    row |= {"amount_minor": told.amount.minor, "currency": told.amount.currency, "reason": "refunded by hand"}
    row |= {"state": "failed", "last_error": why_failed(told), "stripe_refund_id": told.refund_id}
    conn.execute(insert(refunds).values(**row, finished_at=teller.now))
    if not booked.minor:
        return
    of_hand = (r.payment_intent == intent, r.refund_key.startswith(EXTERNAL), r.state.not_in(NOT_PAID_HERE))
    left = booked.minor
    for part in conn.execute(select(refunds).where(*of_hand).order_by(r.created_at.desc(), r.refund_key.desc())).all():
        if left > 0:
            take_back(conn, part, last_error=f"refund {told.refund_id} in it failed")
            left -= int(part.amount_minor)
    if left < 0:
        rest = Money(-left, booked.currency)
        _book(conn, order, ByHand(intent, rest, rest), teller)
    if order.payment_intent == intent:
        count_refunded(conn, order, teller.now)
    if hold:
        tell_in_vain(conn, order, f"a refund of {told.amount} by hand ({told.refund_id})", told, teller)


def _book(conn: Connection, order: OrderRow, found: ByHand, teller: Teller) -> str:
    """Write down what was refunded by hand, and book it; return its key."""
    intent, amount = found.payment_intent, found.amount
    key = _free_key(conn, f"{EXTERNAL}{intent}:{found.total.minor}")
    row = {"refund_key": key, "order_id": order.order_id, "payment_intent": intent, "reason": "refunded by hand"}
    row |= {"amount_minor": amount.minor, "currency": amount.currency, "state": "succeeded"}
    conn.execute(insert(refunds).values(**row, finished_at=teller.now))
    micros = share_of_payment(conn, intent, amount)
    if micros is not None:
        ledger.post(conn, key, order.order_id, ledger.refund(amount, micros))
    return key


def _free_key(conn: Connection, key: str) -> str:
    """Return a key that no refund has: the total is the same again after a refund of it failed."""
    same = select(func.count()).select_from(refunds).where(refunds.c.refund_key.startswith(key, autoescape=True))
    taken = int(conn.scalar(same) or 0)
    return f"{key}:{taken + 1}" if taken else key


def book_early_refunds(conn: Connection, order: OrderRow, payment_intent: str, teller: Teller) -> Money | None:
    """Book what was refunded by hand of a payment before anybody told us of the payment; None where nothing was.

    Called once, when the payment of a locked order is booked: until then a refund of it has nothing to be booked
    against, and nothing to be taken from.
    """
    r = refunds.c
    early = (r.payment_intent == payment_intent, r.refund_key.startswith(EXTERNAL), r.state.not_in(NOT_PAID_HERE))
    total: Money | None = None
    for row in conn.execute(select(refunds).where(*early).with_for_update()):
        amount = Money(int(row.amount_minor), row.currency)
        total = amount if total is None else total + amount
        micros = share_of_payment(conn, payment_intent, amount)
        if micros is not None:
            ledger.post(conn, row.refund_key, order.order_id, ledger.refund(amount, micros))
    if total is not None and order.payment_intent == payment_intent:
        count_refunded(conn, order, teller.now)
    return total


def hold_if_paid_back(conn: Connection, order: OrderRow, teller: Teller, by_hand: Money | None = None) -> bool:
    """Stop buying for a locked order all of which was paid back while something of it is still to be delivered."""
    if order.refunded_minor < order.amount_minor or not _is_unfinished(conn, order):
        return False
    reason = _all_of_it(by_hand or Money(order.refunded_minor, order.currency))
    return notices.hold_and_tell(conn, order, reason=reason, actor=teller.actor, now=teller.now)


def _hold_if_twice(conn: Connection, order: OrderRow, by_hand: Money, teller: Teller) -> bool:
    """Hold an order for which a refund comes after eSIMs were written down as paid another way: it may be the same."""
    r = refunds.c
    of_payment = (r.order_id == order.order_id, r.payment_intent == order.payment_intent, r.state == "elsewhere")
    noted = list(conn.scalars(select(r.esim_n).where(*of_payment).order_by(r.esim_n)))
    if not noted:
        return False
    esims = ", ".join(f"eSIM {n}" for n in noted)
    reason = f"{_by_hand(by_hand)} after {esims} was written down as paid another way: see whether it is paid twice"
    return notices.hold_and_tell(conn, order, reason=reason, actor=teller.actor, now=teller.now)


def _what_follows(conn: Connection, order: OrderRow, by_hand: Money) -> str:
    if order.payment_intent is None:
        return "Its payment is not heard of yet; what went back of it is booked when it is."
    if order.hold_reason is None:
        return "eSIMs in work go on." if _is_unfinished(conn, order) else "Nothing of it is in work."
    if order.hold_reason == _all_of_it(by_hand):
        return "Nothing more is bought for it."
    return f"Nothing more is bought for it; it is held for: {order.hold_reason}."


def _all_of_it(amount: Money) -> str:
    return f"{_by_hand(amount)}, all of it"


def _by_hand(amount: Money) -> str:
    return f"{amount} was refunded at the payment service by hand"


def _is_unfinished(conn: Connection, order: OrderRow) -> bool:
    return any(unit.status not in _FINISHED for unit in lock_units(conn, order.order_id))
