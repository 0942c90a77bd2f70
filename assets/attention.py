"""The attention queue as an asset: what waits for a person, and the commands that mend it, as a table in Dagster.

`pipelines.sensors.attention` reports it as it changes, without a run; materializing it by hand looks again. Providers'
and carriers' own words are read for anything personal before Dagster keeps them.
"""

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import dagster as dg

from assets.operations import GROUP, OWNERS
from resources.db.attention import Item, attention
from resources.db.order_advice import Urgency
from resources.logs import redact_text
from resources.order_operations import OrderTools, ToolSource

KEY = dg.AssetKey(["ops", "attention"])
NOTHING_WAITS = "nothing_waits"
_SHOWN = 100  # the most urgent: a bad day's queue would be a megabyte in every report
_COLUMNS = ("urgency", "kind", "since", "subject", "reason", "commands", "order_id")
_SCHEMA = dg.TableSchema(columns=[dg.TableColumn(name) for name in _COLUMNS])


@dg.asset(
    key=KEY,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    description="One row per thing that waits for a person, the most urgent first: since when, why, and what to type.",
    check_specs=[dg.AssetCheckSpec(NOTHING_WAITS, asset=KEY, description="Nothing waits for a person.")],
)
def attention_queue(operations: dg.ResourceParam[ToolSource]) -> dg.MaterializeResult:  # type: ignore[type-arg]  # dagster leaves it unbound
    """Show what waits."""
    items = read_queue(operations.tools())
    check = dg.AssetCheckResult(
        check_name=NOTHING_WAITS,
        passed=not items,
        severity=dg.AssetCheckSeverity.WARN,
        description=in_words(items),
    )
    return dg.MaterializeResult(metadata=queue_metadata(items), check_results=[check])


def read_queue(tools: OrderTools) -> list[Item]:
    """Return what waits for a person now."""
    with tools.engine.connect() as conn:
        return attention(conn, tools.clock())


def queue_events(items: Sequence[Item]) -> list[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
    """Return what a sensor reports of the queue without a run."""
    check = dg.AssetCheckEvaluation(
        asset_key=KEY,
        check_name=NOTHING_WAITS,
        passed=not items,
        metadata={},
        severity=dg.AssetCheckSeverity.WARN,
        description=in_words(items),
    )
    return [dg.AssetMaterialization(KEY, metadata=queue_metadata(items)), check]


def queue_metadata(items: Sequence[Item]) -> dict[str, dg.MetadataValue[Any]]:
    """Return the queue as Dagster shows it: its length, how much of it is how urgent, and the head of it."""
    counts = {each.name.lower(): dg.MetadataValue.int(_count(items, each)) for each in Urgency}
    records = [dg.TableRecord(_row(item)) for item in items[:_SHOWN]]
    waiting = dg.MetadataValue.table(records=records, schema=_SCHEMA)
    return {"dagster/row_count": dg.MetadataValue.int(len(items)), **counts, "waiting": waiting}


def fingerprint(items: Sequence[Item]) -> str:
    """Return what is the same as long as the queue tells the same; how long things have waited does not count."""
    told = [{name: cell for name, cell in _row(item).items() if name != "since"} for item in items[:_SHOWN]]
    counts = [_count(items, each) for each in Urgency]
    return sha256(json.dumps([counts, told]).encode()).hexdigest()


def in_words(items: Sequence[Item]) -> str:
    """Return how much waits."""
    return f"{len(items)} things wait for a person, {_count(items, Urgency.NOW)} of them now"


def _count(items: Sequence[Item], urgency: Urgency) -> int:
    return sum(item.urgency is urgency for item in items)


def _row(item: Item) -> dict[str, str]:
    cells = (
        item.urgency.name.lower(),
        item.kind,
        f"{item.since:%Y-%m-%d %H:%M:%S} UTC",
        item.subject,
        redact_text(item.reason),
        "\n".join(item.commands),
        str(item.order_id or ""),
    )
    return dict(zip(_COLUMNS, cells, strict=True))


attention_assets: list[dg.AssetsDefinition] = [attention_queue]
