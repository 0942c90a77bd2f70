"""An operator puts units back in the queue: at once, with a new deadline or without a hold where that is said."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, func, select, update

from esim.errors import Refused
from esim.orders import UnitStatus
from resources.db.audit import Operator
from resources.db.operator_actions import (
    REFUND_UNDER_WAY,
    Done,
    OrderCase,
    check_paid,
    chosen,
    close_case,
    is_undecided,
    open_case,
    purchase_in_the_way,
    release_hold,
)
from resources.db.operator_goodwill import check_is_paid_for
from resources.db.outages import end_rests_of
from resources.db.tables import esims, orders, purchase_attempts
from resources.db.transitions import UnitRow

_WORTH_EXTENDING = timedelta(minutes=1)
_IN_WORK = frozenset({UnitStatus.WORKING, UnitStatus.PENDING, UnitStatus.UNKNOWN})  # may be bought without the hold
_ENDED = {
    UnitStatus.DELIVERED: "is delivered",
    UnitStatus.REFUNDED: "is paid back",
    UnitStatus.CANCELLED: "was cancelled unpaid",
}


@dataclass(frozen=True, slots=True)
class RetryOptions:
    """Which units (none means all that can be), how many minutes the customer is to wait at most, and the hold.

    `goodwill`: deliver although the bank or the customer has the money.
    """

    units: tuple[int, ...] = ()
    extend_minutes: int | None = None
    release_hold: bool = False
    goodwill: bool = False


def retry_order(conn: Connection, order_id: UUID, who: Operator, options: RetryOptions) -> Done:
    """Let failed, waiting and attention units of a paid order be bought at once, with all their retries again.

    Raises:
        NotFound: there is no such order.
        Refused: it would buy twice, for nobody or for who has the money, or nothing of it can be tried again.
    """
    case = open_case(conn, order_id, who)
    check_paid(case)
    wanted = chosen(case, options.units)
    if is_undecided(case) and len(wanted) < len(case.units):
        raise Refused(f"order {case.order.display_id} was never queued: decide about all its eSIMs at once")
    was_held = case.order.hold_reason is not None
    release_hold(case, options.release_hold)
    again = _again(case, wanted, named=bool(options.units))
    in_work = [unit for unit in case.units if was_held and unit.status in _IN_WORK]
    check_is_paid_for(case, [*again, *in_work], goodwill=options.goodwill)
    _extend_deadline(case, options.extend_minutes)
    _check_deadline(case, again)
    for unit in again:
        _queue(case, unit)
    details: dict[str, object] = {"units": [unit.n for unit in again]}
    return close_case(case, "order retry", details | ({"goodwill": True} if options.goodwill else {}))


def _again(case: OrderCase, wanted: Sequence[UnitRow], *, named: bool) -> list[UnitRow]:
    """Return the units to queue; those that are due already need nothing."""
    idle = [unit for unit in wanted if unit.status is not UnitStatus.WORKING]
    case.left_alone.extend(f"{case.named(unit)} is being worked on right now" for unit in wanted if unit not in idle)
    verdicts = [(unit, _why_not(case, unit)) for unit in idle]
    refused = [why for _, why in verdicts if why is not None]
    able = [unit for unit, why in verdicts if why is None]
    if refused and (named or not (able or case.changes or case.left_alone)):
        raise Refused(f"order {case.order.display_id}: {'; '.join(refused)}")
    case.left_alone.extend(refused)
    return [unit for unit in able if not _is_due(unit, case.who.now)]


def _why_not(case: OrderCase, unit: UnitRow) -> str | None:
    if unit.status in _ENDED:
        return f"{case.named(unit)} {_ENDED[unit.status]}"
    if open_one := purchase_in_the_way(case, unit):
        return open_one
    if unit.esim_id in case.purchases:
        return f"a purchase of {case.named(unit)} succeeded"
    state = case.refund_state(unit)
    if state in REFUND_UNDER_WAY and unit.status is not UnitStatus.QUEUED:
        return f"the refund of {case.named(unit)} is {state}"
    return None


def _is_due(unit: UnitRow, now: datetime) -> bool:
    return unit.status is UnitStatus.QUEUED and unit.next_attempt_at is not None and unit.next_attempt_at <= now


def _extend_deadline(case: OrderCase, minutes: int | None) -> None:
    if minutes is None:
        return
    order, deadline = case.order, case.who.now + timedelta(minutes=minutes)
    if order.deadline_at is not None and deadline - order.deadline_at < _WORTH_EXTENDING:
        return
    order.deadline_at = deadline
    change = update(orders).where(orders.c.order_id == order.order_id)
    case.conn.execute(change.values(deadline_at=deadline, updated_at=case.who.now))
    case.remark(f"the customer's deadline is {deadline:%Y-%m-%d %H:%M} UTC now: {case.who.reason}")
    case.changes.append(f"the customer's deadline is {deadline:%Y-%m-%d %H:%M} UTC")


def _check_deadline(case: OrderCase, again: Sequence[UnitRow]) -> None:
    deadline = case.order.deadline_at
    if again and deadline is not None and deadline <= case.who.now:
        raise Refused(
            f"the customer's deadline of order {case.order.display_id} was {deadline:%Y-%m-%d %H:%M} UTC; it would be "
            "given up again at once. Add --extend-deadline MINUTES"
        )


def _queue(case: OrderCase, unit: UnitRow) -> None:
    """Queue a unit as if it had just been paid: what was refused before may be tried again, sold out or not."""
    end_rests_of(case.conn, unit.esim_id)
    newest = select(func.coalesce(func.max(purchase_attempts.c.number), 0))
    newest = newest.where(purchase_attempts.c.esim_id == unit.esim_id)
    afresh = {"failures": 0, "round_from": newest.scalar_subquery(), "slot_wait_since": None}
    if unit.status is UnitStatus.QUEUED:
        # The state is named so that those who listen for queued units wake up.
        values = {"status": UnitStatus.QUEUED, "next_attempt_at": case.who.now, "updated_at": case.who.now}
        case.conn.execute(update(esims).where(esims.c.esim_id == unit.esim_id).values(**values, **afresh))
        case.remark(f"tried again at once: {case.who.reason}", esim_n=unit.n)
    else:
        case.move(unit, UnitStatus.QUEUED, afresh)
    unit.next_attempt_at = case.who.now
    case.changes.append(f"{case.named(unit)} is tried again at once")
