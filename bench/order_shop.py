"""A whole platform in a folder of its own to measure orders on: sandbox, API, Dagster, and orders that are paid already.

Orders are written in bulk as a payment leaves them, for packages whose best offer is Airalo's: of the five contracts
it is the one that sells in one call and publishes no limit on orders, so that our own speed is what is measured.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psutil
from rich.console import Console
from sqlalchemy import Engine, insert, text

from cli.ports import free_ports
from cli.processes import background
from cli.run import prepare_environment, wait_for
from resources.db.databases import databases, make_engine
from resources.db.tables import esims, ledger_entries, order_events, order_items, orders
from resources.settings import Settings, load_settings

PARTS = ("sandbox", "api", "code", "daemon", "runs")
PLANS = 400
_UP_WITHIN_SECONDS = 90
_PORTS = ("API_PORT", "DAGSTER_PORT", "SANDBOX_PORT", "SANDBOX_SMTP_PORT", "CODE_SERVER_PORT")
_CHOICE = text(
    """
    select p.package_id, p.name, p.price_minor_usd from packages p
    join offers o on o.offer_id = p.best_offer_id
    where p.on_sale and o.provider = :provider and p.kind = 'plan'
    order by p.package_id limit 200
    """
)


@dataclass(frozen=True)
class BenchShop:
    """The running platform."""

    settings: Settings
    engine: Engine
    processes: Mapping[str, "subprocess.Popen[bytes]"]
    packages: Sequence[tuple[str, str, int]]  # id, name, price in US cents

    def place_paid(self, count: int) -> list[UUID]:
        """Write `count` paid orders of one eSIM each in one transaction, which wakes the platform; return their ids."""
        now = datetime.now(UTC)
        rows = [self._order(n, now) for n in range(count)]
        with self.engine.begin() as conn:
            conn.execute(insert(orders), [row["order"] for row in rows])
            conn.execute(insert(order_items), [row["item"] for row in rows])
            conn.execute(insert(ledger_entries), [entry for row in rows for entry in row["entries"]])
            conn.execute(insert(order_events), [event for row in rows for event in row["events"]])
            conn.execute(insert(esims), [row["esim"] for row in rows])
        return [row["order"]["order_id"] for row in rows]

    def _order(self, n: int, now: datetime) -> dict[str, Any]:
        package_id, name, price = self.packages[n % len(self.packages)]
        order_id, item_id, intent = uuid4(), uuid4(), f"pi_{uuid4().hex}"
        money = {"order_id": order_id, "posting_key": f"payment:{intent}", "original_currency": "USD"}
        micros = price * 10_000
        event = {"order_id": order_id, "reason": "payment received", "actor": "bench", "at": now}
        return {
            "order": {
                "order_id": order_id,
                "display_id": f"BENCH{order_id.hex[:12]}",
                "status": "paid",
                "payment_status": "paid",
                "email": "bench@numnaroad.test",
                "amount_minor": price,
                "currency": "USD",
                "token_hash": b"-",
                "catalogue_version": 1,
                "payment_intent": intent,
                "success_url": "http://127.0.0.1/ok",
                "cancel_url": "http://127.0.0.1/no",
                "expires_at": now + timedelta(minutes=30),
                "created_at": now,
                "paid_at": now,
                "deadline_at": now + timedelta(minutes=70),
            },
            "item": {
                "item_id": item_id,
                "order_id": order_id,
                "line": 1,
                "package_id": package_id,
                "package": {"name": name},
                "quantity": 1,
                "unit_price_minor": price,
                "currency": "USD",
                "unit_price_micros_usd": micros,
                "expected_landed_micros": micros // 2,
            },
            "entries": [
                money | {"account": "cash", "amount_micros": micros, "original_amount": price / 100},
                money | {"account": "customer_payment", "amount_micros": -micros, "original_amount": -price / 100},
            ],
            "events": [
                event | {"from_status": "pending", "to_status": "paid"},
                event | {"from_status": "unpaid", "to_status": "queued", "esim_n": 1},
            ],
            "esim": {
                "esim_id": uuid4(),
                "order_id": order_id,
                "item_id": item_id,
                "n": 1,
                "status": "queued",
                "next_attempt_at": now,
            },
        }

    def count(self, statement: str, **values: object) -> int:
        """Return one number from the store."""
        with self.engine.connect() as conn:
            return int(conn.scalar(text(statement), values) or 0)

    def wait_until(self, statement: str, at_least: int, seconds: float, **values: object) -> bool:
        """Look ten times a second until a count is reached; return whether it was in time."""
        end = time.monotonic() + seconds
        while self.count(statement, **values) < at_least:
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def settle(self, seconds: float = 120) -> bool:
        """Wait until no order is in work and no notice, refund or fee is due."""
        left = (
            "select (select count(*) from esims where status in ('queued', 'working', 'pending', 'unknown'))"
            " + (select count(*) from outbox where sent_at is null)"
            " + (select count(*) from refunds where state = 'requested')"
        )
        end = time.monotonic() + seconds
        while self.count(left):
            if time.monotonic() > end:
                return False
            time.sleep(0.2)
        return True


@contextmanager
def bench_shop(latency_ms: int = 0, parts: Sequence[str] = PARTS, **extra: str) -> Iterator[BenchShop]:
    """Run a platform with a small catalogue on free ports, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-orders-", ignore_cleanup_errors=True) as folder:
        own = {"DATA_DIR": str(Path(folder) / "data"), "RATE_LIMIT_PER_MINUTE": str(10**9), "PYTHONWARNINGS": "ignore"}
        own |= {"SANDBOX_PLANS_PER_PROVIDER": str(PLANS), "SANDBOX_RATE_LIMITS": "0"}
        own |= {"SANDBOX_LATENCY_MS": str(latency_ms)} | extra
        blank = dict.fromkeys((name.upper() for name in Settings.model_fields), "")
        os.environ.update(blank | own | dict(zip(_PORTS, map(str, free_ports(len(_PORTS))), strict=True)))
        load_settings.cache_clear()
        settings = load_settings()
        environment = prepare_environment(settings)
        engine = make_engine(databases(settings).operational, pool_size=4)
        with background(parts, environment, Path(folder) / "logs") as processes:
            for url in (f"{settings.sandbox_url}/healthz", f"{settings.api_url}/healthz"):
                if not wait_for(url, _UP_WITHIN_SECONDS):
                    sys.exit(f"nothing answers at {url}")
            _sync(settings)
            with engine.connect() as conn:
                packages = [tuple(row) for row in conn.execute(_CHOICE, {"provider": "airalo"})]
            try:
                yield BenchShop(settings, engine, processes, packages)  # type: ignore[arg-type]  # rows of three columns
            finally:
                engine.dispose()
                if keep := os.environ.get("BENCH_LOGS"):
                    subprocess.run(["cp", "-r", str(Path(folder) / "logs"), keep], check=False)


def _sync(settings: Settings) -> None:
    from cli.catalogue import sync_with_progress

    sync_with_progress(settings, Console(quiet=True), providers=None)
    httpx.get(f"{settings.api_url}/v1/destinations", timeout=10).raise_for_status()


class CpuShares:
    """CPU seconds used by each part of the platform while a block runs."""

    def __init__(self, shop: BenchShop) -> None:
        self._roots = {name: process.pid for name, process in shop.processes.items()}
        self._before: dict[str, float] = {}

    def __enter__(self) -> "CpuShares":
        self._before, self._at = self._read(), time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._at
        after = self._read()
        self.used = {name: max(0.0, cpu - self._before.get(name, 0.0)) for name, cpu in after.items()}

    def __str__(self) -> str:
        shares = ", ".join(f"{name} {used / self.seconds:.0%}" for name, used in sorted(self.used.items()))
        return f"CPU of one core: {shares}"

    def _read(self) -> dict[str, float]:
        """Sum user and system time, of ended children too, per part; Postgres is found by its name."""
        used: dict[str, float] = {}
        for name, pid in self._roots.items():
            for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
                used[name] = used.get(name, 0.0) + _cpu(process)
        used["postgres"] = sum(_cpu(one) for one in psutil.process_iter(["name"]) if one.info["name"] == "postgres")
        return used


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
