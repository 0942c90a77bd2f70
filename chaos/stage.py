"""What a campaign plays on: Postgres, the sandbox and the shared clock once a process; a shop and its API per seed."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr
from sqlalchemy import Engine, text

from chaos import children
from chaos.catalogue import Plan, put_on_sale, read_plans
from chaos.clock import SharedClock
from chaos.lines import line
from chaos.postgres import Server
from esim.errors import NumnaRoadError
from resources.db.databases import databases, make_engine
from resources.settings import Settings

PLANS_PER_PROVIDER = 40
_UP_WITHIN_SECONDS = 60.0
_ROOT = Path(__file__).resolve().parent.parent
_DUE = (
    "update outbox set next_attempt_at = now() where sent_at is null",
    "update refunds set next_attempt_at = now() where state = 'requested'",
    "update orders set fee_due_at = now() where fee_due_at is not null",
)
Json = dict[str, Any]


class StageError(NumnaRoadError):
    """A part of the campaign's own stage did not come up."""


class Outside:
    """The sandbox's control routes: the world as the providers, the payment service and the mail carrier see it."""

    def __init__(self, url: str) -> None:
        self.http = line(url, timeout_seconds=30)

    def reset(self) -> None:
        """Forget everything, and set the clock right."""
        self.http.post("/sandbox/reset").raise_for_status()
        self.set_ahead(0)

    def set_ahead(self, seconds: float) -> None:
        """Put the sandbox's clock ahead."""
        self.http.put("/sandbox/clock", json={"ahead_seconds": seconds}).raise_for_status()

    def put_faults(self, faults: list[Json]) -> None:
        """Put providers' faults in force."""
        self.http.put("/sandbox/faults", json=faults).raise_for_status()

    def put_other_faults(self, part: str, fault: Json) -> None:
        """Put a fault of `stripe` or `mail` in force."""
        self.http.put(f"/sandbox/{part}/faults", json=fault).raise_for_status()

    def clear_faults(self) -> None:
        """End every fault."""
        self.http.delete("/sandbox/faults").raise_for_status()

    def struck(self) -> dict[str, int]:
        """How often each fault struck since the sandbox started: `airalo order timeout_after` -> 3."""
        counts: dict[str, int] = {}
        for path in ("/sandbox/faults", "/sandbox/stripe/faults", "/sandbox/mail/faults"):
            counts |= self.read(path)["struck"]
        return counts

    def read(self, path: str, **params: str) -> Json:
        """Read a control route."""
        answer: Json = self.http.get(path, params=params).raise_for_status().json()
        return answer


@dataclass
class Shop:
    """One seed's shop: a fresh database with a small catalogue, and an API that can be killed."""

    stage: "Stage"
    settings: Settings
    engine: Engine
    package_ids: list[str]
    folder: Path
    api: ForkServerProcess | None = None
    drains: list[ForkServerProcess] = field(default_factory=list)

    @property
    def clock(self) -> SharedClock:
        """The clock of all of it."""
        return self.stage.clock

    @property
    def url(self) -> str:
        """The libpq URL of its database."""
        return databases(self.settings).operational

    @property
    def diary(self) -> Path:
        """Where workers write how they died."""
        return self.folder / "diary.txt"

    def order_for(self, **changes: Any) -> children.DrainOrder:
        """Return what a drain of this shop is told."""
        log = self.folder / "drains.log"
        return children.DrainOrder(self.settings, self.clock, self.diary, log, **changes)

    def start_drain(self, **changes: Any) -> ForkServerProcess:
        """Start one drain process."""
        process = children.start(self.stage.context, children.drain, self.order_for(**changes))
        self.drains.append(process)
        return process

    def start_api(self) -> None:
        """Start the API and wait until it answers.

        Raises:
            StageError: it does not come up.
        """
        log = self.folder / "api.log"
        self.api = children.start(self.stage.context, children.serve_api, self.settings, self.clock, log)
        until = time.monotonic() + _UP_WITHIN_SECONDS
        while not _answers(f"{self.settings.api_url}/healthz"):
            if time.monotonic() > until or self.api.exitcode is not None:
                raise StageError(f"the API does not answer at {self.settings.api_url}; see {log}")
            time.sleep(0.02)

    def kill_api(self) -> None:
        """Kill -9 the API."""
        if self.api is not None:
            self.api.kill()
            self.api.join()
            self.api = None

    def make_due(self) -> None:
        """Bring forward what the product times by the database's own clock, which cannot be leapt over.

        That is when a notice, a refund or a fee is tried again: `next_attempt_at` and `fee_due_at` are set to now and
        nothing else is touched, while no worker is alive.
        """
        with self.engine.begin() as conn:
            for statement in _DUE:
                conn.execute(text(statement))

    def await_arrivals(self) -> None:
        """Let requests of workers that are gone arrive: the sandbox reads its sockets before it answers us."""
        for _ in range(3):
            self.stage.outside.read("/healthz")
            time.sleep(0.02)

    def end_drains(self, within_seconds: float) -> int:
        """Wait for all drains to end; return how many had to be killed because they did not."""
        until, killed = time.monotonic() + within_seconds, 0
        for process in self.drains:
            process.join(max(0.0, until - time.monotonic()))
            if process.exitcode is None:
                process.kill()
                process.join()
                killed += 1
        self.drains.clear()
        return killed


class Stage:
    """Postgres, sandbox and clock of one process, for one seed after another."""

    def __init__(self, folder: Path, port: int, smtp_port: int, api_port: int) -> None:
        self.folder, self._sandbox_port, self._api_port = folder, port, api_port
        self.clock = SharedClock(folder / "clock")
        self.context: ForkServerContext = children.forkserver()
        self.postgres = Server(folder / "data")
        self._sandbox = self._start_sandbox(smtp_port)
        self.outside = Outside(f"http://127.0.0.1:{port}")
        self._await_sandbox()
        self.plans: Mapping[str, list[Plan]] = read_plans(self._settings("postgresql:///unused"))

    def leap_to(self, ahead_seconds: float) -> None:
        """Set everybody's clock; the sandbox first, so that no token looks younger than it is."""
        self.outside.set_ahead(ahead_seconds)
        self.clock.set_ahead(ahead_seconds)

    @contextmanager
    def shop(self, name: str, **changes: Any) -> Iterator[Shop]:
        """Open a fresh shop at the real time, its settings changed; at the end nothing is left but its folder."""
        self.outside.reset()
        self.clock.set_ahead(0)
        url = self.postgres.create()
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        engine = make_engine(url, pool_size=4)
        shop = Shop(self, self._settings(url, **changes), engine, put_on_sale(engine, self.plans, name), folder)
        try:
            shop.start_api()
            yield shop
        finally:
            shop.kill_api()
            for process in shop.drains:
                process.kill()
                process.join()
            engine.dispose()
            self.postgres.start()
            self.postgres.drop(url)

    def close(self) -> None:
        """End everything this stage started."""
        self.outside.http.close()
        self._sandbox.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._sandbox.wait(5)
        self._sandbox.kill()
        self._sandbox.wait()
        self.postgres.leave()

    def _settings(self, url: str, **changes: Any) -> Settings:
        """Return settings that take nothing from this machine's environment: no key of a real account comes near."""
        return Settings.model_construct(
            data_dir=self.folder / "data",
            database_url=SecretStr(url),
            api_port=self._api_port,
            sandbox_port=self._sandbox_port,
            rate_limit_per_minute=1_000_000,
            provider_timeout_ms=700,
            drain_workers=6,
            **changes,
        )

    def _start_sandbox(self, smtp_port: int) -> "subprocess.Popen[bytes]":
        kept = {name: value for name, value in os.environ.items() if name not in _foreign_names()}
        own = {
            "SANDBOX_PORT": str(self._sandbox_port),
            "SANDBOX_SMTP_PORT": str(smtp_port),
            "SANDBOX_API_URL": f"http://127.0.0.1:{self._api_port}",
            "SANDBOX_PLANS_PER_PROVIDER": str(PLANS_PER_PROVIDER),
            "SANDBOX_ASYNC_SECONDS": "0.1",
            "SANDBOX_RATE_LIMITS": "0",
            "SANDBOX_WEBHOOK_RETRIES": "40",
        }
        with (self.folder / "sandbox.log").open("wb") as log:
            command = [sys.executable, "-m", "sandbox"]
            return subprocess.Popen(  # noqa: S603 - our own program
                command, cwd=_ROOT, env=kept | own, stdout=log, stderr=subprocess.STDOUT
            )

    def _await_sandbox(self) -> None:
        until = time.monotonic() + _UP_WITHIN_SECONDS
        while not _answers(f"http://127.0.0.1:{self._sandbox_port}/healthz"):
            if time.monotonic() > until or self._sandbox.poll() is not None:
                raise StageError(f"the sandbox does not answer; see {self.folder}/sandbox.log")
            time.sleep(0.05)


@contextmanager
def open_stage(ports: tuple[int, int, int]) -> Iterator[Stage]:
    """Build a stage in a folder of its own, on three free ports, that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="numnaroad-chaos-"))
    stage: Stage | None = None
    try:
        stage = Stage(folder, *ports)
        yield stage
    finally:
        if stage is not None:
            stage.close()
        shutil.rmtree(folder, ignore_errors=True)


def _foreign_names() -> set[str]:
    settings = {name.upper() for name in Settings.model_fields}
    return settings | {name for name in os.environ if name.startswith("SANDBOX_")}


def _answers(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(url, timeout=2).is_success
    return False
