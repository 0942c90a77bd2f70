"""An order as its customer may see it, activation data still encrypted; nothing of providers, costs or operations."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select

from esim.orders import OrderStatus, UnitStatus
from resources.db.tables import esims, order_events, order_items, orders


@dataclass(frozen=True, slots=True)
class OrderHead:
    """An order without its parts."""

    order_id: UUID
    display_id: str
    status: OrderStatus
    payment_status: str
    amount_minor: int
    refunded_minor: int
    currency: str
    created_at: datetime
    paid_at: datetime | None


@dataclass(frozen=True, slots=True)
class ItemView:
    """One line of an order."""

    item_id: UUID
    package_id: str
    package: dict[str, Any]
    quantity: int
    unit_price_minor: int
    currency: str


@dataclass(frozen=True, slots=True)
class UnitView:
    """One eSIM; `profile_enc` is there once it is delivered."""

    n: int
    item_id: UUID
    status: UnitStatus
    profile_enc: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class StepView:
    """One step an order (or, with a number, one of its eSIMs) went."""

    event_id: int
    at: datetime
    esim_n: int | None
    from_status: str | None
    to_status: str


_HEAD = tuple(orders.c[name] for name in OrderHead.__slots__)
_ITEM = tuple(order_items.c[name] for name in ItemView.__slots__)
_UNIT = tuple(esims.c[name] for name in UnitView.__slots__)
_STEP = tuple(order_events.c[name] for name in StepView.__slots__)


def token_hash_of(conn: Connection, order_id: UUID) -> bytes | None:
    """Return what is kept of the order's token; None where there is no such order."""
    found = conn.scalar(select(orders.c.token_hash).where(orders.c.order_id == order_id))
    return None if found is None else bytes(found)


def order_head(conn: Connection, order_id: UUID) -> OrderHead | None:
    """Return an order without its parts."""
    row = conn.execute(select(*_HEAD).where(orders.c.order_id == order_id)).one_or_none()
    return None if row is None else OrderHead(**{**row._mapping, "status": OrderStatus(row.status)})


def order_items_of(conn: Connection, order_id: UUID) -> Sequence[ItemView]:
    """Return an order's lines in their order."""
    query = select(*_ITEM).where(order_items.c.order_id == order_id).order_by(order_items.c.line)
    return [ItemView(**row._mapping) for row in conn.execute(query)]


def order_units(conn: Connection, order_id: UUID, n: int | None = None) -> Sequence[UnitView]:
    """Return an order's eSIMs by number, or only number `n`."""
    query = select(*_UNIT).where(esims.c.order_id == order_id).order_by(esims.c.n)
    if n is not None:
        query = query.where(esims.c.n == n)
    return [UnitView(**{**row._mapping, "status": UnitStatus(row.status)}) for row in conn.execute(query)]


def order_steps(conn: Connection, order_id: UUID) -> Sequence[StepView]:
    """Return what happened to an order, oldest first; notes that changed no state are left out."""
    moved = order_events.c.from_status.is_distinct_from(order_events.c.to_status)
    query = select(*_STEP).where(order_events.c.order_id == order_id, moved).order_by(order_events.c.event_id)
    return [StepView(**row._mapping) for row in conn.execute(query)]
