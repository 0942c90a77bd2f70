"""The warehouse in Dagster: what its assets declare, a whole refresh, and a failure that stops what reads it."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import Engine, insert

from assets.sql_models import sql_models
from assets.warehouse import refreshed_assets, warehouse_assets
from resources.db import tables
from resources.db.databases import Databases
from resources.lake import LakeResource
from resources.warehouse.copies import COPIES
from tests.resources.warehouse.sales import small_shop


@pytest.fixture
def resource(databases: Databases, tmp_path: Path) -> Iterator[LakeResource]:
    resource = LakeResource(
        catalogue_url=databases.lake,
        data_path=str(tmp_path / "lake"),
        operational_url=databases.operational,
        published_folder=str(tmp_path),
    )
    yield resource
    resource.lake().close()
    resource.operational_store().dispose()


def refresh(instance: dg.DagsterInstance, resource: LakeResource) -> dg.ExecuteInProcessResult:
    return dg.materialize(refreshed_assets, instance=instance, resources={"lake": resource}, raise_on_error=False)


def test_every_asset_says_what_it_is_and_whose() -> None:
    specs = [spec for asset in warehouse_assets for spec in asset.specs]
    assert {spec.key.to_user_string() for spec in specs} == {
        *(f"raw/{copy.name}" for copy in COPIES),
        *(f"{model.schema}/{model.table}" for model in sql_models()),
        "analytics_file",
        "lake_maintenance",
    }
    for spec in specs:
        assert spec.group_name in {"raw", "staging", "core", "marts", "published"}, spec.key
        assert spec.owners, spec.key
        assert spec.kinds, spec.key
        assert spec.description, spec.key
        if spec.group_name != "published":
            assert dg.TableSchema(columns=[]) != spec.metadata["dagster/column_schema"], spec.key


def test_dependencies_come_from_the_sql() -> None:
    graph = {spec.key.to_user_string(): spec for asset in warehouse_assets for spec in asset.specs}
    found = {dep.asset_key.to_user_string() for dep in graph["core/fct_order_items"].deps}
    assert found == {"core/fct_order_units", "staging/stg_shop__packages"}
    assert {dep.asset_key.to_user_string() for dep in graph["staging/stg_shop__units"].deps} == {"raw/esims"}


def test_a_refresh_materialises_checks_publishes_and_tells_nothing_personal(
    engine: Engine, resource: LakeResource, tmp_path: Path
) -> None:
    small_shop(engine)
    with dg.DagsterInstance.ephemeral() as instance:
        result = refresh(instance, resource)
        assert result.success
        checks = result.get_asset_check_evaluations()
        assert len(checks) > 150
        assert all(check.passed for check in checks)
        event = instance.get_latest_materialization_event(dg.AssetKey(["marts", "margins_by_day"]))
        told = "\n".join(str(entry) for entry in instance.all_logs(result.run_id))
    assert event
    assert event.asset_materialization
    figures = event.asset_materialization.metadata
    assert figures["dagster/row_count"].value == 1
    assert figures["margin_micros"].value == 2_300_000
    assert isinstance(figures["dagster/column_lineage"], dg.TableColumnLineageMetadataValue)
    assert (tmp_path / "analytics.duckdb").is_file()
    assert "margins_by_day" in told
    assert not [personal for personal in ("customer@", "secret") if personal in told]


def test_a_failed_money_check_stops_what_reads_it_and_keeps_the_last_numbers(
    engine: Engine, resource: LakeResource
) -> None:
    first, _ = small_shop(engine)
    with dg.DagsterInstance.ephemeral() as instance:
        assert refresh(instance, resource).success
        stray = {"posting_key": "stray", "order_id": first, "original_amount": 1, "original_currency": "USD"}
        with engine.begin() as conn:
            conn.execute(insert(tables.ledger_entries).values(stray | {"account": "cash", "amount_micros": 1}))
        result = refresh(instance, resource)
    assert not result.success
    failed = {check.check_name for check in result.get_asset_check_evaluations() if not check.passed}
    assert failed == {"postings_sum_to_zero"}
    built = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events() if event.asset_key}
    assert not {"core/fct_unit_bookings", "marts/margins_by_day", "analytics_file"} & built
    assert resource.lake().read("select margin_micros from marts.margins_by_day").item() == 2_300_000
