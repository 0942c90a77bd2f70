"""When the warehouse runs: a refresh soon after orders change, and the lake's housekeeping at night."""

from hashlib import blake2b

import dagster as dg

from assets.lake_maintenance import lake_maintenance
from assets.sql_models import sql_models
from assets.warehouse import refreshed_assets
from pipelines.runs import LastRun, last_run
from resources.lake import LakeResource
from resources.warehouse.loader import tables_with_changes

# A refresh writes a megabyte of check results into Dagster's storage; a busy shop must not do so each minute.
REFRESH_EVERY_SECONDS = 300
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


def decide(changed: list[str], last: LastRun | None, models: str) -> dg.RunRequest | dg.SkipReason:
    """Return a run when there are changed rows, new models or a failure to mend; otherwise say why not."""
    settled = last is not None and last.succeeded and last.tags.get(_VERSION_TAG) == models
    if settled and not changed:
        return dg.SkipReason("0 tables have changed rows")
    if settled and last is not None and last.seconds_ago < REFRESH_EVERY_SECONDS:
        again = REFRESH_EVERY_SECONDS - last.seconds_ago
        return dg.SkipReason(f"{len(changed)} tables have changed rows; the next refresh is due in {again:.0f} s")
    return dg.RunRequest(tags={_VERSION_TAG: models, "numnaroad/changed": ",".join(changed)})


@dg.sensor(
    job=refresh_warehouse,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts a refresh soon after orders, attempts, packages or the ledger change; twelve an hour at most.",
)
def changed_orders_sensor(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.RunRequest | dg.SkipReason:
    """Look for rows the lake has not loaded, and for a refresh that failed."""
    last = last_run(context.instance, refresh_warehouse.name)
    if last is not None and (wait := last.wait()):
        return dg.SkipReason(wait)
    changed = tables_with_changes(lake.operational_store(), lake.lake())
    return decide(changed, last, models_version())


def models_version() -> str:
    """Return a digest of all models of this checkout."""
    return blake2b("".join(model.version for model in sql_models()).encode(), digest_size=6).hexdigest()


maintenance_schedule = dg.ScheduleDefinition(
    name="maintain_lake_nightly",
    job=maintain_lake,
    cron_schedule="40 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

warehouse_jobs = [refresh_warehouse, maintain_lake]
warehouse_schedules = [maintenance_schedule]
warehouse_sensors = [changed_orders_sensor]
