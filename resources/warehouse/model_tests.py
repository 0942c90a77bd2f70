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
    """A test of a model: the query returns its failing rows; a blocking one holds the build back.

    Where a row alone tells whether it fails, `predicate` is that condition, and many tests share one scan.
    """

    name: str
    description: str
    query: str
    blocking: bool
    predicate: str = ""


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
    failures = _failing_rows(connection, model, planned) | _failing_queries(connection, planned)
    results = [_result(connection, test, failures[test.name]) for test in planned]
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
    if predicate := _predicate(test, subject):
        description, condition = predicate
        return PlannedTest(name, description, f"select * from {model.name} where {condition}", blocking, condition)
    description, query = _query(model, test, subject)
    return PlannedTest(name, description, query, blocking)


def _predicate(test: ModelTest, column: str) -> tuple[str, str] | None:
    """Return what a test of single rows says, and when a row contradicts it; None for tests of other kinds."""
    if test.not_null:
        return f"{column} is never null", f"{column} is null"
    if test.accepted_values:
        values = ", ".join(f"'{quoted(value)}'" for value in test.accepted_values)
        return f"{column} is one of {values}", f"{column} not in ({values})"
    if test.expression:
        return test.expression, f"({test.expression}) is not true"
    return None


def _query(model: Model, test: ModelTest, column: str) -> tuple[str, str]:
    """Return what a test of several rows says, and the query for the rows that contradict it."""
    if test.relationships:
        to, key = test.relationships.to, test.relationships.column
        missing = f"{column} is not null and {column} not in (select {key} from {to} where {key} is not null)"
        return f"{column} is in {to}.{key}", f"select * from {model.name} where {missing}"
    if test.no_rows:
        check = model.checks[test.no_rows]
        told = check.split("\n", 1)[0].removeprefix("-- ").replace("One row per", "There is no")
        return told, check.rstrip().rstrip(";")
    keys = ", ".join(test.unique) if isinstance(test.unique, tuple) else column
    found = f"select {keys}, count(*) as rows from {model.name} group by all having count(*) > 1"
    return f"{keys} identifies a row", found


def _failing_rows(
    connection: duckdb.DuckDBPyConnection, model: Model, planned: Sequence[PlannedTest]
) -> dict[str, int]:
    """Return how many rows fail each test of single rows, counted in one scan."""
    tests = [test for test in planned if test.predicate]
    if not tests:
        return {}
    counts = ", ".join(f"count(*) filter (where {test.predicate})" for test in tests)
    row = connection.execute(f"select {counts} from {model.name}").fetchone() or ()
    return {test.name: int(count) for test, count in zip(tests, row, strict=True)}


def _failing_queries(connection: duckdb.DuckDBPyConnection, planned: Sequence[PlannedTest]) -> dict[str, int]:
    """Return how many rows fail each of the other tests, asked in one statement."""
    tests = [test for test in planned if not test.predicate]
    if not tests:
        return {}
    counts = [f"select {n} as test, count(*) as failures from (\n{test.query}\n)" for n, test in enumerate(tests)]
    found = connection.execute("\nunion all\n".join(counts)).fetchall()
    return {tests[n].name: int(failures) for n, failures in found}


def _result(connection: duckdb.DuckDBPyConnection, test: PlannedTest, failures: int) -> TestResult:
    examples = ""
    if failures:
        examples = "; ".join(
            str(row) for row in connection.execute(f"from (\n{test.query}\n) limit {_EXAMPLES}").fetchall()
        )
    return TestResult(test.name, test.description, test.blocking, failures, examples)


def _check_columns(connection: duckdb.DuckDBPyConnection, model: Model) -> TestResult:
    found = [(name, kind) for name, kind, *_ in connection.execute(f"describe {model.name}").fetchall()]
    described = [(column.name, column.type) for column in model.doc.columns]
    differences = [f"{name} {kind} is not described so" for name, kind in found if (name, kind) not in described]
    differences += [f"{name} {kind} is not there" for name, kind in described if (name, kind) not in found]
    description = "the columns and their types are those the .yml describes"
    return TestResult(TYPES_TEST, description, True, len(differences), "; ".join(differences))
