"""One asset per file in `dbt_like_sql/`: dependencies, columns, lineage and checks come from the file and its `.yml`.

raw -> staging -> core -> marts; the folder is the schema and the group. A model that fails its blocking checks leaves
the previous table in place and stops what reads it.
"""

from collections.abc import Iterator, Sequence
from functools import cache

import dagster as dg

from assets.sql_checks import check_results, check_specs
from resources.lake import LakeResource
from resources.warehouse.build import BuildFailed, BuildResult, build_model
from resources.warehouse.lineage import column_lineage
from resources.warehouse.models import Model, read_models

Events = Iterator[dg.MaterializeResult | dg.AssetCheckResult]  # type: ignore[type-arg]  # dagster leaves it unbound
Figure = dg.TableColumnLineageMetadataValue | int | float


def build_sql_asset(model: Model) -> dg.AssetsDefinition:
    """Return the asset that builds one SQL model."""

    @dg.asset(
        key=[model.schema, model.table],
        deps=[dg.AssetKey(name.split(".")) for name in model.dependencies],
        group_name=model.schema,
        owners=[model.doc.owner],
        kinds={"sql", "duckdb", model.doc.materialisation},
        description=f"{model.doc.grain} {model.doc.description}",
        code_version=model.version,
        metadata={
            "dagster/column_schema": _column_schema(model),
            "dagster/table_name": f"lake.{model.name}",
            "sql": dg.MarkdownMetadataValue(f"```sql\n{model.sql}```"),
        },
        check_specs=check_specs(model),
    )
    def build(lake: LakeResource) -> Events:
        """Build the model in one transaction and test it before anybody sees it."""
        try:
            result = build_model(lake.lake(), model)
        except BuildFailed as error:
            yield from check_results(model, error.tests)
            raise dg.Failure(str(error), allow_retries=False) from error
        yield dg.MaterializeResult(metadata=_metadata(model, result))
        yield from check_results(model, result.tests)

    return build


def _metadata(model: Model, result: BuildResult) -> dict[str, Figure]:
    figures: dict[str, Figure] = {
        "dagster/row_count": result.rows,
        "dagster/column_lineage": dg.MetadataValue.column_lineage(_lineage(model.name)),
        "failed_tests": len(result.failed),
        "seconds": round(result.seconds, 3),
    }
    return figures | result.totals


def _column_schema(model: Model) -> dg.TableSchema:
    return dg.TableSchema(
        columns=[dg.TableColumn(column.name, column.type, description=column.comment) for column in model.doc.columns],
        constraints=dg.TableConstraints(other=[model.doc.grain]),
    )


@cache
def _lineage(name: str) -> dg.TableColumnLineage:
    models = sql_models()
    model = next(model for model in models if model.name == name)
    sources = column_lineage(model, models)
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(dg.AssetKey(table.split(".")), source) for table, source in found]
            for column, found in sources.items()
        }
    )


@cache
def sql_models() -> Sequence[Model]:
    """Return the models of this checkout in build order."""
    return read_models()


sql_assets = [build_sql_asset(model) for model in sql_models()]
