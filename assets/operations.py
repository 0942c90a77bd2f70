"""What operations watch, as assets: providers' health, open alerts, and what retention forgot, each as a table.

`pipelines.sensors` report the first two as they change, without a run; materializing them by hand looks again.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from assets.dagster_storage import KeepRuns, forget_runs, forget_side_records, forget_skipped_ticks, storage_bytes
from esim.health import HealthRule
from resources.db.alerts import OpenAlert, open_alerts
from resources.db.provider_health import ProviderHealth, refresh_health
from resources.db.retention import Keep, forget
from resources.db.watch_figures import StoreFigures, store_figures
from resources.order_operations import ToolSource
from resources.settings import PROVIDERS, Settings

Cell = str | int | None
Metadata = dict[str, dg.MetadataValue[Any]]
AssetEvent = dg.AssetMaterialization | dg.AssetCheckEvaluation

GROUP = "operations"
OWNERS = ["team:operations"]
HEALTH_KEY = dg.AssetKey(["ops", "provider_health"])
ALERTS_KEY = dg.AssetKey(["ops", "alerts"])
RETENTION_KEY = dg.AssetKey(["ops", "retention"])
NO_ALERT = "no_alert_is_open"
_HEALTH_COLUMNS = (
    "provider",
    "standing",
    "why",
    "attempts",
    "success_percent",
    "p50_ms",
    "p95_ms",
    "last_error",
    "last_error_at",
    "balance",
    "balance_at",
)
_ALERT_COLUMNS = ("since", "kind", "subject", "text")


def health_rule(settings: Settings) -> HealthRule:
    """Return when a provider is degraded, by the settings."""
    return HealthRule(settings.provider_min_attempts, settings.provider_min_success_percent)


def health_check(slug: str) -> str:
    """Return the name of a provider's check."""
    return f"{slug}_is_healthy"


@dg.asset(
    key=HEALTH_KEY,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    description="One row per provider: how it stands and why, success rate and latency of its latest purchases, its"
    " last error and our balance. Pricing and failover heed the same table.",
    check_specs=[
        dg.AssetCheckSpec(health_check(slug), asset=HEALTH_KEY, description=f"{slug} can be bought from as usual.")
        for slug in PROVIDERS
    ],
    metadata={"dagster/table_name": "provider_health"},
)
def provider_health(operations: dg.ResourceParam[ToolSource]) -> dg.MaterializeResult:  # type: ignore[type-arg]  # dagster leaves it unbound
    """Compute the table again from the newest purchases."""
    tools = operations.tools()
    health = refresh_health(tools.engine, health_rule(tools.settings), tools.clock())
    warn = dg.AssetCheckSeverity.WARN
    checks = [
        dg.AssetCheckResult(check_name=name, passed=passed, severity=warn, description=why)
        for name, passed, why in _judged(health)
    ]
    return dg.MaterializeResult(metadata=health_metadata(health), check_results=checks)


@dg.asset(
    key=ALERTS_KEY,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    description="One row per alert that is not over, with the figures of the order store they come from.",
    check_specs=[dg.AssetCheckSpec(NO_ALERT, asset=ALERTS_KEY, description="Nothing wants a person's attention.")],
    metadata={"dagster/table_name": "alerts"},
)
def alerts(operations: dg.ResourceParam[ToolSource]) -> dg.MaterializeResult:  # type: ignore[type-arg]  # dagster leaves it unbound
    """Show the alerts that are open."""
    tools = operations.tools()
    with tools.engine.connect() as conn:
        found, figures = open_alerts(conn), store_figures(conn, tools.clock())
    check = dg.AssetCheckResult(
        check_name=NO_ALERT,
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(found)} alerts are open",
    )
    return dg.MaterializeResult(metadata=alert_metadata(found, figures), check_results=[check])


class RetentionConfig(dg.Config):
    """How long this run may take."""

    most_seconds: float = 600.0


@dg.asset(
    key=RETENTION_KEY,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    description="What was deleted from the operational store and from Dagster's, and how large both are.",
)
def retention(
    context: dg.AssetExecutionContext, config: RetentionConfig, operations: dg.ResourceParam[ToolSource]
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # dagster leaves it unbound
    """Delete what has been kept long enough, in batches."""
    tools = operations.tools()
    settings, now = tools.settings, tools.clock()
    keep = Keep(notices=settings.retain_notices_days, events=settings.retain_events_days)
    deleted = dict(forget(tools.engine, keep, now))
    frequent, others = timedelta(days=settings.retain_drain_runs_days), timedelta(days=settings.retain_runs_days)
    runs = KeepRuns(frequent=frequent, others=others)
    deleted["dagster runs"] = forget_runs(context.instance, runs, now, most_seconds=config.most_seconds)
    forget_skipped_ticks(context.instance, now)
    deleted |= forget_side_records(settings, now)
    sizes = {f"{name} bytes": size for name, size in storage_bytes(tools.settings).items()}
    return dg.MaterializeResult(metadata={"deleted": shown_table(("what", "rows"), deleted.items()), **sizes})


def health_events(health: Sequence[ProviderHealth], changed: Collection[str]) -> list[AssetEvent]:
    """Return what a sensor reports of the providers without a run, with the checks of those that `changed`."""
    checks = [_evaluation(HEALTH_KEY, *judged) for judged in _judged([one for one in health if one.slug in changed])]
    return [dg.AssetMaterialization(HEALTH_KEY, metadata=health_metadata(health)), *checks]


def alert_events(found: Sequence[OpenAlert], figures: StoreFigures) -> list[AssetEvent]:
    """Return what a sensor reports of the alerts without a run."""
    check = _evaluation(ALERTS_KEY, NO_ALERT, not found, f"{len(found)} alerts are open")
    return [dg.AssetMaterialization(ALERTS_KEY, metadata=alert_metadata(found, figures)), check]


def health_metadata(health: Sequence[ProviderHealth]) -> Metadata:
    """Return the table of all providers as Dagster shows it."""
    return {
        "dagster/row_count": dg.MetadataValue.int(len(health)),
        "not_well": dg.MetadataValue.int(sum(not one.well for one in health)),
        "providers": shown_table(_HEALTH_COLUMNS, (_health_row(one) for one in health)),
    }


def alert_metadata(found: Sequence[OpenAlert], figures: StoreFigures) -> Metadata:
    """Return the table of open alerts and the figures they come from as Dagster shows them."""
    rows = ((shown_moment(one.since), one.kind, one.subject, one.text) for one in found)
    return {
        "dagster/row_count": dg.MetadataValue.int(len(found)),
        "open": shown_table(_ALERT_COLUMNS, rows),
        **{name: dg.MetadataValue.int(value) for name, value in figures.items().items()},
    }


def _judged(health: Sequence[ProviderHealth]) -> list[tuple[str, bool, str]]:
    """Return each provider's check: name, whether it passed, and why."""
    known = [one for one in health if one.slug in PROVIDERS]
    return [(health_check(one.slug), one.well, f"{one.standing}: {one.reason}") for one in known]


def _evaluation(key: dg.AssetKey, name: str, passed: bool, description: str) -> dg.AssetCheckEvaluation:
    warn = dg.AssetCheckSeverity.WARN
    return dg.AssetCheckEvaluation(
        asset_key=key, check_name=name, passed=passed, metadata={}, severity=warn, description=description
    )


def _health_row(one: ProviderHealth) -> tuple[Cell, ...]:
    figures = one.figures
    return (
        one.slug,
        str(one.standing),
        one.reason,
        figures.attempts,
        figures.success_percent,
        figures.p50_ms,
        figures.p95_ms,
        one.last_error,
        shown_moment(one.last_error_at),
        str(one.balance or "not read yet"),
        shown_moment(one.balance_at),
    )


def shown_moment(at: datetime | None) -> str:
    """Return a moment as tables in Dagster show it; empty where there is none."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else ""


def shown_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> dg.TableMetadataValue:
    """Return rows as Dagster shows them."""
    schema = dg.TableSchema(columns=[dg.TableColumn(name) for name in columns])
    records = [dg.TableRecord(dict(zip(columns, row, strict=True))) for row in rows]
    return dg.MetadataValue.table(records=records, schema=schema)


operations_assets: list[dg.AssetsDefinition] = [provider_health, alerts, retention]
