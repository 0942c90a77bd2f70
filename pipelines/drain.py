"""A drain: claims paid units and works them side by side, lingers a while for more, and ends.

It also looks up open purchases, takes back units of lost workers, hands over notices and pays refunds, so that one
drain alive is enough for an order to go its whole way. It may be killed at any moment: every step is committed
before the next, and whoever comes after it goes on from there.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from uuid import UUID, uuid4

from sqlalchemy.exc import SQLAlchemyError

from pipelines.aftermath import Aftermath
from pipelines.unit_work import UnitReport, look_up_attempt, look_up_late, work_unit
from pipelines.wakeups import Wakeups, wakeups
from resources.db import drains
from resources.db.attempts import Lease
from resources.db.candidates import Candidates
from resources.db.inbox import LateArrival, work_provider_event
from resources.db.leases import extend_leases, reclaim_expired
from resources.db.order_store import Claim, claim_open_units, claim_units, due_in_seconds
from resources.order_operations import OrderTools

BEAT_SECONDS = 1.0
CLAIM_SECONDS = 0.015  # a busy drain claims what comes within this time together,
BACKLOG_SECONDS = 0.05  # and takes more at a time while more wait than it can work
LOOK_SECONDS = 0.2  # and looks this often for open purchases that are due
LEASE_BEAT_SECONDS = 15.0
OPEN_SOON_SECONDS = 35.0  # a drain does not end while a purchase is to be looked up within half a minute
MOST_REPORTS = 2_000
EVENTS_AT_ONCE = 20
_log = logging.getLogger("numnaroad.drain")
_Work = Callable[[], Sequence[UnitReport]]


@dataclass(frozen=True, slots=True)
class DrainLimits:
    """How many units at once, and how long: idle seconds after the last work, seconds in all."""

    workers: int
    idle_seconds: float
    max_seconds: float


@dataclass(slots=True)
class DrainReport:
    """What a drain did: one line per trial (the last two thousand), and counts per provider and outcome of all."""

    drain_id: str
    reports: list[UnitReport] = field(default_factory=list)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    errors: int = 0

    def add(self, reports: Sequence[UnitReport]) -> None:
        """Count reports, keeping the newest."""
        self.reports = [*self.reports, *reports][-MOST_REPORTS:]
        self.counts.update((report.provider or "-", report.outcome) for report in reports)


class Drain:
    """One drain, run once."""

    def __init__(
        self,
        tools: OrderTools,
        limits: DrainLimits,
        *,
        run_id: str | None = None,
        tell: Callable[[Sequence[UnitReport]], None] = lambda reports: None,
    ) -> None:
        self.drain_id = f"drain-{uuid4().hex[:12]}"
        self._tools, self._limits, self._run_id, self._tell = tools, limits, run_id, tell
        self._report = DrainReport(self.drain_id)
        self._leases: dict[UUID, Lease] = {}
        self._working: dict[Future[Sequence[UnitReport]], Lease | None] = {}  # None: a look-up
        self._untold: list[UnitReport] = []
        self._told_at = self._beaten_at = self._leased_at = self._busy_at = self._reclaimed_at = float("-inf")
        self._claimed_at = self._looked_at = float("-inf")
        self._more_wait = False

    def run(self) -> DrainReport:
        """Work until nothing has been waiting for a while, or the time is up, and say what was done."""
        tools = self._tools
        started = self._busy_at = self._leased_at = monotonic()
        with tools.engine.begin() as conn:
            drains.register(conn, self.drain_id, self._limits.workers, tools.clock(), self._run_id)
        with (
            ThreadPoolExecutor(self._limits.workers, thread_name_prefix="unit") as pool,
            wakeups(tools.url, "paid_units") as flag,
            Aftermath(tools, self.drain_id, busy=lambda: self._more_wait),
        ):
            try:
                while True:
                    took = self._step(pool, flag)
                    if self._over(started):
                        break
                    if not (took and self._more_wait):
                        flag.wait(min(self._pause(), started + self._limits.max_seconds - monotonic()))
            finally:
                self._finish()
        return self._report

    def _step(self, pool: ThreadPoolExecutor, flag: Wakeups) -> bool:
        """Collect what is done, prolong what is not, take what fits; return whether anything was taken.

        An idle drain takes paid units at once: a customer waits. A busy one first takes what is to be looked up.
        """
        self._collect()
        was_idle = not self._working
        took = self._start(pool, flag, self._claim()) if was_idle else False
        if took:
            self._looked_at = monotonic()  # what is to be looked up leaves the processor to who just paid
        self._keep_alive()
        took |= self._start(pool, flag, self._look_ups())
        if not was_idle:
            took |= self._start(pool, flag, self._claim())
        self._tools.desk.in_work = len(self._working)
        if self._working:
            self._busy_at = monotonic()
        return took

    def _start(self, pool: ThreadPoolExecutor, flag: Wakeups, jobs: Sequence[tuple[Lease | None, _Work]]) -> bool:
        for lease, job in jobs:
            future = pool.submit(job)
            self._working[future] = lease
            future.add_done_callback(lambda _: self._wake(flag))
        return bool(jobs)

    def _wake(self, flag: Wakeups) -> None:
        """A worker is free: that matters while more units wait, and when it was the last one."""
        if self._more_wait or all(future.done() for future in tuple(self._working)):
            flag.wake()

    @property
    def _room(self) -> int:
        return self._limits.workers - len(self._working)

    @property
    def _look_up_room(self) -> int:
        looking_up = sum(lease is None for lease in self._working.values())
        return min(self._room, max(1, self._limits.workers // 2) - looking_up)

    def _look_ups(self) -> list[tuple[Lease | None, _Work]]:
        """Claim late arrivals and open purchases that are due.

        Look-ups have at most half of the workers: while a provider is dark they take minutes each, and fresh units
        of the others must not wait for them.
        """
        tools, now, run_id, at = self._tools, self._tools.clock(), self._run_id, monotonic()
        if at - self._reclaimed_at >= BEAT_SECONDS:
            self._reclaimed_at = at
            reclaim_expired(tools.engine, self.drain_id, now, run_id=run_id)
        if self._look_up_room <= 0 or (self._working and at - self._looked_at < LOOK_SECONDS):
            return []
        self._looked_at = at
        jobs: list[tuple[Lease | None, _Work]] = []
        jobs += [(None, partial(look_up_late, tools, late, self.drain_id, run_id)) for late in self._late()]
        for unit in claim_open_units(tools.engine, self._look_up_room, now):
            jobs.append((None, partial(look_up_attempt, tools, unit.attempt_id, unit.n, self.drain_id, run_id)))
        return jobs

    def _claim(self) -> list[tuple[Lease | None, _Work]]:
        """Claim fresh units, as far as there is room."""
        if (room := self._room) <= 0:
            return []
        gap = BACKLOG_SECONDS if self._more_wait else max(CLAIM_SECONDS, self._tools.desk.gap())
        if self._working:
            time.sleep(max(0.0, self._claimed_at + gap - monotonic()))
        tools, taken_at = self._tools, monotonic()
        claims = claim_units(
            tools.engine,
            self.drain_id,
            room,
            tools.clock(),
            deadline_minutes=tools.settings.customer_deadline_minutes,
            run_id=self._run_id,
        )
        self._claimed_at = taken_at
        self._more_wait = len(claims) == room
        leases = [Lease(claim, taken_at) for claim in claims]
        found = self._offers(claims)
        self._leases |= {lease.claim.esim_id: lease for lease in leases}
        return [
            (lease, partial(work_unit, tools, lease, self._run_id, offers))
            for lease, offers in zip(leases, found, strict=True)
        ]

    def _offers(self, claims: Sequence[Claim]) -> Sequence[Candidates | None]:
        """Look for the offers of all claimed units at once; where that fails, each worker looks for its own."""
        try:
            return self._tools.desk.offers([claim.sale for claim in claims]) if claims else []
        except Exception as error:  # noqa: BLE001 - one unit's offers must not end the others' drain
            _log.exception("the look for offers broke off: %s", type(error).__name__)
            return [None] * len(claims)

    def _late(self) -> list[LateArrival]:
        """Work fresh provider events; return attempts that may have bought something after all."""
        late: list[LateArrival] = []
        for _ in range(EVENTS_AT_ONCE):
            with self._tools.engine.begin() as conn:
                found = work_provider_event(conn, self._tools.clock())
            if found is None:
                break
            late += found
        return late

    def _collect(self) -> None:
        for future in [one for one in self._working if one.done()]:
            lease = self._working.pop(future)
            if lease is not None and self._leases.get(lease.claim.esim_id) is lease:
                del self._leases[lease.claim.esim_id]  # a later claim of the same unit keeps its own
            try:
                reports = future.result()
            except Exception as error:  # noqa: BLE001 - its lease runs out, and the unit is taken up from where it stands
                _log.exception("a unit's work broke off: %s", type(error).__name__)
                self._report.errors += 1
                continue
            self._report.add(reports)
            self._untold += reports
        if self._untold and monotonic() - self._told_at >= BEAT_SECONDS:
            self._tell_now()

    def _tell_now(self) -> None:
        self._tell(self._untold)
        self._untold, self._told_at = [], monotonic()

    def _keep_alive(self) -> None:
        at, tools = monotonic(), self._tools
        if at - self._beaten_at >= BEAT_SECONDS:
            self._beaten_at = at
            with tools.engine.begin() as conn:
                drains.beat(conn, self.drain_id, len(self._working), tools.clock())
        if self._leases and at - self._leased_at >= LEASE_BEAT_SECONDS:
            self._leased_at = at
            extended = extend_leases(tools.engine, self.drain_id, list(self._leases), tools.clock())
            for esim_id, fence in extended.items():
                lease = self._leases[esim_id]
                if lease.claim.fence == fence:
                    lease.extended(at)

    def _pause(self) -> float:
        if self._room <= 0:
            return BEAT_SECONDS  # the first worker that is done wakes us
        if self._working:
            return LOOK_SECONDS  # what is paid meanwhile wakes us
        with self._tools.engine.connect() as conn:
            queued, open_ = due_in_seconds(conn, self._tools.clock())
        due = [queued, open_ if self._look_up_room > 0 else None]
        return max(0.02, min([BEAT_SECONDS, *(seconds for seconds in due if seconds is not None)]))

    def _over(self, started: float) -> bool:
        at = monotonic()
        if at - started >= self._limits.max_seconds:
            return True
        if self._working or at - self._busy_at < self._limits.idle_seconds:
            return False
        with self._tools.engine.connect() as conn:
            _, open_due = due_in_seconds(conn, self._tools.clock())
        return open_due is None or open_due > OPEN_SOON_SECONDS

    def _finish(self) -> None:
        """Take no more, and see what is being worked on to its end."""
        with suppress(SQLAlchemyError), self._tools.engine.begin() as conn:
            drains.end(conn, self.drain_id, self._tools.clock())
        while self._working:
            wait(self._working, timeout=BEAT_SECONDS, return_when=FIRST_COMPLETED)
            with suppress(SQLAlchemyError):
                self._keep_alive()
            self._collect()
        if self._untold:
            self._tell_now()
