"""From Dagster's records to how every asset stands: looked at once a minute, reported on change and every five minutes.

Reports are made without a run: a materialization of `ops/asset_health` and an evaluation of its check.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

import dagster as dg

from assets.asset_health import AssetHealth, Standing, asset_health_events, read_asset_health
from pipelines.sensors.cursors import read_cursor
from resources.order_operations import ToolSource

REPORT_EVERY = timedelta(minutes=5)


class Cursor(NamedTuple):
    """What was reported last: the assets that are not well with how they stand, and when (seconds since the epoch)."""

    standings: Mapping[str, str]
    reported: float


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports how every asset stands: its age, its freshness policy, its checks, its failed run.",
)
def asset_health_sensor(
    context: dg.SensorEvaluationContext, operations: dg.ResourceParam[ToolSource]
) -> dg.SensorResult | dg.SkipReason:
    """Look, and report what changed."""
    if context.repository_def is None:
        return dg.SkipReason("0 assets are known here")
    now = operations.tools().clock()
    health = read_asset_health(context.instance, context.repository_def, now)
    before, stands = read_cursor(context.cursor, Cursor), _not_well(health)
    due = before is None or now.timestamp() - before.reported >= REPORT_EVERY.total_seconds()
    report = before is None or due or before.standings != stands
    return dg.SensorResult(
        skip_reason=f"{len(stands)} of {len(health)} assets are not well",
        asset_events=asset_health_events(health) if report else [],
        cursor=json.dumps(Cursor(stands, now.timestamp()) if report else before),
    )


def _not_well(health: Sequence[AssetHealth]) -> dict[str, str]:
    return {one.key.to_user_string(): str(one.standing) for one in health if one.standing is not Standing.WELL}
