"""The operational store's tables in the lake: `raw.orders`, `raw.esims`, … loaded by changed rows.

Postgres -> `resources.warehouse.loader` -> raw. One step loads all of them from one snapshot, so that no table is ever
ahead of another.
"""

from collections.abc import Iterator

import dagster as dg

from resources.lake import LakeResource
from resources.warehouse.copies import COPIES, CopiedTable
from resources.warehouse.loader import load_changes

OWNERS = ["team:analytics"]


def _spec(copy: CopiedTable) -> dg.AssetSpec:
    columns = [dg.TableColumn(column.name, column.type, description=column.description) for column in copy.columns]
    return dg.AssetSpec(
        ["raw", copy.name],
        group_name="raw",
        owners=OWNERS,
        kinds={"postgres", "duckdb"},
        description=copy.description,
        metadata={
            "dagster/column_schema": dg.TableSchema(columns=columns),
            "dagster/table_name": f"lake.raw.{copy.name}",
        },
    )


@dg.multi_asset(name="operational_copies", specs=[_spec(copy) for copy in COPIES])
def operational_copies(lake: LakeResource) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]  # unbound
    """Copy the rows that changed since the last load, without anything personal."""
    loaded = load_changes(lake.operational_store(), lake.lake())
    for name, result in loaded.items():
        metadata = {"dagster/row_count": result.rows, "rows_changed": result.changed}
        yield dg.MaterializeResult(asset_key=["raw", name], metadata=metadata)
