"""The hand that kills what a running platform is made of, and counts what it did.

A part is killed by `SIGKILL` and started again by its supervisor; what it leaves behind is left to the product.
"""

from collections.abc import Iterable
from contextlib import suppress
from random import Random
from time import monotonic, sleep
from typing import Protocol

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from chaos.parts import Parts
from chaos.run_processes import RunProcesses
from chaos.tally import Tally

API, DAEMON, CODE, HOST, RUN, POSTGRES = "API", "daemon", "code server", "run host", "run process", "Postgres"
PARTS = {API: "api", DAEMON: "daemon", CODE: "code", HOST: "runs"}
KINDS = (*PARTS, RUN, POSTGRES)
_MORE = (API, DAEMON, CODE, HOST, RUN, RUN, RUN)  # single runs die more often than what they are part of
_WORK_WITHIN = 4.0
_AT_WORK = text("select count(*) from esims where status = 'working'")


class Crashing(Protocol):
    """A database server that can be crashed."""

    def crash_and_restart(self) -> None:
        """Stop it as a crash would, and start it again."""


class Hand:
    """Kills one thing at a time, as it is told."""

    def __init__(self, parts: Parts, runs: RunProcesses, postgres: Crashing, engine: Engine, tally: Tally) -> None:
        self._parts, self._runs, self._postgres, self._engine, self._tally = parts, runs, postgres, engine, tally
        self.last_pid: dict[str, int] = {}

    def kill(self, kind: str, rng: Random) -> bool:
        """Kill one of a kind; return False where there was none to kill."""
        if kind == POSTGRES:
            self._postgres.crash_and_restart()
            self._tally.add("Postgres crashed and restarted")
            return True
        if kind == RUN:
            if rng.random() < 0.7:
                self._await_work()
            return self.kill_runs(rng) > 0
        pid = self._parts.kill(PARTS[kind])
        if pid is None:
            return False
        self.last_pid[kind] = pid
        self._tally.add(f"{kind} killed and started again")
        return True

    def kill_runs(self, rng: Random | None = None) -> int:
        """Kill one run's process drawn from those alive, or without a draw all of them; return how many."""
        alive = sorted(self._runs.alive().items())
        chosen = alive if rng is None else rng.sample(alive, min(1, len(alive)))
        return sum(self._kill_run(run_id, pid) for run_id, pid in chosen)

    def _kill_run(self, run_id: str, pid: int) -> int:
        if not self._runs.kill(run_id, pid):
            return 0
        job = "unknown job"
        with suppress(SQLAlchemyError):
            job = self._runs.job_of(run_id)
        self._tally.add(f"run process killed: {job}")
        return 1

    def _await_work(self) -> None:
        """Wait a moment for a unit in work: a run that is killed while it waits loses nothing."""
        until = monotonic() + _WORK_WITHIN
        while monotonic() < until:
            with suppress(SQLAlchemyError), self._engine.connect() as conn:
                if conn.scalar(_AT_WORK):
                    return
            sleep(0.02)


def draw_kinds(rng: Random, count: int) -> list[str]:
    """Draw what is killed, in order: each kind once, Postgres at most twice, and the rest at random."""
    extra: Iterable[str] = rng.choices(_MORE, k=max(0, count - len(KINDS)))
    drawn = [*KINDS, *extra] + ([POSTGRES] if count > 2 * len(KINDS) else [])
    rng.shuffle(drawn)
    return drawn
