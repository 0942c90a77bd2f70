"""Loading changed rows: nothing lost, nothing doubled, nothing personal, whatever the order of commits and deaths."""

import multiprocessing
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import polars as pl
import psycopg
import pytest
from sqlalchemy import Engine, func, select, text, update

from resources.db import tables
from resources.db.databases import Databases, make_engine
from resources.warehouse.copies import COPIES
from resources.warehouse.lake import Lake
from resources.warehouse.loader import load_changes, tables_with_changes
from tests.resources.db.shop import open_shop, paid_order, pay, place_order
from tests.resources.warehouse.sales import SPECS, small_shop

PERSONAL = re.compile(
    r"email|phone|iccid|profile|token|_url|session|payload|payment_intent|_enc$|_hash$|lease|evidence"
)


def order_ids(lake: Lake) -> set[str]:
    return set(lake.read("select order_id from raw.orders")["order_id"])


def same_rows(engine: Engine, lake: Lake) -> None:
    """Every copied table has the same keys as its source, each once."""
    with engine.connect() as postgres:
        for copy in COPIES:
            key = tables.metadata.tables[copy.name].c[copy.key]
            expected = sorted(str(value) for value in postgres.scalars(select(key)))
            found = sorted(str(value) for value in lake.read(f"select {copy.key} from raw.{copy.name}")[copy.key])
            assert found == expected, copy.name


def test_first_load_copies_everything_with_exact_types(engine: Engine, lake: Lake) -> None:
    first, _ = small_shop(engine)
    loaded = load_changes(engine, lake)
    assert {name: result.changed for name, result in loaded.items() if name != "ledger_entries"} == {
        "orders": 2,
        "order_items": 2,
        "esims": 4,
        "purchase_attempts": 1,
        "packages": 1,
        "offers": 2,
        "refunds": 1,
    }
    same_rows(engine, lake)
    unit = lake.read("select * from raw.esims where order_id = ? and n = 2", [str(first)])
    assert unit.schema["cost_amount"] == pl.Decimal(18, 6)
    assert unit.schema["delivered_at"] == pl.Datetime("us")
    assert unit["cost_micros"].item() == 2_500_000
    assert unit["refunded_at"].item() is None
    assert lake.read("select coverage, on_sale from raw.packages").row(0) == ("JP", True)
    assert not any(kind.is_float() for copy in COPIES for kind in lake.read(f"from raw.{copy.name}").dtypes)


def test_a_load_without_changes_writes_nothing(engine: Engine, lake: Lake) -> None:
    assert tables_with_changes(engine, lake) == [copy.name for copy in COPIES]
    small_shop(engine)
    load_changes(engine, lake)
    assert tables_with_changes(engine, lake) == []
    before = lake.read("select max(snapshot_id) from lake.snapshots()").item()
    assert all(result.changed == 0 for result in load_changes(engine, lake).values())
    assert lake.read("select max(snapshot_id) from lake.snapshots()").item() == before


def test_a_transaction_elsewhere_on_the_server_makes_nothing_look_changed(
    engine: Engine, lake: Lake, postgres_url: str
) -> None:
    with psycopg.connect(postgres_url) as elsewhere:
        elsewhere.execute("select pg_current_xact_id()")  # older than every row that follows, and open for long
        small_shop(engine)
        load_changes(engine, lake)
        assert tables_with_changes(engine, lake) == []
        assert all(result.changed == 0 for result in load_changes(engine, lake).values())


def test_updates_replace_the_row_and_leave_the_others(engine: Engine, lake: Lake) -> None:
    first, _ = small_shop(engine)
    load_changes(engine, lake)
    with engine.begin() as conn:
        conn.execute(update(tables.orders).where(tables.orders.c.order_id == first).values(status="attention"))
    assert tables_with_changes(engine, lake) == ["orders"]
    assert load_changes(engine, lake)["orders"].changed == 1
    assert dict(lake.read("select order_id, status from raw.orders").rows())[str(first)] == "attention"
    same_rows(engine, lake)


def test_a_transaction_that_commits_late_is_still_loaded(engine: Engine, lake: Lake) -> None:
    open_shop(engine, SPECS)
    with engine.connect() as slow:
        late = place_order(slow)  # takes its transaction id now, commits last
        early = paid_order(engine)
        load_changes(engine, lake)
        assert order_ids(lake) == {str(early)}
        slow.commit()
    assert tables_with_changes(engine, lake) != []
    load_changes(engine, lake)
    assert order_ids(lake) == {str(early), str(late)}
    same_rows(engine, lake)


def test_nothing_personal_is_copied(engine: Engine, lake: Lake) -> None:
    small_shop(engine)
    load_changes(engine, lake)
    columns = lake.read("select table_name, column_name from duckdb_columns() where schema_name = 'raw'").rows()
    assert len(columns) > 80
    assert [name for name in columns if PERSONAL.search(name[1])] == []
    text_columns = lake.read(
        "select table_name, column_name from duckdb_columns() where schema_name = 'raw' and data_type = 'VARCHAR'"
    ).rows()
    for table, column in text_columns:
        values = lake.read(f"select {column} as v from raw.{table} where {column} is not null")["v"].to_list()
        assert not [v for v in values if "customer@" in v or "secret" in v or "http" in v], (table, column)


def test_every_tracked_table_is_copied_and_described(engine: Engine) -> None:
    with engine.connect() as postgres:
        tracked = set(
            postgres.scalars(
                text("select event_object_table from information_schema.triggers where trigger_name = 'changed'")
            )
        )
    assert {copy.name for copy in COPIES} == tracked
    assert all(column.description for copy in COPIES for column in copy.columns)


def test_empty_text_and_null_stay_apart(engine: Engine, lake: Lake) -> None:
    open_shop(engine, SPECS)
    with engine.begin() as conn:
        conn.execute(update(tables.offers).where(tables.offers.c.provider == "airalo").values(excluded_reason=""))
        odd = 'a "quoted", comma\nand line'
        conn.execute(update(tables.offers).where(tables.offers.c.provider == "esim_go").values(name=odd))
    load_changes(engine, lake)
    rows = dict(lake.read("select provider, excluded_reason from raw.offers").rows())
    assert rows == {"airalo": "", "esim_go": None}
    assert lake.read("select name from raw.offers where provider = 'esim_go'").item() == odd


def test_a_new_column_reloads_its_table(engine: Engine, lake: Lake) -> None:
    small_shop(engine)
    load_changes(engine, lake)
    with lake.connect() as connection:
        connection.execute("alter table raw.orders drop column channel")
    assert tables_with_changes(engine, lake) == ["orders"]
    assert load_changes(engine, lake)["orders"].changed == 2
    assert lake.read("select distinct channel from raw.orders").item() == "api"
    same_rows(engine, lake)


@pytest.mark.parametrize(
    "strange",
    [
        pytest.param("store = 'another'", id="another database"),
        # After a restore the ids of rows that were never loaded lie below the cursor.
        pytest.param("snapshot = '9000000000:9000000000:'", id="a database that was put back"),
    ],
)
def test_what_the_cursors_do_not_fit_is_loaded_from_the_start(engine: Engine, lake: Lake, strange: str) -> None:
    small_shop(engine)
    load_changes(engine, lake)
    with lake.connect() as connection:
        connection.execute(f"update raw.load_cursors set {strange}")
        connection.execute("insert into raw.orders (order_id) values ('not in this database')")
    assert tables_with_changes(engine, lake) == [copy.name for copy in COPIES]
    load_changes(engine, lake)
    same_rows(engine, lake)
    assert tables_with_changes(engine, lake) == []


def test_loaders_at_the_same_time_load_once(engine: Engine, lake: Lake, databases: Databases, tmp_path: Path) -> None:
    small_shop(engine)
    arguments = (databases.operational, databases.lake, str(tmp_path / "lake"))
    spawn = multiprocessing.get_context("spawn")
    loaders = [spawn.Process(target=_load_once, args=arguments) for _ in range(2)]
    for loader in loaders:
        loader.start()
    for loader in loaders:
        loader.join(120)
    assert [loader.exitcode for loader in loaders] == [0, 0]
    same_rows(engine, lake)
    assert lake.read("select count(*) from raw.load_cursors").item() == len(COPIES)


def _load_once(operational: str, catalogue: str, path: str) -> None:
    engine = make_engine(operational, pool_size=1)
    with Lake(catalogue, path) as lake:
        load_changes(engine, lake)
    engine.dispose()


def _load_for_ever(operational: str, catalogue: str, path: str) -> None:
    while True:
        _load_once(operational, catalogue, path)


@pytest.fixture
def busy_loader(databases: Databases, tmp_path: Path) -> Iterator[multiprocessing.Process]:
    """A process that loads without a pause until it is killed."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(
        target=_load_for_ever, args=(databases.operational, databases.lake, str(tmp_path / "lake"))
    )
    process.start()
    yield process  # type: ignore[misc]  # the spawn context's class has the same interface
    process.kill()
    process.join()


def test_a_killed_loader_loses_and_doubles_nothing(
    engine: Engine, lake: Lake, busy_loader: multiprocessing.Process
) -> None:
    open_shop(engine, SPECS)
    placed: list[UUID] = []
    while not lake.table_exists("raw", "load_cursors") or len(placed) < 40:
        assert busy_loader.is_alive()
        with engine.begin() as conn:
            placed.append(place_order(conn))
            pay(conn, placed[-1])
    assert busy_loader.pid
    os.kill(busy_loader.pid, signal.SIGKILL)
    busy_loader.join()
    load_changes(engine, lake)
    same_rows(engine, lake)
    with engine.connect() as postgres:
        booked = postgres.scalar(select(func.sum(func.abs(tables.ledger_entries.c.amount_micros))))
    assert lake.read("select sum(abs(amount_micros))::bigint from raw.ledger_entries").item() == booked
