"""The end of a round that bought nothing: the unit waits for its next one, or is given up and its price goes back.

While its order is held neither happens: the unit waits for a person as those in the queue do.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, func, select

from esim.errors import LeaseLost
from esim.orders import UnitStatus
from esim.provisioning import Exhausted, Held, Waiting, retry_delay_minutes
from resources.db import notices
from resources.db.leases import holds_lease, lock_unit
from resources.db.order_store import Claim
from resources.db.refunds import request_unit_refund
from resources.db.settlement import Scribe
from resources.db.tables import esims, purchase_attempts
from resources.db.transitions import OrderRow, UnitRow, lock_order, lock_units, move_unit, settle_order

LAST_CHANCE = timedelta(seconds=60)  # the last round starts this long before the customer's deadline


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a unit is tried again, and whether its price goes back by itself."""

    max_retries: int
    auto_refund: bool


def end_round(
    engine: Engine, claim: Claim, result: Exhausted | Waiting | Held, policy: RetryPolicy, scribe: Scribe
) -> UnitStatus:
    """Put a unit back for later, give it up or leave it to a person; return the state it is in then.

    Raises:
        LeaseLost: the unit is another worker's by now; nothing was written.
    """
    with engine.begin() as conn:
        order, unit = lock_order(conn, claim.order_id), lock_unit(conn, claim.esim_id)
        if not holds_lease(unit, claim):
            raise LeaseLost(f"unit {claim.esim_id} is another worker's")
        if order.hold_reason is not None:
            _stop(conn, unit, result, order.hold_reason, scribe)
        elif isinstance(result, Held):
            _go_on(conn, unit, scribe)
        elif (again_at := next_round_at(claim, result, policy, scribe.now)) is None:
            give_up(conn, order, unit, result, policy, scribe)
        else:
            _wait(conn, unit, result, again_at, scribe)
        reason = f"eSIM {unit.n} is {unit.status}"
        order = settle_order(
            conn, order.order_id, reason=reason, actor=scribe.actor, now=scribe.now, run_id=scribe.run_id
        )
        notices.tell_of_changes(conn, order, lock_units(conn, order.order_id), scribe.now)
        return unit.status


def next_round_at(claim: Claim, result: Exhausted | Waiting, policy: RetryPolicy, now: datetime) -> datetime | None:
    """Return when a unit is tried again; None when it is given up.

    Delays are 5, 15 and 60 minutes; one that would end beyond the customer's deadline is cut to a last chance just
    before it.
    """
    if isinstance(result, Waiting):
        again_at = now + timedelta(seconds=result.delay_seconds)
        return again_at if again_at < claim.deadline_at else None
    if not result.retryable or claim.failures >= policy.max_retries:
        return None
    again_at = now + timedelta(minutes=retry_delay_minutes(claim.failures + 1))
    again_at = min(again_at, claim.deadline_at - LAST_CHANCE)
    return again_at if again_at > now else None


def give_up(
    conn: Connection, order: OrderRow, unit: UnitRow, why: Exhausted | Waiting, policy: RetryPolicy, scribe: Scribe
) -> None:
    """Fail a unit of a locked order, tell operations, and ask for its price to go back where that is on."""
    reason = f"given up: {why.error_type}: {why.message}" if isinstance(why, Exhausted) else f"given up: {why.reason}"
    errors = {"last_error": reason[:500]} | ({"last_error_type": why.error_type} if isinstance(why, Exhausted) else {})
    move_unit(
        conn,
        unit,
        UnitStatus.FAILED,
        reason=reason[:500],
        actor=scribe.actor,
        now=scribe.now,
        run_id=scribe.run_id,
        values=errors | {"next_attempt_at": None, "slot_wait_since": None},
    )
    notices.tell_unit_failed(conn, order, unit, reason[:300])
    if policy.auto_refund:
        request_unit_refund(conn, order, unit, "the eSIM could not be delivered")


def _stop(
    conn: Connection, unit: UnitRow, result: Exhausted | Waiting | Held, hold_reason: str, scribe: Scribe
) -> None:
    """Leave a unit of a held order to the person who decides about the order."""
    values: dict[str, object] = {"next_attempt_at": None}
    if isinstance(result, Exhausted):
        values |= {"last_error_type": result.error_type, "last_error": result.message[:500]}
    move_unit(
        conn,
        unit,
        UnitStatus.ATTENTION,
        reason=hold_reason,
        actor=scribe.actor,
        now=scribe.now,
        run_id=scribe.run_id,
        values=values,
    )


def _go_on(conn: Connection, unit: UnitRow, scribe: Scribe) -> None:
    """Queue a unit again whose hold was released before its worker put it aside: the round goes on where it was."""
    reason = "the hold was released"
    move_unit(conn, unit, UnitStatus.QUEUED, reason=reason, actor=scribe.actor, now=scribe.now, run_id=scribe.run_id)
    unit.next_attempt_at = scribe.now


def _wait(conn: Connection, unit: UnitRow, result: Exhausted | Waiting, again_at: datetime, scribe: Scribe) -> None:
    values: dict[str, object] = {"next_attempt_at": again_at}
    if isinstance(result, Waiting) and result.for_slot:
        values["slot_wait_since"] = func.coalesce(esims.c.slot_wait_since, scribe.now)
    else:
        newest = select(func.coalesce(func.max(purchase_attempts.c.number), 0))
        newest = newest.where(purchase_attempts.c.esim_id == unit.esim_id)
        values |= {"slot_wait_since": None, "round_from": newest.scalar_subquery()}
    if isinstance(result, Exhausted):
        values |= {"failures": unit.failures + 1, "last_error_type": result.error_type}
        values["last_error"] = result.message[:500]
    reason = result.reason if isinstance(result, Waiting) else f"every offer refused: {result.error_type}"
    move_unit(
        conn,
        unit,
        UnitStatus.QUEUED,
        reason=reason,
        actor=scribe.actor,
        now=scribe.now,
        run_id=scribe.run_id,
        details={"again_at": again_at.isoformat()},
        values=values,
    )
    unit.next_attempt_at = again_at
