"""Alerts straight from the order store and from Dagster's own signs of life: each told once when it begins and ends.

One query over partial indexes, four times a minute. What may be alerted is a pure function of its figures. The watch
leaves a sign of life itself: the API's metrics show its age, since a dead daemon cannot tell of its own death.
"""

import json
import os
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, InstigatorType, SensorInstigatorData
from sqlalchemy import Connection

from assets.operations import alert_events
from pipelines.runs import last_run
from pipelines.sensors.cursors import read_cursor
from pipelines.sensors.failing_ticks import failing_schedules, failing_sensors
from resources.db.alerts import AlertKind, OpenAlert, end_alert, open_alerts, raise_alert, watch
from resources.db.order_names import oldest_late
from resources.db.watch_figures import WATCH, StoreFigures, beat, store_figures
from resources.order_operations import OrderTools, ToolSource
from resources.settings import Settings

SILENT_SECONDS = 120.0  # a sensor that was not evaluated for so long, and for five of its intervals, is silent
GAP_SECONDS = 60.0
DAEMON_SECONDS = 300.0
# Dagster's own limits of a run status sensor fall days behind where many runs fail (dagster#19224). They are read where
# the sensor is evaluated: set here, they hold wherever this code is served. What the environment says already stays.
RUNS_A_TICK = 200
for _limit in ("DAGSTER_RUN_STATUS_SENSOR_FETCH_LIMIT", "DAGSTER_RUN_STATUS_SENSOR_PROCESS_LIMIT"):
    os.environ.setdefault(_limit, str(RUNS_A_TICK))
_OVER = {
    AlertKind.SLOW_DRAIN: "No paid unit waits for long any more.",
    AlertKind.OPEN_PURCHASES: "No purchase is open for long any more.",
    AlertKind.REFUNDS_LATE: "No refund is late any more.",
    AlertKind.NOTICES_LATE: "No notice is late any more, but for mails told of as refused.",
}


class Cursor(NamedTuple):
    """What was reported last: the open alerts."""

    open: Sequence[str]


def troubles(figures: StoreFigures, limits: Settings, open_kinds: Collection[str] = ()) -> dict[AlertKind, str]:
    """Return what is wrong by the figures, with their numbers.

    What is alerted already is over at half of its limit: at the limit itself it would come and go.
    """
    f = figures
    late = {
        AlertKind.SLOW_DRAIN: (
            f.waiting_seconds,
            limits.slow_drain_seconds,
            f"{f.waiting_units} paid units wait, the oldest for {f.waiting_seconds} s, and nobody works on them.",
        ),
        AlertKind.OPEN_PURCHASES: (
            f.open_purchase_seconds,
            limits.open_purchase_alert_seconds,
            f"The oldest purchase without an end is {f.open_purchase_seconds} s old; {f.unknown_purchases} unclear.",
        ),
        AlertKind.REFUNDS_LATE: (
            f.refund_seconds,
            limits.late_refund_seconds,
            f"{f.due_refunds} refunds are due and not paid, the oldest for {f.refund_seconds} s.",
        ),
        AlertKind.NOTICES_LATE: (
            f.notice_seconds,
            limits.late_notice_seconds,
            f"{f.due_notices} mails and notes are due, the oldest for {f.notice_seconds} s.",
        ),
    }
    return {
        kind: text
        for kind, (seconds, limit, text) in late.items()
        if seconds > (limit / 2 if kind in open_kinds else limit)
    }


def silent_sensors(states: Iterable[InstigatorState], names: Iterable[str], now: datetime) -> dict[str, str]:
    """Return the sensors that should be evaluated and were not for long, with how long."""
    wanted, silent = set(names), dict[str, str]()
    for state in states:
        data = state.instigator_data
        if state.name not in wanted or state.status is InstigatorStatus.STOPPED:
            continue
        if not isinstance(data, SensorInstigatorData) or data.last_tick_start_timestamp is None:
            continue
        age = now.timestamp() - data.last_tick_start_timestamp
        if age > max(SILENT_SECONDS, 5 * (data.min_interval or 30)):
            silent[state.name] = f"{state.name} was not evaluated for {age:.0f} s."
    return silent


@dg.sensor(
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Alerts operations to what waits too long in the order store, to silent sensors and daemons.",
)
def operations_watch_sensor(
    context: dg.SensorEvaluationContext, operations: dg.ResourceParam[ToolSource]
) -> dg.SensorResult:
    """Look, tell what begins or ends, and report the open alerts when they changed."""
    tools = operations.tools()
    now, instance = tools.clock(), context.instance
    before = read_cursor(context.cursor, Cursor)
    names = [sensor.name for sensor in context.repository_def.sensor_defs] if context.repository_def else []
    silent = silent_sensors(instance.all_instigator_state(instigator_type=InstigatorType.SENSOR), names, now)
    clocks = [schedule.name for schedule in context.repository_def.schedule_defs] if context.repository_def else []
    silent = failing_schedules(instance, clocks) | failing_sensors(instance, names, now) | silent
    with tools.engine.begin() as conn:
        figures = store_figures(conn, now)
        _watch_store(conn, figures, tools, now)
        watch(conn, AlertKind.SENSOR_SILENT, silent, now, "Evaluated again")
        watch(conn, AlertKind.DAEMON_SILENT, _daemons(instance) | _own_gap(conn, now), now, "Heard of again")
        _end_failures(conn, instance, open_alerts(conn), now)
        found = open_alerts(conn)
    seen = Cursor([f"{alert.kind}:{alert.subject}" for alert in found])
    changed = before is None or list(before.open) != seen.open
    return dg.SensorResult(
        skip_reason=f"{len(found)} alerts are open; {figures.waiting_units} units wait",
        asset_events=alert_events(found, figures) if changed else [],
        cursor=json.dumps(seen),
    )


@dg.run_failure_sensor(
    name="run_failure_alerts",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Alerts operations to a job whose run failed or was given up, once until a run of it succeeds.",
)
def run_failure_alerts(context: dg.RunFailureSensorContext, operations: dg.ResourceParam[ToolSource]) -> None:
    """Tell of a failed run by job, id and link; what went wrong stays in the run's own log."""
    tools, run = operations.tools(), context.dagster_run
    link = f"{tools.settings.dagster_url}/runs/{run.run_id}"
    text = f"Run {run.run_id[:8]} of {run.job_name} failed: {link}. Further failures are not told until one succeeds."
    with tools.engine.begin() as conn:
        raise_alert(conn, AlertKind.RUN_FAILED, run.job_name, text, tools.clock())


def _watch_store(conn: Connection, figures: StoreFigures, tools: OrderTools, now: datetime) -> None:
    known = {alert.kind for alert in open_alerts(conn)}
    wrong = troubles(figures, tools.settings, known)
    for kind, over in _OVER.items():
        text = wrong.get(kind)
        if text is not None and kind not in known and (names := oldest_late(conn, kind, now)):
            text = f"{text} Oldest: {', '.join(names)}."
        watch(conn, kind, {} if text is None else {"": text}, now, over)


def _daemons(instance: dg.DagsterInstance) -> dict[str, str]:
    """Return Dagster's daemons that should run and have not been heard of for long; one never started is not known."""
    heard, now = instance.get_daemon_heartbeats(), datetime.now(UTC).timestamp()
    ages = {kind: now - heard[kind].timestamp for kind in instance.get_required_daemon_types() if kind in heard}
    silent = {kind: age for kind, age in ages.items() if age > DAEMON_SECONDS}
    return {kind: f"Dagster's {kind} daemon was not heard of for {age:.0f} s." for kind, age in silent.items()}


def _own_gap(conn: Connection, now: datetime) -> dict[str, str]:
    """Leave a sign of life, and tell of a gap before it: until now nobody would have been alerted to anything."""
    before = beat(conn, WATCH, now)
    gap = 0.0 if before is None else (now - before).total_seconds()
    if gap <= GAP_SECONDS:
        return {}
    return {WATCH: f"Nobody watched the order store for {gap:.0f} s until {now:%H:%M:%S} UTC."}


def _end_failures(conn: Connection, instance: dg.DagsterInstance, found: Sequence[OpenAlert], now: datetime) -> None:
    """End the alerts of jobs whose newest run succeeded."""
    for job in [alert.subject for alert in found if alert.kind == AlertKind.RUN_FAILED]:
        last = last_run(instance, job)
        if last is not None and last.succeeded:
            end_alert(conn, AlertKind.RUN_FAILED, job, f"A run of {job} succeeded again.", now)


operations_sensors: list[dg.SensorDefinition] = [operations_watch_sensor, run_failure_alerts]
