"""The job that works paid orders: `provision_orders`, a run of which is one bounded, warm drain.

Operations see in the run which orders it worked (ids only), with provider, outcome and latency of every try; running
it again is always safe, since units are claimed and not named by the run.
"""

from collections import Counter
from collections.abc import Sequence

import dagster as dg

from pipelines.drain import Drain, DrainLimits
from pipelines.unit_work import UnitReport
from resources.order_operations import ToolSource

MOST_ROWS = 500
MAX_RUNTIME = {"dagster/max_runtime": "1800"}
_COLUMNS = [("order_id", "string"), ("unit", "int"), ("provider", "string"), ("outcome", "string"), ("ms", "int")]
_SCHEMA = dg.TableSchema(columns=[dg.TableColumn(name, kind) for name, kind in _COLUMNS])


class DrainConfig(dg.Config):
    """How long this drain works; unset means as the settings say."""

    idle_seconds: float | None = None
    max_seconds: float | None = None


@dg.op(description="Claim paid units and buy them until nothing has been waiting for a while.")
def drain_paid_units(
    context: dg.OpExecutionContext, config: DrainConfig, operations: dg.ResourceParam[ToolSource]
) -> None:
    """Run one drain and show what it did."""
    tools = operations.tools()
    settings = tools.settings
    limits = DrainLimits(
        settings.drain_workers,
        settings.drain_idle_seconds if config.idle_seconds is None else config.idle_seconds,
        settings.drain_max_seconds if config.max_seconds is None else config.max_seconds,
    )
    report = Drain(tools, limits, run_id=context.run_id, tell=lambda reports: tell(context, reports)).run()
    show(context, report.reports, report.counts, {"drain": report.drain_id, "broken_off": report.errors})


def tell(context: dg.OpExecutionContext, reports: Sequence[UnitReport]) -> None:
    """Log what was done since the last word, as one message: ids, provider, outcome and latency."""
    lines = (f"{r.order_id} unit {r.n}: {r.provider or '-'} {r.outcome} {r.latency_ms} ms" for r in reports)
    context.log.info("\n".join(lines))


def show(
    context: dg.OpExecutionContext,
    reports: Sequence[UnitReport],
    counts: Counter[tuple[str, str]],
    more: dict[str, object],
) -> None:
    """Put a table of the work and counts per provider and outcome on the run's output."""
    rows = [
        dg.TableRecord(
            {
                "order_id": str(r.order_id),
                "unit": r.n,
                "provider": r.provider or "-",
                "outcome": r.outcome,
                "ms": r.latency_ms,
            }
        )
        for r in reports[-MOST_ROWS:]
    ]
    metadata: dict[str, object] = {f"{provider}: {outcome}": count for (provider, outcome), count in counts.items()}
    orders = len({report.order_id for report in reports})
    metadata |= more | {"orders": orders, "units": dg.MetadataValue.table(records=rows, schema=_SCHEMA)}
    context.add_output_metadata(metadata)


@dg.job(
    executor_def=dg.in_process_executor,
    tags=MAX_RUNTIME,
    description="Work paid orders: claim their units, buy them with failover, deliver, refund what cannot be had.",
)
def provision_orders() -> None:
    """One bounded, warm drain."""
    drain_paid_units()
