"""What the payment service kept of each payment: asked for after the payment, booked once."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection, Engine, func, select, update

from esim.money import Money
from resources.db import ledger
from resources.db.notices import tell_operations
from resources.db.tables import orders
from resources.db.valuation import usd_micros

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
    """Book a payment's fee, once; return False when it was booked before, or cannot be yet for want of a rate.

    A fee in a currency without a reference rate stays due, and operations are told once.
    """
    micros = usd_micros(conn, due.order_id, fee)
    if micros is None:
        text = f"The fee of payment {due.payment_intent} is in {fee.currency}, which has no reference rate: not booked."
        tell_operations(conn, due.order_id, "fee_not_booked", f"fee_not_booked:{due.payment_intent}", text)
        return False
    conn.execute(update(orders).where(orders.c.order_id == due.order_id).values(fee_due_at=None))
    if fee.minor == 0:
        return False
    return ledger.post(conn, f"fee:{due.payment_intent}", due.order_id, ledger.payment_fee(fee, micros))
