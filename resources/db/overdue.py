"""Purchases that are still open at the customer's deadline: the price goes back, and looking for the eSIM goes on.

The unit is given up in the same way as one that nobody would sell. Its attempt stays open: whatever it turns out to
have bought goes to stock, is booked and is never delivered, so the customer has the money or the eSIM, never both.
"""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, Engine, update

from esim.orders import UnitStatus
from esim.provisioning import Exhausted
from esim.purchase import ErrorType
from resources.db import notices
from resources.db.leases import lock_unit
from resources.db.rounds import RetryPolicy, give_up
from resources.db.settlement import Scribe
from resources.db.tables import OPEN_STATES, purchase_attempts
from resources.db.transitions import OrderRow, UnitRow, lock_order, lock_units, move_unit, settle_locked

LOOK_AGAIN = timedelta(minutes=5)


def give_up_overdue(engine: Engine, esim_id: UUID, order_id: UUID, policy: RetryPolicy, scribe: Scribe) -> bool:
    """Fail and refund a unit whose purchase is open past the customer's deadline; return whether it was.

    Called after a look-up without an end, so that nothing is given up unasked, however long nobody worked. Where
    refunds are not automatic, and for an order that a person holds, a person is told instead.
    """
    with engine.begin() as conn:
        order, unit = lock_order(conn, order_id), lock_unit(conn, esim_id)
        if unit.status not in {UnitStatus.PENDING, UnitStatus.UNKNOWN} or not _is_over(order, scribe.now):
            return False
        reason = f"past the customer's deadline and still {unit.status} at the provider"
        if policy.auto_refund and order.hold_reason is None:
            look_on(conn, unit, scribe.now)
            give_up(conn, order, unit, Exhausted(False, ErrorType.PROVIDER_TIMEOUT, reason), policy, scribe)
        else:
            move_unit(conn, unit, UnitStatus.ATTENTION, reason=reason, actor=scribe.actor, now=scribe.now)
            notices.tell_attention(conn, order, unit, reason)
        units = lock_units(conn, order_id)
        settle_locked(conn, order, units, reason=reason, actor=scribe.actor, now=scribe.now, run_id=scribe.run_id)
        notices.tell_of_changes(conn, order, units, scribe.now)
        return True


def _is_over(order: OrderRow, now: datetime) -> bool:
    return order.deadline_at is not None and order.deadline_at <= now


def look_on(conn: Connection, unit: UnitRow, now: datetime) -> None:
    """From here on the attempt itself says when it is looked up next: its unit has an end."""
    a = purchase_attempts.c
    is_open = (a.esim_id == unit.esim_id) & a.state.in_(OPEN_STATES)
    conn.execute(update(purchase_attempts).where(is_open).values(look_at=now + LOOK_AGAIN))
