"""`analytics.duckdb`: core and marts in one file for BI tools, replaced whole after its checks."""

from collections.abc import Iterator

import dagster as dg

from assets.operational_copies import OWNERS
from assets.sql_models import sql_models
from resources.lake import LakeResource
from resources.warehouse.publish import PublishRefused, publish

_PUBLISHED = [dg.AssetKey([model.schema, model.table]) for model in sql_models() if model.schema in {"core", "marts"}]
_TIES = "ledger_equals_marts"


@dg.asset(
    key=["analytics_file"],
    deps=_PUBLISHED,
    group_name="published",
    owners=OWNERS,
    kinds={"duckdb", "file"},
    check_specs=[
        dg.AssetCheckSpec(
            _TIES,
            asset=["analytics_file"],
            blocking=True,
            description="The margin of every mart is the ledger's, to the micro-USD, in the snapshot published.",
        )
    ],
)
def analytics_file(
    lake: LakeResource,
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:  # type: ignore[type-arg]  # dagster leaves it unbound
    """One file with every table of core and marts, their comments included; readers never see half of it."""
    try:
        done = publish(lake.lake(), lake.published_file())
    except PublishRefused as error:
        yield dg.AssetCheckResult(check_name=_TIES, passed=False, metadata={"difference": str(error)})
        raise dg.Failure(str(error), allow_retries=False) from error
    yield dg.MaterializeResult(
        metadata={
            "dagster/row_count": sum(done.rows.values()),
            "tables": len(done.rows),
            "bytes": done.size_bytes,
            "margin_micros": done.margin_micros,
            "path": dg.MetadataValue.path(str(done.path)),
        }
    )
    yield dg.AssetCheckResult(check_name=_TIES, passed=True, metadata={"margin_micros": done.margin_micros})
