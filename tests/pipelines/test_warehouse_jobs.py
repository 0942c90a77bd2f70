"""When the warehouse refreshes: on changes, on new models, after a failure; never twice at a time."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import Engine

from assets.warehouse import warehouse_assets
from pipelines.warehouse_jobs import (
    LastRefresh,
    changed_orders_sensor,
    decide,
    models_version,
    warehouse_jobs,
    warehouse_schedules,
    warehouse_sensors,
)
from resources.db.databases import Databases
from resources.lake import LakeResource
from tests.resources.db.shop import paid_order
from tests.resources.warehouse.sales import small_shop

DONE = LastRefresh(active=False, succeeded=True, models="v1", seconds_ago=10)


@pytest.mark.parametrize(
    ("changed", "last", "reason"),
    [
        ([], DONE, "0 tables have changed rows"),
        (["orders"], LastRefresh(True, False, "v1", 1), "a refresh is running; 1 tables"),
        (["orders"], LastRefresh(False, False, "v1", 10), "failed 10 s ago; next try after 300 s"),
    ],
)
def test_no_refresh_without_need_and_the_reason_has_a_number(
    changed: list[str], last: LastRefresh, reason: str
) -> None:
    skipped = decide(changed, last, "v1")
    assert isinstance(skipped, dg.SkipReason)
    assert reason in (skipped.skip_message or "")


@pytest.mark.parametrize(
    ("changed", "last"),
    [
        (["orders"], DONE),
        ([], None),
        ([], LastRefresh(False, True, "v0", 10)),
        ([], LastRefresh(False, False, "v1", 400)),
    ],
)
def test_changes_new_models_and_old_failures_start_a_refresh(changed: list[str], last: LastRefresh | None) -> None:
    assert isinstance(decide(changed, last, "v1"), dg.RunRequest)


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


def test_orders_show_in_the_marts_after_one_tick(engine: Engine, resource: LakeResource) -> None:
    small_shop(engine)
    definitions = dg.Definitions(
        assets=warehouse_assets,
        jobs=warehouse_jobs,
        schedules=warehouse_schedules,
        sensors=warehouse_sensors,
        resources={"lake": resource},
        executor=dg.in_process_executor,
    )
    dg.Definitions.validate_loadable(definitions)
    with dg.DagsterInstance.ephemeral() as instance:

        def tick() -> object:
            context = dg.build_sensor_context(instance=instance, resources={"lake": resource})
            return changed_orders_sensor(context)

        request = tick()
        assert isinstance(request, dg.RunRequest)
        job = definitions.resolve_job_def("refresh_warehouse")
        assert job.execute_in_process(instance=instance, tags=dict(request.tags)).success
        assert isinstance(tick(), dg.SkipReason)
        paid_order(engine)
        again = tick()
        assert isinstance(again, dg.RunRequest)
        assert again.tags["numnaroad/changed"] == "orders,order_items,esims,ledger_entries"
        assert again.tags["numnaroad/models"] == models_version()
        keeper = definitions.resolve_job_def("maintain_lake")
        assert keeper.execute_in_process(instance=instance).success
    assert resource.lake().read("select orders from marts.margins_by_day").item() == 2
