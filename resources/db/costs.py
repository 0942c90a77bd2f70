"""What a purchase is booked at: the provider's own figure where it can be converted, else what was expected.

The figure may have come with the acceptance of the order: it stands until a later answer tells another one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from esim.money import Cost
from esim.pricing import Rates, landed_micros
from resources.db.catalogue_reader import usd_micros_per_unit
from resources.db.tables import providers


@dataclass(frozen=True, slots=True)
class Booked:
    """What a purchase is booked at: its cost, and its landed value in micro-USD with the provider's order fee.

    `unconverted` is a cost that the provider told and that could not be booked; the expected one stands in for it.
    """

    cost: Cost
    micros: int
    above_ceiling: bool = False
    unconverted: Cost | None = None


class CostBook:
    """Rates and order fees as they are in one transaction, each read when it is first needed."""

    def __init__(self, conn: Connection, fees: Mapping[str, int] | None = None) -> None:
        self._conn = conn
        self._rates: dict[str, int | None] = {"USD": None}
        self._fees = dict(fees or {})

    def booked(self, attempt: Row[Any], told: Cost | None) -> Booked:
        """Return what a purchase is booked at, by today's rates, and whether that is above its ceiling.

        A cost told in a currency without a reference rate cannot be booked, nor compared with the ceiling.
        """
        expected = Cost(attempt.expected_cost, attempt.currency)
        cost = told or (expected if attempt.cost is None else Cost(attempt.cost, attempt.currency))
        unconverted = None
        if cost.currency != "USD" and self._rate(cost.currency) is None:
            cost, unconverted = expected, (cost if cost.currency != expected.currency else None)
        micros = self._landed(cost, attempt.provider)
        ceiling = Cost(attempt.ceiling_cost, attempt.currency)
        if cost.currency == ceiling.currency:
            return Booked(cost, micros, cost.amount > ceiling.amount, unconverted)
        comparable = ceiling.currency == "USD" or self._rate(ceiling.currency) is not None
        within = comparable and micros <= self._landed(ceiling, attempt.provider)
        return Booked(cost, micros, not within, unconverted)

    def _landed(self, cost: Cost, provider: str) -> int:
        rate = self._rate(cost.currency)
        return landed_micros(cost, Rates({cost.currency: rate} if rate else {}), self._fee(provider))

    def _rate(self, currency: str) -> int | None:
        if currency not in self._rates:
            self._rates[currency] = usd_micros_per_unit(self._conn, currency)
        return self._rates[currency]

    def _fee(self, provider: str) -> int:
        if provider not in self._fees:
            fee = select(providers.c.order_fee_micros).where(providers.c.slug == provider)
            self._fees[provider] = int(self._conn.scalar(fee) or 0)
        return self._fees[provider]


def booked_cost(conn: Connection, attempt: Row[Any], told: Cost | None) -> Booked:
    """Return what one purchase is booked at; see `CostBook.booked`."""
    return CostBook(conn).booked(attempt, told)
