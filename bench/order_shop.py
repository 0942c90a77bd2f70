"""A whole platform in a folder of its own to measure orders on: sandbox, API, Dagster, and orders written in bulk.

The packages are those whose best offer is Airalo's: of the five contracts it is the one that sells in one call and
publishes no limit on orders, so that our own speed is what is measured. The sandbox does not limit calls either.
"""

import hashlib
import hmac
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psutil
from sqlalchemy import Engine, insert, text

from cli.own_platform import PARTS, own_platform
from cli.processes import background
from resources.db.databases import databases, make_engine
from resources.db.tables import esims, ledger_entries, order_events, order_items, orders
from resources.settings import Settings

PLANS = 400
DELIVERED = "select count(*) from esims where status = 'delivered'"
MOST_ROWS = 2_000
_CHOICE = text(
    """
    select p.package_id, p.name, p.price_minor_usd, o.provider_package_id
    from packages p join offers o on o.offer_id = p.best_offer_id
    where p.on_sale and o.provider = 'airalo' and p.kind = 'plan'
    order by p.package_id limit 200
    """
)
_UNDONE = (
    "select (select count(*) from esims where status in ('queued', 'working', 'pending', 'unknown'))"
    " + (select count(*) from outbox where sent_at is null)"
)
_FIRST_RUNS = (
    "select count(*) from runs where pipeline_name <> 'provision_orders'"
    " and status in ('NOT_STARTED', 'QUEUED', 'STARTING', 'STARTED')"
)


@dataclass(frozen=True)
class Plan:
    """One package to sell, at a price in US cents, and what Airalo calls it."""

    package_id: str
    name: str
    price_minor: int
    wire_id: str


@dataclass(frozen=True)
class BenchShop:
    """The running platform."""

    settings: Settings
    engine: Engine
    processes: Mapping[str, "subprocess.Popen[bytes]"]
    plans: Sequence[Plan]

    def place(self, count: int, *, paid: bool) -> list[UUID]:
        """Write orders of one eSIM each, in one transaction: paid, which wakes the platform, or with open checkouts."""
        now = datetime.now(UTC)
        rows = [_order(self.plans[n % len(self.plans)], now, paid=paid) for n in range(count)]
        with self.engine.begin() as conn:
            for table in (orders, order_items, *((ledger_entries, order_events) if paid else ()), esims):
                values = [value for row in rows for value in row[table.name]]
                for start in range(0, len(values), MOST_ROWS):
                    conn.execute(insert(table), values[start : start + MOST_ROWS])
        return [row["orders"][0]["order_id"] for row in rows]

    def paid_event(self, order_id: UUID, plan: Plan) -> tuple[bytes, dict[str, str]]:
        """Return a signed `checkout.session.completed` for an order with an open checkout: body and headers."""
        subject = {
            "id": f"cs_test_{order_id.hex}",
            "object": "checkout.session",
            "amount_total": plan.price_minor,
            "currency": "usd",
            "client_reference_id": str(order_id),
            "metadata": {"order_id": str(order_id)},
            "payment_intent": f"pi_{order_id.hex}",
            "payment_status": "paid",
            "status": "complete",
        }
        at = int(time.time())
        event = {"id": f"evt_{order_id.hex}", "object": "event", "type": "checkout.session.completed", "created": at}
        body = json.dumps(event | {"data": {"object": subject}}).encode()
        secret = self.settings.stripe.credentials["webhook_secret"].encode()
        digest = hmac.new(secret, f"{at}.".encode() + body, hashlib.sha256).hexdigest()
        return body, {"Stripe-Signature": f"t={at},v1={digest}", "Content-Type": "application/json"}

    def number(self, statement: str, **values: object) -> float:
        """Return one number from the store."""
        with self.engine.connect() as conn:
            return float(conn.scalar(text(statement), values) or 0)

    def wait_until(self, statement: str, at_least: float, seconds: float, **values: object) -> bool:
        """Look ten times a second until a number is reached; return whether it was in time."""
        end = time.monotonic() + seconds
        while self.number(statement, **values) < at_least:
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def settle(self, seconds: float = 300) -> float:
        """Wait until nothing is in work and every notice is out; return how long that took."""
        return self._wait_for_none(self.engine, _UNDONE, "orders or notices", seconds)

    def finish_start(self, seconds: float = 120) -> None:
        """Wait until what only a first catalogue sets off is done, so that an established shop is measured."""
        runs = make_engine(databases(self.settings).dagster, pool_size=1)
        try:
            self._wait_for_none(runs, _FIRST_RUNS, "runs of the first catalogue", seconds)
        finally:
            runs.dispose()

    @staticmethod
    def _wait_for_none(engine: Engine, statement: str, what: str, seconds: float) -> float:
        started = time.monotonic()
        while True:
            with engine.connect() as conn:
                if not conn.scalar(text(statement)):
                    return time.monotonic() - started
            if time.monotonic() - started > seconds:
                sys.exit(f"{what} were still waiting after all this time")
            time.sleep(0.2)


def _order(plan: Plan, now: datetime, *, paid: bool) -> dict[str, list[dict[str, Any]]]:
    order_id, item_id = uuid4(), uuid4()
    intent, micros = f"pi_{order_id.hex}", plan.price_minor * 10_000
    posting = {"order_id": order_id, "posting_key": f"payment:{intent}", "original_currency": "USD", "esim_n": None}
    event = {"order_id": order_id, "reason": "payment received", "actor": "bench", "at": now}
    order: dict[str, Any] = {
        "order_id": order_id,
        "display_id": f"BENCH{order_id.hex[:12]}",
        "status": "paid" if paid else "pending",
        "payment_status": "paid" if paid else "unpaid",
        "email": "bench@numnaroad.test",
        "amount_minor": plan.price_minor,
        "currency": "USD",
        "token_hash": b"-",
        "catalogue_version": 1,
        "session_id": f"cs_test_{order_id.hex}",
        "payment_intent": intent if paid else None,
        "success_url": "http://127.0.0.1/ok",
        "cancel_url": "http://127.0.0.1/no",
        "expires_at": now + timedelta(minutes=30),
        "created_at": now,
        "paid_at": now if paid else None,
        "deadline_at": now + timedelta(minutes=70) if paid else None,
    }
    item = {
        "item_id": item_id,
        "order_id": order_id,
        "line": 1,
        "package_id": plan.package_id,
        "package": {"name": plan.name},
        "quantity": 1,
        "unit_price_minor": plan.price_minor,
        "currency": "USD",
        "unit_price_micros_usd": micros,
        "expected_landed_micros": micros // 2,
    }
    unit = {"esim_id": uuid4(), "order_id": order_id, "item_id": item_id, "n": 1}
    unit |= {"status": "queued", "next_attempt_at": now} if paid else {"status": "unpaid", "next_attempt_at": None}
    amounts = [("cash", micros), ("customer_payment", -micros)]
    return {
        "orders": [order],
        "order_items": [item],
        "ledger_entries": [
            posting | {"account": account, "amount_micros": amount, "original_amount": amount / 1_000_000}
            for account, amount in amounts
        ],
        "order_events": [
            event | {"from_status": "unpaid", "to_status": "queued", "esim_n": 1},
            event | {"from_status": "pending", "to_status": "paid", "esim_n": None},
        ],
        "esims": [unit],
    }


@contextmanager
def bench_shop(latency_ms: int = 0, parts: Sequence[str] = PARTS, **extra: str) -> Iterator[BenchShop]:
    """Run a platform with a small catalogue on free ports, in a folder that is gone afterwards."""
    own = {"RATE_LIMIT_PER_MINUTE": str(10**9), "PYTHONWARNINGS": "ignore", "SANDBOX_RATE_LIMITS": "0"}
    own |= {"SANDBOX_PLANS_PER_PROVIDER": str(PLANS), "SANDBOX_LATENCY_MS": str(latency_ms)} | extra
    with own_platform("bench-orders-", own) as platform:
        engine = make_engine(databases(platform.settings).operational, pool_size=4)
        with background(parts, platform.environment, platform.logs) as processes:
            platform.fill()
            with engine.connect() as conn:
                plans = [Plan(*row) for row in conn.execute(_CHOICE)]
            try:
                yield BenchShop(platform.settings, engine, processes, plans)
            finally:
                engine.dispose()
                if keep := os.environ.get("BENCH_LOGS"):
                    shutil.copytree(platform.logs, keep, dirs_exist_ok=True)


class CpuShares:
    """CPU seconds used by each part of the platform while a block runs."""

    def __init__(self, shop: BenchShop) -> None:
        self._roots = {name: process.pid for name, process in shop.processes.items()}
        pid_file = shop.settings.data_dir / "postgres" / "postmaster.pid"
        self._postgres = psutil.Process(int(pid_file.read_text().split()[0]))
        self._before: dict[tuple[str, int], float] = {}
        self.seconds = 0.0
        self.used: dict[str, float] = {}

    def __enter__(self) -> "CpuShares":
        self._before, self.seconds = self._read(), time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self.seconds
        for (name, pid), cpu in self._read().items():
            self.used[name] = self.used.get(name, 0.0) + cpu - self._before.get((name, pid), 0.0)

    def __str__(self) -> str:
        shares = ", ".join(f"{name} {used / self.seconds:.0%}" for name, used in sorted(self.used.items()))
        return f"CPU of one core: {shares}"

    def _read(self) -> dict[tuple[str, int], float]:
        """Return user and system seconds per part and process."""
        used: dict[tuple[str, int], float] = {}
        for name, pid in self._roots.items():
            for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
                used[name, process.pid] = _cpu(process)
        for process in [self._postgres, *self._postgres.children(recursive=True)]:
            used["postgres", process.pid] = _cpu(process)
        return used


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
