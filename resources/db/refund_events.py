"""What the payment service tells of refunds, applied to ours: accepted, arrived, failed after all, or made by hand."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, func, or_, select, update

from esim.errors import RefundsUnclear
from esim.money import Money
from esim.ports import Refund
from resources.db.failed_refunds import FAILED, take_back, tell_in_vain, why_failed
from resources.db.hand_refunds import EXTERNAL, NOT_PAID_HERE, ByHand, book_by_hand, note_hand_failed
from resources.db.refunded import count_refunded
from resources.db.refunds import DueRefund, paid_back, record_refund, record_refusal
from resources.db.tables import refunds
from resources.db.tellers import Teller
from resources.db.transitions import OrderRow, lock_order

_COMPARED = "refunds compared, some were not known"
_QUIET = frozenset({"known already", "refund arrived"})


def refund_told(
    conn: Connection,
    order_id: UUID,
    told: Refund,
    refund_key: str,
    teller: Teller,
    listed: Sequence[Refund] | None = None,
) -> str:
    """Apply what became of a refund; return in a few words what changed. The same news again changes nothing.

    Refunds by hand are booked by what they add up to: what one that failed was part of is seen from all of them.

    Raises:
        RefundsUnclear: the refunds of its payment must be `listed`.
    """
    order = lock_order(conn, order_id)
    known = or_(refunds.c.stripe_refund_id == told.refund_id, refunds.c.refund_key == refund_key)
    row = conn.execute(select(refunds).where(known, refunds.c.order_id == order_id).with_for_update()).one_or_none()
    if row is None and told.status in FAILED and told.payment_intent:
        if listed is None:
            raise RefundsUnclear(told.payment_intent)
        heard = hear_listed(conn, order, listed, teller, payment_intent=told.payment_intent)
        return _COMPARED if heard else "known already"
    if row is None:
        return "not a refund of ours"
    if row.state == "requested" and paid_back(told):
        # Paid, but whoever paid it did not live to write it down.
        record_refund(conn, _due(row), told, actor=teller.actor, now=teller.now)
        return "refund recorded"
    if row.state == "requested" and told.status in FAILED:
        reason = f"the payment service says {told.status}"
        made, actor = told.refund_id, teller.actor
        record_refusal(conn, _due(row), reason, final=True, actor=actor, now=teller.now, refund_id=made)
        return "refund failed"
    if row.state == "sent" and told.status == "succeeded":
        conn.execute(update(refunds).where(refunds.c.refund_key == row.refund_key).values(state="succeeded"))
        return "refund arrived"
    if row.state in {"sent", "succeeded"} and not paid_back(told):
        return _failed_after_all(conn, order, row, told, teller)
    return "known already"


def refunded_in_all(
    conn: Connection,
    order_id: UUID,
    payment_intent: str,
    total: Money,
    teller: Teller,
    listed: Sequence[Refund] | None = None,
) -> str:
    """Compare what was paid back of a payment with what we paid back; the rest was refunded by hand and is booked.

    `total` is of the moment the event was made. Where a refund of ours failed, nobody knows whether it is in there:
    then what the payment service has now, `listed`, is heard instead.

    Raises:
        RefundsUnclear: they must be listed.
    """
    order = lock_order(conn, order_id)
    if listed is not None:
        heard = hear_listed(conn, order, listed, teller, payment_intent=payment_intent)
        return _COMPARED if heard else "known already"
    r = refunds.c
    of_payment = r.payment_intent == payment_intent
    ours = select(func.coalesce(func.sum(r.amount_minor), 0)).where(of_payment, r.state.not_in(NOT_PAID_HERE))
    by_hand = total.minor - int(conn.scalar(ours) or 0)
    if by_hand <= 0:
        return "known already"
    failed = select(r.refund_key).where(of_payment, r.state.in_(NOT_PAID_HERE), r.stripe_refund_id.is_not(None))
    if conn.scalar(failed.limit(1)) is not None:
        raise RefundsUnclear(payment_intent)
    book_by_hand(conn, order, ByHand(payment_intent, Money(by_hand, total.currency), total), teller, hold=True)
    return "refund by hand recorded"


def hear_listed(
    conn: Connection,
    order: OrderRow,
    listed: Sequence[Refund],
    teller: Teller,
    *,
    payment_intent: str | None = None,
    hold: bool = True,
) -> list[str]:
    """Apply all refunds of a payment (a locked order's own, unless named) as the payment service has them now.

    Each does what its events would do, so that these change nothing when they come. What changed is returned in
    sentences. `hold` keeps an order of which everything went back for a person.
    """
    intent, r = payment_intent or order.payment_intent, refunds.c
    rows = conn.execute(select(refunds).where(r.order_id == order.order_id, r.payment_intent == intent)).all()
    by_id, by_key = {row.stripe_refund_id: row for row in rows}, {row.refund_key: row for row in rows}
    heard, hand, total, lost = list[str](), 0, 0, list[Refund]()
    for told in reversed(listed):  # the oldest first
        paid = told.amount.minor if paid_back(told) else 0
        row = by_id.get(told.refund_id) or by_key.get(told.key)
        if row is None and told.status in FAILED:
            lost.append(told)
        elif row is None or (row.state in {"elsewhere", "called_off"} and row.stripe_refund_id is None):
            hand += paid
        elif change := _hear_ours(conn, order, row, told, teller):
            heard.append(change)
        total += paid
    currency = listed[0].amount.currency if listed else order.currency
    return [*heard, *_hear_hand(conn, order, rows, _Hand(intent, currency, hand, total, lost), teller, hold=hold)]


@dataclass(frozen=True, slots=True)
class _Hand:
    """What was refunded by hand of a payment, all that was refunded of it, and what was meant to be and failed."""

    payment_intent: str | None
    currency: str
    minor: int
    total: int
    lost: Sequence[Refund]


def _hear_hand(
    conn: Connection, order: OrderRow, rows: Sequence[Row[Any]], hand: _Hand, teller: Teller, *, hold: bool
) -> Iterator[str]:
    """Book what is not booked of refunds by hand, and take back what is of those that failed; yield what changed."""
    if hand.payment_intent is None:
        return
    standing = (row for row in rows if row.refund_key.startswith(EXTERNAL) and row.state not in NOT_PAID_HERE)
    unheard = hand.minor - sum(int(row.amount_minor) for row in standing)
    if unheard > 0:
        amount, total = Money(unheard, hand.currency), Money(hand.total, hand.currency)
        book_by_hand(conn, order, ByHand(hand.payment_intent, amount, total), teller, hold=hold)
        yield f"{amount} was refunded at the payment service, of which nobody had told: booked now"
    for told in hand.lost:
        booked = Money(min(told.amount.minor, max(0, -unheard)), told.amount.currency)
        unheard += booked.minor
        note_hand_failed(conn, order, told, booked, teller, hold=hold)
        if booked.minor:
            yield f"{booked} of refund {told.refund_id}, made by hand, failed after all: taken back"


def _hear_ours(conn: Connection, order: OrderRow, row: Row[Any], told: Refund, teller: Teller) -> str | None:
    """Apply a listed refund of ours; return what changed."""
    what = f"refund {told.refund_id} of {told.amount}"
    if row.state == "failed" and row.stripe_refund_id is None and paid_back(told):
        # Refused, as it seemed, but made: nothing of it was ever booked.
        conn.execute(update(refunds).where(refunds.c.refund_key == row.refund_key).values(state="requested"))
        record_refund(conn, _due(row), told, actor=teller.actor, now=teller.now)
        return f"{what} was made after all: booked now"
    done = refund_told(conn, order.order_id, told, told.key, teller)
    return None if done in _QUIET else f"{what}: {done}"


def _failed_after_all(conn: Connection, order: OrderRow, row: Row[Any], told: Refund, teller: Teller) -> str:
    # Its id is kept, since totals that were told before have it in them.
    take_back(conn, row, last_error=why_failed(told), stripe_refund_id=told.refund_id)
    if row.esim_n is not None:
        count_refunded(conn, order, teller.now)
    amount = Money(int(row.amount_minor), row.currency)
    tell_in_vain(conn, order, f"refund {row.refund_key} of {amount}", told, teller)
    return "refund failed after all"


def _due(row: Row[Any]) -> DueRefund:
    amount = Money(int(row.amount_minor), row.currency)
    return DueRefund(
        row.refund_key, row.order_id, row.esim_n, row.payment_intent, amount, row.reason, int(row.attempts)
    )
