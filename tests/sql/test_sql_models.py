"""Every model on small inputs: `<table>/<case>/<schema.table>.yaml` in, `expect.yaml` out, through plain DuckDB.

An input names only the columns that matter, the others are null. `expect.yaml` lists all rows, with the columns that
matter; their order does not.
"""

from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
import yaml

from resources.warehouse.copies import COPIES
from resources.warehouse.models import Model, read_models

HERE = Path(__file__).parent
MODELS = {model.table: model for model in read_models()}
CASES = sorted(path for path in HERE.glob("*/*") if path.is_dir() and not path.name.startswith("__"))
TYPES = {f"raw.{copy.name}": {column.name: column.type for column in copy.columns} for copy in COPIES} | {
    model.name: {column.name: column.type for column in model.doc.columns} for model in MODELS.values()
}
Row = dict[str, object]


def rows_of(path: Path) -> list[Row]:
    rows = yaml.safe_load(path.read_text()) or []
    assert isinstance(rows, list), f"{path}: a list of rows is expected"
    return rows


def prepare(connection: duckdb.DuckDBPyConnection, model: Model, case: Path) -> None:
    given = {path.stem for path in case.glob("*.yaml")} - {"expect"}
    assert given <= set(model.dependencies), f"{case}: {model.name} does not read {given - set(model.dependencies)}"
    for name in model.dependencies:
        columns = ", ".join(f"{column} {kind}" for column, kind in TYPES[name].items())
        connection.execute(f"create schema if not exists {name.split('.')[0]}")
        connection.execute(f"create table {name} ({columns})")
        for row in rows_of(case / f"{name}.yaml") if name in given else []:
            marks = ", ".join("?" for _ in row)
            connection.execute(f"insert into {name} ({', '.join(row)}) values ({marks})", list(row.values()))


def comparable(rows: list[Row], columns: list[str]) -> list[list[str]]:
    return sorted([_text(row[column]) for column in columns] for row in rows)


def _text(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    return str(value)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.name}")
def test_model_gives_what_its_case_expects(case: Path) -> None:
    model = MODELS[case.parent.name]
    expected = rows_of(case / "expect.yaml")
    with duckdb.connect() as connection:
        prepare(connection, model, case)
        found = connection.execute(model.sql).pl().to_dicts()
    columns = list(expected[0]) if expected else [column.name for column in model.doc.columns]
    assert comparable(found, columns) == comparable(expected, columns)


def test_every_model_has_a_case_and_every_case_a_model() -> None:
    assert {case.parent.name for case in CASES} == set(MODELS)
