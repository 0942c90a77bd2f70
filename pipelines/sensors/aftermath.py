"""Notices and refunds that no drain takes care of: written while none was alive, or left over by one that died."""

import time
from collections.abc import Collection
from datetime import timedelta
from time import monotonic

import dagster as dg

from pipelines.order_jobs import pay_due_refunds, send_due_notices, work_refunds
from pipelines.runs import young_runs
from resources.db import drains
from resources.db.outbox import late_notices
from resources.db.refunds import late_refunds
from resources.order_operations import OrderTools, ToolSource

LATE = timedelta(seconds=2)  # what is older than this while no drain is alive has nobody
LATE_BESIDE_DRAINS = timedelta(seconds=30)  # a drain sends within a second, unless paid units keep it busy
_LOOK_SECONDS = 0.5


def decide(notices: int, refunds: int, running: Collection[str]) -> list[str] | str:
    """Return the jobs to run, or the reason to run none, with its numbers."""
    late = {work_refunds.name: refunds, send_due_notices.name: notices}
    jobs = [name for name, count in late.items() if count and name not in running]
    return jobs or f"{notices} notices and {refunds} refunds are late; {len(running)} runs see to them"


@dg.sensor(
    jobs=[send_due_notices, work_refunds],
    minimum_interval_seconds=2,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Sends notices and pays refunds that nobody has seen to for some seconds.",
)
def aftermath_sensor(
    context: dg.SensorEvaluationContext, operations: dg.ResourceParam[ToolSource]
) -> dg.SensorResult | dg.SkipReason:
    """Look twice a second for at most the set time while there is nothing to do."""
    tools = operations.tools()
    until = monotonic() + tools.settings.sensor_wait_seconds
    while True:
        notices, refunds = _late(tools)
        running = _running(context.instance) if notices or refunds else []
        decision = decide(notices, refunds, running)
        if not isinstance(decision, str):
            return dg.SensorResult(run_requests=[_request(name) for name in decision])
        if monotonic() >= until:
            return dg.SkipReason(decision)
        time.sleep(_LOOK_SECONDS)  # a safety net: the drain that is alive listens, this only has to notice in time


def _request(name: str) -> dg.RunRequest:
    """Ask for a run that leaves alone what backs off: only who mended the cause knows that it is time."""
    due_only = {"ops": {pay_due_refunds.name: {"config": {"now": False}}}} if name == work_refunds.name else {}
    return dg.RunRequest(job_name=name, run_config=due_only)


def _late(tools: OrderTools) -> tuple[int, int]:
    with tools.engine.connect() as conn:
        late = LATE_BESIDE_DRAINS if drains.room(conn, tools.clock()).drains else LATE
        return late_notices(conn, late), late_refunds(conn, late)


def _running(instance: dg.DagsterInstance) -> list[str]:
    return [job.name for job in (send_due_notices, work_refunds) if young_runs(instance, job.name, 1)]
