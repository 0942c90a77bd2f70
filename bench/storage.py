"""`make bench-storage`: how much Dagster's storage grows by 10,000 orders, against the budget of 50 MB.

The real thing: code server and daemon with `deploy/dagster.yaml` on an embedded Postgres, the sandbox without rate
limits, and orders paid in the store at two paces. Sensors and schedules tick meanwhile as they do. The growth of every
table with its indexes is measured after the last drain has ended; nothing is deleted before.
"""

import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import dagster as dg
import psycopg
from sqlalchemy import Connection, Engine, insert, text

from assets.catalogue_sync import sync_catalogue
from assets.dagster_storage import KeepRuns, forget_runs, forget_side_records, forget_skipped_ticks
from cli.ports import free_ports
from cli.processes import background, leave_on_sigterm
from cli.run import prepare_environment, wait_for
from resources.catalogue_desk import catalogue_desk
from resources.db.databases import databases, make_engine
from resources.db.embedded import leave_embedded
from resources.db.tables import esims, order_items, orders
from resources.settings import Settings

BUDGET_MB = 50.0
PER = 10_000
_PARTS = ("sandbox", "code", "daemon")
_PORTS = ("API_PORT", "DAGSTER_PORT", "SANDBOX_PORT", "SANDBOX_SMTP_PORT", "CODE_SERVER_PORT")
_SETTLE_SECONDS = 20.0
_MB = 1_000_000
_DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Pace:
    """How orders come in: so many at once, so far apart, so many in all."""

    name: str
    at_once: int
    every_seconds: float
    orders: int


@dataclass(frozen=True, slots=True)
class Grown:
    """What one pace cost: bytes by table, seconds from the first payment to the end of the last drain, runs."""

    pace: Pace
    by_table: Counter[str]
    seconds: float
    runs: int

    @property
    def mb(self) -> float:
        """Megabytes for 10,000 orders at this pace."""
        return self.by_table.total() / _MB * PER / self.pace.orders


PACES = (Pace("flash sale", 100, 0.5, 2_000), Pace("a steady 4 orders/s", 4, 1.0, 600))


def main() -> int:
    """Measure both paces and idle ticks; 1 when the budget is exceeded."""
    folder = Path(tempfile.mkdtemp(prefix="numnaroad-bench-"))
    try:
        with _platform(folder) as (settings, engine):
            idle = _idle(settings)
            grown = [_measure(settings, engine, pace) for pace in PACES]
        before, after = _forget(settings)
    finally:
        leave_embedded(folder / "data")
        shutil.rmtree(folder, ignore_errors=True)
    for one in grown:
        verdict = "met" if one.mb <= BUDGET_MB else "missed"
        print(f"{one.pace.name:24} {one.mb:6.1f} MB per {PER} orders   target {BUDGET_MB:.0f}   {verdict}")
        print(f"{'':24} {one.pace.orders} orders in {one.seconds:.0f} s, {one.runs} runs; {_largest(one.by_table)}")
    print(f"{'ticks and reports, idle':24} {idle:6.1f} MB a day; ticks that found nothing are kept for two hours of it")
    print(f"{'after retention':24} {after:6.1f} MB of {before:.1f} MB are left four days later, everything included")
    return int(any(one.mb > BUDGET_MB for one in grown))


@contextmanager
def _platform(folder: Path) -> Iterator[tuple[Settings, Engine]]:
    """Run the platform without its pages, with a catalogue to sell."""
    for name in [*(field.upper() for field in Settings.model_fields), "DAGSTER_HOME"]:
        os.environ.pop(name, None)
    os.environ |= {name: str(port) for name, port in zip(_PORTS, free_ports(len(_PORTS)), strict=True)}
    os.environ |= {"SANDBOX_RATE_LIMITS": "0", "SANDBOX_PLANS_PER_PROVIDER": "50", "DATA_DIR": str(folder / "data")}
    settings = Settings(_env_file=None)  # type: ignore[call-arg]  # pydantic-settings' own argument
    environment = prepare_environment(settings)
    os.environ["DAGSTER_POSTGRES_URL"] = environment["DAGSTER_POSTGRES_URL"]  # retention opens the same instance
    engine = make_engine(databases(settings).operational)
    with background(_PARTS, environment, folder / "logs"):
        if not wait_for(f"{settings.sandbox_url}/healthz", 60):
            raise SystemExit(f"the sandbox did not start; see {folder}/logs")
        with catalogue_desk(settings) as desk:
            sync_catalogue(desk)
        _until(lambda: _ticks(settings) > 20, "the daemon evaluates sensors", 120)
        yield settings, engine
    engine.dispose()


def _idle(settings: Settings) -> float:
    """Return how many megabytes a day ticks and reports come to while nothing is sold."""
    time.sleep(_SETTLE_SECONDS)  # the first looks of every sensor, a republication perhaps
    before, started = _sizes(settings), time.monotonic()
    time.sleep(3 * _SETTLE_SECONDS)
    grown = _sizes(settings) - before
    return grown.total() / _MB * _DAY_SECONDS / (time.monotonic() - started)


def _measure(settings: Settings, engine: Engine, pace: Pace) -> Grown:
    before, runs, started = _sizes(settings), _rows(settings, "runs"), time.monotonic()
    with engine.connect() as conn:
        sold = str(conn.scalar(text("select package_id from packages where on_sale order by package_id limit 1")))
    for number in range(0, pace.orders, pace.at_once):
        time.sleep(max(0.0, started + number / pace.at_once * pace.every_seconds - time.monotonic()))
        with engine.begin() as conn:
            _pay(conn, sold, pace.at_once)
    _until(
        lambda: not _count(engine, "select count(*) from esims where status <> 'delivered'"), "all is delivered", 300
    )
    _until(lambda: not _count(engine, "select count(*) from drains where ended_at is null"), "the drains ended", 120)
    time.sleep(_SETTLE_SECONDS)  # runs end a moment after their drains
    return Grown(pace, _sizes(settings) - before, time.monotonic() - started, _rows(settings, "runs") - runs)


def _pay(conn: Connection, package_id: str, count: int) -> None:
    """Write orders as they are when their payment has just come in."""
    now, price = datetime.now(UTC), 9_999
    rows = [(uuid4(), uuid4(), uuid4()) for _ in range(count)]
    paid = {"status": "paid", "payment_status": "paid", "amount_minor": price, "currency": "USD", "token_hash": b"-"}
    dates = {"expires_at": now, "paid_at": now, "deadline_at": now + timedelta(minutes=70), "catalogue_version": 1}
    pages = {"email": "bench@numnaroad.test", "success_url": "http://127.0.0.1/", "cancel_url": "http://127.0.0.1/"}
    names = [{"order_id": o, "display_id": f"B{o.hex[:12]}", "payment_intent": f"pi_{o.hex}"} for o, _, _ in rows]
    conn.execute(insert(orders), [paid | dates | pages | name for name in names])
    item = {"line": 1, "package_id": package_id, "package": {"name": "bench"}, "quantity": 1, "currency": "USD"}
    item |= {"unit_price_minor": price, "unit_price_micros_usd": price * 10_000, "expected_landed_micros": 1}
    conn.execute(insert(order_items), [item | {"order_id": o, "item_id": i} for o, i, _ in rows])
    unit = {"n": 1, "status": "queued", "next_attempt_at": now}
    conn.execute(insert(esims), [unit | {"order_id": o, "item_id": i, "esim_id": e} for o, i, e in rows])
    conn.execute(text("notify paid_units"))


def _forget(settings: Settings) -> tuple[float, float]:
    """Return the megabytes of the whole storage, and those left when retention has run four days later."""
    before, later = _sizes(settings).total(), datetime.now(UTC) + timedelta(days=4)
    with dg.DagsterInstance.from_config(str(settings.dagster_home_path)) as instance:
        forget_runs(instance, KeepRuns(), later, most_seconds=120)
        forget_skipped_ticks(instance, later)
    forget_side_records(settings, later)
    with psycopg.connect(databases(settings).dagster, autocommit=True) as connection:
        connection.execute("vacuum full")  # what stays in place for new rows is no growth
    return before / _MB, _sizes(settings).total() / _MB


def _sizes(settings: Settings) -> Counter[str]:
    """Return the bytes of every table of Dagster's storage, indexes included."""
    query = (
        "select relname, pg_total_relation_size(oid) from pg_class"
        " where relkind = 'r' and relnamespace = 'public'::regnamespace"
    )
    with psycopg.connect(databases(settings).dagster, autocommit=True) as connection:
        return Counter({str(name): int(size) for name, size in connection.execute(query).fetchall()})


def _rows(settings: Settings, table: str) -> int:
    with psycopg.connect(databases(settings).dagster, autocommit=True) as connection:
        row = connection.execute(f"select count(*) from {table}".encode()).fetchone()
    return int(row[0]) if row else 0


def _ticks(settings: Settings) -> int:
    return _rows(settings, "job_ticks")


def _count(engine: Engine, query: str) -> int:
    with engine.connect() as conn:
        return int(conn.scalar(text(query)) or 0)


def _until(true: Callable[[], bool], what: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise SystemExit(f"gave up after {seconds:.0f} s waiting until {what}")
        time.sleep(0.5)


def _largest(by_table: Mapping[str, int]) -> str:
    largest = sorted(by_table.items(), key=lambda each: -each[1])[:4]
    return ", ".join(f"{name} {size / _MB:.2f} MB" for name, size in largest)


if __name__ == "__main__":
    leave_on_sigterm()
    sys.exit(main())
