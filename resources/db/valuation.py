"""What money that came in or went back is worth in micro-USD, the ledger's unit."""

from collections.abc import Collection
from decimal import ROUND_HALF_EVEN, Decimal
from uuid import UUID

from sqlalchemy import Connection, func, select

from esim.money import Money, exponent
from resources.db.catalogue_reader import usd_micros_per_unit
from resources.db.ledger import Account
from resources.db.tables import ledger_entries, order_items, orders


def usd_micros(conn: Connection, order_id: UUID, amount: Money) -> int | None:
    """Value an amount paid for an order: in its own currency at the rate it was sold at, else at the reference rate.

    Returns None for a currency without a rate.
    """
    if amount.currency == "USD":
        return amount.micros
    i = order_items.c
    sold = select(func.sum(i.quantity * i.unit_price_micros_usd)).where(i.order_id == order_id).scalar_subquery()
    order = conn.execute(
        select(orders.c.amount_minor, orders.c.currency, sold.label("micros")).where(orders.c.order_id == order_id)
    ).one()
    if amount.currency == order.currency:
        return int(order.micros) * amount.minor // int(order.amount_minor)
    rate = usd_micros_per_unit(conn, amount.currency)
    return None if rate is None else amount.minor * rate // int(10 ** exponent(amount.currency))


def sold_micros(conn: Connection, order_ids: Collection[UUID]) -> dict[UUID, int]:
    """Return what whole orders were sold for, in micro-USD at the rate of their sale."""
    i = order_items.c
    sold = select(i.order_id, func.sum(i.quantity * i.unit_price_micros_usd)).where(i.order_id.in_(order_ids))
    return {order_id: int(micros) for order_id, micros in conn.execute(sold.group_by(i.order_id))}


def share_of_payment(conn: Connection, payment_intent: str, amount: Money) -> int | None:
    """Value a part of a payment as the payment was booked, so that all of it paid back leaves nothing behind.

    Returns None for a payment that was not booked in this currency.
    """
    e = ledger_entries.c
    booked = conn.execute(
        select(e.amount_micros, e.original_amount).where(
            e.posting_key == f"payment:{payment_intent}",
            e.account == Account.CASH,
            e.original_currency == amount.currency,
        )
    ).one_or_none()
    if booked is None or not booked.original_amount:
        return None
    major = Decimal(amount.minor).scaleb(-exponent(amount.currency))
    share = int(booked.amount_micros) * major / booked.original_amount
    return int(share.to_integral_value(rounding=ROUND_HALF_EVEN))
