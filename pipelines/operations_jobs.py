"""The jobs of operations: stock and balances every six hours, probes of resting providers, retention every hour."""

from typing import Any

import dagster as dg

from assets.asset_health import ASSET_HEALTH_KEY
from assets.attention import KEY as ATTENTION_KEY
from assets.operations import ALERTS_KEY, HEALTH_KEY, RETENTION_KEY
from pipelines.provider_watch import read_balances, watch_providers
from pipelines.provisioning import MAX_RUNTIME
from resources.db.stock_levels import watch_stock
from resources.order_operations import ToolSource

_RUNNING = dg.DefaultScheduleStatus.RUNNING


class WatchConfig(dg.Config):
    """How long one run watches; the sensor starts the next while a provider still rests."""

    max_seconds: float = 600.0


@dg.op(description="Read every provider's balance, and look which offers are running out.")
def read_stock_and_balances(context: dg.OpExecutionContext, operations: dg.ResourceParam[ToolSource]) -> None:
    """Keep what providers say, and tell of what is low; a provider that does not answer is named and left."""
    tools = operations.tools()
    readings = read_balances(tools, tools.providers, "check_stock_and_balance")
    with tools.engine.begin() as conn:
        low = watch_stock(conn, tools.clock())
    for failed in (reading for reading in readings if reading.error):
        context.log.warning(f"{failed.slug}: {failed.error}")
    balances = {reading.slug: str(reading.balance) if reading.balance else "not read" for reading in readings}
    context.add_output_metadata({**balances, "running_out": sum(len(offers) for offers in low.values())})


@dg.op(description="Ask providers that rest whether they answer again, and unfunded ones for our balance.")
def probe_resting_providers(
    context: dg.OpExecutionContext, config: WatchConfig, operations: dg.ResourceParam[ToolSource]
) -> None:
    """Probe while a circuit is open, within the run's time."""
    counts = watch_providers(operations.tools(), "watch_providers", config.max_seconds)
    context.add_output_metadata(dict(counts))


@dg.job(
    name="check_stock_and_balance",
    executor_def=dg.in_process_executor,
    tags=MAX_RUNTIME,
    description="Reads our balance at every provider and tells of low ones, and of offers that run out.",
)
def check_stock_and_balance() -> None:
    """The check of stock and balance."""
    read_stock_and_balances()


@dg.job(
    name="watch_providers",
    executor_def=dg.in_process_executor,
    tags=MAX_RUNTIME,
    description="Probes providers whose circuit is open by a harmless read, so that no customer is the probe.",
)
def watch_resting_providers() -> None:
    """One bounded watch."""
    probe_resting_providers()


report_operations = dg.define_asset_job(
    "report_operations",
    selection=dg.AssetSelection.assets(HEALTH_KEY, ALERTS_KEY, ATTENTION_KEY, ASSET_HEALTH_KEY),
    description="Looks again at providers' and assets' health, at the open alerts and at what waits for a person.",
    executor_def=dg.in_process_executor,
)
retention_job = dg.define_asset_job(
    "retention",
    selection=dg.AssetSelection.assets(RETENTION_KEY),
    description="Deletes what has been kept long enough: old notices, events and drains here, runs in Dagster.",
    executor_def=dg.in_process_executor,
)

operations_jobs: list[Any] = [  # dagster exports no name for what define_asset_job returns
    check_stock_and_balance,
    watch_resting_providers,
    report_operations,
    retention_job,
]
operations_schedules = [
    dg.ScheduleDefinition(
        name="check_stock_and_balance_every_6_hours",
        job=check_stock_and_balance,
        cron_schedule="37 */6 * * *",  # half an hour after the catalogue sync, whose stock it looks at
        execution_timezone="UTC",
        default_status=_RUNNING,
    ),
    dg.ScheduleDefinition(
        name="retention_hourly",  # a little each hour: what it deletes is never much, and ticks are many
        job=retention_job,
        cron_schedule="50 * * * *",
        execution_timezone="UTC",
        default_status=_RUNNING,
    ),
]
