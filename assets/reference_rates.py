"""Keeping the reference rates fresh and sane: fetched at most daily, a rate that jumps is not believed.

How far a rate may move grows with the days since the last one that was believed, so that a currency which did move is
believed after a few days, while a slip by a factor of ten or a hundred is not believed for months.
"""

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import polars as pl
from sqlalchemy import Connection, Engine

from esim.pricing import Rates
from resources.db.notices import tell_operations
from resources.db.reference_rates import RatesState, newest_rates, save_rates
from resources.rates import RatesUnavailable, ReferenceRates

FRESH_FOR = timedelta(hours=20)
MAX_MOVE_PERCENT = 25
MORE_PERCENT_A_DAY = 5


@dataclass(frozen=True, slots=True)
class RatesUpdate:
    """The rates to price with; `quoted` is what was believed of a new quotation, `refused` names what was not."""

    rates: Rates
    quoted: Rates = field(default_factory=lambda: Rates({}))
    refused: tuple[str, ...] = ()
    failure: str = ""


def update_rates(engine: Engine, source: ReferenceRates) -> RatesUpdate:
    """Fetch today's rates and store those that can be believed.

    Raises:
        RatesUnavailable: the source does not answer in its format; the rates known so far stay.
    """
    fresh = source.fetch()
    with engine.begin() as conn:
        known = newest_rates(conn)
        refused = tuple(
            code for code, micros in fresh.usd_micros.items() if not _believable(code, micros, fresh, known)
        )
        believed = Rates({k: v for k, v in fresh.usd_micros.items() if k not in refused}, fresh.quoted_on)
        save_rates(conn, believed)
        for code in refused:
            _tell(conn, code, fresh, known)
        return RatesUpdate(newest_rates(conn).rates, believed, refused)


def ensure_rates(engine: Engine, source: ReferenceRates, now: datetime) -> RatesUpdate:
    """Return the rates to price with, fetched when they are older than 20 hours; a failure leaves the known ones."""
    with engine.connect() as conn:
        state = newest_rates(conn)
    if _is_fresh(state, now):
        return RatesUpdate(state.rates)
    try:
        return update_rates(engine, source)
    except RatesUnavailable as error:
        return RatesUpdate(state.rates, failure=str(error))


def _is_fresh(state: RatesState, now: datetime) -> bool:
    return state.fetched_at is not None and now - state.fetched_at < FRESH_FOR


def _believable(code: str, micros: int, fresh: Rates, known: RatesState) -> bool:
    before = known.rates.usd_micros.get(code)
    if before is None:
        return True
    days = max(0, (date.fromisoformat(fresh.quoted_on) - known.days[code]).days)
    most = 100 + MAX_MOVE_PERCENT + MORE_PERCENT_A_DAY * days
    return max(micros, before) * 100 <= min(micros, before) * most


def _tell(conn: Connection, code: str, fresh: Rates, known: RatesState) -> None:
    text = (
        f"The reference rate of {code} for {fresh.quoted_on} is not believed: {fresh.usd_micros[code]} micro-USD after"
        f" {known.rates.usd_micros[code]} on {known.days[code]}. Prices keep the earlier rate."
    )
    tell_operations(conn, None, "rate_refused", f"rate_refused:{code}:{fresh.quoted_on}", text)


def lake_rows(quoted: Rates) -> pl.DataFrame:
    """Return one day's quotation as rows of `raw.reference_rates`."""
    day = date.fromisoformat(quoted.quoted_on)
    rows = [(currency, day, micros) for currency, micros in sorted(quoted.usd_micros.items())]
    return pl.DataFrame(
        rows, schema={"currency": pl.String, "quoted_on": pl.Date, "usd_micros": pl.Int64}, orient="row"
    )
