"""Orders that should be done by now: found, nudged, and shown to a person where nothing is left to wait for."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Engine, select, update

from esim.orders import OrderStatus, UnitStatus
from resources.db import notices
from resources.db.refunds import request_unit_refund
from resources.db.tables import OPEN_STATES, esims, orders, purchase_attempts
from resources.db.transitions import UnitRow, lock_order, lock_units, move_unit, settle_order

_OPEN = frozenset({UnitStatus.PENDING, UnitStatus.UNKNOWN})


def stuck_orders(conn: Connection, paid_before: datetime, limit: int = 500) -> list[UUID]:
    """Return orders that were paid before a moment and are still being worked on, oldest first."""
    working = (OrderStatus.PAID, OrderStatus.PROCESSING)
    found = select(orders.c.order_id).where(orders.c.status.in_(working), orders.c.paid_at < paid_before)
    return list(conn.scalars(found.order_by(orders.c.paid_at).limit(limit)))


def nudge_order(engine: Engine, order_id: UUID, actor: str, now: datetime) -> None:
    """Make every unit of an order due at once; one that waits for a purchase that does not exist needs a person."""
    with engine.begin() as conn:
        order = lock_order(conn, order_id)
        units = lock_units(conn, order_id)
        for unit in units:
            if unit.status in _OPEN and not _has_open_attempt(conn, unit):
                reason = f"it is {unit.status}, but no purchase of it is open"
                move_unit(conn, unit, UnitStatus.ATTENTION, reason=reason, actor=actor, now=now)
                notices.tell_attention(conn, order, unit, reason)
            elif unit.status in _OPEN or _never_due(unit):
                conn.execute(update(esims).where(esims.c.esim_id == unit.esim_id).values(next_attempt_at=now))
            elif unit.status is UnitStatus.WORKING and unit.lease_until is None:
                conn.execute(update(esims).where(esims.c.esim_id == unit.esim_id).values(lease_until=now))
        settle_order(conn, order_id, reason="checked: it takes too long", actor=actor, now=now)


def refund_failed_units(engine: Engine, actor: str, now: datetime, limit: int = 500) -> int:
    """Ask for the price of given-up units to go back where nobody asked yet; return how many were asked for."""
    unrefunded = select(esims.c.order_id).where(esims.c.status == UnitStatus.FAILED).distinct().limit(limit)
    with engine.connect() as conn:
        found = list(conn.scalars(unrefunded))
    asked = 0
    for order_id in found:
        with engine.begin() as conn:
            order = lock_order(conn, order_id)
            for unit in lock_units(conn, order_id):
                if unit.status is UnitStatus.FAILED:
                    asked += request_unit_refund(conn, order, unit, "the eSIM could not be delivered")
    return asked


def _has_open_attempt(conn: Connection, unit: UnitRow) -> bool:
    a = purchase_attempts.c
    live = select(a.attempt_id).where(a.esim_id == unit.esim_id, a.state.in_(OPEN_STATES)).limit(1)
    return conn.scalar(live) is not None


def _never_due(unit: UnitRow) -> bool:
    return unit.status is UnitStatus.QUEUED and unit.next_attempt_at is None
