"""Orders that should be done by now: found, nudged, and shown to a person where nothing is left to wait for."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Engine, and_, or_, select, update

from esim.orders import OrderStatus, UnitStatus
from resources.db import notices
from resources.db.refunds import request_unit_refund
from resources.db.tables import OPEN_STATES, esims, orders, purchase_attempts
from resources.db.transitions import OrderRow, UnitRow, lock_order, lock_units, move_unit, settle_order

_WORKED_ON = (OrderStatus.PAID, OrderStatus.PROCESSING)
_OPEN = frozenset({UnitStatus.PENDING, UnitStatus.UNKNOWN})
_UNFINISHED = (UnitStatus.UNPAID, UnitStatus.WORKING, *sorted(_OPEN))


def stuck_orders(conn: Connection, paid_before: datetime, now: datetime, limit: int = 500) -> list[UUID]:
    """Return orders that were paid before a moment and should be done by now, oldest first.

    One whose units all wait for their next try, within the customer's deadline, is not stuck.
    """
    o, e = orders.c, esims.c
    unit = select(e.esim_id).where(e.order_id == o.order_id)
    due = or_(e.next_attempt_at.is_(None), e.next_attempt_at <= now, o.deadline_at.is_(None), o.deadline_at <= now)
    at_fault = unit.where(or_(e.status.in_(_UNFINISHED), and_(e.status == UnitStatus.QUEUED, due))).exists()
    waits = unit.where(e.status == UnitStatus.QUEUED).exists()
    found = select(o.order_id).where(o.status.in_(_WORKED_ON), o.paid_at < paid_before, or_(at_fault, ~waits))
    return list(conn.scalars(found.order_by(o.paid_at).limit(limit)))


def nudge_order(engine: Engine, order_id: UUID, actor: str, now: datetime) -> None:
    """Make every unit of an order due at once; one that waits for what does not exist needs a person.

    An order that is not paid, has its end or is a person's already is left alone.
    """
    with engine.begin() as conn:
        order = lock_order(conn, order_id)
        if order.status not in _WORKED_ON:
            return
        for unit in lock_units(conn, order_id):
            if reason := _hopeless(conn, unit):
                _raise(conn, order, unit, reason, actor, now)
            elif unit.status in _OPEN or (unit.status is UnitStatus.QUEUED and _should_be_due(order, unit, now)):
                conn.execute(update(esims).where(esims.c.esim_id == unit.esim_id).values(next_attempt_at=now))
            elif unit.status is UnitStatus.WORKING and unit.lease_until is None:
                conn.execute(update(esims).where(esims.c.esim_id == unit.esim_id).values(lease_until=now))
        settle_order(conn, order_id, reason="checked: it takes too long", actor=actor, now=now)


def show_stuck_order(engine: Engine, order_id: UUID, actor: str, now: datetime) -> bool:
    """Show an order to a person that a check did not move on although its deadline is over; return whether it was.

    A unit that a worker holds right now is left to it, and so is everything within the customer's deadline.
    """
    with engine.begin() as conn:
        order = lock_order(conn, order_id)
        if order.deadline_at is not None and now < order.deadline_at:
            return False
        shown = False
        for unit in lock_units(conn, order_id):
            held = unit.status is UnitStatus.WORKING and unit.lease_until is not None and unit.lease_until > now
            if unit.status in {UnitStatus.QUEUED, *_UNFINISHED} and not held:
                reason = f"it is {unit.status} long after the payment, and checking did not move it on"
                shown |= _raise(conn, order, unit, reason, actor, now)
        settle_order(conn, order_id, reason="checked: it takes too long", actor=actor, now=now)
    return shown


def refund_failed_units(engine: Engine, actor: str, now: datetime, limit: int = 500) -> int:
    """Ask for the price of given-up units to go back where nobody asked yet; return how many were asked for.

    Those of an order that is held wait for the person who decides about it.
    """
    unrefunded = select(esims.c.order_id).join(orders, orders.c.order_id == esims.c.order_id).distinct().limit(limit)
    unrefunded = unrefunded.where(esims.c.status == UnitStatus.FAILED, orders.c.hold_reason.is_(None))
    with engine.connect() as conn:
        found = list(conn.scalars(unrefunded))
    asked = 0
    for order_id in found:
        with engine.begin() as conn:
            order = lock_order(conn, order_id)
            if order.hold_reason is not None:  # by now
                continue
            for unit in lock_units(conn, order_id):
                if unit.status is UnitStatus.FAILED:
                    asked += request_unit_refund(conn, order, unit, "the eSIM could not be delivered")
    return asked


def _has_open_attempt(conn: Connection, unit: UnitRow) -> bool:
    a = purchase_attempts.c
    live = select(a.attempt_id).where(a.esim_id == unit.esim_id, a.state.in_(OPEN_STATES)).limit(1)
    return conn.scalar(live) is not None


def _hopeless(conn: Connection, unit: UnitRow) -> str:
    """Return why nothing will ever move a unit on; empty where something may."""
    if unit.status in _OPEN and not _has_open_attempt(conn, unit):
        return f"it is {unit.status}, but no purchase of it is open"
    return "its order is paid, but it was never queued" if unit.status is UnitStatus.UNPAID else ""


def _should_be_due(order: OrderRow, unit: UnitRow, now: datetime) -> bool:
    overdue = order.deadline_at is None or order.deadline_at <= now
    return unit.next_attempt_at is None or (overdue and unit.next_attempt_at > now)


def _raise(conn: Connection, order: OrderRow, unit: UnitRow, reason: str, actor: str, now: datetime) -> bool:
    moved = move_unit(conn, unit, UnitStatus.ATTENTION, reason=reason, actor=actor, now=now)
    notices.tell_attention(conn, order, unit, reason)
    return moved
