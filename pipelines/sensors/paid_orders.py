"""From a committed payment to a run: a drain is started when paid units wait and no drain has room for them.

The sensor long-polls: it looks, and if nothing waits it listens on the store until something does. What it decides is
a pure function of counts read from the store; it keeps no cursor, and a run key is never an order id, because a run
key can never be used again.
"""

import time
from dataclasses import dataclass
from time import monotonic
from uuid import uuid4

import dagster as dg

from pipelines.provisioning import provision_orders
from pipelines.runs import young_runs
from pipelines.sensors.aftermath import aftermath_sensor
from pipelines.wakeups import listening
from resources.db import drains
from resources.db.order_store import waiting_units
from resources.order_operations import OrderTools, ToolSource

_LOOK_AGAIN_SECONDS = 2.0
_LEAVE_TO_DRAINS_SECONDS = 0.25  # a drain with room takes what was paid; looking at once would only slow it down


@dataclass(frozen=True, slots=True)
class Situation:
    """What waits, and who could take it: units due, drains alive with their room, runs that are still starting."""

    waiting: int
    drains: int
    room: int
    starting: int
    capacity: int  # of one drain
    most: int  # drains at a time


def decide(now: Situation) -> int | str:
    """Return how many drains to start, or the reason to start none, with its numbers."""
    if now.waiting == 0:
        return f"0 units wait; {now.drains} drains are alive"
    room = now.room + now.starting * now.capacity
    if room >= now.waiting:
        return f"{now.waiting} units wait; {now.drains} drains alive and {now.starting} starting have room for {room}"
    allowed = now.most - now.drains - now.starting
    if allowed <= 0:
        return f"{now.waiting} units wait; {now.drains + now.starting} drains are the most there may be"
    return min(allowed, -(-(now.waiting - room) // now.capacity))


@dg.sensor(
    job=provision_orders,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts a drain as soon as a paid unit waits and no drain has room for it.",
)
def paid_orders_sensor(
    context: dg.SensorEvaluationContext, operations: dg.ResourceParam[ToolSource]
) -> dg.SensorResult | dg.SkipReason:
    """Look, and listen for at most the set time while there is nothing to do."""
    tools = operations.tools()
    until = monotonic() + tools.settings.sensor_wait_seconds
    with listening(tools.url, "paid_units") as ear:
        while True:
            now = situation(tools, context.instance)
            decision = decide(now)
            if isinstance(decision, int):
                batch = uuid4().hex[:12]
                keys = [f"drain-{batch}-{n}" for n in range(decision)]
                return dg.SensorResult(run_requests=[dg.RunRequest(run_key=key) for key in keys])
            left = until - monotonic()
            if left <= 0:
                return dg.SkipReason(decision)
            heard = ear.hear(min(left, _LOOK_AGAIN_SECONDS))  # retries come due without a notification
            if heard and now.room > 0:
                time.sleep(_LEAVE_TO_DRAINS_SECONDS)


def situation(tools: OrderTools, instance: dg.DagsterInstance) -> Situation:
    """Read what waits and who could take it."""
    now, most = tools.clock(), tools.settings.max_drains
    with tools.engine.connect() as conn:
        waiting, room = waiting_units(conn, now), drains.room(conn, now)
        young = young_runs(instance, provision_orders.name, 2 * most) if waiting else []
        starting = drains.unregistered(conn, young)
    return Situation(waiting, room.drains, room.units, starting, tools.settings.drain_workers, most)


order_sensors: list[dg.SensorDefinition] = [paid_orders_sensor, aftermath_sensor]
