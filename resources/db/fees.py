"""What the payment service kept of each payment: asked for after the payment, booked once."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection, Engine, exists, func, literal, select, union, update

from esim.money import Money
from resources.db import ledger
from resources.db.ledger import Account
from resources.db.notices import tell_operations
from resources.db.tables import ledger_entries, orders
from resources.db.transitions import lock_order
from resources.db.valuation import usd_micros

_ASK_AGAIN = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class DueFee:
    """One payment whose fee is to be asked for."""

    order_id: UUID
    payment_intent: str


def claim_fees(engine: Engine, limit: int) -> list[DueFee]:
    """Give out the payments of at most `limit` orders with a fee due by the store's clock; due again in ten minutes.

    An order's second payment has a fee too, which stays with the payment service when the payment goes back.
    """
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
        return [due for order_id in conn.scalars(taken.returning(o.order_id)) for due in _unbooked(conn, order_id)]


def ask_for_fee(conn: Connection, order_id: UUID) -> None:
    """Make the fees of an order due: it has a payment that nobody asked about."""
    conn.execute(update(orders).where(orders.c.order_id == order_id).values(fee_due_at=func.now()))


def book_fee(conn: Connection, due: DueFee, fee: Money) -> bool:
    """Book a payment's fee, once; return False when it was booked before, or cannot be yet for want of a rate.

    A fee in a currency without a reference rate stays due, and operations are told once.
    """
    lock_order(conn, due.order_id)  # another payment of it, told of just now, keeps its own fee due
    micros = usd_micros(conn, due.order_id, fee)
    if micros is None:
        text = f"The fee of payment {due.payment_intent} is in {fee.currency}, which has no reference rate: not booked."
        tell_operations(conn, due.order_id, "fee_not_booked", f"fee_not_booked:{due.payment_intent}", text)
        return False
    # A fee of nothing is booked too, as the proof that it was asked for.
    booked = ledger.post(conn, f"fee:{due.payment_intent}", due.order_id, ledger.payment_fee(fee, micros))
    if not _unbooked(conn, due.order_id):
        conn.execute(update(orders).where(orders.c.order_id == due.order_id).values(fee_due_at=None))
    return booked and fee.minor != 0


def _unbooked(conn: Connection, order_id: UUID) -> list[DueFee]:
    """Return an order's payments, the first and every other that is booked, whose fee is not."""
    o, e, fee = orders.c, ledger_entries.c, ledger_entries.alias("fee")
    first = select(o.payment_intent.label("intent")).where(o.order_id == order_id, o.payment_intent.is_not(None))
    booked = select(func.substr(e.posting_key, len("payment:") + 1)).where(
        e.order_id == order_id, e.account == Account.CASH, e.posting_key.startswith("payment:")
    )
    intents = union(first, booked).subquery()
    has_fee = exists().where(fee.c.order_id == order_id, fee.c.posting_key == literal("fee:").concat(intents.c.intent))
    return [DueFee(order_id, str(intent)) for intent in conn.scalars(select(intents.c.intent).where(~has_fee))]
