"""Five scenarios in real time: something breaks, nobody helps, and within a minute paid orders are delivered again.

Workers are started as the shop's sensor starts them, by the sensor's own decision over the same counts of the store;
only that a drain is a forked process and not a Dagster run is the campaign's. Nothing else mends anything.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from random import Random
from uuid import UUID

from sqlalchemy import Engine, TextClause, text
from sqlalchemy.exc import SQLAlchemyError

from chaos.postgres import end_session
from chaos.scripted import Scripted
from chaos.stage import Shop, Stage
from pipelines.sensors.paid_orders import Situation, decide
from resources.db import drains
from resources.db.databases import make_engine
from resources.db.order_store import waiting_units

WITHIN_SECONDS = 60.0
_LEASE_AND_MORE = 60.0 + 30.0
_INCOMPLETE = text("select count(*) from orders where order_id = any(:ids) and status <> 'completed'")
# What was being bought when its worker died is looked up after its lease, and bought again after its settle time.
_LEFT_LYING = text("select count(*) from esims where order_id = any(:ids) and status in ('queued', 'working')")
_LOOK_SECONDS = 0.25
_CAPACITY = 6
_MOST_DRAINS = 4


@dataclass(frozen=True, slots=True)
class Recovered:
    """Seconds until a fresh order was delivered again (None: it was not), and the violations at the end."""

    scenario: str
    seconds: float | None
    interrupted_delivered: bool
    violations: int


class Supervisor:
    """Starts drains as the sensor does; it is no part of what is tested, and restarts nothing that is alive."""

    def __init__(self, shop: Shop) -> None:
        self._shop, self._stop = shop, threading.Event()
        self._engine: Engine = make_engine(shop.url, pool_size=2)
        self.alive: list[ForkServerProcess] = []
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    @contextmanager
    def working(self) -> Iterator["Supervisor"]:
        """Look after the shop until the block ends."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join(10)
            self._engine.dispose()
            self._shop.drains.extend(self.alive)
            for process in self.alive:
                process.kill()
            self._shop.end_drains(5.0)

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            try:
                wanted = decide(self._situation())
            except SQLAlchemyError:
                continue  # as the sensor: it fails, and looks again
            for _ in range(wanted if isinstance(wanted, int) else 0):
                process = self._shop.start_drain(workers=_CAPACITY, idle_seconds=30.0, max_seconds=120.0)
                self._shop.drains.remove(process)
                self.alive.append(process)

    def _situation(self) -> Situation:
        self.alive = [process for process in self.alive if process.exitcode is None]
        now = self._shop.clock()
        with self._engine.connect() as conn:
            waiting, room = waiting_units(conn, now), drains.room(conn, now)
        return Situation(
            waiting, room.drains, room.units, max(0, len(self.alive) - room.drains), _CAPACITY, _MOST_DRAINS
        )


Breakage = Callable[[Shop, Supervisor], None]


def worker_killed(shop: Shop, supervisor: Supervisor) -> None:
    """Kill every worker once."""
    for process in list(supervisor.alive):
        process.kill()


def worker_killed_repeatedly(shop: Shop, supervisor: Supervisor) -> None:
    """Kill every worker again and again for three seconds."""
    until = time.monotonic() + 3.0
    while time.monotonic() < until:
        worker_killed(shop, supervisor)
        time.sleep(0.5)


def postgres_restarted(shop: Shop, supervisor: Supervisor) -> None:
    """Crash Postgres under the workers and the API."""
    shop.stage.postgres.crash_and_restart()


def backends_killed(shop: Shop, supervisor: Supervisor) -> None:
    """End most sessions of the database, listeners and all."""
    rng = Random(1)  # noqa: S311 - repeatable, not secret
    for _ in range(20):
        shop.stage.postgres.kill_backend(shop.url, rng)


def connections_used_up(shop: Shop, supervisor: Supervisor) -> None:
    """Hold every connection of the server for three seconds while sessions end, so that nobody can open a new one."""
    rng = Random(1)  # noqa: S311 - repeatable, not secret
    with shop.stage.postgres.exhausted(shop.url) as admin:
        for _ in range(20):
            end_session(admin, shop.url, rng)
        time.sleep(3.0)


SCENARIOS: Mapping[str, Breakage] = {
    "worker killed": worker_killed,
    "worker killed repeatedly": worker_killed_repeatedly,
    "Postgres restarted": postgres_restarted,
    "backends killed": backends_killed,
    "connections used up": connections_used_up,
}


def recover(stage: Stage, scenario: str, *, patient: bool = True) -> Recovered:
    """Play one scenario: orders in work, the breakage, a fresh order, and what became of all of them.

    What was being bought when a worker died must be taken up when its lease is over, after a minute: `patient` waits
    for that. Its settle time, and without patience its lease too, are passed by the clock.
    """
    with stage.shop(f"recovery-{scenario.replace(' ', '-')}") as shop:
        play = Scripted(shop, f"recovery-{scenario.replace(' ', '-')}")
        stage.outside.put_faults(
            [{"provider": "*", "call": "order", "kind": "slow", "times": 3, "params": {"seconds": 0.4}}]
        )
        supervisor = Supervisor(shop)
        with supervisor.working():
            for package_id in shop.package_ids[:3]:
                play.order(package_id)
            SCENARIOS[scenario](shop, supervisor)
            broken_at = time.monotonic()
            play.order(shop.package_ids[0])
            fresh = UUID(play.baskets[-1].order_id)
            seconds = _seconds_until(shop, _INCOMPLETE, [fresh], broken_at, WITHIN_SECONDS)
            others = [UUID(basket.order_id) for basket in play.baskets[:-1]]
            taken_up = not patient or _seconds_until(shop, _LEFT_LYING, others, broken_at, _LEASE_AND_MORE) is not None
        result = play.end()
        delivered = result.counts["units delivered"] == len(play.baskets)
        return Recovered(scenario, seconds, taken_up and delivered, len(result.violations))


def _seconds_until(shop: Shop, query: TextClause, order_ids: list[UUID], since: float, within: float) -> float | None:
    """Wait until a query counts nothing of these orders any more; return how long after `since` that was."""
    while time.monotonic() < since + within:
        try:
            with shop.engine.connect() as conn:
                if conn.scalar(query, {"ids": order_ids}) == 0:
                    return time.monotonic() - since
        except SQLAlchemyError:
            pass
        time.sleep(0.05)
    return None
