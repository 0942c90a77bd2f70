"""How much of an order's payment went back: counted anew from the refunds, whoever made them, never added up.

More than was paid can go back where people pay by hand. It is booked as it is; the order counts no more than its
amount, and operations are told.
"""

from datetime import datetime

from sqlalchemy import Connection, func, select, update

from esim.orders import UnitStatus
from resources.db import notices
from resources.db.order_money import money_of
from resources.db.tables import esims, order_items, orders, refunds
from resources.db.transitions import OrderRow

WENT_BACK = ("sent", "succeeded", "elsewhere")


def count_refunded(conn: Connection, order: OrderRow, now: datetime) -> None:
    """Write down on a locked order what went back of its payment."""
    [money] = money_of(conn, [order.order_id])
    refunded = min(money.back.minor, order.amount_minor)
    status = "refunded" if refunded == order.amount_minor else "partially_refunded" if refunded else "paid"
    values = {"refunded_minor": refunded, "payment_status": status, "updated_at": now}
    conn.execute(update(orders).where(orders.c.order_id == order.order_id).values(**values))
    order.refunded_minor, order.payment_status = refunded, status
    if money.back.minor > money.paid.minor:
        text = (
            f"Order {order.display_id}: {money.back} went back to the customer, of a payment of {money.paid}. "
            "See who has it twice."
        )
        key = f"paid_back_over:{order.order_id}:{money.back.minor}"
        notices.tell_operations(conn, order.order_id, "paid_back_over", key, text)


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
