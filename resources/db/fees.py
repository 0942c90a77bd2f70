"""What the payment service kept of each payment: asked for after the payment, booked once."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection, Engine, func, select, update

from esim.money import MICROS, Money, exponent
from resources.db import ledger
from resources.db.catalogue_reader import usd_micros_per_unit
from resources.db.tables import order_items, orders

_ASK_AGAIN = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class DueFee:
    """One payment whose fee is to be asked for."""

    order_id: UUID
    payment_intent: str


def claim_fees(engine: Engine, limit: int) -> list[DueFee]:
    """Give out at most `limit` payments whose fee is due by the store's clock; each is due again in ten minutes."""
    o = orders.c
    due = (
        select(o.order_id)
        .where(o.fee_due_at <= func.now())
        .order_by(o.fee_due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    taken = update(orders).where(o.order_id == due.c.order_id).values(fee_due_at=func.now() + _ASK_AGAIN)
    with engine.begin() as conn:
        return [DueFee(*row) for row in conn.execute(taken.returning(o.order_id, o.payment_intent))]


def book_fee(conn: Connection, due: DueFee, fee: Money) -> bool:
    """Book a payment's fee, once; return False when it was booked before."""
    conn.execute(update(orders).where(orders.c.order_id == due.order_id).values(fee_due_at=None))
    if fee.minor == 0:
        return False
    entries = ledger.payment_fee(fee, _usd_micros(conn, due.order_id, fee))
    return ledger.post(conn, f"fee:{due.payment_intent}", due.order_id, entries)


def _usd_micros(conn: Connection, order_id: UUID, fee: Money) -> int:
    """Return a fee's value in micro-USD: at the order's own rate in its currency, else at the reference rate."""
    if fee.currency == "USD":
        return fee.micros
    i = order_items.c
    sold = select(func.sum(i.quantity * i.unit_price_micros_usd)).where(i.order_id == order_id).scalar_subquery()
    order = conn.execute(
        select(orders.c.amount_minor, orders.c.currency, sold.label("micros")).where(orders.c.order_id == order_id)
    ).one()
    if fee.currency == order.currency:
        return int(order.micros) * fee.minor // int(order.amount_minor)
    rate = usd_micros_per_unit(conn, fee.currency) or MICROS
    return fee.minor * rate // int(10 ** exponent(fee.currency))
