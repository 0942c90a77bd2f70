"""Orders as a checkout makes them: the idempotency key, the order, its items, units and first event, all or nothing.

`claim_key` first: of two requests with one key the second waits here until the first has committed or given up.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, insert, select, update
from sqlalchemy import Sequence as SqlSequence
from sqlalchemy.dialects.postgresql import insert as pg_insert

from esim.errors import NotFound
from esim.money import Money
from esim.orders import OrderStatus, UnitStatus
from resources.db.tables import esims, idempotency_keys, order_items, orders
from resources.db.transitions import Event, note

SCOPE = "checkout"
_DISPLAY_IDS = SqlSequence("order_display_ids")


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What is known of an idempotency key: whose request it was and, once there is one, the answer (encrypted)."""

    body_hash: bytes
    order_id: UUID
    status: int | None
    response_enc: bytes = field(repr=False)
    attempt: int  # the one to open the payment page with


@dataclass(frozen=True, slots=True)
class NewLine:
    """One line of an order; `package` is the package as it was sold."""

    package_id: str
    package: dict[str, Any]
    quantity: int
    unit_price: Money
    unit_price_micros_usd: int
    expected_landed_micros: int


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order about to be placed."""

    order_id: UUID
    email: str = field(repr=False)
    phone: str | None = field(repr=False)
    currency: str
    lines: Sequence[NewLine]
    token_hash: bytes = field(repr=False)
    catalogue_version: int
    success_url: str
    cancel_url: str
    now: datetime
    expires_at: datetime

    @property
    def amount(self) -> Money:
        """What the customer pays in all."""
        return Money(sum(line.unit_price.minor * line.quantity for line in self.lines), self.currency)


@dataclass(frozen=True, slots=True)
class OpenCheckout:
    """A placed order as its payment page needs it."""

    order_id: UUID
    display_id: str
    status: OrderStatus
    email: str = field(repr=False)
    amount: Money
    success_url: str
    cancel_url: str
    expires_at: datetime
    session_id: str | None
    checkout_url: str | None
    lines: tuple[tuple[str, Money, int], ...]  # name, unit price, quantity


def claim_key(conn: Connection, key: str, body_hash: bytes, order_id: UUID, response_enc: bytes) -> bool:
    """Take an idempotency key for a new order; return False when it is taken.

    `response_enc` is kept until the answer replaces it: it holds what a retry needs to give the same answer.
    """
    row = {"scope": SCOPE, "key": key, "body_hash": body_hash, "order_id": order_id, "response_enc": response_enc}
    statement = pg_insert(idempotency_keys).values(**row).on_conflict_do_nothing()
    return conn.scalar(statement.returning(idempotency_keys.c.key)) is not None


def kept_answer(conn: Connection, key: str) -> KeptAnswer | None:
    """Return what is known of an idempotency key."""
    columns = tuple(idempotency_keys.c[name] for name in KeptAnswer.__slots__)
    row = conn.execute(select(*columns).where(_is(key))).one_or_none()
    return None if row is None else KeptAnswer(**row._mapping)


def keep_answer(conn: Connection, key: str, status: int, response_enc: bytes) -> bool:
    """Keep the answer for this key; the first one stays, and False says that there was one."""
    statement = update(idempotency_keys).where(_is(key), idempotency_keys.c.status.is_(None))
    kept = statement.values(status=status, response_enc=response_enc).returning(idempotency_keys.c.key)
    return conn.scalar(kept) is not None


def begin_next_attempt(conn: Connection, key: str, failed: int) -> None:
    """Let the next try under this key be another attempt at the payment service, where none has gone on already."""
    k = idempotency_keys.c
    statement = update(idempotency_keys).where(_is(key), k.status.is_(None), k.attempt == failed)
    conn.execute(statement.values(attempt=failed + 1))


def _is(key: str) -> Any:
    return (idempotency_keys.c.scope == SCOPE) & (idempotency_keys.c.key == key)


def add_order(conn: Connection, order: NewOrder) -> str:
    """Write an order that waits for its payment, with its items and one unpaid unit per eSIM; return its display id."""
    display_id = f"OID{conn.scalar(_DISPLAY_IDS):03d}"
    conn.execute(
        insert(orders).values(
            order_id=order.order_id,
            display_id=display_id,
            status=OrderStatus.PENDING,
            email=order.email,
            phone=order.phone,
            amount_minor=order.amount.minor,
            currency=order.currency,
            token_hash=order.token_hash,
            catalogue_version=order.catalogue_version,
            success_url=order.success_url,
            cancel_url=order.cancel_url,
            expires_at=order.expires_at,
            created_at=order.now,
            updated_at=order.now,
        )
    )
    items, units = _rows(order)
    conn.execute(insert(order_items), items)
    conn.execute(insert(esims), units)
    note(conn, [Event(order.order_id, None, OrderStatus.PENDING, "checkout opened", "customer", order.now)])
    return display_id


def _rows(order: NewOrder) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    items: list[dict[str, Any]] = []
    units: list[dict[str, Any]] = []
    for number, line in enumerate(order.lines, start=1):
        item_id = uuid4()
        items.append(
            {
                "item_id": item_id,
                "order_id": order.order_id,
                "line": number,
                "package_id": line.package_id,
                "package": line.package,
                "quantity": line.quantity,
                "unit_price_minor": line.unit_price.minor,
                "currency": line.unit_price.currency,
                "unit_price_micros_usd": line.unit_price_micros_usd,
                "expected_landed_micros": line.expected_landed_micros,
            }
        )
        for _ in range(line.quantity):
            unit = {"esim_id": uuid4(), "order_id": order.order_id, "item_id": item_id, "n": len(units) + 1}
            units.append(unit | {"status": UnitStatus.UNPAID})
    return items, units


def open_checkout(conn: Connection, order_id: UUID) -> OpenCheckout:
    """Return a placed order as its payment page needs it.

    Raises:
        NotFound: there is no such order.
    """
    row = conn.execute(select(orders).where(orders.c.order_id == order_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no order {order_id}")
    items = conn.execute(select(order_items).where(order_items.c.order_id == order_id).order_by(order_items.c.line))
    return OpenCheckout(
        order_id=row.order_id,
        display_id=row.display_id,
        status=OrderStatus(row.status),
        email=row.email,
        amount=Money(row.amount_minor, row.currency),
        success_url=row.success_url,
        cancel_url=row.cancel_url,
        expires_at=row.expires_at,
        session_id=row.session_id,
        checkout_url=row.checkout_url,
        lines=tuple(
            (str(item.package["name"]), Money(item.unit_price_minor, item.currency), item.quantity) for item in items
        ),
    )


def attach_session(conn: Connection, order_id: UUID, session_id: str, checkout_url: str) -> None:
    """Note the payment page of an order; asked twice for one order, the payment service names the same page."""
    statement = update(orders).where(orders.c.order_id == order_id)
    conn.execute(statement.values(session_id=session_id, checkout_url=checkout_url))
