"""What happens to paid orders, written the way the order path writes it: deliveries, fees, refunds, losses."""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import Connection, Engine, insert, select, update

from esim.money import Cost, Money
from esim.orders import UnitStatus
from resources.db import ledger
from resources.db.tables import esims, purchase_attempts, refunds
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
    conn.execute(
        insert(refunds).values(
            refund_key=f"refund:{order_id}:{n}",
            order_id=order_id,
            esim_n=n,
            payment_intent=f"pi_{order_id.hex}",
            amount_minor=minor,
            currency="USD",
            reason="not delivered",
            state="succeeded",
        )
    )
    ledger.post(conn, f"refund:{order_id}:{n}", order_id, ledger.refund(Money(minor, "USD"), minor * 10_000), n)


def fee(conn: Connection, order_id: UUID, minor: int) -> None:
    ledger.post(conn, f"fee:{order_id}", order_id, ledger.payment_fee(Money(minor, "USD"), minor * 10_000))


def lose(conn: Connection, order_id: UUID, n: int, cost: str) -> None:
    micros = int(Decimal(cost) * MICROS)
    lost = Cost(Decimal(cost), "USD")
    ledger.post(conn, f"stock:{order_id}:{n}", order_id, ledger.stock_purchase(lost, micros), n)
    ledger.post(conn, f"loss:{order_id}:{n}", order_id, ledger.loss(lost, micros), n)


def attempt(conn: Connection, order_id: UUID, n: int, offer_id: str, state: str) -> None:
    """The first purchase tried for a unit."""
    esim_id = conn.scalar(select(esims.c.esim_id).where((esims.c.order_id == order_id) & (esims.c.n == n)))
    provider, plan = offer_id.split(":")
    conn.execute(
        insert(purchase_attempts).values(
            esim_id=esim_id,
            order_id=order_id,
            number=1,
            failover_step=0,
            provider=provider,
            offer_id=offer_id,
            provider_package_id=plan,
            reference=f"{order_id.hex[:20]}{n:06}",
            fence=1,
            expected_cost=Decimal("3.00"),
            ceiling_cost=Decimal("4.00"),
            currency="USD",
            state=state,
            started_at=NOW,
        )
    )


def small_shop(engine: Engine) -> tuple[UUID, UUID]:
    """Sell three units in one order (one refunded, one lost on the way) and one in another; return the orders."""
    open_shop(engine, SPECS)
    first, second = paid_order(engine, units=3), paid_order(engine)
    with engine.begin() as conn:
        attempt(conn, first, 1, "airalo:plan-1", "provisioned")
        deliver(conn, first, 1, "airalo", "3.00")
        deliver(conn, first, 2, "esim_go", "2.50")
        refund(conn, first, 3, 499)
        lose(conn, first, 3, "3.00")
        fee(conn, first, 73)
        deliver(conn, second, 1, "airalo", "3.00")
        fee(conn, second, 44)
    return first, second
