"""From a change of health, rules or rates to a republication: what is on sale follows within a minute, without a sync.

The cursor holds a digest of everything that decides prices besides the offers, as of the last look, and the newest
version. A version that a sync published is checked once too: it may rest on a circuit that closed before we looked.
"""

import json
from hashlib import blake2b
from typing import NamedTuple

import dagster as dg
from sqlalchemy import select

from assets.publishing import price_context
from pipelines.catalogue_jobs import republish_catalogue
from pipelines.runs import LastRun, last_run
from pipelines.sensors.cursors import read_cursor
from resources.db.tables import catalogue_versions
from resources.order_operations import OrderTools, ToolSource

RETRY_SECONDS = 20  # prices follow within a minute, also when a republication fails once


class Look(NamedTuple):
    """What was seen: the digest of what decides prices, the newest version, and whether a republication made it."""

    conditions: str
    version: int
    republished: bool


class Cursor(NamedTuple):
    """What was seen when a run was last asked for; the number makes the run key, so that one change is one run."""

    number: int
    conditions: str
    version: int


def decide(before: Cursor | None, now: Look, last: LastRun | None) -> str:
    """Return why there is nothing to republish, with a number in it; empty when there is."""
    if now.version == 0:
        return "version 0: nothing is published yet"
    if last is not None and (wait := last.wait(RETRY_SECONDS)):
        return wait
    failed = last is not None and not last.succeeded
    if failed or before is None or before.conditions != now.conditions:
        return ""
    if before.version != now.version and not now.republished:
        return ""
    return f"nothing that decides prices has changed since version {now.version}"


@dg.sensor(
    job=republish_catalogue,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Republishes when a provider or offer fails, recovers or is switched, or when rules or rates change.",
)
def price_conditions_sensor(
    context: dg.SensorEvaluationContext, operations: dg.ResourceParam[ToolSource]
) -> dg.SensorResult | dg.SkipReason:
    """Compare what decides prices with the last look, and ask for one republication per change."""
    tools = operations.tools()
    before = read_cursor(context.cursor, Cursor)
    seen = look(tools, context.instance)
    if reason := decide(before, seen, last_run(context.instance, republish_catalogue.name)):
        return dg.SkipReason(reason)
    number = int(tools.clock().timestamp()) if before is None else before.number + 1
    request = dg.RunRequest(run_key=f"republish-{number}")
    return dg.SensorResult(run_requests=[request], cursor=json.dumps(Cursor(number, *seen[:2])))


def look(tools: OrderTools, instance: dg.DagsterInstance) -> Look:
    """Read what decides prices now, and who published last."""
    newest = select(catalogue_versions.c.version, catalogue_versions.c.run_id)
    with tools.engine.connect() as conn:
        context = price_context(conn, tuple(tools.settings.sell_currencies), tools.clock())
        row = conn.execute(newest.order_by(catalogue_versions.c.version.desc()).limit(1)).one_or_none()
    states, resting = sorted(context.providers.items()), sorted(context.resting)
    parts = (states, context.rules, context.rates, context.currencies, resting)
    digest = blake2b(repr(parts).encode(), digest_size=8).hexdigest()
    run = instance.get_run_by_id(row.run_id) if row is not None and row.run_id else None
    republished = run is not None and run.job_name == republish_catalogue.name
    return Look(digest, row.version if row is not None else 0, republished)
