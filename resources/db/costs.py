"""What a purchase is booked at: the provider's own figure where it can be converted, else what was expected.

The figure may have come with the acceptance of the order: it stands until a later answer tells another one.
"""

from typing import Any

from sqlalchemy import Connection, Row, select

from esim.money import Cost
from esim.pricing import Rates, landed_micros
from resources.db.catalogue_reader import usd_micros_per_unit
from resources.db.tables import providers


def booked_cost(conn: Connection, attempt: Row[Any], told: Cost | None) -> tuple[Cost, int]:
    """Return a purchase's cost and its landed value in micro-USD at today's rate, the provider's order fee included.

    A cost told in a currency without a reference rate cannot be booked: the expected one stands in, and the daily
    comparison with the provider's statement shows the difference.
    """
    expected = Cost(attempt.expected_cost, attempt.currency)
    cost = told or (expected if attempt.cost is None else Cost(attempt.cost, attempt.currency))
    rate = usd_micros_per_unit(conn, cost.currency) if cost.currency != "USD" else None
    if cost.currency != "USD" and rate is None:
        cost = expected
        rate = usd_micros_per_unit(conn, cost.currency)
    rates = Rates({cost.currency: rate} if rate else {})
    fee = conn.scalar(select(providers.c.order_fee_micros).where(providers.c.slug == attempt.provider))
    return cost, landed_micros(cost, rates, int(fee or 0))
