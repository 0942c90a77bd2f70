"""Building models: margins tie to the ledger, failures leave what was there, readers never notice."""

import re
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, insert, update

from resources.db import tables
from resources.warehouse.build import BuildFailed, BuildResult, build_model, build_models
from resources.warehouse.lake import Lake
from resources.warehouse.loader import load_changes
from resources.warehouse.models import Model, read_models
from resources.warehouse.publish import PublishRefused, publish
from resources.warehouse.refresh import refresh_warehouse
from tests.resources.db.shop import paid_order
from tests.resources.warehouse.lake_rows import put
from tests.resources.warehouse.sales import deliver, fee, small_shop

MODELS = {model.name: model for model in read_models()}
MARTS = ("margins_by_day", "margins_by_destination", "margins_by_provider")


def changed(name: str, old: str, new: str) -> Model:
    """A model with one piece of its SQL replaced."""
    model = MODELS[name]
    assert old in model.sql
    return Model(model.schema, model.table, model.sql.replace(old, new), model.doc, model.dependencies, model.checks)


def up_to(name: str) -> list[Model]:
    """A model and all that it is made of, in build order."""
    wanted = {name}
    for model in reversed(MODELS.values()):
        if model.name in wanted:
            wanted.update(model.dependencies)
    return [model for model in MODELS.values() if model.name in wanted]


def with_model(model: Model) -> list[Model]:
    return [model if other.name == model.name else other for other in MODELS.values()]


def margins(lake: Lake) -> set[int]:
    return {lake.read(f"select sum(margin_micros)::bigint from marts.{mart}").item() for mart in MARTS}


def test_margins_are_the_ledgers_to_the_micro_follow_changes_and_can_be_asked_as_of_then(
    engine: Engine, lake: Lake, tmp_path: Path
) -> None:
    small_shop(engine)
    done = refresh_warehouse(engine, lake, tmp_path / "analytics.duckdb")
    # 4 x 4.99 paid, 4.99 refunded, 8.50 bought and delivered, 3.00 lost, 1.17 in fees
    assert margins(lake) == {2_300_000}
    assert done.published.margin_micros == 2_300_000
    assert all(not result.failed for result in done.built)
    rows = lake.read("select provider, units, margin_usd from marts.margins_by_provider order by provider").rows()
    assert rows == [
        ("airalo", 2, Decimal("3.296667")),
        ("esim_go", 1, Decimal("2.246667")),
        ("none", 1, Decimal("-3.243334")),
    ]
    then = lake.read("select max(snapshot_id) from lake.snapshots()").item()
    more = paid_order(engine)
    with engine.begin() as conn:
        deliver(conn, more, 1, "airalo", "3.00")
        fee(conn, more, 44)
    refresh_warehouse(engine, lake, tmp_path / "analytics.duckdb")
    assert margins(lake) == {3_850_000}
    assert lake.read("select orders, units from marts.margins_by_day").rows() == [(3, 5)]
    before = lake.read(f"select orders, units from marts.margins_by_day at (version => {then})")
    assert before.rows() == [(2, 4)]


def test_an_empty_shop_builds(engine: Engine, lake: Lake, tmp_path: Path) -> None:
    done = refresh_warehouse(engine, lake, tmp_path / "analytics.duckdb")
    assert done.published.rows["marts.margins_by_day"] == 0
    assert done.published.margin_micros == 0


def test_a_failed_money_test_leaves_the_previous_table(engine: Engine, lake: Lake, tmp_path: Path) -> None:
    small_shop(engine)
    file = tmp_path / "analytics.duckdb"
    refresh_warehouse(engine, lake, file)
    before = file.stat().st_ino
    wrong = changed("marts.margins_by_day", "sum(margin_micros)::bigint as", "sum(margin_micros + 1)::bigint as")
    with pytest.raises(BuildFailed, match=r"marts\.margins_by_day failed its tests.*margins_by_day_tie_to_items"):
        refresh_warehouse(engine, lake, file, with_model(wrong))
    assert margins(lake) == {2_300_000}
    assert file.stat().st_ino == before


def test_what_reads_a_failed_model_is_passed_over_and_the_rest_is_built(engine: Engine, lake: Lake) -> None:
    small_shop(engine)
    load_changes(engine, lake)
    wrong = changed("core.fct_order_items", "core.fct_order_units", "core.no_such_table")
    results = list(build_models(lake, with_model(wrong)))
    failures = [str(result) for result in results if isinstance(result, BuildFailed)]
    assert [re.sub(r":.*", "", text, flags=re.S) for text in failures] == [
        "core.fct_order_items does not run, the previous table stays",
        "marts.margins_by_day was not built because core.fct_order_items failed",
        "marts.margins_by_destination was not built because core.fct_order_items failed",
    ]
    assert "marts.margins_by_provider" in {result.model for result in results if isinstance(result, BuildResult)}


def test_types_other_than_described_hold_a_build_back(engine: Engine, lake: Lake) -> None:
    small_shop(engine)
    load_changes(engine, lake)
    list(build_models(lake, up_to("core.fct_order_items")))
    wrong = changed("marts.margins_by_day", "sum(gross_micros)::bigint as", "sum(gross_micros)::double as")
    with pytest.raises(BuildFailed, match="columns_as_described") as refused:
        build_model(lake, wrong)
    failed = next(test for test in refused.value.tests if not test.passed)
    assert failed.examples == "gross_micros DOUBLE is not described so; gross_micros BIGINT is not there"


def test_warnings_name_what_is_unresolved_and_build_all_the_same(engine: Engine, lake: Lake) -> None:
    first, _ = small_shop(engine)
    with engine.begin() as conn:
        items = tables.order_items
        conn.execute(update(items).where(items.c.order_id == first).values(package_id="gone-1gb-7d"))
    load_changes(engine, lake)
    results = {
        r.model: r for r in build_models(lake, up_to("marts.margins_by_destination")) if isinstance(r, BuildResult)
    }
    warned = results["core.fct_order_items"].failed
    assert [(test.name, test.failures) for test in warned] == [("relationships_package_id", 1)]
    found = lake.read("select destination_code, units from marts.margins_by_destination order by units").rows()
    assert found == [("JP", 1), ("unresolved", 3)]


def test_a_booking_nobody_sold_is_named_and_stops_the_margins(engine: Engine, lake: Lake) -> None:
    first, _ = small_shop(engine)
    load_changes(engine, lake)
    by_day = up_to("marts.margins_by_day")
    list(build_models(lake, by_day))
    with engine.begin() as conn:
        stray = {"posting_key": "stray", "order_id": first, "original_amount": 1, "original_currency": "USD"}
        conn.execute(insert(tables.ledger_entries).values(stray | {"account": "cash", "amount_micros": 1}))
    load_changes(engine, lake)
    failures = [r for r in build_models(lake, by_day) if isinstance(r, BuildFailed)]
    assert "postings_sum_to_zero: 1 rows" in str(failures[0])
    assert "stray" in next(test for test in failures[0].tests if not test.passed).examples
    assert lake.read("select margin_micros from marts.margins_by_day").item() == 2_300_000


def test_a_view_can_become_a_table_and_back(lake: Lake, engine: Engine) -> None:
    load_changes(engine, lake)
    model = MODELS["staging.stg_shop__orders"]
    stored = model.doc.model_copy(update={"materialisation": "table"})
    as_table = Model(model.schema, model.table, model.sql, stored, model.dependencies, model.checks)
    for version in (model, as_table, model):
        assert build_model(lake, version).rows == 0


def test_a_view_is_written_only_when_it_changes(lake: Lake, engine: Engine) -> None:
    load_changes(engine, lake)
    model = MODELS["staging.stg_shop__refunds"]
    snapshots = "select max(snapshot_id) from lake.snapshots()"
    build_model(lake, model)
    before = lake.read(snapshots).item()
    build_model(lake, model)
    assert lake.read(snapshots).item() == before
    build_model(lake, changed(model.name, "reason as refund_reason", "upper(reason) as refund_reason"))
    assert lake.read(snapshots).item() > before
    assert "upper" in lake.read("select sql from duckdb_views() where view_name = 'stg_shop__refunds'").item()


def test_readers_see_no_error_and_no_empty_table_during_rebuilds(engine: Engine, lake: Lake) -> None:
    small_shop(engine)
    load_changes(engine, lake)
    list(build_models(lake, list(MODELS.values())))
    done, seen, errors = threading.Event(), [], []

    def look() -> None:
        while not done.is_set():
            try:
                seen.append(lake.read("select sum(margin_micros)::bigint from marts.margins_by_day").item())
            except duckdb.Error as error:
                errors.append(str(error))

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(1):
            list(build_models(lake, list(MODELS.values())))
    finally:
        done.set()
        for reader in readers:
            reader.join(30)
    assert errors == []
    assert set(seen) == {2_300_000}


def test_the_file_carries_tables_comments_and_stays_when_refused(engine: Engine, lake: Lake, tmp_path: Path) -> None:
    small_shop(engine)
    file = tmp_path / "published" / "analytics.duckdb"
    refresh_warehouse(engine, lake, file)
    with duckdb.connect(str(file), read_only=True) as reader:
        assert reader.execute("select margin_micros from marts.margins_by_day").fetchall() == [(2_300_000,)]
        notes = reader.execute("select comment from duckdb_columns() where column_name = 'margin_usd'").fetchall()
        assert set(notes) == {("Margin in dollars [USD].",)}
        described = reader.execute(
            "select comment from duckdb_tables() where table_name = 'fct_order_items'"
        ).fetchone()
        assert described == (
            "What every order line brought in and cost, with destination and providers."
            " One row per line of an order that was paid or has money booked.",
        )
        # The open reader keeps its file while a new one takes its place.
        publish(lake, file)
        assert reader.execute("select count(*) from core.fct_order_units").fetchall() == [(4,)]
    with lake.connect() as connection:
        connection.execute("update marts.margins_by_day set margin_micros = margin_micros + 1")
    before = file.stat().st_ino
    with pytest.raises(PublishRefused, match=r"marts\.margins_by_day shows a margin of 2300001 .* ledger 2300000"):
        publish(lake, file)
    assert file.stat().st_ino == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_the_file_has_the_recent_part_of_the_price_history(engine: Engine, lake: Lake, tmp_path: Path) -> None:
    small_shop(engine)
    refresh_warehouse(engine, lake, tmp_path / "analytics.duckdb")
    now = datetime.now(UTC)
    ages = pl.DataFrame(
        {"offer_id": ["old", "new"], "changed_at": [now - timedelta(days=91), now - timedelta(days=89)]}
    )
    put(lake, "core", "price_history", ages)
    assert publish(lake, tmp_path / "analytics.duckdb").rows["core.price_history"] == 1
    with duckdb.connect(str(tmp_path / "analytics.duckdb"), read_only=True) as reader:
        assert reader.execute("select offer_id from core.price_history").fetchall() == [("new",)]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prices=st.lists(st.integers(0, 3_000_000_000), min_size=1, max_size=30),
    booked=st.integers(-90_000_000_000, 90_000_000_000),
)
def test_shares_of_a_booking_add_up_exactly(prices: list[int], booked: int) -> None:
    model = MODELS["core.fct_unit_bookings"]
    with duckdb.connect() as connection:
        connection.execute("create schema staging")
        connection.execute(
            "create table staging.stg_shop__order_items as select unnest(?::bigint[]) as unit_price_micros", [prices]
        )
        connection.execute("alter table staging.stg_shop__order_items add column item_id varchar")
        connection.execute("update staging.stg_shop__order_items set item_id = rowid::varchar")
        connection.execute(
            "create table staging.stg_shop__units as select item_id, 'u' || item_id as esim_id, 'a' as order_id,"
            " item_id::bigint + 1 as unit_number from staging.stg_shop__order_items"
        )
        connection.execute(
            "create table staging.stg_shop__ledger_entries as select 'a' as order_id, null::bigint as unit_number,"
            " 'payment_fees' as account, ?::bigint as amount_micros",
            [booked],
        )
        shares = [amount for _, _, amount in connection.execute(model.sql).fetchall()]
    assert sum(shares) == booked
    assert len(shares) == len(prices)
