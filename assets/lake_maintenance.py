"""The lake's nightly housekeeping as an asset, so that its cost and effect can be watched over time."""

import dagster as dg

from assets.operational_copies import OWNERS
from resources.lake import LakeResource
from resources.warehouse.maintenance import KEEP_SNAPSHOTS_DAYS, maintain


class MaintenanceConfig(dg.Config):
    """How long "as of" queries reach back."""

    keep_snapshots_days: int = KEEP_SNAPSHOTS_DAYS


@dg.asset(key=["lake_maintenance"], group_name="published", owners=OWNERS, kinds={"duckdb"})
def lake_maintenance(config: MaintenanceConfig, lake: LakeResource) -> dg.MaterializeResult:  # type: ignore[type-arg]  # unbound
    """Join small files, expire old snapshots and delete files that nothing needs any more."""
    done = maintain(lake.lake(), config.keep_snapshots_days)
    return dg.MaterializeResult(
        metadata={
            "snapshots_expired": done.snapshots_expired,
            "files_deleted": done.files_deleted,
            "snapshots": done.snapshots,
            "files": done.files,
            "bytes": done.size_bytes,
        }
    )
