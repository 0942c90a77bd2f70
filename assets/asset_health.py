"""How every asset stands: last made when, late by its policy, failing checks, and the run that failed to make it.

Dagster's records -> one row per asset, as a table in Dagster's own pages: what Dagster+ calls asset health. A handful
of statements whatever the number of assets; names, times and run ids only. `pipelines.sensors.asset_health` reports it
as it changes, without a run; materializing it by hand looks again. Its own row is left out: being shown is its health.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import dagster as dg
from dagster._core.definitions.freshness import FreshnessPolicy, TimeWindowFreshnessPolicy
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus as CheckStatus
from dagster._core.storage.event_log.base import AssetEntry

from assets.operations import GROUP, OWNERS, AssetEvent, Cell, Metadata, shown_moment, shown_table
from resources.order_operations import ToolSource

ASSET_HEALTH_KEY = dg.AssetKey(["ops", "asset_health"])
ALL_WELL = "no_asset_is_failing"
_COLUMNS = ("asset", "standing", "made_at", "age_minutes", "freshness", "due_by", "failing_checks", "failed_run")
_COMPLETED = {CheckStatus.SUCCEEDED, CheckStatus.FAILED}


class Freshness(StrEnum):
    """Where an asset stands in its policy's windows; empty without a policy, or before it was made."""

    NONE = ""
    IN_TIME = "in time"
    LATE = "late"  # past the window that warns
    OVERDUE = "overdue"  # past the window that fails


class Standing(StrEnum):
    """All of an asset's signs in one word."""

    WELL = "well"
    NEVER_MADE = "never made"
    WARNING = "warning"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class AssetHealth:
    """One asset's row; `failing_checks` are names with `True` where the check is an error and not a warning."""

    key: dg.AssetKey
    made_at: datetime | None
    age: timedelta | None
    freshness: Freshness
    due_by: datetime | None
    failing_checks: Mapping[str, bool]
    failed_run: str

    @property
    def standing(self) -> Standing:
        """The worst of what is known."""
        if self.failed_run or self.freshness is Freshness.OVERDUE or any(self.failing_checks.values()):
            return Standing.FAILING
        if self.freshness is Freshness.LATE or self.failing_checks:
            return Standing.WARNING
        return Standing.WELL if self.made_at else Standing.NEVER_MADE


@dg.asset(
    key=ASSET_HEALTH_KEY,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    description="One row per asset: when it was last made and how old it is, until when its freshness policy wants it"
    " again and whether it is late, which checks fail and how badly, and the run that failed to make it.",
    check_specs=[
        dg.AssetCheckSpec(ALL_WELL, asset=ASSET_HEALTH_KEY, description="No asset is overdue, broken or proven wrong.")
    ],
)
def asset_health(context: dg.AssetExecutionContext, operations: dg.ResourceParam[ToolSource]) -> dg.MaterializeResult:  # type: ignore[type-arg]  # dagster leaves it unbound
    """Look at all assets of this code location."""
    health = read_asset_health(context.instance, context.repository_def, operations.tools().clock())
    passed, why = _judged(health)
    check = dg.AssetCheckResult(
        check_name=ALL_WELL, passed=passed, severity=dg.AssetCheckSeverity.WARN, description=why
    )
    return dg.MaterializeResult(metadata=_metadata(health), check_results=[check])


def asset_health_events(health: Sequence[AssetHealth]) -> list[AssetEvent]:
    """Return what a sensor reports without a run."""
    passed, why = _judged(health)
    check = dg.AssetCheckEvaluation(
        asset_key=ASSET_HEALTH_KEY,
        check_name=ALL_WELL,
        passed=passed,
        metadata={},
        severity=dg.AssetCheckSeverity.WARN,
        description=why,
    )
    return [dg.AssetMaterialization(ASSET_HEALTH_KEY, metadata=_metadata(health)), check]


def read_asset_health(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition, now: datetime
) -> list[AssetHealth]:
    """Return how every asset of a code location stands but this one, by name."""
    graph = repository.asset_graph
    keys = sorted(graph.materializable_asset_keys - {ASSET_HEALTH_KEY})
    entries = {record.asset_entry.asset_key: record.asset_entry for record in instance.get_asset_records(keys)}
    failed = _failed_runs(instance, entries.values())
    failing = _failing_checks(instance, [key for key in graph.asset_check_keys if key.asset_key in set(keys)])
    return [
        _health(key, entries.get(key), graph.get(key).freshness_policy_or_from_metadata, failing[key], failed, now)
        for key in keys
    ]


def _health(
    key: dg.AssetKey,
    entry: AssetEntry | None,
    policy: FreshnessPolicy | None,
    failing: Mapping[str, bool],
    failed: Collection[str],
    now: datetime,
) -> AssetHealth:
    last = entry.last_materialization if entry else None
    made_at = datetime.fromtimestamp(last.timestamp, UTC) if last else None
    freshness, due_by = _freshness(policy, made_at, now)
    planned = (entry.last_run_id or "") if entry else ""
    made_it = last is not None and last.run_id == planned  # its run failed at something else
    failed_run = planned if planned in failed and not made_it else ""
    return AssetHealth(key, made_at, now - made_at if made_at else None, freshness, due_by, failing, failed_run)


def _freshness(
    policy: FreshnessPolicy | None, made_at: datetime | None, now: datetime
) -> tuple[Freshness, datetime | None]:
    """Judge as Dagster's freshness daemon does, at this moment, and say until when it holds."""
    if made_at is None or not isinstance(policy, TimeWindowFreshnessPolicy):
        return Freshness.NONE, None
    due_by = made_at + policy.fail_window.to_timedelta()
    if now >= due_by:
        return Freshness.OVERDUE, due_by
    warned = policy.warn_window is not None and now >= made_at + policy.warn_window.to_timedelta()
    return Freshness.LATE if warned else Freshness.IN_TIME, due_by


def _failed_runs(instance: dg.DagsterInstance, entries: Iterable[AssetEntry]) -> set[str]:
    """Return which of the runs that were to make an asset last have failed."""
    wanted = {entry.last_run_id for entry in entries if entry.last_run_id}
    if not wanted:
        return set()
    failure = dg.RunsFilter(run_ids=sorted(wanted), statuses=[dg.DagsterRunStatus.FAILURE])
    return {run.run_id for run in instance.get_runs(failure)}


def _failing_checks(
    instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey]
) -> Mapping[dg.AssetKey, dict[str, bool]]:
    """Return the checks whose newest result is a failure: by asset and name, whether it is an error."""
    storage = instance.event_log_storage
    failing: dict[dg.AssetKey, dict[str, bool]] = defaultdict(dict)
    for key, newest in storage.get_latest_asset_check_execution_by_key(keys).items():
        record: AssetCheckExecutionRecord | None = newest
        if newest.status is CheckStatus.PLANNED:  # it is being evaluated, or its run broke off before
            record = next(iter(storage.get_asset_check_execution_history(key, limit=1, status=_COMPLETED)), None)
        if record is not None and record.status is CheckStatus.FAILED:
            failing[key.asset_key][key.name] = _is_error(record)
    return failing


def _is_error(record: AssetCheckExecutionRecord) -> bool:
    event = record.event.dagster_event if record.event else None
    return event is None or event.asset_check_evaluation_data.severity is dg.AssetCheckSeverity.ERROR


def _judged(health: Sequence[AssetHealth]) -> tuple[bool, str]:
    """Return whether the check passes, and why."""
    failing = [one.key.to_user_string() for one in health if one.standing is Standing.FAILING]
    return not failing, f"{len(failing)} of {len(health)} assets are failing: {', '.join(failing)}".rstrip(": ")


def _metadata(health: Sequence[AssetHealth]) -> Metadata:
    counts = {word.replace(" ", "_"): sum(one.standing is word for one in health) for word in Standing}
    return {
        "dagster/row_count": dg.MetadataValue.int(len(health)),
        **{word: dg.MetadataValue.int(count) for word, count in counts.items()},
        "assets": shown_table(_COLUMNS, map(_row, health)),
    }


def _row(one: AssetHealth) -> tuple[Cell, ...]:
    checks = (f"{name} ({'error' if error else 'warning'})" for name, error in sorted(one.failing_checks.items()))
    return (
        one.key.to_user_string(),
        str(one.standing),
        shown_moment(one.made_at),
        int(one.age.total_seconds() // 60) if one.age is not None else None,
        str(one.freshness),
        shown_moment(one.due_by),
        ", ".join(checks),
        one.failed_run,
    )
