"""What the payment service tells of refunds, applied to ours: accepted, arrived, failed after all, or made by hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from esim.errors import RefundsUnclear
from esim.money import Money
from esim.orders import UnitStatus
from esim.ports import Refund
from resources.db import ledger, notices
from resources.db.refunded import count_refunded
from resources.db.refunds import DueRefund, paid_back, record_refund, record_refusal
from resources.db.tables import ledger_entries, refunds
from resources.db.transitions import Event, OrderRow, lock_order, lock_units, note
from resources.db.valuation import share_of_payment

_NOT_PAID_HERE = ("failed", "called_off", "elsewhere")  # elsewhere: an operator paid it another way
_EXTERNAL = "external:"  # one row for what was refunded by hand, by the total at the payment service
_FAILED = frozenset({"failed", "canceled"})
_QUIET = frozenset({"known already", "refund arrived"})
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
    if row.state == "requested" and told.status in _FAILED:
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
        return "refunds compared, some were not known" if heard else "known already"
    r = refunds.c
    of_payment = r.payment_intent == payment_intent
    ours = select(func.coalesce(func.sum(r.amount_minor), 0)).where(of_payment, r.state.not_in(_NOT_PAID_HERE))
    by_hand = total.minor - int(conn.scalar(ours) or 0)
    if by_hand <= 0:
        return "known already"
    failed = select(r.refund_key).where(of_payment, r.state.in_(_NOT_PAID_HERE), r.stripe_refund_id.is_not(None))
    if conn.scalar(failed.limit(1)) is not None:
        raise RefundsUnclear(payment_intent)
    _book_by_hand(conn, order, _ByHand(payment_intent, Money(by_hand, total.currency), total), teller, hold=True)
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
    heard, hand, total = list[str](), 0, 0
    for told in reversed(listed):  # the oldest first
        paid = told.amount.minor if paid_back(told) else 0
        row = by_id.get(told.refund_id) or by_key.get(told.key)
        if row is None or (row.state in {"elsewhere", "called_off"} and row.stripe_refund_id is None):
            hand += paid
        elif change := _hear_ours(conn, order, row, told, teller):
            heard.append(change)
        total += paid
    unheard = hand - sum(int(row.amount_minor) for row in rows if row.refund_key.startswith(_EXTERNAL))
    if intent and unheard > 0:
        currency = listed[0].amount.currency
        by_hand = _ByHand(intent, Money(unheard, currency), Money(total, currency))
        _book_by_hand(conn, order, by_hand, teller, hold=hold)
        heard.append(f"{by_hand.amount} was refunded at the payment service, of which nobody had told: booked now")
    return heard


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


@dataclass(frozen=True, slots=True)
class _ByHand:
    """What was refunded by hand of a payment, and all that was refunded of it by then."""

    payment_intent: str
    amount: Money
    total: Money


def _book_by_hand(conn: Connection, order: OrderRow, found: _ByHand, teller: Teller, *, hold: bool) -> None:
    intent, amount = found.payment_intent, found.amount
    key = _free_key(conn, f"{_EXTERNAL}{intent}:{found.total.minor}")
    row = {"refund_key": key, "order_id": order.order_id, "payment_intent": intent, "reason": "refunded by hand"}
    row |= {"amount_minor": amount.minor, "currency": amount.currency, "state": "succeeded"}
    conn.execute(insert(refunds).values(**row, finished_at=teller.now))
    micros = share_of_payment(conn, intent, amount)
    if micros is not None:
        ledger.post(conn, key, order.order_id, ledger.refund(amount, micros))
    reason = _by_hand(amount)
    _note(conn, order, reason, {"payment_intent": intent}, teller)
    if order.payment_intent == intent:
        count_refunded(conn, order, teller.now)
        if hold and not _hold_if_twice(conn, order, amount, teller):
            hold_if_paid_back(conn, order, teller, amount)
    text = f"Order {order.display_id}: {reason}. {_what_follows(conn, order, amount)}"
    notices.tell_operations(conn, order.order_id, "external_refund", key, text)


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
    early = (r.payment_intent == payment_intent, r.refund_key.startswith(_EXTERNAL), r.state.not_in(_NOT_PAID_HERE))
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


def _failed_after_all(conn: Connection, order: OrderRow, row: Row[Any], told: Refund, teller: Teller) -> str:
    """Take a booked refund back: the money is with us again, and a person must find another way to the customer."""
    amount = Money(int(row.amount_minor), row.currency)
    values = {"state": "failed", "last_error": f"the payment service reports it as {told.status}"}
    values["stripe_refund_id"] = told.refund_id  # what was in totals told before must be known again
    conn.execute(update(refunds).where(refunds.c.refund_key == row.refund_key).values(**values))
    micros = _booked_micros(conn, row.refund_key)
    if micros:  # a refund of a payment that was never booked is not booked either
        ledger.post(conn, f"{row.refund_key}:failed", order.order_id, ledger.refund(-amount, -micros), row.esim_n)
    if row.esim_n is not None:
        count_refunded(conn, order, teller.now)
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


def _booked_micros(conn: Connection, posting_key: str) -> int:
    entries = ledger_entries.c
    booked = select(entries.amount_micros).where(
        entries.posting_key == posting_key, entries.account == ledger.Account.REFUNDS
    )
    return int(conn.scalar(booked) or 0)


def _note(conn: Connection, order: OrderRow, reason: str, details: dict[str, object], teller: Teller) -> None:
    event = Event(order.order_id, order.status, order.status, reason, teller.actor, teller.now, None, None, details)
    note(conn, [event])
