"""How the last run of a job went: what a sensor that keeps one run at a time decides from."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

RETRY_SECONDS = 300


@dataclass(frozen=True, slots=True)
class LastRun:
    """The newest run of a job: is it still going, did it succeed, its tags, how long ago anything happened to it."""

    active: bool
    succeeded: bool
    tags: Mapping[str, str]
    seconds_ago: float

    @property
    def wait(self) -> str:
        """Why no other run may start now, with a number in it; empty when one may."""
        if self.active:
            return f"a run is going; it was last heard of {self.seconds_ago:.0f} s ago"
        if not self.succeeded and self.seconds_ago < RETRY_SECONDS:
            return f"the last run failed {self.seconds_ago:.0f} s ago; next try after {RETRY_SECONDS} s"
        return ""


def last_run(instance: dg.DagsterInstance, job_name: str) -> LastRun | None:
    """Return how the job's newest run went; None when there never was one.

    A run that was killed stays active until run monitoring gives it up (`max_runtime_seconds` in `dagster.yaml`).
    """
    records = instance.get_run_records(dg.RunsFilter(job_name=job_name), limit=1)
    if not records:
        return None
    run = records[0].dagster_run
    age = datetime.now(UTC) - records[0].update_timestamp.astimezone(UTC)
    succeeded = run.status is dg.DagsterRunStatus.SUCCESS
    return LastRun(not run.is_finished, succeeded, run.tags, age.total_seconds())
