"""Best price over a million generated offers, three ways: polars (ours), a hand-written DuckDB query, the row rule."""

import gc
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

import duckdb
import polars as pl

from assets.price_expressions import best_offers, landed_micros_of
from esim.catalogue import Allowance, OfferKind, ProviderOffer
from esim.geography import Coverage
from esim.money import Cost
from esim.pricing import Candidate, Rates, best_offer, landed_micros

T = TypeVar("T")
OFFERS = 1_000_000
PACKAGES = 250_000
ROWS = 100_000  # the row rule is timed on a tenth and scaled up
ROUNDS = 7
_PROVIDERS = ("airalo", "esim_access", "esim_card", "esim_go", "mobimatter")
_RATES = {"USD": 1_000_000, "EUR": 1_086_543, "GBP": 1_271_009}

_DUCKDB = """
with landed as (
    select o.package_id, o.provider, o.provider_package_id, o.priority,
        (o.cost_micros * r.usd_micros + 500000) // 1000000 as landed_micros
    from offers o join rates r on r.currency = o.cost_currency
    where o.eligible
), lowest as (
    select package_id, min(landed_micros) as landed_micros from landed group by package_id
)
select package_id, provider, provider_package_id, landed_micros
from landed join lowest using (package_id, landed_micros)
qualify row_number() over (partition by package_id order by priority, provider, provider_package_id) = 1
"""


@dataclass(frozen=True, slots=True)
class Race:
    """Seconds for a million offers."""

    polars: float
    duckdb: float
    rows: float


def race() -> Race:
    """Time the three and make sure that they choose the same offers.

    Raises:
        AssertionError: they differ.
    """
    offers = generated(OFFERS)
    ours, polars_seconds = _best_of(lambda: _polars(offers))
    theirs, duckdb_seconds = _duckdb_best(offers)
    part = offers.head(ROWS)
    rows = _rows(part)
    by_row, row_seconds = _best_of(lambda: _by_rows(rows), rounds=2)
    key = ("package_id", "provider", "provider_package_id", "landed_micros")
    if not ours.select(key).sort("package_id").equals(theirs.select(key).sort("package_id")):
        raise AssertionError("polars and DuckDB choose different offers")
    sample = _polars(part).select(key).sort("package_id")
    if sample.rows() != sorted(by_row):
        raise AssertionError("polars and the row rule choose different offers")
    return Race(polars_seconds, duckdb_seconds, row_seconds * OFFERS / ROWS)


def generated(count: int) -> pl.DataFrame:
    """Return `count` offers of five providers, sorted by nothing, with ties and some that may not win."""
    roll = random.Random(1)
    providers = [roll.randrange(len(_PROVIDERS)) for _ in range(count)]
    return pl.DataFrame(
        {
            "package_id": [f"pkg-{roll.randrange(PACKAGES * count // OFFERS)}-5gb-30d" for _ in range(count)],
            "provider": [_PROVIDERS[number] for number in providers],
            "priority": providers,
            "provider_package_id": [f"plan-{number}" for number in range(count)],
            "cost_micros": [roll.randrange(50, 5_000) * 10_000 for _ in range(count)],
            "cost_currency": [roll.choice(("USD", "USD", "USD", "EUR", "GBP")) for _ in range(count)],
            "eligible": [roll.random() < 0.95 for _ in range(count)],
        },
        schema_overrides={"cost_micros": pl.Int64},
    )


def _polars(offers: pl.DataFrame) -> pl.DataFrame:
    rate = pl.col("cost_currency").replace_strict(_RATES, return_dtype=pl.Int64)
    landed = landed_micros_of(pl.col("cost_micros"), rate, pl.lit(0, dtype=pl.Int64))
    return best_offers(offers.with_columns(landed_micros=landed))


def _duckdb_best(offers: pl.DataFrame) -> tuple[pl.DataFrame, float]:
    with duckdb.connect() as connection:
        connection.execute("set enable_progress_bar = false")
        connection.register("frame", offers)
        connection.execute("create table offers as select * from frame")
        connection.execute("create table rates (currency varchar, usd_micros bigint)")
        connection.executemany("insert into rates values (?, ?)", list(_RATES.items()))
        found, seconds = _best_of(lambda: connection.execute(_DUCKDB).pl())
    return found.with_columns(pl.col("landed_micros").cast(pl.Int64)), seconds


Row = tuple[str, ProviderOffer, int, bool]


def _rows(offers: pl.DataFrame) -> list[Row]:
    return [
        (
            row["package_id"],
            ProviderOffer(
                provider=row["provider"],
                provider_package_id=row["provider_package_id"],
                name="plan",
                kind=OfferKind.PLAN,
                coverage=Coverage(("JP",)),
                allowance=Allowance.TOTAL,
                data_mb=5000,
                validity_days=30,
                cost=Cost(Decimal(row["cost_micros"]).scaleb(-6), row["cost_currency"]),
            ),
            row["priority"],
            row["eligible"],
        )
        for row in offers.iter_rows(named=True)
    ]


def _by_rows(rows: list[Row]) -> list[tuple[str, str, str, int]]:
    rates, grouped = Rates(_RATES), dict[str, list[Candidate]]()
    for package_id, offer, priority, eligible in rows:
        candidate = Candidate(offer, landed_micros(offer.cost, rates), priority, eligible)
        grouped.setdefault(package_id, []).append(candidate)
    found = []
    for package_id, candidates in grouped.items():
        best = best_offer(candidates)
        if best is not None:
            found.append((package_id, best.offer.provider, best.offer.provider_package_id, best.landed_micros))
    return found


def _best_of(work: Callable[[], T], rounds: int = ROUNDS) -> tuple[T, float]:
    seconds = []
    for _ in range(rounds):
        gc.collect()
        started = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - started)
    return result, min(seconds)
