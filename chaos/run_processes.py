"""The processes of single runs on a running platform: the children of the warm run host, drains and other jobs."""

import os
import signal
from contextlib import suppress
from pathlib import Path

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
        self._cards, self._dagster = Cards(config.place(str(home))), dagster

    def alive(self) -> dict[str, int]:
        """Return the process id of every run that goes on, by run id."""
        found = {}
        for run_id in self._cards.all():
            pid = self._cards.read(run_id).get("pid")
            if isinstance(pid, int) and self._cards.is_held(run_id):
                found[run_id] = pid
        return found

    def kill(self, run_id: str, pid: int) -> bool:
        """Kill -9 a run's process; return whether there was one."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
        return False

    def job_of(self, run_id: str) -> str:
        """Return the name of a run's job."""
        with self._dagster.connect() as conn:
            return str(conn.scalar(_JOB, {"run_id": run_id}) or "unknown job")
