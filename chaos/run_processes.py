"""The processes of single runs on a running platform: drains and other jobs.

Most are children of the warm run host. While that is away, Dagster's default launcher has the code server spawn them.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
from sqlalchemy import Engine, text

from pipelines.warm_runs.cards import Cards
from pipelines.warm_runs.config import configured

_JOB = text("select pipeline_name from runs where run_id = :run_id")


class RunProcesses:
    """Runs that are going on, as the cards tell that the host laid and their processes hold."""

    def __init__(self, home: Path, dagster: Engine) -> None:
        config = configured(home)
        if config is None:
            raise ValueError(f"{home} names another run launcher: its runs cannot be told apart here")
        self._home = str(home)
        self._cards, self._dagster = Cards(config.place(str(home))), dagster

    def alive(self) -> dict[str, int]:
        """Return the process id of every run that goes on, by run id; spawned ones have their process id for one."""
        found = {}
        for run_id in self._cards.all():
            pid = self._cards.read(run_id).get("pid")
            if isinstance(pid, int) and self._cards.is_held(run_id):
                found[run_id] = pid
        return found | {str(pid): pid for pid in self._spawned()}

    def _spawned(self) -> Iterator[int]:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                is_run = any("spawn_main" in word for word in process.cmdline())
                if is_run and process.environ().get("DAGSTER_HOME") == self._home:
                    yield process.pid

    def kill(self, run_id: str, pid: int) -> bool:
        """Kill -9 a run's process; return whether there was one."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
        return False

    def job_of(self, run_id: str) -> str:
        """Return the name of a run's job."""
        if run_id.isdigit():
            return "launched by the code server"
        with self._dagster.connect() as conn:
            return str(conn.scalar(_JOB, {"run_id": run_id}) or "unknown job")
