"""Runs of a job as sensors look at them: how the last one went, and which young ones are still expected to work."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

RETRY_SECONDS = 300  # unless a sensor is in more of a hurry
YOUNG_SECONDS = 60  # a run that is older and has shown nothing is not waited for
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


@dataclass(frozen=True, slots=True)
class LastRun:
    """The newest run of a job: is it still going, did it succeed, its tags, how long ago anything happened to it."""

    active: bool
    succeeded: bool
    tags: Mapping[str, str]
    seconds_ago: float

    def wait(self, retry_seconds: int = RETRY_SECONDS) -> str:
        """Return why no other run may start now, with a number in it; empty when one may."""
        if self.active:
            return f"a run is going; it was last heard of {self.seconds_ago:.0f} s ago"
        if not self.succeeded and self.seconds_ago < retry_seconds:
            return f"the last run failed {self.seconds_ago:.0f} s ago; next try after {retry_seconds} s"
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


def young_runs(instance: dg.DagsterInstance, job_name: str, most: int) -> list[str]:
    """Return the ids of at most so many runs of a job that were asked for lately and have not ended."""
    since = datetime.now(UTC) - timedelta(seconds=YOUNG_SECONDS)
    young = dg.RunsFilter(job_name=job_name, statuses=_UNFINISHED, created_after=since)
    return [record.dagster_run.run_id for record in instance.get_run_records(young, limit=most)]
