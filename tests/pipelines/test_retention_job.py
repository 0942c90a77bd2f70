"""The retention job on a real Dagster instance over Postgres: old runs go with their events, newest and latest stay."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import psycopg
import pytest
import yaml
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    SensorInstigatorData,
    TickData,
    TickStatus,
)

from assets.dagster_storage import (
    FREQUENT_JOBS,
    LARGE_JOBS,
    NEWEST_KEPT,
    KeepRuns,
    forget_runs,
    forget_side_records,
    forget_skipped_ticks,
)
from assets.operations import provider_health, retention
from pipelines.definitions import defs
from pipelines.operations_jobs import retention_job
from pipelines.sensors.operations_watch import operations_watch_sensor
from resources.db.databases import Databases
from resources.order_operations import utc_now
from tests.pipelines.conftest import Shop, Source

ROOT = Path(__file__).resolve().parents[2]


@dg.op
def work() -> None:
    """Do nothing, at length."""


@dg.op
def stumble() -> None:
    raise RuntimeError("broken")


def job(name: str, op: dg.OpDefinition = work) -> dg.JobDefinition:
    @dg.job(name=name, executor_def=dg.in_process_executor)
    def made() -> None:
        op()

    return made


@pytest.fixture
def instance(databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An instance as `deploy/dagster.yaml` makes it, on its own database, with its files below `tmp_path`."""
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", databases.dagster_sqlalchemy)
    config = yaml.safe_load((ROOT / "deploy" / "dagster.yaml").read_text())
    (tmp_path / "dagster.yaml").write_text(
        yaml.safe_dump({"storage": config["storage"], "telemetry": {"enabled": False}})
    )
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def events(databases: Databases) -> int:
    with psycopg.connect(databases.dagster) as connection:
        row = connection.execute("select count(*) from event_logs").fetchone()
    return int(row[0]) if row else 0


def ids(instance: dg.DagsterInstance, name: str) -> list[str]:
    return list(instance.get_run_ids(dg.RunsFilter(job_name=name)))


def test_old_runs_go_with_their_events_and_the_newest_failed_and_latest_ones_stay(
    instance: dg.DagsterInstance, databases: Databases, source: Source, tmp_path: Path
) -> None:
    drains = [job("provision_orders").execute_in_process(instance=instance).run_id for _ in range(NEWEST_KEPT + 2)]
    failed = job("provision_orders", stumble).execute_in_process(instance=instance, raise_on_error=False).run_id
    rare = [job("sync_catalogue").execute_in_process(instance=instance).run_id for _ in range(2)]
    latest = dg.materialize([provider_health], instance=instance, resources={"operations": source}).run_id
    files = tmp_path / "storage" / drains[0]
    assert files.exists()
    before, now = events(databases), utc_now()
    assert forget_runs(instance, KeepRuns(), now + timedelta(days=2), most_seconds=60) == 0
    assert forget_runs(instance, KeepRuns(), now + timedelta(days=4), most_seconds=60) == 3
    assert ids(instance, "provision_orders") == [failed, *drains[:2:-1]]
    assert events(databases) < before
    assert not files.exists()
    forget_runs(instance, KeepRuns(), now + timedelta(days=31), most_seconds=60)
    assert ids(instance, "sync_catalogue") == rare[::-1]
    assert ids(instance, "__ephemeral_asset_job__") == [latest]


def test_reports_and_check_evaluations_are_forgotten_but_the_newest_of_each(
    instance: dg.DagsterInstance, databases: Databases, shop: Shop, source: Source
) -> None:
    for number in range(3):
        shop.clock.advance(minutes=2 * number)
        context = dg.build_sensor_context(instance, None, resources={"operations": source})
        for event in operations_watch_sensor.evaluate_tick(context).asset_events:
            instance.report_runless_asset_event(event)
    soon, late = utc_now() + timedelta(days=1), utc_now() + timedelta(days=3)
    assert set(forget_side_records(shop.settings, soon).values()) == {0}
    gone = forget_side_records(shop.settings, late)
    assert gone["check evaluations"] == 2
    assert gone["runless reports"] >= 2
    assert instance.get_latest_materialization_event(dg.AssetKey(["ops", "alerts"])) is not None
    assert forget_side_records(shop.settings, late) == {"runless reports": 0, "check evaluations": 0}


def test_evaluations_of_a_run_stay_as_long_as_the_run(instance: dg.DagsterInstance, shop: Shop, source: Source) -> None:
    first, _ = (
        dg.materialize([provider_health], instance=instance, resources={"operations": source}) for _ in range(2)
    )
    late = utc_now() + timedelta(days=3)
    assert forget_side_records(shop.settings, late)["check evaluations"] == 0
    instance.delete_run(first.run_id)
    assert forget_side_records(shop.settings, late)["check evaluations"] == 5


def test_large_runs_are_kept_for_hours_and_ticks_that_found_nothing_too(instance: dg.DagsterInstance) -> None:
    runs = [job(LARGE_JOBS[0]).execute_in_process(instance=instance).run_id for _ in range(NEWEST_KEPT + 1)]
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("numnaroad"), "__repository__")
    origin, now = RemoteInstigatorOrigin(repository, "paid_orders_sensor"), utc_now()
    state = instance.add_instigator_state(
        InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING, SensorInstigatorData())
    )
    for hours, status in ((3, TickStatus.SKIPPED), (3, TickStatus.SUCCESS), (1, TickStatus.SKIPPED)):
        at = (now - timedelta(hours=hours)).timestamp()
        selector = state.selector_id
        instance.create_tick(
            TickData(
                origin.get_id(),
                origin.instigator_name,
                InstigatorType.SENSOR,
                status,
                at,
                run_ids=[],
                selector_id=selector,
            )
        )
    forget_skipped_ticks(instance, now)
    ticks = instance.get_ticks(origin.get_id(), state.selector_id)
    assert [(tick.status, now.timestamp() - tick.timestamp > 7200) for tick in ticks] == [
        (TickStatus.SKIPPED, False),
        (TickStatus.SUCCESS, True),
    ]
    assert forget_runs(instance, KeepRuns(), now + timedelta(hours=3), most_seconds=60) == 1
    assert runs[0] not in ids(instance, LARGE_JOBS[0])


def test_the_job_shows_what_went_and_how_large_both_databases_are(
    instance: dg.DagsterInstance, source: Source, shop: Shop
) -> None:
    shop.clock.now = utc_now() + timedelta(days=40)
    for _ in range(NEWEST_KEPT + 1):
        job("work_refunds").execute_in_process(instance=instance)
    repository = defs.get_repository_def()
    result = repository.get_job(retention_job.name).execute_in_process(
        instance=instance, resources={"operations": source}
    )
    [done] = result.asset_materializations_for_node(retention.node_def.name)
    table = done.metadata["deleted"]
    assert isinstance(table, dg.TableMetadataValue)
    deleted = {str(record.data["what"]): record.data["rows"] for record in table.records}
    assert deleted["dagster runs"] == 1
    assert {"outbox", "inbox_events", "drains", "idempotency_keys", "check evaluations"} <= set(deleted)
    assert int(str(done.metadata["dagster bytes"].value)) > 1_000_000


def test_jobs_with_an_age_of_their_own_are_jobs_that_exist() -> None:
    assert {*FREQUENT_JOBS, *LARGE_JOBS} <= set(defs.get_repository_def().job_names)
