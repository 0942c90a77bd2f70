"""What became of a purchase, applied to its attempt, its unit and its order in one transaction.

`record_outcome` takes facts from anybody who learnt them: the worker that bought, a later look-up, even a worker that
lost its lease meanwhile. The order's lock and the attempt's state decide what a fact still changes: an open attempt
is the unit's only one (a unique index sees to it), so its eSIM goes to the unit; what an attempt that was already
closed turns out to have bought goes to stock and is never delivered. What somebody else has is neither.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, select, update
from sqlalchemy.exc import DataError, IntegrityError

from esim.money import Cost
from esim.orders import UnitStatus
from esim.provisioning import resolve_delay_seconds
from esim.purchase import ErrorType, Outcome, Pending, Provisioned, Rejected, Unknown
from resources.db import ledger, notices
from resources.db.costs import Booked, booked_cost
from resources.db.deliveries import TAKES_DELIVERY, delivered_attempt, delivered_columns
from resources.db.esim_owners import Owner, owner_of
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
_ANOTHERS = "the provider names an eSIM that another order has"
_IN_STOCK = "the provider names an eSIM that is in stock"


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
    latency_ms: int | None = None  # of the purchase itself: who tells of that is who sent it


def keep_outcome(
    engine: Engine,
    attempt_id: int,
    outcome: Outcome,
    scribe: Scribe,
    latency_ms: int | None = None,
    read: Row[Any] | None = None,
) -> UnitStatus:
    """Apply an outcome in a transaction of its own; one that the store cannot hold leaves the purchase unclear.

    `read` is the attempt as it was when its provider was asked: that it was not found then proves nothing once an order
    number is known.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the store is away; nothing was written.
    """
    try:
        with engine.begin() as conn:
            return record_outcome(conn, attempt_id, outcome, scribe, latency_ms, read)
    except (DataError, ValueError) as error:
        unclear = Unknown(ErrorType.UNKNOWN, f"the provider's answer cannot be kept ({type(error).__name__})")
    with engine.begin() as conn:
        return record_outcome(conn, attempt_id, unclear, scribe, latency_ms)


def record_outcome(
    conn: Connection,
    attempt_id: int,
    outcome: Outcome,
    scribe: Scribe,
    latency_ms: int | None = None,
    read: Row[Any] | None = None,
) -> UnitStatus:
    """Apply what became of an attempt and return the state its unit is in then; the same fact again changes nothing."""
    a = purchase_attempts
    order_id = conn.execute(select(a.c.order_id).where(a.c.attempt_id == attempt_id)).scalar_one()
    order = lock_order(conn, order_id)
    attempt = conn.execute(select(a).where(a.c.attempt_id == attempt_id).with_for_update()).one()
    case = Case(conn, order, lock_unit(conn, attempt.esim_id), attempt, latency_ms)
    if isinstance(outcome, Rejected) and read is not None and read.provider_order_id != attempt.provider_order_id:
        outcome = Unknown(ErrorType.UNKNOWN, "looked for before its order number was known")
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
    owner = owner_of(conn, attempt, outcome, scribe.vault, scribe.now)
    booked = booked_cost(conn, attempt, outcome.cost)
    columns = delivered_columns(scribe.vault, attempt, outcome, booked, scribe.now)
    if owner is not None or not _hand_over(case, columns, scribe):
        _leave_to_person(case, owner, scribe)
        return
    _change_attempt(case, delivered_attempt(outcome, booked, scribe.now, case.latency_ms))
    cost = ledger.provider_cost(booked.cost, booked.micros)
    ledger.post(conn, f"cost:{attempt.attempt_id}", unit.order_id, cost, unit.n)
    _tell_of_cost(case, booked)


def _leave_to_person(case: Case, owner: Owner | None, scribe: Scribe) -> None:
    """Leave a purchase open whose provider named what somebody else has: only a person can tell whose it is."""
    reason = _IN_STOCK if owner is not None and owner.what == "stock" else _ANOTHERS
    _change_attempt(case, {"state": "unknown", "error_type": _DUPLICATE, "error": reason})
    _raise_attention(case, reason, scribe)


def _tell_of_cost(case: Case, booked: Booked) -> None:
    """Tell operations of a purchase that cost more than it may, or whose cost could not be booked as it was told."""
    conn, attempt, order_id = case.conn, case.attempt, case.unit.order_id
    where = f"Order {case.order.display_id}, eSIM {case.unit.n}: {attempt.provider} charged"
    if booked.above_ceiling:
        ceiling = Cost(attempt.ceiling_cost, attempt.currency)
        text = f"{where} {booked.cost}, above its ceiling of {ceiling}."
        notices.tell_operations(conn, order_id, "above_ceiling", f"above_ceiling:{attempt.attempt_id}", text)
    if booked.unconverted is not None:
        text = (
            f"{where} {booked.unconverted}, and there is no reference rate for it: the expected {booked.cost} is "
            "booked, and nothing compared it with its ceiling."
        )
        notices.tell_operations(conn, order_id, "cost_unconverted", f"cost_unconverted:{attempt.attempt_id}", text)


def _hand_over(case: Case, columns: Mapping[str, object], scribe: Scribe) -> bool:
    try:
        with case.conn.begin_nested():
            return _move(case, UnitStatus.DELIVERED, "eSIM delivered", scribe, columns)
    except IntegrityError:
        return False


def _await(case: Case, outcome: Pending, scribe: Scribe) -> None:
    conn, attempt = case.conn, case.attempt
    if outcome.provider_order_id != attempt.provider_order_id and (
        owner := owner_of(conn, attempt, outcome, scribe.vault, scribe.now)
    ):
        _leave_to_person(case, owner, scribe)
        return
    values: dict[str, object] = {"state": "pending", "provider_order_id": outcome.provider_order_id}
    if outcome.cost is not None and outcome.cost.currency == attempt.currency:
        values["cost"] = outcome.cost.amount
    elif outcome.cost is not None:
        _tell_of_cost(case, booked_cost(conn, attempt, outcome.cost))  # a delivery may not tell it again
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
    if isinstance(outcome, Provisioned | Pending) and attempt.state != "provisioned":
        owner = owner_of(conn, attempt, outcome, scribe.vault, scribe.now)
        if owner is not None:
            _doubt_on(case, outcome, owner, scribe)
            return
    if attempt.state in OPEN_STATES and not isinstance(outcome, Provisioned):
        _look_on(case, outcome, scribe)
        return
    if isinstance(outcome, Unknown) and attempt.state == "rejected" and case.latency_ms is not None:
        look_again(conn, case.order, unit, attempt, scribe.now)
    if not isinstance(outcome, Provisioned | Pending) or attempt.state == "provisioned":
        return
    booked = booked_cost(conn, attempt, outcome.cost)
    if not keep_as_stock(conn, attempt, outcome, booked.micros, scribe.vault):
        return
    values = {"state": "stocked", "cost": booked.cost.amount, "cost_micros": booked.micros, "look_at": None}
    _change_attempt(case, values | {"finished_at": scribe.now})
    posting = ledger.stock_purchase(booked.cost, booked.micros)
    ledger.post(conn, f"stock:{attempt.attempt_id}", unit.order_id, posting, unit.n)
    _tell_of_cost(case, booked)
    reason = f"a purchase at {attempt.provider} turned up late; it is in stock"
    event = Event(unit.order_id, unit.status, unit.status, reason, scribe.actor, scribe.now, unit.n, scribe.run_id)
    note(conn, [event])
    text = f"Order {case.order.display_id}, eSIM {unit.n}: {reason}."
    notices.tell_operations(conn, unit.order_id, "late_purchase", f"late:{attempt.attempt_id}", text)


def _doubt_on(case: Case, outcome: Provisioned | Pending, owner: Owner, scribe: Scribe) -> None:
    """Keep nothing of what somebody else has: what this attempt bought, if anything, is still not known."""
    unit, attempt = case.unit, case.attempt
    found = f"{attempt.provider} names order {outcome.provider_order_id}"
    if attempt.state in OPEN_STATES:
        _look_on(case, Unknown(ErrorType.UNKNOWN, f"{found}, which is that of {owner.named}"), scribe)
    text = (
        f"Order {case.order.display_id}, eSIM {unit.n}: for attempt {attempt.number}, which got no eSIM, {found}: "
        f"that of {owner.named}. Nothing was put into stock. What our reference {attempt.reference} bought, if "
        "anything, is not known."
    )
    notices.tell_operations(case.conn, unit.order_id, "anothers_esim", f"anothers_esim:{attempt.attempt_id}", text)


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
