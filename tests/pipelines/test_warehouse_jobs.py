"""When the warehouse refreshes: on changes, on new models, after a failure; never twice at a time."""

import logging
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._daemon.monitoring.run_monitoring import check_run_timeout
from sqlalchemy import Engine

from assets.warehouse import warehouse_assets
from pipelines.provisioning import MAX_RUNTIME
from pipelines.runs import LastRun
from pipelines.warehouse_jobs import (
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

ROOT = Path(__file__).resolve().parents[2]
TAGS = {"numnaroad/models": "v1"}
DONE = LastRun(active=False, succeeded=True, tags=TAGS, seconds_ago=300)


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (DONE, ""),
        (LastRun(True, False, TAGS, 1), "a run is going; it was last heard of 1 s ago"),
        (LastRun(False, False, TAGS, 10), "failed 10 s ago; next try after 300 s"),
        (LastRun(False, False, TAGS, 400), ""),
    ],
)
def test_a_run_that_is_going_or_failed_just_now_is_waited_for(last: LastRun, reason: str) -> None:
    assert reason in last.wait()
    assert bool(last.wait()) is bool(reason)


def test_no_refresh_without_need() -> None:
    skipped = decide([], DONE, "v1")
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == "0 tables have changed rows"


def test_changes_soon_after_a_refresh_wait_for_the_next_and_new_models_do_not() -> None:
    skipped = decide(["orders"], LastRun(False, True, TAGS, 100), "v1")
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == "1 tables have changed rows; the next refresh is due in 200 s"
    assert isinstance(decide(["orders"], LastRun(False, True, TAGS, 100), "v2"), dg.RunRequest)


@pytest.mark.parametrize(
    ("changed", "last"),
    [
        (["orders"], DONE),
        ([], None),
        ([], LastRun(False, True, {"numnaroad/models": "v0"}, 10)),
        ([], LastRun(False, False, TAGS, 400)),
    ],
)
def test_changes_new_models_and_old_failures_start_a_refresh(changed: list[str], last: LastRun | None) -> None:
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
        assert isinstance(again, dg.SkipReason)
        assert "4 tables have changed rows; the next refresh is due in" in str(again.skip_message)
        assert request.tags["numnaroad/models"] == models_version()
        keeper = definitions.resolve_job_def("maintain_lake")
        assert keeper.execute_in_process(instance=instance).success
    assert resource.lake().read("select orders from marts.margins_by_day").item() == 2


def test_a_killed_run_holds_the_warehouse_up_for_half_an_hour_and_no_longer(
    databases: Databases, resource: LakeResource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher of `dagster.yaml` cannot see that a run's process is gone; run monitoring ends it by its age."""
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", databases.dagster_sqlalchemy)
    shutil.copy(ROOT / "deploy" / "dagster.yaml", tmp_path / "dagster.yaml")
    job = dg.Definitions(assets=warehouse_assets, jobs=warehouse_jobs, resources={"lake": resource}).resolve_job_def(
        "refresh_warehouse"
    )
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        killed = instance.create_run_for_job(job)
        for status, minutes in ((DagsterEventType.RUN_STARTING, 32), (DagsterEventType.RUN_START, 31)):
            event = DagsterEvent(status.value, job.name, message="")
            at = datetime.now(UTC) - timedelta(minutes=minutes)
            instance.run_storage.handle_run_event(killed.run_id, event, at)
        context = dg.build_sensor_context(instance=instance, resources={"lake": resource})
        assert "a run is going" in str(changed_orders_sensor(context))
        (record,) = instance.get_run_records()
        limit = float(instance.run_monitoring_max_runtime_seconds)
        check_run_timeout(instance, record, logging.getLogger(), limit)
        assert "the last run failed 0 s ago" in str(changed_orders_sensor(context))
    assert str(limit).removesuffix(".0") == MAX_RUNTIME["dagster/max_runtime"]
