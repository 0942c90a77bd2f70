"""From purchases to providers' health: rolled up every ten seconds, reported on change, probed while one rests.

The roll-up is one indexed read of a few hundred rows. Reports are made without a run: a materialization of
`ops/provider_health` and an evaluation of each provider's check.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import dagster as dg

from assets.operations import health_events, health_rule
from pipelines.operations_jobs import watch_resting_providers
from pipelines.provider_watch import UNFUNDED_EVERY
from pipelines.runs import LastRun, last_run
from pipelines.sensors.cursors import read_cursor
from resources.db.outages import unfunded_providers
from resources.db.provider_health import ProviderHealth, refresh_health
from resources.db.provider_state import resting_providers
from resources.order_operations import OrderTools, ToolSource

REPORT_EVERY = timedelta(minutes=5)


class Cursor(NamedTuple):
    """What was reported last: each provider's standing, and when (seconds since the epoch)."""

    standings: Mapping[str, str]
    reported: float


def changed(before: Cursor | None, health: Sequence[ProviderHealth]) -> list[str]:
    """Return the providers whose standing is not the one reported last."""
    known = before.standings if before is not None else {}
    return [slug for slug, stands in _standings(health).items() if known.get(slug) != stands]


def decide(resting: int, unfunded: int, last: LastRun | None) -> str:
    """Return why no watch of providers is started, with a number in it; empty when one is."""
    if not resting and not unfunded:
        return "0 providers rest or are out of funds"
    if last is not None and (wait := last.wait()):
        return wait
    if not resting and last is not None and last.seconds_ago < UNFUNDED_EVERY.total_seconds():
        return f"{unfunded} providers are out of funds; they were asked {last.seconds_ago:.0f} s ago"
    return ""


@dg.sensor(
    job=watch_resting_providers,
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Rolls up providers' health, reports changes of it, and starts a watch while a provider rests.",
)
def provider_health_sensor(
    context: dg.SensorEvaluationContext, operations: dg.ResourceParam[ToolSource]
) -> dg.SensorResult:
    """Roll up, report and probe."""
    tools = operations.tools()
    now = tools.clock()
    before = read_cursor(context.cursor, Cursor)
    health = refresh_health(tools.engine, health_rule(tools.settings), now)
    resting, unfunded = _to_watch(tools, now)
    wanted = resting or unfunded
    reason = decide(resting, unfunded, last_run(context.instance, watch_resting_providers.name) if wanted else None)
    news = changed(before, health)
    report = before is None or bool(news) or now.timestamp() - before.reported >= REPORT_EVERY.total_seconds()
    cursor = Cursor(_standings(health), now.timestamp()) if report else before
    return dg.SensorResult(
        run_requests=[] if reason else [dg.RunRequest()],
        skip_reason=reason or None,
        asset_events=health_events(health, news) if report else [],
        cursor=json.dumps(cursor),
    )


def _to_watch(tools: OrderTools, now: datetime) -> tuple[int, int]:
    with tools.engine.connect() as conn:
        return len(resting_providers(conn, now)), len(unfunded_providers(conn, now - UNFUNDED_EVERY))


def _standings(health: Sequence[ProviderHealth]) -> dict[str, str]:
    return {one.slug: str(one.standing) for one in health}
