"""The lake: whole writes, idempotent merges, several processes at once, no floats for money, no passwords shown."""

import multiprocessing
import threading
from decimal import Decimal
from pathlib import Path

import duckdb
import polars as pl
import pytest

from esim.errors import InvalidInput
from resources.db.databases import Databases
from resources.db.embedded import with_database
from resources.lake import LakeResource
from resources.warehouse.extensions import wheel_file
from resources.warehouse.lake import Lake, LakeUnavailable
from tests.resources.warehouse.lake_rows import put

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "id": pl.Int64,
    "price_minor": pl.Int64,
    "unit_cost": pl.Decimal(18, 6),
}


def rows(*ids: int, price: int = 100) -> pl.DataFrame:
    return pl.DataFrame([{"id": i, "price_minor": price, "unit_cost": Decimal("1.234567")} for i in ids], schema=SCHEMA)


def test_extensions_come_from_wheels_of_this_duckdb() -> None:
    assert wheel_file("ducklake")
    assert wheel_file("postgres_scanner")
    assert wheel_file("no_such") is None


def test_a_comment_on_a_column_that_is_not_there_is_left_out(lake: Lake) -> None:
    comments = {"gone": "was here once", "price_minor": "in cents"}

    put(lake, "raw", "plans", rows(1), notes=comments)

    notes = lake.read("select comment from duckdb_columns() where table_name = 'plans' and comment is not null")
    assert notes["comment"].to_list() == ["in cents"]


def test_replace_then_append_keeps_types_and_comments(lake: Lake) -> None:
    put(lake, "raw", "plans", rows(1, 2, 3), comment="plans", notes={"price_minor": "in cents"})
    put(lake, "raw", "plans", rows(4), mode="append")
    found = lake.read("select * from raw.plans where id >= ? order by id", [3])
    assert found.schema == pl.Schema(SCHEMA)
    assert found["id"].to_list() == [3, 4]
    assert found["unit_cost"][0] == Decimal("1.234567")
    notes = lake.read("select comment from duckdb_columns() where table_name = 'plans' and column_name = 'price_minor'")
    assert notes.item() == "in cents"
    put(lake, "raw", "plans", rows(9))
    assert lake.read("select id from raw.plans")["id"].to_list() == [9]


def test_merge_updates_and_inserts_and_repeats_harmlessly(lake: Lake) -> None:
    for _ in range(3):
        put(lake, "raw", "plans", rows(1, 2), mode="merge", key=("id",))
        put(lake, "raw", "plans", rows(2, 3, price=200), mode="merge", key=("id",))
    found = lake.read("select id, price_minor from raw.plans order by id").rows()
    assert found == [(1, 100), (2, 200), (3, 200)]


def test_what_cannot_be_written_is_refused_by_name(lake: Lake) -> None:
    with pytest.raises(InvalidInput, match=r"raw\.plans\.price_minor is money as a float"):
        put(lake, "raw", "plans", rows(1).cast({"price_minor": pl.Float64}))
    with pytest.raises(InvalidInput, match="no schema 'main'"):
        put(lake, "main", "plans", rows(1))
    with pytest.raises(InvalidInput, match="not a table name"):
        put(lake, "raw", "plans; drop", rows(1))
    with pytest.raises(InvalidInput, match=r"repeat a key \(id\)"):
        put(lake, "raw", "plans", rows(1, 1), mode="merge", key=("id",))
    with pytest.raises(InvalidInput, match="no key column sku"):
        put(lake, "raw", "plans", rows(1), mode="merge", key=("sku",))
    assert not lake.table_exists("raw", "plans")


def test_failed_transaction_leaves_nothing_behind(lake: Lake) -> None:
    put(lake, "raw", "plans", rows(1))

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute("create or replace table raw.plans as select 7 as id")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        lake.transact(work)
    assert lake.read("select id from raw.plans")["id"].to_list() == [1]


def test_read_only_connections_refuse_writes(lake: Lake) -> None:
    put(lake, "raw", "plans", rows(1))
    with lake.connect(read_only=True) as connection, pytest.raises(duckdb.Error, match="read-only"):
        connection.execute("delete from raw.plans")


def test_readers_never_miss_a_table_that_is_being_replaced(lake: Lake) -> None:
    put(lake, "marts", "busy", rows(*range(50)))
    done = threading.Event()
    seen: list[int] = []

    def look() -> None:
        while not done.is_set():
            seen.append(lake.read("select count(*) as n from marts.busy").item())

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for _ in range(10):
            put(lake, "marts", "busy", rows(*range(50)))
    finally:
        done.set()
        reader.join(30)
    assert len(seen) > 2
    assert set(seen) == {50}


def _write_from_a_process(url: str, path: str, number: int) -> None:
    with Lake(url, path) as lake:
        for turn in range(3):
            put(lake, "raw", "merged", rows(number, 1000, price=turn), mode="merge", key=("id",))
            put(lake, "raw", "appended", rows(number * 10 + turn), mode="append")


def test_three_processes_create_and_write_the_same_lake(databases: Databases, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    arguments = [(databases.lake, str(tmp_path / "lake"), number) for number in (1, 2, 3)]
    writers = [context.Process(target=_write_from_a_process, args=each) for each in arguments]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    with Lake(databases.lake, tmp_path / "lake") as lake:
        assert sorted(lake.read("select id from raw.merged")["id"]) == [1, 2, 3, 1000]
        assert sorted(lake.read("select id from raw.appended")["id"]) == [10, 11, 12, 20, 21, 22, 30, 31, 32]


def test_unreachable_or_moved_lake_says_what_to_do_and_no_password(databases: Databases, tmp_path: Path) -> None:
    with (
        Lake("postgresql://shop:hunter2@127.0.0.1:1/gone", tmp_path) as lake,
        pytest.raises(LakeUnavailable, match="is the server up") as refused,
    ):
        lake.read("select 1")
    assert "hunter2" not in f"{refused.value} {lake!r} {lake.attach_statement()}"
    with pytest.raises(LakeUnavailable), Lake(with_database(databases.lake, "nothing_here"), tmp_path) as lake:
        lake.read("select 1")
    with Lake(databases.lake, tmp_path / "lake") as lake:
        put(lake, "raw", "plans", rows(1))
    with Lake(databases.lake, tmp_path / "other") as moved, pytest.raises(LakeUnavailable, match="LAKE_DATA_PATH"):
        moved.read("select 1")


def test_the_printed_attach_line_opens_the_lake(lake: Lake) -> None:
    put(lake, "raw", "plans", rows(1))
    with duckdb.connect() as client:
        for name in ("postgres_scanner", "ducklake"):
            client.execute(f"load '{wheel_file(name)}'")
        client.execute(lake.attach_statement())
        assert client.execute("select id from lake.raw.plans").fetchall() == [(1,)]


def test_resource_opens_the_given_lake(lake: Lake, databases: Databases, tmp_path: Path) -> None:
    put(lake, "raw", "plans", rows(5))
    with LakeResource(catalogue_url=databases.lake, data_path=str(tmp_path / "lake")).lake() as same:
        assert same.read("select id from raw.plans").item() == 5
