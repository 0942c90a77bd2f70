"""Builds SQL models in the lake: each in one transaction that commits only when its blocking tests pass.

A model that fails leaves the previous table in place, readers never see one half built, and what reads a failed model
is not built on top of it.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb

from esim.errors import NumnaRoadError
from resources.warehouse.lake import Lake
from resources.warehouse.model_tests import TestResult, run_tests
from resources.warehouse.models import Model
from resources.warehouse.tables import NAME, set_comments


@dataclass(frozen=True, slots=True)
class BuildResult:
    """How a model's build ended: the rows of the table there is now, its tests, and seconds spent."""

    model: str
    rows: int
    tests: tuple[TestResult, ...]
    seconds: float
    totals: dict[str, int]

    @property
    def failed(self) -> tuple[TestResult, ...]:
        """The tests that failed, blocking or not."""
        return tuple(test for test in self.tests if not test.passed)


class BuildFailed(NumnaRoadError):
    """A model was not built; the previous table is still in place."""

    def __init__(self, message: str, tests: tuple[TestResult, ...] = ()) -> None:
        super().__init__(message)
        self.tests = tests


def build_model(lake: Lake, model: Model) -> BuildResult:
    """Build one model and test it before anybody sees it.

    Raises:
        BuildFailed: a blocking test failed, or the SQL does not run; `tests` tells how each ended.
        LakeConflict: other writers kept the table busy.
    """
    started = time.monotonic()
    try:
        rows, tests, totals = lake.transact(lambda connection: _build(connection, model))
    except (duckdb.ProgrammingError, duckdb.DataError) as error:
        raise BuildFailed(f"{model.name} does not run, the previous table stays: {error}") from error
    return BuildResult(model.name, rows, tests, time.monotonic() - started, totals)


def build_models(lake: Lake, models: Sequence[Model]) -> Iterator[BuildResult | BuildFailed]:
    """Build models in the order given, yielding how each ended; what reads a failed one is passed over."""
    failed: set[str] = set()
    for model in models:
        if broken := failed.intersection(model.dependencies):
            failed.add(model.name)
            yield BuildFailed(f"{model.name} was not built because {', '.join(sorted(broken))} failed")
            continue
        try:
            yield build_model(lake, model)
        except BuildFailed as error:
            failed.add(model.name)
            yield error


def _build(connection: duckdb.DuckDBPyConnection, model: Model) -> tuple[int, tuple[TestResult, ...], dict[str, int]]:
    if not _same_view(connection, model):
        _create(connection, model)
    tests = run_tests(connection, model)
    if broken := [test for test in tests if test.blocking and not test.passed]:
        told = ". ".join(f"{test.name}: {test.failures} rows against '{test.description}'" for test in broken)
        raise BuildFailed(f"{model.name} failed its tests, the previous table stays. {told}", tests)
    rows, totals = _figures(connection, model)
    return rows, tests, totals


def _create(connection: duckdb.DuckDBPyConnection, model: Model) -> None:
    kind = model.doc.materialisation
    other = {"table": "view", "view": "table"}[kind]
    if _present(connection, model, other):
        connection.execute(f"drop {other} {model.name}")
    connection.execute(f"create or replace {kind} {model.name} as\n{model.sql}")
    # A view's columns take no comments; their descriptions are in the .yml and in Dagster.
    columns = {column.name: column.comment for column in model.doc.columns} if kind == "table" else {}
    set_comments(connection, model.name, model.comment, columns, kind=kind)


def _same_view(connection: duckdb.DuckDBPyConnection, model: Model) -> bool:
    """Tell whether the model is a view that exists just so: then there is nothing to commit, and no new snapshot."""
    if model.doc.materialisation != "view":
        return False
    connection.execute(f"create or replace temp view {model.table} as\n{model.sql}")
    query = (
        "select database_name, sql, comment from duckdb_views() where view_name = ? and database_name in (?, 'temp')"
    )
    found = {name: (sql, comment) for name, sql, comment in connection.execute(query, [model.table, NAME]).fetchall()}
    connection.execute(f"drop view temp.{model.table}")
    if NAME not in found:
        return False
    # DuckDB prints both definitions the same way, after CREATE [TEMPORARY] VIEW <name> AS.
    definitions = {sql.split(" AS ", 1)[1] for sql, _ in found.values()}
    return len(definitions) == 1 and found[NAME][1] == model.comment


def _present(connection: duckdb.DuckDBPyConnection, model: Model, kind: str) -> bool:
    listing = "duckdb_views()" if kind == "view" else "duckdb_tables()"
    query = f"select 1 from {listing} where database_name = ? and schema_name = ? and {kind}_name = ?"  # noqa: S608 - constants
    return connection.execute(query, [NAME, model.schema, model.table]).fetchone() is not None


def _figures(connection: duckdb.DuckDBPyConnection, model: Model) -> tuple[int, dict[str, int]]:
    """Return the number of rows and the totals an operator looks at: units and money, where the model has them."""
    told = ("units", "gross_micros", "margin_micros")
    names = [column.name for column in model.doc.columns if column.name in told]
    sums = "".join(f", coalesce(sum({name}), 0)::bigint" for name in names)
    row = connection.execute(f"select count(*){sums} from {model.name}").fetchone() or (0,)  # noqa: S608 - our own names
    return int(row[0]), dict(zip(names, row[1:], strict=True))
