"""A small shop in the operational store: packages, offers and paid orders for the tests to work on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4, uuid5

from sqlalchemy import Connection, Engine, insert, select

from esim.money import Money
from esim.orders import OrderStatus, UnitStatus
from resources.db import ledger
from resources.db.tables import esims, offers, order_items, orders, packages
from resources.db.transitions import lock_order, lock_units, move_order, move_unit

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@dataclass(frozen=True)
class OfferSpec:
    """One offer to put on sale; cost in USD."""

    provider: str
    cost: str
    package_id: str = "jp-1gb-7d"
    plan: str = "plan-1"
    data_mb: int | None = 1000
    validity_days: int = 7
    allowance: str = "total"
    coverage_key: str = "JP"
    currency: str = "USD"
    values: dict[str, object] = field(default_factory=dict)


def add_package(conn: Connection, package_id: str = "jp-1gb-7d", *, data_mb: int | None = 1000) -> None:
    conn.execute(
        insert(packages).values(
            package_id=package_id,
            name="Japan 1 GB 7 days",
            destination_code="JP",
            destination_name="Japan",
            destination_type="country",
            kind="plan",
            coverage=["JP"],
            allowance="total" if data_mb else "unlimited",
            data_mb=data_mb,
            validity_days=7,
            networks=[],
            price_minor_usd=499,
            prices={"USD": 499},
            floor_micros=4_000_000,
            best_offer_id="airalo:plan-1",
            best_landed_micros=3_000_000,
            offer_count=1,
            on_sale=True,
            version=1,
        )
    )


def add_offer(conn: Connection, spec: OfferSpec) -> str:
    offer_id = f"{spec.provider}:{spec.plan}"
    values: dict[str, object] = {
        "offer_id": offer_id,
        "provider": spec.provider,
        "provider_package_id": spec.plan,
        "package_id": spec.package_id,
        "name": f"{spec.provider} {spec.plan}",
        "kind": "plan",
        "coverage_key": spec.coverage_key,
        "allowance": spec.allowance,
        "data_mb": spec.data_mb,
        "validity_days": spec.validity_days,
        "cost_amount": Decimal(spec.cost),
        "cost_currency": spec.currency,
        "landed_micros": int(Decimal(spec.cost) * 1_000_000),
        "order_hints": {},
    }
    conn.execute(insert(offers).values(**values | spec.values))
    return offer_id


def open_shop(engine: Engine, specs: Sequence[OfferSpec]) -> None:
    """Put packages and offers on sale."""
    with engine.begin() as conn:
        for package_id in dict.fromkeys(["jp-1gb-7d", *(spec.package_id for spec in specs)]):
            add_package(conn, package_id)
        for spec in specs:
            add_offer(conn, spec)


def place_order(
    conn: Connection, *, units: int = 1, price_minor: int = 499, now: datetime = NOW, order_id: UUID | None = None
) -> UUID:
    """Write an order whose checkout is open; the ids of its rows follow from its own."""
    order_id = order_id or uuid4()
    item_id = uuid5(order_id, "item")
    conn.execute(
        insert(orders).values(
            order_id=order_id,
            display_id=f"OID{order_id.hex[:8].upper()}",
            status=OrderStatus.PENDING,
            email="customer@numnaroad.test",
            amount_minor=price_minor * units,
            currency="USD",
            token_hash=b"-",
            catalogue_version=1,
            success_url="http://127.0.0.1/ok",
            cancel_url="http://127.0.0.1/no",
            expires_at=now + timedelta(minutes=30),
            created_at=now,
        )
    )
    conn.execute(
        insert(order_items).values(
            item_id=item_id,
            order_id=order_id,
            line=1,
            package_id="jp-1gb-7d",
            package={"name": "Japan 1 GB 7 days", "data_mb": 1000, "validity_days": 7},
            quantity=units,
            unit_price_minor=price_minor,
            currency="USD",
            unit_price_micros_usd=price_minor * 10_000,
            expected_landed_micros=3_000_000,
        )
    )
    rows = [
        {
            "esim_id": uuid5(order_id, str(n)),
            "order_id": order_id,
            "item_id": item_id,
            "n": n,
            "status": UnitStatus.UNPAID,
        }
        for n in range(1, units + 1)
    ]
    conn.execute(insert(esims), rows)
    return order_id


def pay(conn: Connection, order_id: UUID, now: datetime = NOW) -> None:
    """Do what a payment webhook does: the order is paid, its units wait for a worker, the money is booked."""
    order, intent = lock_order(conn, order_id), f"pi_{order_id.hex}"
    told = {"payment_intent": intent}
    move_order(conn, order, OrderStatus.PAID, reason="payment received", actor="stripe", now=now, details=told)
    for unit in lock_units(conn, order_id):
        move_unit(conn, unit, UnitStatus.QUEUED, reason="payment received", actor="stripe", now=now)
    conn.execute(
        orders.update()
        .where(orders.c.order_id == order_id)
        .values(payment_status="paid", payment_intent=intent, deadline_at=now + timedelta(minutes=70))
    )
    entries = ledger.payment_received(Money(order.amount_minor, order.currency), order.amount_minor * 10_000)
    ledger.post(conn, f"payment:{intent}", order_id, entries)


def paid_order(engine: Engine, *, units: int = 1, price_minor: int = 499, now: datetime = NOW) -> UUID:
    """Place and pay an order in one transaction."""
    with engine.begin() as conn:
        order_id = place_order(conn, units=units, price_minor=price_minor, now=now)
        pay(conn, order_id, now)
    return order_id


def unit_states(engine: Engine, order_id: UUID) -> list[str]:
    """The states of an order's units, by number."""
    with engine.connect() as conn:
        return list(conn.scalars(select(esims.c.status).where(esims.c.order_id == order_id).order_by(esims.c.n)))


def order_state(engine: Engine, order_id: UUID) -> str:
    """The state of an order."""
    with engine.connect() as conn:
        return str(conn.scalar(select(orders.c.status).where(orders.c.order_id == order_id)))
