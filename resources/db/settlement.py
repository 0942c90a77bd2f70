"""What became of a purchase, applied to its attempt, its unit and its order in one transaction.

`record_outcome` takes facts from anybody who learnt them: the worker that bought, a later look-up, even a worker that
lost its lease meanwhile. The order's lock and the attempt's state decide what a fact still changes: an open attempt
is the unit's only one (a unique index sees to it), so its eSIM goes to the unit; what an attempt that was already
closed turns out to have bought goes to stock and is never delivered.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, select, update
from sqlalchemy.exc import DataError, IntegrityError

from esim.orders import UnitStatus
from esim.provisioning import resolve_delay_seconds
from esim.purchase import ErrorType, EsimProfile, Outcome, Pending, Provisioned, Rejected, Unknown
from resources.db import ledger, notices
from resources.db.costs import booked_cost
from resources.db.deliveries import (
    SAME_ESIM,
    TAKES_DELIVERY,
    delivered_attempt,
    delivered_columns,
    iccid_lock,
)
from resources.db.late_doubts import look_again
from resources.db.leases import lock_unit
from resources.db.stock import keep_as_stock
from resources.db.tables import OPEN_STATES, esims, purchase_attempts
from resources.db.transitions import (
    Event,
    OrderRow,
    UnitRow,
    lock_order,
    lock_units,
    move_unit,
    note,
    settle_locked,
)
from resources.db.vault import Vault

_DUPLICATE = "duplicate_esim"


@dataclass(frozen=True, slots=True)
class Scribe:
    """Who writes, when, in which run, and with which keys."""

    vault: Vault
    actor: str
    now: datetime
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One attempt with its locked order and unit."""

    conn: Connection
    order: OrderRow
    unit: UnitRow
    attempt: Row[Any]
    latency_ms: int | None = None


def keep_outcome(
    engine: Engine, attempt_id: int, outcome: Outcome, scribe: Scribe, latency_ms: int | None = None
) -> UnitStatus:
    """Apply an outcome in a transaction of its own; one that the store cannot hold leaves the purchase unclear.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the store is away; nothing was written.
    """
    try:
        with engine.begin() as conn:
            return record_outcome(conn, attempt_id, outcome, scribe, latency_ms)
    except (DataError, ValueError) as error:
        unclear = Unknown(ErrorType.UNKNOWN, f"the provider's answer cannot be kept ({type(error).__name__})")
    with engine.begin() as conn:
        return record_outcome(conn, attempt_id, unclear, scribe, latency_ms)


def record_outcome(
    conn: Connection, attempt_id: int, outcome: Outcome, scribe: Scribe, latency_ms: int | None = None
) -> UnitStatus:
    """Apply what became of an attempt and return the state its unit is in then; the same fact again changes nothing."""
    a = purchase_attempts
    order_id = conn.execute(select(a.c.order_id).where(a.c.attempt_id == attempt_id)).scalar_one()
    order = lock_order(conn, order_id)
    attempt = conn.execute(select(a).where(a.c.attempt_id == attempt_id).with_for_update()).one()
    case = Case(conn, order, lock_unit(conn, attempt.esim_id), attempt, latency_ms)
    if attempt.state not in OPEN_STATES or case.unit.status not in TAKES_DELIVERY:
        _apply_late(case, outcome, scribe)
        return case.unit.status
    if isinstance(outcome, Provisioned):
        _deliver(case, outcome, scribe)
    elif isinstance(outcome, Pending):
        _await(case, outcome, scribe)
    elif isinstance(outcome, Rejected):
        _reject(case, outcome, scribe)
    else:
        _leave_open(case, outcome, scribe)
    _settle(case, scribe)
    return case.unit.status


def _deliver(case: Case, outcome: Provisioned, scribe: Scribe) -> None:
    conn, unit, attempt = case.conn, case.unit, case.attempt
    cost, micros = booked_cost(conn, attempt, outcome.cost)
    columns = delivered_columns(scribe.vault, attempt, outcome, cost, micros, scribe.now)
    if _is_anothers(case, outcome.profile, scribe) or not _hand_over(case, columns, scribe):
        # The provider named an eSIM that another unit has: nobody but a person can tell whose it is.
        reason = "the provider names an eSIM that another order has"
        _change_attempt(case, {"state": "unknown", "error_type": _DUPLICATE, "error": reason})
        _raise_attention(case, reason, scribe)
        return
    _change_attempt(case, delivered_attempt(outcome, cost, micros, scribe.now, case.latency_ms))
    ledger.post(conn, f"cost:{attempt.attempt_id}", unit.order_id, ledger.provider_cost(cost, micros), unit.n)
    if cost.currency == attempt.currency and cost.amount > attempt.ceiling_cost:
        text = f"Order {case.order.display_id}, eSIM {unit.n}: {attempt.provider} charged {cost}, above its ceiling."
        notices.tell_operations(conn, unit.order_id, "above_ceiling", f"above_ceiling:{attempt.attempt_id}", text)


def _is_anothers(case: Case, profile: EsimProfile, scribe: Scribe) -> bool:
    """Return whether another unit has this eSIM, whatever the order's number: a provider may name one eSIM two ways.

    Holds a lock on the ICCID until the transaction ends, so that of two at once one sees the other.
    """
    if not profile.iccid:
        return False
    hashed = scribe.vault.lookup_hash(profile.iccid)
    case.conn.execute(select(func.pg_advisory_xact_lock(iccid_lock(hashed))))
    e = esims.c
    others = (e.iccid_hash == hashed, e.provider == case.attempt.provider, e.esim_id != case.unit.esim_id)
    young = e.delivered_at > scribe.now - SAME_ESIM
    return case.conn.scalar(select(e.esim_id).where(*others, young).limit(1)) is not None


def _hand_over(case: Case, columns: Mapping[str, object], scribe: Scribe) -> bool:
    try:
        with case.conn.begin_nested():
            return _move(case, UnitStatus.DELIVERED, "eSIM delivered", scribe, columns)
    except IntegrityError:
        return False


def _await(case: Case, outcome: Pending, scribe: Scribe) -> None:
    values: dict[str, object] = {"state": "pending", "provider_order_id": outcome.provider_order_id}
    if outcome.cost is not None and outcome.cost.currency == case.attempt.currency:
        values["cost"] = outcome.cost.amount
    _change_attempt(case, values)
    poll_at = scribe.now + timedelta(seconds=max(outcome.poll_after_seconds, _delay(case, scribe)))
    _keep_open(case, UnitStatus.PENDING, "accepted by the provider", poll_at, scribe)


def _leave_open(case: Case, outcome: Unknown, scribe: Scribe) -> None:
    # An accepted order that cannot be read just now is still an accepted order.
    state = "pending" if case.attempt.state == "pending" else "unknown"
    _change_attempt(case, {"state": state, "error_type": outcome.error_type, "error": outcome.message[:500]})
    look_at = scribe.now + timedelta(seconds=_delay(case, scribe))
    target = UnitStatus.PENDING if state == "pending" else UnitStatus.UNKNOWN
    _keep_open(case, target, f"no clear answer: {outcome.error_type}", look_at, scribe)


def _keep_open(case: Case, target: UnitStatus, reason: str, look_at: datetime, scribe: Scribe) -> None:
    """Keep a purchase open for the next look; a person who was asked for it stays asked."""
    if case.unit.status not in {target, UnitStatus.ATTENTION}:
        _move(case, target, reason, scribe, {"next_attempt_at": look_at})
    _change_unit(case, {"next_attempt_at": look_at})


def _reject(case: Case, outcome: Rejected, scribe: Scribe) -> None:
    values = {"state": "rejected", "error_type": outcome.error_type, "error": outcome.message[:500]}
    _change_attempt(case, values | {"finished_at": scribe.now})
    errors = {"last_error_type": outcome.error_type, "last_error": outcome.message[:500]}
    if case.unit.status is UnitStatus.WORKING:
        _change_unit(case, errors)  # its worker goes on with the next offer
        return
    # Proven absent: only now may the next offer be asked, by the next worker.
    _move(
        case, UnitStatus.QUEUED, f"not bought: {outcome.error_type}", scribe, errors | {"next_attempt_at": scribe.now}
    )


def _raise_attention(case: Case, reason: str, scribe: Scribe) -> None:
    """Show a unit to a person; nobody looks it up any more until that person decides."""
    if _move(case, UnitStatus.ATTENTION, reason, scribe, {}):
        notices.tell_attention(case.conn, case.order, case.unit, reason)
    _change_unit(case, {"next_attempt_at": None})


def _apply_late(case: Case, outcome: Outcome, scribe: Scribe) -> None:
    """Book what a closed attempt (or one whose unit was given up) turns out to have bought: it goes to stock."""
    conn, unit, attempt = case.conn, case.unit, case.attempt
    if attempt.state in OPEN_STATES and not isinstance(outcome, Provisioned):
        _look_on(case, outcome, scribe)
        return
    if isinstance(outcome, Unknown) and attempt.state == "rejected":
        look_again(conn, case.order, unit, attempt, scribe.now)
    if not isinstance(outcome, Provisioned | Pending) or attempt.state == "provisioned":
        return
    cost, micros = booked_cost(conn, attempt, outcome.cost)
    if not keep_as_stock(conn, attempt, outcome, micros, scribe.vault):
        return
    values = {"state": "stocked", "cost": cost.amount, "cost_micros": micros, "look_at": None}
    _change_attempt(case, values | {"finished_at": scribe.now})
    posting = ledger.stock_purchase(cost, micros)
    ledger.post(conn, f"stock:{attempt.attempt_id}", unit.order_id, posting, unit.n)
    reason = f"a purchase at {attempt.provider} turned up late; it is in stock"
    event = Event(unit.order_id, unit.status, unit.status, reason, scribe.actor, scribe.now, unit.n, scribe.run_id)
    note(conn, [event])
    text = f"Order {case.order.display_id}, eSIM {unit.n}: {reason}."
    notices.tell_operations(conn, unit.order_id, "late_purchase", f"late:{attempt.attempt_id}", text)


def _look_on(case: Case, outcome: Pending | Rejected | Unknown, scribe: Scribe) -> None:
    """Keep an open attempt of a unit that has an end already until its own end is known."""
    if isinstance(outcome, Rejected):
        values = {"state": "rejected", "error_type": outcome.error_type, "error": outcome.message[:500]}
        _change_attempt(case, values | {"finished_at": scribe.now, "look_at": None})
        return
    look_at = scribe.now + timedelta(seconds=_delay(case, scribe))
    if isinstance(outcome, Pending):
        _change_attempt(case, {"state": "pending", "provider_order_id": outcome.provider_order_id, "look_at": look_at})
    else:
        _change_attempt(case, {"error_type": outcome.error_type, "error": outcome.message[:500], "look_at": look_at})


def _settle(case: Case, scribe: Scribe) -> None:
    conn, order, reason = case.conn, case.order, f"eSIM {case.unit.n} is {case.unit.status}"
    units = lock_units(conn, order.order_id)
    settle_locked(conn, order, units, reason=reason, actor=scribe.actor, now=scribe.now, run_id=scribe.run_id)
    notices.tell_of_changes(conn, order, units, scribe.now)


def _move(case: Case, target: UnitStatus, reason: str, scribe: Scribe, values: Mapping[str, object]) -> bool:
    attempt = case.attempt
    details = {"provider": attempt.provider, "offer_id": attempt.offer_id, "attempt": attempt.number}
    return move_unit(
        case.conn,
        case.unit,
        target,
        reason=reason,
        actor=scribe.actor,
        now=scribe.now,
        run_id=scribe.run_id,
        details=details,
        values=values,
    )


def _change_attempt(case: Case, values: Mapping[str, object]) -> None:
    attempt = purchase_attempts
    if case.latency_ms is not None:
        values = {**values, "latency_ms": case.latency_ms}
    case.conn.execute(update(attempt).where(attempt.c.attempt_id == case.attempt.attempt_id).values(**values))


def _change_unit(case: Case, values: Mapping[str, object]) -> None:
    case.conn.execute(update(esims).where(esims.c.esim_id == case.unit.esim_id).values(**values))


def _delay(case: Case, scribe: Scribe) -> float:
    sent_at: datetime = case.attempt.sent_at or case.attempt.started_at
    return resolve_delay_seconds((scribe.now - sent_at).total_seconds())
