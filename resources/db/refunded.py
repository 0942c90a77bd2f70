"""How much of an order's payment went back: counted anew from the refunds, whoever made them, never added up.

More than was paid can go back where people pay by hand. It is booked as it is; the order counts no more than its
amount, and operations are told.
"""

from datetime import datetime

from sqlalchemy import Connection, func, select, update

from esim.money import Money, exponent
from esim.orders import UnitStatus
from resources.db import notices
from resources.db.ledger import Account
from resources.db.tables import esims, ledger_entries, order_items, orders, refunds
from resources.db.transitions import OrderRow

WENT_BACK = ("sent", "succeeded", "elsewhere")


def count_refunded(conn: Connection, order: OrderRow, now: datetime) -> None:
    """Write down on a locked order what went back of its payment."""
    total, paid = went_back(conn, order), _paid_minor(conn, order)
    refunded = min(total, order.amount_minor)
    status = "refunded" if refunded == order.amount_minor else "partially_refunded" if refunded else "paid"
    values = {"refunded_minor": refunded, "payment_status": status, "updated_at": now}
    conn.execute(update(orders).where(orders.c.order_id == order.order_id).values(**values))
    order.refunded_minor, order.payment_status = refunded, status
    if paid is not None and total > paid:
        back, came = Money(total, order.currency), Money(paid, order.currency)
        text = (
            f"Order {order.display_id}: {back} went back to the customer, of a payment of {came}. See who has it twice."
        )
        notices.tell_operations(
            conn, order.order_id, "paid_back_over", f"paid_back_over:{order.order_id}:{total}", text
        )


def went_back(conn: Connection, order: OrderRow) -> int:
    """Return what went back of an order's payment, in minor units, even beyond its amount."""
    r = refunds.c
    of_payment = (r.order_id == order.order_id, r.payment_intent == order.payment_intent, r.state.in_(WENT_BACK))
    return int(conn.scalar(select(func.coalesce(func.sum(r.amount_minor), 0)).where(*of_payment)) or 0)


def not_attributed(conn: Connection, order: OrderRow) -> int:
    """Return how much went back to an order's customer that no unit has been paid back with yet."""
    r, e = refunds.c, esims.c
    open_refund = select(r.refund_key).where(r.order_id == e.order_id, r.esim_n == e.n)
    has_newer = r.state.in_(WENT_BACK)
    settled = (
        select(func.coalesce(func.sum(order_items.c.unit_price_minor), 0))
        .join_from(esims, order_items, order_items.c.item_id == e.item_id)
        .where(e.order_id == order.order_id, e.status == UnitStatus.REFUNDED)
        .where(
            open_refund.where(has_newer).exists() | ~open_refund.where(r.state.in_(("failed", "requested"))).exists()
        )
    )
    return order.refunded_minor - int(conn.scalar(settled) or 0)


def _paid_minor(conn: Connection, order: OrderRow) -> int | None:
    """Return what was paid, as it was booked in the order's currency."""
    e = ledger_entries.c
    of_payment = (e.posting_key == f"payment:{order.payment_intent}", e.account == Account.CASH)
    paid = conn.scalar(select(e.original_amount).where(*of_payment, e.original_currency == order.currency))
    return None if paid is None else int(paid.scaleb(exponent(order.currency)))
