"""Money that goes back: requested in the transaction that gives a unit up, paid once under a stable key, booked.

`refund_key` is the payment service's idempotency key too. The service forgets keys after a day, so whoever tries a
refund again first asks for the one made under its key.
A refund of a unit belongs to the order's amount; one without a unit (a second payment, say) does not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from sqlalchemy import Connection, Engine, func, select, update
from sqlalchemy.dialects.postgresql import insert

from esim.money import Money, exponent
from esim.orders import UNIT_TRANSITIONS, UnitStatus
from esim.ports import Refund
from resources.db import ledger, notices
from resources.db.refunded import count_refunded, not_attributed
from resources.db.tables import esims, ledger_entries, order_items, refunds
from resources.db.transitions import OrderRow, UnitRow, lock_order, lock_units, move_unit, settle_order
from resources.db.valuation import share_of_payment

_RETRY_FIRST = timedelta(seconds=10)
_RETRY_MOST = timedelta(hours=1)
_IN_FLIGHT = timedelta(minutes=2)  # nobody else tries the same refund while one does
STANDING = frozenset({UnitStatus.DELIVERED, UnitStatus.REFUNDED})
_PAID = frozenset({"succeeded", "pending"})  # pending: accepted, on its way to the card


@dataclass(frozen=True, slots=True)
class DueRefund:
    """One refund to pay."""

    refund_key: str
    order_id: UUID
    esim_n: int | None
    payment_intent: str
    amount: Money
    reason: str
    attempts: int
    faults: int = 0


def request_refund(
    conn: Connection, *, key: str, order_id: UUID, payment_intent: str, amount: Money, reason: str, esim_n: int | None
) -> bool:
    """Ask for money to go back, once per key (again after it was called off); it is paid after the commit."""
    row = {"refund_key": key, "order_id": order_id, "esim_n": esim_n, "payment_intent": payment_intent}
    return _request(conn, row | {"amount_minor": amount.minor, "currency": amount.currency, "reason": reason})


def request_unit_refund(
    conn: Connection,
    order: OrderRow,
    unit: UnitRow,
    reason: str,
    *,
    asked_by: str | None = None,
    key: str | None = None,
) -> bool:
    """Ask for one unit's price to go back; nothing can be paid back where nothing was paid.

    `asked_by` names the operator who asked: only then is a unit paid back as it stands, delivered or paid back in vain
    when this is called. `key` is another than the unit's own where that one was refused for good.
    """
    if order.payment_intent is None:
        return False
    row = {
        "refund_key": key or unit_refund_key(order.order_id, unit.n),
        "order_id": order.order_id,
        "esim_n": unit.n,
        "payment_intent": order.payment_intent,
        "amount_minor": unit_price(conn, unit),
        "currency": order.currency,
        "reason": reason,
        "asked_by": asked_by,
        "as_it_stands": asked_by is not None and unit.status in STANDING,
    }
    return _request(conn, row)


def unit_refund_key(order_id: UUID, n: int) -> str:
    """Return the key of a unit's refund, the same for whoever asks for it."""
    return f"refund:{order_id}:{n}"


def unit_price(conn: Connection, unit: UnitRow) -> int:
    """Return what was paid for a unit, in minor units of its order's currency."""
    price = conn.scalar(select(order_items.c.unit_price_minor).where(order_items.c.item_id == unit.item_id))
    return int(price or 0)


def _request(conn: Connection, row: Mapping[str, object]) -> bool:
    r, asked = refunds.c, insert(refunds).values(**row)
    fresh = {"state": "requested", "next_attempt_at": func.now(), "finished_at": None, "last_error": None}
    who = {name: asked.excluded[name] for name in ("reason", "asked_by", "as_it_stands")}
    # One that waits is changed only from a unit that was given up to one as it stands, or the other way round.
    other = (r.state == "requested") & (r.as_it_stands != asked.excluded.as_it_stands)
    asked = asked.on_conflict_do_update(
        index_elements=[r.refund_key], set_=fresh | who, where=(r.state == "called_off") | other
    )
    return conn.scalar(asked.returning(r.refund_key)) is not None


def claim_refunds(engine: Engine, limit: int) -> list[DueRefund]:
    """Give out at most `limit` refunds that are due by the store's clock, each to one caller at a time."""
    r = refunds.c
    due = (
        select(r.refund_key)
        .where(r.state == "requested", r.next_attempt_at <= func.now())
        .order_by(r.next_attempt_at, r.refund_key)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    taken = update(refunds).where(r.refund_key == due.c.refund_key)
    taken = taken.values(attempts=r.attempts + 1, next_attempt_at=func.now() + _IN_FLIGHT)
    columns = (
        r.refund_key,
        r.order_id,
        r.esim_n,
        r.payment_intent,
        r.amount_minor,
        r.currency,
        r.reason,
        r.attempts,
        r.faults,
    )
    with engine.begin() as conn:
        return [
            DueRefund(key, order_id, n, intent, Money(int(minor), currency), reason, int(attempts), int(faults))
            for key, order_id, n, intent, minor, currency, reason, attempts, faults in conn.execute(
                taken.returning(*columns)
            )
        ]


def hasten_refunds(conn: Connection, order_id: UUID | None = None) -> list[str]:
    """Make refunds that back off due at once, an order's or (None) everybody's; return their keys.

    What is due within two minutes is left alone: it needs nobody, or is being paid this moment.
    """
    r = refunds.c
    waiting = [r.state == "requested", r.next_attempt_at > func.now() + _IN_FLIGHT]
    if order_id is not None:
        waiting.append(r.order_id == order_id)
    free = select(r.refund_key).where(*waiting).with_for_update(skip_locked=True).cte("free")
    again = update(refunds).where(r.refund_key == free.c.refund_key).values(next_attempt_at=func.now())
    return sorted(conn.scalars(again.returning(r.refund_key)))


def still_due(conn: Connection, due: DueRefund, now: datetime, actor: str = "refunds") -> bool:
    """Return whether a claimed refund should be paid: its unit may have been taken up again meanwhile.

    A unit that is not given up is paid back only where an operator asked for just that. A refund that is not due any
    more is called off in this transaction; one that somebody may have paid by hand is left to a person.
    """
    if due.esim_n is None:
        return True
    order = lock_order(conn, due.order_id)
    row = conn.execute(
        select(refunds.c.state, refunds.c.as_it_stands, refunds.c.asked_by, esims.c.status)
        .join_from(refunds, esims, (esims.c.order_id == refunds.c.order_id) & (esims.c.n == refunds.c.esim_n))
        .where(refunds.c.refund_key == due.refund_key)
    ).one()
    status = UnitStatus(row.status)
    if row.state != "requested":
        return False
    if status in {UnitStatus.FAILED, UnitStatus.ATTENTION} or (status in STANDING and row.as_it_stands):
        if why := _paid_already(conn, order, due, row.asked_by):
            reason = f"eSIM {due.esim_n} may be paid back already: {why}"
            record_refusal(conn, due, why, final=True, actor=actor, now=now, reason=reason)
            return False
        return True
    values = {"state": "called_off", "last_error": f"the unit is {status} again", "finished_at": now}
    conn.execute(update(refunds).where(refunds.c.refund_key == due.refund_key).values(**values))
    return False


def _paid_already(conn: Connection, order: OrderRow, due: DueRefund, asked_by: str | None) -> str | None:
    """Return why a unit's refund might pay twice: nobody said which eSIMs a refund made by hand was for."""
    left = Money(order.amount_minor - order.refunded_minor, order.currency)
    if due.amount.minor > left.minor:
        return f"only {left} of its payment is left"
    by_hand = Money(max(not_attributed(conn, order), 0), order.currency)
    if asked_by is None and by_hand.minor >= due.amount.minor:
        return f"{by_hand} went back by hand, and no eSIM is written down for it"
    return None


def record_refund(conn: Connection, due: DueRefund, paid: Refund, *, actor: str, now: datetime) -> None:
    """Book a refund the payment service accepted: the row, the ledger, the unit, the order and the customer's mail."""
    order = lock_order(conn, due.order_id)
    state = "succeeded" if paid.status == "succeeded" else "sent"
    done = update(refunds).where(refunds.c.refund_key == due.refund_key, refunds.c.state == "requested")
    values = {"state": state, "stripe_refund_id": paid.refund_id, "finished_at": now, "last_error": None}
    if conn.scalar(done.values(**values).returning(refunds.c.refund_key)) is None:
        return
    micros = _usd_micros(conn, due)
    if micros is not None:  # a payment that was never booked only comes and goes
        ledger.post(conn, due.refund_key, due.order_id, ledger.refund(due.amount, micros), due.esim_n)
    if due.esim_n is not None:
        _refund_unit(conn, order, due, actor, now)


def record_refusal(
    conn: Connection,
    due: DueRefund,
    error: str,
    *,
    final: bool,
    actor: str,
    now: datetime,
    reason: str | None = None,
    refund_id: str | None = None,
) -> None:
    """Note that a refund was not paid: it is tried again later, or a person looks when it was refused for good.

    `refund_id` is the payment service's, of one that it made and that failed there.
    """
    order = lock_order(conn, due.order_id)
    wait = min(_RETRY_FIRST * 2 ** min(due.attempts, 12), _RETRY_MOST)
    values: dict[str, object] = {"last_error": error[:500], "next_attempt_at": func.now() + wait}
    if final:
        values |= {"state": "failed", "finished_at": now, "stripe_refund_id": refund_id}
        reason = reason or f"refund {due.refund_key} was refused by the payment service"
        notices.hold_and_tell(conn, order, reason=reason, actor=actor, now=now)
        text = f"Order {order.display_id} needs a person: {reason}: {error[:200]}"
        notices.tell_operations(conn, due.order_id, "attention", f"attention:{due.refund_key}", text)
    conn.execute(update(refunds).where(refunds.c.refund_key == due.refund_key).values(**values))


def count_fault(conn: Connection, due: DueRefund) -> None:
    """Let a refund that the payment service failed to pay be asked for as another request, where that is safe.

    It is where the refund is more than half of its payment: the payment service pays back no more than was paid, so of
    two requests it refuses one, whatever became of the first. Any other is asked for under the same key until the
    payment service has forgotten it.
    """
    e = ledger_entries.c
    booked = (e.posting_key == f"payment:{due.payment_intent}", e.account == ledger.Account.CASH)
    paid = conn.scalar(select(e.original_amount).where(*booked, e.original_currency == due.amount.currency))
    if paid is not None and 2 * Decimal(due.amount.minor).scaleb(-exponent(due.amount.currency)) > paid:
        counted = update(refunds).where(refunds.c.refund_key == due.refund_key, refunds.c.faults == due.faults)
        conn.execute(counted.values(faults=due.faults + 1))


def paid_back(refund: Refund) -> bool:
    """Return whether the payment service accepted the refund."""
    return refund.status in _PAID


def _refund_unit(conn: Connection, order: OrderRow, due: DueRefund, actor: str, now: datetime) -> None:
    count_refunded(conn, order, now)
    units = lock_units(conn, due.order_id)
    for unit in (one for one in units if one.n == due.esim_n and one.status is not UnitStatus.REFUNDED):
        possible = UnitStatus.REFUNDED in UNIT_TRANSITIONS[unit.status]
        target = UnitStatus.REFUNDED if possible else UnitStatus.ATTENTION
        reason = f"paid back: {due.reason}" if possible else f"paid back while it was {unit.status}"
        move_unit(conn, unit, target, reason=reason, actor=actor, now=now, values={"refunded_at": now})
    order = settle_order(conn, due.order_id, reason=f"eSIM {due.esim_n} was paid back", actor=actor, now=now)
    notices.tell_of_changes(conn, order, units, now)


def _usd_micros(conn: Connection, due: DueRefund) -> int | None:
    """Return a refund's value in micro-USD: a unit's at its price, any other as its payment was booked."""
    if due.esim_n is None:
        return share_of_payment(conn, due.payment_intent, due.amount)
    i = order_items.c
    price = (
        select(i.unit_price_micros_usd)
        .join_from(order_items, esims, esims.c.item_id == i.item_id)
        .where(esims.c.order_id == due.order_id, esims.c.n == due.esim_n)
    )
    return int(conn.scalar(price) or 0)


def late_refunds(conn: Connection, late: timedelta) -> int:
    """Return how many refunds have been due for longer than `late`: nobody is paying them."""
    r = refunds.c
    waiting = (r.state == "requested", r.next_attempt_at <= func.now() - late)
    return int(conn.scalar(select(func.count()).select_from(refunds).where(*waiting)) or 0)
