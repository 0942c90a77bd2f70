"""Keeping the reference rates fresh and sane: fetched at most daily, a rate that jumps is not believed."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl
from sqlalchemy import Engine

from esim.pricing import Rates
from resources.db.reference_rates import RatesState, newest_rates, save_rates
from resources.rates import RatesUnavailable, ReferenceRates

FRESH_FOR = timedelta(hours=20)
MAX_MOVE_PERCENT = 25


@dataclass(frozen=True, slots=True)
class RatesUpdate:
    """What an update did; `refused` names the currencies whose new rate was not believed."""

    rates: Rates
    stored: int = 0
    refused: tuple[str, ...] = ()
    failure: str = ""


def update_rates(engine: Engine, source: ReferenceRates) -> RatesUpdate:
    """Fetch today's rates and store those that can be believed.

    Raises:
        RatesUnavailable: the source does not answer in its format; the rates known so far stay.
    """
    fresh = source.fetch()
    with engine.begin() as conn:
        known = newest_rates(conn).rates
        refused = tuple(
            code for code, micros in fresh.usd_micros.items() if _jumped(micros, known.usd_micros.get(code))
        )
        believed = {code: micros for code, micros in fresh.usd_micros.items() if code not in refused}
        stored = save_rates(conn, Rates(believed, fresh.quoted_on))
        return RatesUpdate(newest_rates(conn).rates, stored, refused)


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


def _jumped(micros: int, known: int | None) -> bool:
    return known is not None and abs(micros - known) * 100 > known * MAX_MOVE_PERCENT


def lake_rows(rates: Rates) -> pl.DataFrame:
    """Return the newest quotation as rows of `raw.reference_rates`."""
    day = date.fromisoformat(rates.quoted_on)
    rows = [(currency, day, micros) for currency, micros in sorted(rates.usd_micros.items())]
    return pl.DataFrame(
        rows, schema={"currency": pl.String, "quoted_on": pl.Date, "usd_micros": pl.Int64}, orient="row"
    )
