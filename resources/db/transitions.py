"""The one place that changes the state of an order or of a unit: under the order's row lock, with an event each.

`lock_order` first, then everything else: whoever holds the order's row may read and change its units. Moving to the
state it is in already is a no-op; a step that is not in the table raises and changes nothing.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, select, text, update

from esim.errors import NotFound
from esim.orders import TRANSITIONS, OrderStatus, UnitStatus, advance, advance_unit, status_from_units
from resources.db import hold_reasons
from resources.db.documents import document
from resources.db.tables import esims, orders


@dataclass(slots=True)
class OrderRow:
    """An order as the holder of its lock sees it; `move_order` keeps `status` up to date."""

    order_id: UUID
    display_id: str
    status: OrderStatus
    payment_status: str
    amount_minor: int
    refunded_minor: int
    currency: str
    session_id: str | None
    payment_intent: str | None
    attention_reason: str | None
    hold_reason: str | None
    created_at: datetime
    expires_at: datetime
    paid_at: datetime | None
    deadline_at: datetime | None
    completed_at: datetime | None


@dataclass(slots=True)
class UnitRow:
    """One eSIM of an order, without its personal data; `move_unit` keeps `status` up to date."""

    esim_id: UUID
    order_id: UUID
    item_id: UUID
    n: int
    status: UnitStatus
    failures: int
    fence: int
    lease_owner: str | None
    lease_until: datetime | None
    next_attempt_at: datetime | None
    provider: str | None
    offer_id: str | None
    provider_order_id: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Event:
    """One line of an order's history; `details` carries ids and figures, never personal data."""

    order_id: UUID
    from_status: str | None
    to_status: str
    reason: str
    actor: str
    at: datetime
    esim_n: int | None = None
    run_id: str | None = None
    details: Mapping[str, object] = field(default_factory=dict)


_NOT_BEGUN = frozenset({UnitStatus.UNPAID, UnitStatus.CANCELLED})


@dataclass(frozen=True, slots=True)
class OrderMove:
    """One step of a locked order: where to, why, by whom, with further columns to set in it."""

    order: OrderRow
    target: OrderStatus
    reason: str
    actor: str
    now: datetime
    run_id: str | None = None
    details: Mapping[str, object] = field(default_factory=dict)
    values: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UnitMove:
    """One step of a unit of a locked order, with further columns to set in it."""

    unit: UnitRow
    target: UnitStatus
    reason: str
    actor: str
    now: datetime
    run_id: str | None = None
    details: Mapping[str, object] = field(default_factory=dict)
    values: Mapping[str, object] = field(default_factory=dict)


INSERT_EVENTS = """
    insert into order_events (order_id, esim_n, from_status, to_status, reason, actor, run_id, details, at)
    select order_id, esim_n, from_status, to_status, reason, actor, run_id, details, at
    from jsonb_to_recordset(cast(:events as jsonb)) as event(
        order_id uuid, esim_n smallint, from_status text, to_status text, reason text, actor text, run_id text,
        details jsonb, at timestamptz)
"""
_NOTE = text(INSERT_EVENTS)
ORDER_COLUMNS = tuple(orders.c[name] for name in OrderRow.__slots__)
UNIT_COLUMNS = tuple(esims.c[name] for name in UnitRow.__slots__)
# As text with one parameter: a customer waits for these, and building them anew costs more than running them.
_LOCK_ORDERS = text(
    f"select {', '.join(OrderRow.__slots__)} from orders where order_id = any(:ids) order by order_id for update"  # noqa: S608 - column names of our own
)
_LOCK_UNITS = text(
    f"select {', '.join(UnitRow.__slots__)} from esims where order_id = any(:ids) order by order_id, n for update"  # noqa: S608 - column names of our own
)


def lock_order(conn: Connection, order_id: UUID) -> OrderRow:
    """Lock an order's row until the transaction ends and return it.

    Raises:
        NotFound: there is no such order.
    """
    row = conn.execute(select(*ORDER_COLUMNS).where(orders.c.order_id == order_id).with_for_update()).one_or_none()
    if row is None:
        raise NotFound(f"there is no order {order_id}")
    return order_row(row)


def lock_orders(conn: Connection, order_ids: Collection[UUID]) -> dict[UUID, OrderRow]:
    """Lock orders in the order of their ids, so that nobody who locks several waits in a circle; return those found."""
    return {row.order_id: order_row(row) for row in conn.execute(_LOCK_ORDERS, {"ids": list(order_ids)})}


def lock_units_of(conn: Connection, order_ids: Collection[UUID]) -> dict[UUID, list[UnitRow]]:
    """Lock the units of locked orders and return them by order, in order of their numbers."""
    units: dict[UUID, list[UnitRow]] = {order_id: [] for order_id in order_ids}
    for row in conn.execute(_LOCK_UNITS, {"ids": list(order_ids)}):
        units[row.order_id].append(unit_row(row))
    return units


def lock_units(conn: Connection, order_id: UUID) -> list[UnitRow]:
    """Lock an order's units and return them in order of their numbers; the caller holds the order's lock."""
    found = select(*UNIT_COLUMNS).where(esims.c.order_id == order_id).order_by(esims.c.n).with_for_update()
    return [unit_row(row) for row in conn.execute(found)]


def order_row(row: Row[Any]) -> OrderRow:
    """Return a row of `ORDER_COLUMNS` as a typed order."""
    order = OrderRow(**row._mapping)
    order.status = OrderStatus(order.status)
    return order


def unit_row(row: Row[Any]) -> UnitRow:
    """Return a row of `UNIT_COLUMNS` as a typed unit."""
    unit = UnitRow(**row._mapping)
    unit.status = UnitStatus(unit.status)
    return unit


def move_order(
    conn: Connection,
    order: OrderRow,
    target: OrderStatus,
    *,
    reason: str,
    actor: str,
    now: datetime,
    run_id: str | None = None,
    details: Mapping[str, object] | None = None,
) -> bool:
    """Move a locked order to `target` and note why; return False, changing nothing, when it is there already.

    Sets `paid_at` and `completed_at` the first time, and `attention_reason` while a person is needed.

    Raises:
        IllegalTransition: the table has no such step.
    """
    step = step_order(OrderMove(order, target, reason, actor, now, run_id, details or {}))
    if step is not None:
        conn.execute(update(orders).where(orders.c.order_id == order.order_id).values(**step[0]))
        note(conn, [step[1]])
    return step is not None


def step_order(move: OrderMove) -> tuple[dict[str, object], Event] | None:
    """Take a locked order's step in memory; return what its row must say and its event, for the caller to write.

    None when it is there already.

    Raises:
        IllegalTransition: the table has no such step.
    """
    order = move.order
    if not advance(order.status, move.target):
        return None
    event = Event(
        order.order_id, order.status, move.target, move.reason, move.actor, move.now, None, move.run_id, move.details
    )
    columns = _order_columns(move)
    order.status = move.target
    order.attention_reason = move.reason if move.target is OrderStatus.ATTENTION else None
    return columns, event


def _order_columns(move: OrderMove) -> dict[str, object]:
    order, target, now = move.order, move.target, move.now
    values: dict[str, object] = {"status": target, "updated_at": now, "attention_reason": None}
    if target is OrderStatus.ATTENTION:
        values["attention_reason"] = move.reason
    if target is OrderStatus.PAID and order.paid_at is None:
        values["paid_at"] = order.paid_at = now
    if target is OrderStatus.COMPLETED and order.completed_at is None:
        values["completed_at"] = order.completed_at = now
    return values | dict(move.values)


def move_unit(  # noqa: PLR0913 - what moves, why, by whom and what goes with it: all named at every call
    conn: Connection,
    unit: UnitRow,
    target: UnitStatus,
    *,
    reason: str,
    actor: str,
    now: datetime,
    run_id: str | None = None,
    details: Mapping[str, object] | None = None,
    values: Mapping[str, object] | None = None,
) -> bool:
    """Move a unit of a locked order to `target` and note why; return False, changing nothing, when it is there.

    `values` are further columns of the unit to set in the same step. A unit that is not being worked has no lease.

    Raises:
        IllegalTransition: the table has no such step.
    """
    step = step_unit(UnitMove(unit, target, reason, actor, now, run_id, details or {}, values or {}))
    if step is not None:
        conn.execute(update(esims).where(esims.c.esim_id == unit.esim_id).values(**step[0]))
        note(conn, [step[1]])
    return step is not None


def step_unit(move: UnitMove) -> tuple[dict[str, object], Event] | None:
    """Do for a unit of a locked order what `step_order` does for an order.

    Raises:
        IllegalTransition: the table has no such step.
    """
    unit = move.unit
    if not advance_unit(unit.status, move.target):
        return None
    event = Event(
        unit.order_id, unit.status, move.target, move.reason, move.actor, move.now, unit.n, move.run_id, move.details
    )
    columns = _unit_columns(move)
    unit.status = move.target
    return columns, event


def _unit_columns(move: UnitMove) -> dict[str, object]:
    columns: dict[str, object] = {"status": move.target, "updated_at": move.now}
    if move.target is UnitStatus.QUEUED:
        columns["next_attempt_at"] = move.now
    if move.target is not UnitStatus.WORKING:
        columns |= {"lease_owner": None, "lease_until": None}
    return columns | dict(move.values)


def settle_order(
    conn: Connection, order_id: UUID, *, reason: str, actor: str, now: datetime, run_id: str | None = None
) -> OrderRow:
    """Lock an order and move it to what its units say; return it as it stands then.

    An order that is not paid yet, or paid back as a whole, is left alone.

    Raises:
        NotFound: there is no such order.
    """
    order = lock_order(conn, order_id)
    settle_locked(conn, order, lock_units(conn, order_id), reason=reason, actor=actor, now=now, run_id=run_id)
    return order


def settle_locked(
    conn: Connection,
    order: OrderRow,
    units: Sequence[UnitRow],
    *,
    reason: str,
    actor: str,
    now: datetime,
    run_id: str | None = None,
) -> bool:
    """Do what `settle_order` does for an order that is locked, with all its units as they are now."""
    if order.status in {OrderStatus.PENDING, OrderStatus.CANCELLED, OrderStatus.REFUNDED}:
        return False
    if all(unit.status in _NOT_BEGUN for unit in units):
        return False  # money that did not fit the order: nothing of it is being worked on until a person decides
    target = status_from_units(unit.status for unit in units)
    if order.hold_reason is not None:
        target, reason = OrderStatus.ATTENTION, order.hold_reason
        for unit in units:
            if unit.status is UnitStatus.QUEUED:
                move_unit(
                    conn,
                    unit,
                    UnitStatus.ATTENTION,
                    reason=reason,
                    actor=actor,
                    now=now,
                    run_id=run_id,
                    values={"next_attempt_at": None},
                )
    return move_order(conn, order, target, reason=reason, actor=actor, now=now, run_id=run_id)


def hold_order(conn: Connection, order: OrderRow, *, reason: str, actor: str, now: datetime) -> bool:
    """Keep a locked order for a person: nothing more is bought for it, and it stays in attention until decided.

    Purchases that are on their way already go on to their end, since the provider may have our money; a unit in work
    is bought nowhere else, and comes to wait with the others when its worker sees the hold. What holds an order that
    is held already is added to its reasons. Return False, changing nothing, for an order that cannot need a person any
    more (cancelled, paid back as a whole) or is held for just that.
    """
    before, held_for = order.hold_reason, hold_reasons.add(order.hold_reason, reason)
    if held_for == before or OrderStatus.ATTENTION not in {order.status, *TRANSITIONS[order.status]}:
        return False
    values: dict[str, object] = {"hold_reason": held_for, "updated_at": now}
    if before is not None and order.attention_reason == before:
        values["attention_reason"] = order.attention_reason = held_for
    order.hold_reason = held_for
    conn.execute(update(orders).where(orders.c.order_id == order.order_id).values(**values))
    if order.status is OrderStatus.ATTENTION:
        note(conn, [Event(order.order_id, order.status, order.status, reason, actor, now)])
    settle_locked(conn, order, lock_units(conn, order.order_id), reason=reason, actor=actor, now=now)
    move_order(conn, order, OrderStatus.ATTENTION, reason=reason, actor=actor, now=now)  # where nothing is settled
    return True


def is_held(conn: Connection, order_id: UUID) -> bool:
    """Return whether an order waits for a person's decision, as of now."""
    return conn.scalar(select(orders.c.hold_reason).where(orders.c.order_id == order_id)) is not None


def note(conn: Connection, events: Sequence[Event]) -> None:
    """Append events to the history of orders, in one statement."""
    if events:
        conn.execute(_NOTE, {"events": document(events)})
