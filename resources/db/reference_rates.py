"""Daily reference rates in the operational store: micro-USD per unit of currency, one row per currency and day."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import distinct_on, insert

from esim.pricing import Rates
from resources.db.tables import reference_rates


@dataclass(frozen=True, slots=True)
class RatesState:
    """The newest rates, the day each is of, and when they were fetched (None when there are none)."""

    rates: Rates
    days: Mapping[str, date]
    fetched_at: datetime | None


def newest_rates(conn: Connection) -> RatesState:
    """Return the newest rate of every currency that has one."""
    t = reference_rates
    query = select(t).ext(distinct_on(t.c.currency)).order_by(t.c.currency, t.c.quoted_on.desc())
    rows = conn.execute(query).all()
    if not rows:
        return RatesState(Rates({}), {}, None)
    days = {row.currency: row.quoted_on for row in rows}
    rates = Rates({row.currency: int(row.usd_micros) for row in rows}, max(days.values()).isoformat())
    return RatesState(rates, days, conn.scalar(select(func.max(t.c.fetched_at))))


def save_rates(conn: Connection, rates: Rates) -> int:
    """Store the quotation of one day (a repeat overwrites it) and return how many currencies it has."""
    quoted_on = date.fromisoformat(rates.quoted_on)
    rows = [
        {"currency": currency, "quoted_on": quoted_on, "usd_micros": micros}
        for currency, micros in sorted(rates.usd_micros.items())
    ]
    if rows:
        statement = insert(reference_rates)
        changed = {"usd_micros": statement.excluded.usd_micros, "fetched_at": func.now()}
        conn.execute(statement.on_conflict_do_update(constraint="pk_reference_rates", set_=changed), rows)
    return len(rows)
