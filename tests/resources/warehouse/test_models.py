"""Reading models: order, dependencies, lineage, and clear refusals of incomplete ones."""

import shutil
from pathlib import Path

import pytest

from resources.warehouse.lineage import column_lineage
from resources.warehouse.model_tests import planned_tests
from resources.warehouse.models import MODELS_FOLDER, InvalidModel, read_models, referenced_tables

DOC = """
description: A model.
grain: One row per thing.
owner: team:analytics
materialisation: table
columns:
- {name: a, type: INTEGER, description: A.}
"""
SQL = "-- One row per thing.\nselect 1 as a from raw.orders\n"


def folder_with(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        path = tmp_path / "marts" / name.replace("__", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_models_come_after_what_they_read() -> None:
    order = [model.name for model in read_models()]
    for model in read_models():
        for name in model.dependencies:
            assert name.startswith("raw.") or order.index(name) < order.index(model.name)


def test_every_model_is_complete_and_every_check_used() -> None:
    models = read_models()
    used = {name for model in models for name in model.checks}
    assert used == {path.stem for path in (MODELS_FOLDER / "checks").glob("*.sql")}
    for model in models:
        assert planned_tests(model), model.name
        money = [column for column in model.doc.columns if column.name.endswith(("_micros", "_minor", "_usd", "_cost"))]
        assert all(column.type == "BIGINT" or column.type.startswith("DECIMAL") for column in money), model.name
        assert all(column.unit or column.type.startswith("DECIMAL") for column in money), model.name
        assert len(model.sql.splitlines()) <= 80, model.name
    assert all(model.doc.money for model in models if model.schema in {"core", "marts"})


def test_lineage_leads_from_the_mart_to_the_facts() -> None:
    models = read_models()
    by_day = next(model for model in models if model.name == "marts.margins_by_day")
    assert column_lineage(by_day, models)["margin_usd"] == (("core.fct_order_items", "margin_micros"),)
    assert all(len(column_lineage(model, models)) == len(model.doc.columns) for model in models)


def test_references_leave_out_ctes_and_want_a_schema() -> None:
    sql = "with a as (select * from raw.x), b as (select * from a) select * from b join core.y using (k)"
    assert referenced_tables(sql, "here") == ("core.y", "raw.x")
    with pytest.raises(InvalidModel, match="reads x without a schema"):
        referenced_tables("select * from x", "here")
    with pytest.raises(InvalidModel, match="does not parse"):
        referenced_tables("select from where", "here")
    with pytest.raises(InvalidModel, match="not a single query"):
        referenced_tables("drop table raw.x", "here")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no models below"),
        ({"a__sql": SQL}, r"a\.yml is missing"),
        ({"a__sql": SQL.replace("thing", "other"), "a__yml": DOC}, "the first line must be"),
        ({"a__sql": SQL, "a__yml": DOC.replace("owner", "boss")}, "owner"),
        ({"a__sql": SQL, "a__yml": "- ["}, r"a\.yml"),
        ({"a__sql": SQL, "a__yml": DOC + "- {name: a, type: INTEGER, description: Again.}\n"}, "described twice: a"),
        ({"a__sql": SQL, "a__yml": DOC + "tests:\n- no_rows: nowhere\n"}, "check nowhere"),
        ({"a__sql": SQL.replace("raw.orders", "marts.b"), "a__yml": DOC}, r"reads marts\.b, which is neither"),
        ({"a__sql": SQL.replace("raw.orders", "marts.a"), "a__yml": DOC}, "reads itself"),
    ],
)
def test_incomplete_models_are_refused_by_name(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        read_models(folder_with(tmp_path, **files))


def test_models_in_a_circle_are_refused(tmp_path: Path) -> None:
    one, two = SQL.replace("raw.orders", "marts.b"), SQL.replace("raw.orders", "marts.a")
    with pytest.raises(InvalidModel, match=r"circle: marts\.(a -> marts\.b|b -> marts\.a)"):
        read_models(folder_with(tmp_path, a__sql=one, a__yml=DOC, b__sql=two, b__yml=DOC))


def test_an_unknown_or_repeated_test_is_refused(tmp_path: Path) -> None:
    unknown = DOC.replace("description: A.}", "description: A., tests: [positive]}")
    with pytest.raises(InvalidModel, match="no test called 'positive'"):
        planned_tests(read_models(folder_with(tmp_path, a__sql=SQL, a__yml=unknown))[0])
    twice = DOC.replace("description: A.}", "description: A., tests: [unique, unique]}")
    with pytest.raises(InvalidModel, match="unique_a twice"):
        planned_tests(read_models(folder_with(tmp_path, a__sql=SQL, a__yml=twice))[0])


def test_a_model_changes_its_version_with_its_text(tmp_path: Path) -> None:
    before = read_models(folder_with(tmp_path, a__sql=SQL, a__yml=DOC))[0]
    after = read_models(folder_with(tmp_path, a__sql=SQL.replace("1 as a", "2 as a")))[0]
    assert before.version != after.version
    shutil.rmtree(tmp_path / "marts")
