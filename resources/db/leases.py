"""Leases on units: prolonged by those who work, taken back from those who are gone.

Every later write of a worker asks `holds_lease` under the unit's row lock; taking a unit back raises its fencing
number, so a worker that wakes up late changes nothing any more.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, Engine, func, select, update

from esim.orders import UnitStatus
from esim.purchase import ErrorType
from resources.db import notices
from resources.db.order_store import LEASE_SECONDS, Claim
from resources.db.tables import esims, purchase_attempts
from resources.db.transitions import UNIT_COLUMNS, UnitRow, lock_order, lock_units, move_unit, settle_order, unit_row


def extend_leases(engine: Engine, owner: str, units: Sequence[UUID], now: datetime) -> dict[UUID, int]:
    """Give `owner` a full lease again on those of `units` that are still its own; return those with their fences."""
    if not units:
        return {}
    # Units locked right now are being written by their own worker; waiting for several rows here could deadlock.
    mine = (
        select(esims.c.esim_id)
        .where(esims.c.esim_id.in_(units), esims.c.lease_owner == owner, esims.c.status == UnitStatus.WORKING)
        .with_for_update(skip_locked=True)
        .cte("mine")
    )
    until = now + timedelta(seconds=LEASE_SECONDS)
    extended = update(esims).where(esims.c.esim_id == mine.c.esim_id).values(lease_until=until)
    extended = extended.returning(esims.c.esim_id, esims.c.fence)
    with engine.begin() as conn:
        return {row.esim_id: int(row.fence) for row in conn.execute(extended)}


def reclaim_expired(engine: Engine, actor: str, now: datetime, *, limit: int = 100, run_id: str | None = None) -> int:
    """Take units back from workers whose lease is over; return how many.

    An intent that was never cleared for sending is proven not bought: the unit waits for the next worker. A purchase
    that may be on the wire becomes unknown: it is looked up before anybody else is asked.
    """
    expired = select(esims.c.esim_id, esims.c.order_id).where(
        esims.c.status == UnitStatus.WORKING, esims.c.lease_until < now
    )
    with engine.connect() as conn:
        found = conn.execute(expired.order_by(esims.c.lease_until).limit(limit)).all()
    return sum(_reclaim(engine, row.esim_id, row.order_id, actor, now, run_id) for row in found)


def lock_unit(conn: Connection, esim_id: UUID) -> UnitRow:
    """Lock one unit's row and return it; the caller holds its order's lock."""
    return unit_row(conn.execute(select(*UNIT_COLUMNS).where(esims.c.esim_id == esim_id).with_for_update()).one())


def holds_lease(unit: UnitRow, claim: Claim) -> bool:
    """Return whether a locked unit still belongs to a claim."""
    return (unit.status, unit.fence, unit.lease_owner) == (UnitStatus.WORKING, claim.fence, claim.owner)


def _reclaim(engine: Engine, esim_id: UUID, order_id: UUID, actor: str, now: datetime, run_id: str | None) -> bool:
    with engine.begin() as conn:
        lock_order(conn, order_id)
        unit = lock_unit(conn, esim_id)
        if unit.status is not UnitStatus.WORKING or unit.lease_until is None or unit.lease_until >= now:
            return False
        conn.execute(update(esims).where(esims.c.esim_id == esim_id).values(fence=esims.c.fence + 1))
        target, reason = _after_lost_worker(conn, unit, now)
        move_unit(
            conn, unit, target, reason=reason, actor=actor, now=now, run_id=run_id, values={"next_attempt_at": now}
        )
        order = settle_order(conn, order_id, reason=reason, actor=actor, now=now, run_id=run_id)
        # Where the order is held, this may have been the last unit in work.
        notices.tell_of_changes(conn, order, lock_units(conn, order_id), now)
        return True


def _after_lost_worker(conn: Connection, unit: UnitRow, now: datetime) -> tuple[UnitStatus, str]:
    attempt = purchase_attempts.c
    live = select(attempt.attempt_id, attempt.state).where(
        attempt.esim_id == unit.esim_id, attempt.state.in_(("intent", "prepared", "pending", "unknown", "provisioned"))
    )
    row = conn.execute(live.with_for_update()).one_or_none()
    if row is None:
        return UnitStatus.QUEUED, "its worker is gone; nothing is open"
    change = update(purchase_attempts).where(attempt.attempt_id == row.attempt_id)
    if row.state == "intent":
        reason = "its worker was gone before anything was sent"
        values = {"state": "rejected", "error_type": ErrorType.NOT_BOUGHT, "error": reason, "finished_at": now}
        conn.execute(change.values(**values))
        return UnitStatus.QUEUED, reason
    if row.state == "prepared":
        reason = "its worker is gone; the purchase may have been sent"
        # A worker sends only well within its lease by its own clock, which may have stood still until now.
        latest = func.greatest(attempt.sent_at, unit.lease_until, now)
        values = {"state": "unknown", "error_type": ErrorType.UNKNOWN, "error": reason}
        conn.execute(change.values(**values, sent_at=latest))
        return UnitStatus.UNKNOWN, reason
    if row.state == "provisioned":
        return UnitStatus.ATTENTION, "it was queued again although a purchase for it succeeded"
    return UnitStatus.UNKNOWN, "its worker is gone; a purchase is open"
