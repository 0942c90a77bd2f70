"""`numnaroad sql`: answers, refuses to write, and offers a shell."""

import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from cli.sql import sql
from esim.errors import InvalidInput
from resources.settings import Settings
from resources.warehouse.lake import Lake
from tests.resources.warehouse.lake_rows import put

app = typer.Typer()
app.command("sql")(sql)
runner = CliRunner()


@pytest.fixture
def shop(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    """A lake with one small table, found by the command through its settings."""
    assert settings.database_url
    assert settings.lake_catalogue_url
    monkeypatch.setenv("DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("LAKE_CATALOGUE_URL", settings.lake_catalogue_url.get_secret_value())
    with Lake(settings.lake_catalogue_url.get_secret_value(), settings.lake_path) as lake:
        frame = pl.DataFrame({"place": ["JP", "[b]KR"], "margin_micros": [1, 2]})
        put(lake, "marts", "margins", frame, comment="What we earned.")
        yield lake


def ask(*arguments: str, typed: str = "") -> str:
    result = runner.invoke(app, list(arguments), input=typed, catch_exceptions=False, env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.usefixtures("shop")
def test_one_query_prints_a_table_and_says_what_it_left_out() -> None:
    shown = ask("select * from marts.margins order by place desc", "--limit", "1")
    assert "[b]KR" in shown
    assert "2 rows, 1 more not shown (--limit, --csv)" in shown


@pytest.mark.usefixtures("shop")
def test_csv_and_json_print_every_row_exactly() -> None:
    query = "select place, margin_micros * 0.000001 as margin_usd from marts.margins order by place"
    assert ask(query, "--csv").splitlines() == ["place,margin_usd", "JP,0.000001", "[b]KR,0.000002"]
    assert json.loads(ask(query, "--json"))[0] == {"place": "JP", "margin_usd": "0.000001"}
    with pytest.raises(InvalidInput, match="not both"):
        ask(query, "--json", "--csv")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("delete from marts.margins", "only reads the lake, and DELETE"),
        ("create table marts.x as select 1", "only reads the lake, and CREATE"),
        ("copy marts.margins to 'x.csv'", "only reads the lake, and COPY"),
        ("attach 'x.db'", "only reads the lake, and ATTACH"),
        ("select 1; select 2", "one statement at a time; these are 2"),
        ("", "one statement at a time; these are 0"),
        ("select * from marts.nothing", "nothing does not exist"),
        ("selec 1", "syntax error"),
    ],
)
def test_what_is_not_one_reading_statement_is_refused(shop: Lake, query: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        ask(query)
    assert shop.read("select count(*) from marts.margins").item() == 2


@pytest.mark.usefixtures("shop")
def test_what_reads_is_answered() -> None:
    for query in (
        "explain select * from marts.margins",
        "explain analyze (select 1)",
        "explain (format json) select 1",
        "describe marts.margins",
        "summarize marts.margins",
        "show all tables",
        "from marts.margins at (timestamp => now())",
        "select * from lake.snapshots(), range(3), duckdb_tables()",
    ):
        assert ask(query, "--csv"), query


def test_a_sealed_connection_reaches_nothing_but_the_lake_and_stays_so(shop: Lake, tmp_path: Path) -> None:
    with shop.connect(sealed=True) as connection:
        assert connection.execute("select count(*) from marts.margins").fetchone() == (2,)
        for statement in (f"copy (select 1) to '{tmp_path / 'out.csv'}'", "from read_text('/etc/hostname')"):
            with pytest.raises(duckdb.PermissionException):
                connection.execute(statement)
        with pytest.raises(duckdb.InvalidInputException, match="locked"):
            connection.execute("set enable_external_access = true")


def test_lists_are_joined_in_csv(shop: Lake) -> None:
    query = "select place, ['a', 'b'] as names, [1, null] as n, {'x': 1} as s, null::int[] as none from marts.margins"
    assert ask(f"{query} where place = 'JP'", "--csv").splitlines() == [
        "place,names,n,s,none",
        'JP,a;b,1;,"{""x"": 1}",',
    ]


@pytest.mark.usefixtures("shop")
def test_the_shell_reads_statements_and_commands_until_it_is_left() -> None:
    typed = (
        ".tables\nselect sum(margin_micros)\n from marts.margins;\ndrop table marts.margins;\n.attach\n.what\n.quit\n"
    )
    shown = ask(typed=typed)
    assert "marts.margins" in shown
    assert "What we earned." in shown
    assert " 3 │" in shown
    assert "DROP is not a reading statement" in shown
    assert shown.count("attach 'ducklake:postgres:") == 2
    assert shown.count("End a query with ;") == 2
