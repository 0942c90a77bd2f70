"""What Dagster's own storage forgets: runs with their events and files, through the instance; side records by SQL.

Kept whatever their age: the newest runs of every job, and runs whose materialization is an asset's latest. Reports that
sensors made without a run, and evaluations of checks, have no deletion in the instance's API: theirs is one statement
each, in batches, and the newest of every asset and check stay. Ticks that found nothing go after two hours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic

import dagster as dg
import psycopg
from dagster._core.scheduler.instigation import TickStatus

from resources.db.databases import databases
from resources.settings import Settings

NEWEST_KEPT = 10
SKIPPED_TICKS_KEPT = timedelta(hours=2)
REPORTS_KEPT = timedelta(days=2)
_PAGE = 500
_BATCH = 5_000
# Runs of which there are many and whose work is told in the order store: kept shortly when they went well.
FREQUENT_JOBS = (
    "provision_orders",
    "poll_pending_orders",
    "retry_failed_orders",
    "check_stuck_orders",
    "send_notices",
    "work_refunds",
    "watch_providers",
    "republish_catalogue",
)
LARGE_JOBS = ("refresh_warehouse",)  # hundreds of check results a run: kept for hours
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_OLD_SIDE_RECORDS = {
    "runless reports": (
        "delete from event_logs where id = any(array(select l.id from event_logs l where l.run_id = ''"
        " and l.timestamp < %(before)s and l.id < (select max(n.id) from event_logs n where n.run_id = ''"
        " and n.asset_key is not distinct from l.asset_key and n.dagster_event_type = l.dagster_event_type)"
        " limit %(batch)s))"
    ),
    # Those of a run go with it; those without one are old after the same time as reports.
    "check evaluations": (
        "delete from asset_check_executions where id = any(array(select e.id from asset_check_executions e"
        " where e.create_timestamp < %(before)s and e.id < (select max(n.id) from asset_check_executions n"
        " where n.asset_key = e.asset_key and n.check_name = e.check_name)"
        " and not exists (select 1 from runs r where r.run_id = e.run_id) limit %(batch)s))"
    ),
}


@dataclass(frozen=True, slots=True)
class KeepRuns:
    """How long runs are kept: those that went well of large jobs and of frequent ones, and all others."""

    large: timedelta = timedelta(hours=2)
    frequent: timedelta = timedelta(days=3)
    others: timedelta = timedelta(days=30)


def forget_runs(instance: dg.DagsterInstance, keep: KeepRuns, now: datetime, *, most_seconds: float) -> int:
    """Delete ended runs that are old enough, oldest first, for at most so many seconds; return how many went."""
    until, gone = monotonic() + most_seconds, 0
    for run_id in _old_runs(instance, keep, now):
        if monotonic() > until:
            break
        instance.delete_run(run_id)
        instance.compute_log_manager.delete_logs(prefix=[run_id])  # its files lie there too
        gone += 1
    return gone


def forget_skipped_ticks(instance: dg.DagsterInstance, now: datetime) -> None:
    """Delete ticks that found nothing to do after two hours; Dagster's own setting counts in days."""
    before = (now - SKIPPED_TICKS_KEPT).timestamp()
    for state in instance.all_instigator_state():
        instance.purge_ticks(state.instigator_origin_id, state.selector_id, before, [TickStatus.SKIPPED])


def forget_side_records(settings: Settings, now: datetime) -> Mapping[str, int]:
    """Delete old reports and evaluations but the newest of each; return how many went."""
    before = now - REPORTS_KEPT
    with psycopg.connect(databases(settings).dagster, autocommit=True, connect_timeout=10) as connection:
        if connection.execute("select to_regclass('asset_check_executions')").fetchone() == (None,):
            return {}
        return {name: _in_batches(connection, query, before) for name, query in _OLD_SIDE_RECORDS.items()}


def storage_bytes(settings: Settings) -> Mapping[str, int]:
    """Return how large the databases are on disk."""
    urls = databases(settings)
    return {name: _size(url) for name, url in (("operational", urls.operational), ("dagster", urls.dagster))}


def _old_runs(instance: dg.DagsterInstance, keep: KeepRuns, now: datetime) -> list[str]:
    ages = dict.fromkeys(FREQUENT_JOBS, keep.frequent) | dict.fromkeys(LARGE_JOBS, keep.large)
    wanted = [dg.RunsFilter(statuses=_ENDED, created_before=now - keep.others)]
    wanted += [
        dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.SUCCESS], created_before=now - age)
        for job, age in ages.items()
    ]
    found: dict[str, str] = {}  # run id -> job
    for each in wanted:
        found |= _runs(instance, each)
    kept = _latest_materializations(instance)
    for job in sorted(set(found.values())):
        kept |= set(instance.get_run_ids(dg.RunsFilter(job_name=job), limit=NEWEST_KEPT))
    return [run_id for run_id in reversed(found) if run_id not in kept]


def _runs(instance: dg.DagsterInstance, wanted: dg.RunsFilter) -> dict[str, str]:
    """Return all runs that fit with their jobs, newest first."""
    found: dict[str, str] = {}
    cursor: str | None = None
    while page := instance.get_runs(wanted, limit=_PAGE, cursor=cursor):
        found |= {run.run_id: run.job_name for run in page}
        cursor = page[-1].run_id
    return found


def _latest_materializations(instance: dg.DagsterInstance) -> set[str]:
    latest = instance.get_latest_materialization_events(instance.all_asset_keys())
    return {event.run_id for event in latest.values() if event is not None}


def _in_batches(connection: psycopg.Connection, query: str, before: datetime) -> int:
    gone = 0
    while True:
        deleted = connection.execute(query.encode(), {"before": before, "batch": _BATCH}).rowcount
        gone += deleted
        if deleted < _BATCH:
            return gone


def _size(url: str) -> int:
    with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
        row = connection.execute("select pg_database_size(current_database())").fetchone()
    return int(row[0]) if row else 0
