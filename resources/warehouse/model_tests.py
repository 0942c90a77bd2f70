"""Turns the tests in a model's `.yml` into queries that return the rows which fail, and runs them.

Every query reads what the caller's transaction sees, so a table is tested before anybody else can read it.
"""
# ruff: noqa: S608 - statements are made of the models' own files, which are code

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb

from resources.warehouse.extensions import quoted
from resources.warehouse.models import ColumnDoc, InvalidModel, Model, ModelTest

TYPES_TEST = "columns_as_described"
_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class PlannedTest:
    """A test of a model: the query returns its failing rows; a blocking one holds the build back."""

    name: str
    description: str
    query: str
    blocking: bool


@dataclass(frozen=True, slots=True)
class TestResult:
    """How a test ended; `examples` are a few failing rows as text."""

    __test__ = False  # not a test class for pytest

    name: str
    description: str
    blocking: bool
    failures: int
    examples: str = ""

    @property
    def passed(self) -> bool:
        """Whether no row failed."""
        return self.failures == 0


def planned_tests(model: Model) -> tuple[PlannedTest, ...]:
    """Return a model's tests with names that are unique within it.

    Raises:
        InvalidModel: a test in its `.yml` names no known kind, or two tests are the same.
    """
    planned = tuple(_planned(model))
    names = [test.name for test in planned]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise InvalidModel(f"{model.name} has the test {', '.join(sorted(repeated))} twice")
    return planned


def run_tests(connection: duckdb.DuckDBPyConnection, model: Model) -> tuple[TestResult, ...]:
    """Run a model's tests, the comparison of its columns with their description first."""
    planned = planned_tests(model)
    failures = _failures(connection, planned)
    results = [_result(connection, test, found) for test, found in zip(planned, failures, strict=True)]
    return (_check_columns(connection, model), *results)


def _planned(model: Model) -> Iterator[PlannedTest]:
    for column in model.doc.columns:
        for given in column.tests:
            test = _column_test(model, column, given)
            yield _plan(model, test, column.name)
    for index, test in enumerate(model.doc.tests, 1):
        yield _plan(model, test, str(index))


def _column_test(model: Model, column: ColumnDoc, given: str | ModelTest) -> ModelTest:
    if isinstance(given, ModelTest):
        return given
    if given == "not_null":
        return ModelTest(not_null=True)
    if given == "unique":
        return ModelTest(unique=True)
    raise InvalidModel(f"{model.name}.{column.name}: there is no test called {given!r} without arguments")


def _plan(model: Model, test: ModelTest, subject: str) -> PlannedTest:
    blocking = model.doc.money and not test.warn
    name = test.no_rows or f"{test.kind}_{subject}"
    description, query = _query(model, test, subject)
    return PlannedTest(name, description, query, blocking)


def _query(model: Model, test: ModelTest, column: str) -> tuple[str, str]:
    """Return what the test says, and the query for the rows that contradict it."""
    rows = f"select * from {model.name} where"
    match test.kind:
        case "not_null":
            return f"{column} is never null", f"{rows} {column} is null"
        case "unique":
            keys = ", ".join(test.unique) if isinstance(test.unique, tuple) else column
            found = f"select {keys}, count(*) as rows from {model.name} group by all having count(*) > 1"
            return f"{keys} identifies a row", found
        case "accepted_values":
            values = ", ".join(f"'{quoted(value)}'" for value in test.accepted_values)
            return f"{column} is one of {values}", f"{rows} {column} not in ({values})"
        case "relationships" if test.relationships:
            to, key = test.relationships.to, test.relationships.column
            missing = f"{column} is not null and {column} not in (select {key} from {to} where {key} is not null)"
            return f"{column} is in {to}.{key}", f"{rows} {missing}"
        case "no_rows":
            check = model.checks[test.no_rows]
            told = check.split("\n", 1)[0].removeprefix("-- ").replace("One row per", "There is no")
            return told, check.rstrip().rstrip(";")
        case _:
            return test.expression, f"{rows} ({test.expression}) is not true"


def _failures(connection: duckdb.DuckDBPyConnection, planned: Sequence[PlannedTest]) -> list[int]:
    """Return how many rows fail each test, asked in one query: planning and catalogue look-ups are most of the time."""
    if not planned:
        return []
    counts = [f"select {n} as test, count(*) as failures from (\n{test.query}\n)" for n, test in enumerate(planned)]
    found = dict(connection.execute("\nunion all\n".join(counts)).fetchall())
    return [int(found[n]) for n in range(len(planned))]


def _result(connection: duckdb.DuckDBPyConnection, test: PlannedTest, failures: int) -> TestResult:
    examples = ""
    if failures:
        examples = "; ".join(str(row) for row in connection.execute(f"{test.query}\nlimit {_EXAMPLES}").fetchall())
    return TestResult(test.name, test.description, test.blocking, failures, examples)


def _check_columns(connection: duckdb.DuckDBPyConnection, model: Model) -> TestResult:
    found = [(name, kind) for name, kind, *_ in connection.execute(f"describe {model.name}").fetchall()]
    described = [(column.name, column.type) for column in model.doc.columns]
    differences = [f"{name} {kind} is not described so" for name, kind in found if (name, kind) not in described]
    differences += [f"{name} {kind} is not there" for name, kind in described if (name, kind) not in found]
    description = "the columns and their types are those the .yml describes"
    return TestResult(TYPES_TEST, description, True, len(differences), "; ".join(differences))
