"""Where the money of orders is: what was paid for each, and how much of it is with the customer again."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from sqlalchemy import Connection, text

from esim.money import Money, exponent

_MONEY = text(
    """
    select o.order_id, o.amount_minor, o.currency,
        (select l.original_amount from ledger_entries l where l.posting_key = 'payment:' || o.payment_intent
            and l.account = 'cash' and l.original_currency = o.currency) as booked,
        (select coalesce(sum(r.amount_minor), 0) from refunds r where r.order_id = o.order_id
            and r.payment_intent = o.payment_intent and r.state in ('sent', 'succeeded', 'elsewhere')) as back_minor
    from orders o where o.order_id = any(:ids) and o.payment_intent is not null
    """
)


@dataclass(frozen=True, slots=True)
class OrderMoney:
    """What was paid for an order (its price, where that is not booked in its currency), and what of it went back."""

    order_id: UUID
    paid: Money
    back: Money
    price: Money

    @property
    def is_all_back(self) -> bool:
        """Whether nothing of the payment is left."""
        return self.back.minor > 0 and self.back.minor >= self.paid.minor


def money_of(conn: Connection, order_ids: Collection[UUID]) -> Iterator[OrderMoney]:
    """Yield the money of those orders that are paid."""
    for row in conn.execute(_MONEY, {"ids": list(order_ids)}):
        price, back = Money(int(row.amount_minor), row.currency), Money(int(row.back_minor), row.currency)
        paid = price if row.booked is None else Money(_minor(row.booked, row.currency), row.currency)
        yield OrderMoney(row.order_id, paid, back, price)


def is_all_back(conn: Connection, order_id: UUID) -> bool:
    """Return whether all that was paid for an order is with the customer again."""
    return any(money.is_all_back for money in money_of(conn, [order_id]))


def _minor(major: Decimal, currency: str) -> int:
    return int(major.scaleb(exponent(currency)))
