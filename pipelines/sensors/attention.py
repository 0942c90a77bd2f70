"""The attention queue in Dagster as it changes: reported twice a minute at most, without a run.

A sensor of its own, so that a queue that cannot be read stops no alert.
"""

import dagster as dg

from assets.attention import fingerprint, in_words, queue_events, read_queue
from resources.order_operations import ToolSource


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports what waits for a person, with the commands that mend it, when it changes.",
)
def attention_sensor(context: dg.SensorEvaluationContext, operations: dg.ResourceParam[ToolSource]) -> dg.SensorResult:
    """Read the queue, and report it where it tells something else than the last report."""
    items = read_queue(operations.tools())
    now = fingerprint(items)
    return dg.SensorResult(
        skip_reason=in_words(items), asset_events=[] if context.cursor == now else queue_events(items), cursor=now
    )


attention_sensors: list[dg.SensorDefinition] = [attention_sensor]
