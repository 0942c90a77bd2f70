"""When the warehouse runs: a refresh soon after orders change, and the lake's housekeeping at night."""

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b

import dagster as dg

from assets.lake_maintenance import lake_maintenance
from assets.sql_models import sql_models
from assets.warehouse import refreshed_assets
from resources.lake import LakeResource
from resources.warehouse.loader import tables_with_changes

RETRY_SECONDS = 300
_ACTIVE = (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED)
_VERSION_TAG = "numnaroad/models"

refresh_warehouse = dg.define_asset_job(
    "refresh_warehouse",
    selection=dg.AssetSelection.assets(*refreshed_assets),
    description="Load changed orders into the lake, build the models, check them, publish analytics.duckdb.",
)
maintain_lake = dg.define_asset_job(
    "maintain_lake",
    selection=dg.AssetSelection.assets(lake_maintenance),
    description="Compact small files, expire old snapshots and delete what no snapshot needs.",
)


@dataclass(frozen=True, slots=True)
class LastRefresh:
    """The last refresh there was: is it still going, did it succeed, with which models, how long ago."""

    active: bool
    succeeded: bool
    models: str
    seconds_ago: float


def decide(changed: list[str], last: LastRefresh | None, models: str) -> dg.RunRequest | dg.SkipReason:
    """Return a run when there are changed rows, new models or a failure to mend; otherwise say why not."""
    if last is not None and last.active:
        return dg.SkipReason(f"a refresh is running; {len(changed)} tables have changed rows meanwhile")
    if last is not None and not last.succeeded and last.seconds_ago < RETRY_SECONDS:
        return dg.SkipReason(f"the last refresh failed {last.seconds_ago:.0f} s ago; next try after {RETRY_SECONDS} s")
    settled = last is not None and last.succeeded and last.models == models
    if settled and not changed:
        return dg.SkipReason("0 tables have changed rows")
    return dg.RunRequest(tags={_VERSION_TAG: models, "numnaroad/changed": ",".join(changed)})


@dg.sensor(
    job=refresh_warehouse,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts a refresh within a minute of a change in orders, units, attempts, packages or the ledger.",
)
def changed_orders_sensor(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.RunRequest | dg.SkipReason:
    """Look for rows the lake has not loaded, and for a refresh that failed."""
    last = _last_refresh(context.instance)
    if last is not None and last.active:
        return decide([], last, models_version())
    changed = tables_with_changes(lake.operational_store(), lake.lake())
    return decide(changed, last, models_version())


def models_version() -> str:
    """Return a digest of all models of this checkout."""
    return blake2b("".join(model.version for model in sql_models()).encode(), digest_size=6).hexdigest()


def _last_refresh(instance: dg.DagsterInstance) -> LastRefresh | None:
    records = instance.get_run_records(dg.RunsFilter(job_name=refresh_warehouse.name), limit=1)
    if not records:
        return None
    run = records[0].dagster_run
    age = datetime.now(UTC) - records[0].update_timestamp.astimezone(UTC)
    return LastRefresh(
        active=run.status in _ACTIVE,
        succeeded=run.status is dg.DagsterRunStatus.SUCCESS,
        models=run.tags.get(_VERSION_TAG, ""),
        seconds_ago=age.total_seconds(),
    )


maintenance_schedule = dg.ScheduleDefinition(
    name="maintain_lake_nightly",
    job=maintain_lake,
    cron_schedule="40 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

warehouse_jobs = [refresh_warehouse, maintain_lake]
warehouse_schedules = [maintenance_schedule]
warehouse_sensors = [changed_orders_sensor]
