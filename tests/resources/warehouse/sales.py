"""What happens to paid orders, written the way the order path writes it: deliveries, fees, refunds, losses."""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import Connection, Engine, select, update

from esim.money import Cost, Money
from esim.orders import UnitStatus
from resources.db import ledger
from resources.db.tables import esims
from tests.resources.db.shop import NOW, OfferSpec, open_shop, paid_order

MICROS = 1_000_000
SPECS = (OfferSpec("airalo", "3.00"), OfferSpec("esim_go", "2.50", plan="plan-2"))


def deliver(conn: Connection, order_id: UUID, n: int, provider: str, cost: str, at: datetime = NOW) -> None:
    micros = int(Decimal(cost) * MICROS)
    unit = (esims.c.order_id == order_id) & (esims.c.n == n)
    conn.execute(
        update(esims)
        .where(unit)
        .values(
            status=UnitStatus.DELIVERED,
            provider=provider,
            provider_order_id=f"po-{order_id}-{n}",
            iccid_enc=b"secret-iccid",
            iccid_hash=f"{order_id}{n}".encode(),
            profile_enc=b"secret-profile",
            cost_amount=Decimal(cost),
            cost_currency="USD",
            cost_micros=micros,
            delivered_at=at,
        )
    )
    esim_id = conn.scalar(select(esims.c.esim_id).where(unit))
    entries = ledger.provider_cost(Cost(Decimal(cost), "USD"), micros)
    ledger.post(conn, f"cost:{esim_id}", order_id, entries, n)


def refund(conn: Connection, order_id: UUID, n: int, minor: int) -> None:
    unit = (esims.c.order_id == order_id) & (esims.c.n == n)
    conn.execute(update(esims).where(unit).values(status=UnitStatus.REFUNDED, refunded_at=NOW))
    ledger.post(conn, f"refund:{order_id}:{n}", order_id, ledger.refund(Money(minor, "USD"), minor * 10_000), n)


def fee(conn: Connection, order_id: UUID, minor: int) -> None:
    ledger.post(conn, f"fee:{order_id}", order_id, ledger.payment_fee(Money(minor, "USD"), minor * 10_000))


def lose(conn: Connection, order_id: UUID, n: int, cost: str) -> None:
    micros = int(Decimal(cost) * MICROS)
    lost = Cost(Decimal(cost), "USD")
    ledger.post(conn, f"stock:{order_id}:{n}", order_id, ledger.stock_purchase(lost, micros), n)
    ledger.post(conn, f"loss:{order_id}:{n}", order_id, ledger.loss(lost, micros), n)


def small_shop(engine: Engine) -> tuple[UUID, UUID]:
    """Sell three units in one order (one refunded, one lost on the way) and one in another; return the orders."""
    open_shop(engine, SPECS)
    first, second = paid_order(engine, units=3), paid_order(engine)
    with engine.begin() as conn:
        deliver(conn, first, 1, "airalo", "3.00")
        deliver(conn, first, 2, "esim_go", "2.50")
        refund(conn, first, 3, 499)
        lose(conn, first, 3, "3.00")
        fee(conn, first, 73)
        deliver(conn, second, 1, "airalo", "3.00")
        fee(conn, second, 44)
    return first, second
