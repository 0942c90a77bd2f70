"""The health of assets on a real instance: ages, freshness, checks and failed runs, as the table operations read."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy
from dagster._core.definitions.reconstruct import ReconstructableRepository

from assets.asset_health import (
    ASSET_HEALTH_KEY,
    Freshness,
    Standing,
    asset_health,
    asset_health_events,
    read_asset_health,
)
from pipelines.definitions import defs
from pipelines.sensors.asset_health import REPORT_EVERY, asset_health_sensor
from resources.db.databases import Databases
from resources.order_operations import utc_now
from tests.pipelines.actors import HandClock
from tests.pipelines.conftest import Shop, Source

ROOT = Path(__file__).resolve().parents[2]
ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
CLOCKED = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=4), warn_window=timedelta(hours=2))


class Fault(dg.Config):
    """What goes wrong in a run of these assets."""

    breaks: bool = False
    severity: str = ""


@dg.asset(freshness_policy=CLOCKED)
def clocked() -> None:
    """One that must be made again in time."""


@dg.asset
def fragile(config: Fault) -> None:
    """One that may fail."""
    if config.breaks:
        raise ValueError("buyer@example.com broke it")


@dg.asset(check_specs=[dg.AssetCheckSpec("adds_up", asset="checked")])
def checked(config: Fault) -> dg.MaterializeResult:  # type: ignore[type-arg]  # dagster leaves it unbound
    """One with a check."""
    severity = ERROR if config.severity == "ERROR" else WARN
    check = dg.AssetCheckResult(check_name="adds_up", passed=not config.severity, severity=severity)
    return dg.MaterializeResult(check_results=[check])


SOME = dg.Definitions(
    assets=[clocked, fragile, checked, asset_health], resources={"operations": dg.ResourceDefinition.none_resource()}
)
REPOSITORY = SOME.get_repository_def()


@pytest.fixture
def instance(databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """The instance that `deploy/dagster.yaml` makes."""
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", databases.dagster_sqlalchemy)
    shutil.copy(ROOT / "deploy" / "dagster.yaml", tmp_path / "dagster.yaml")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def source(shop: Shop) -> Source:
    shop.clock = HandClock(utc_now())
    shop.tools.clock = shop.clock
    return Source(shop.tools)


def make(instance: dg.DagsterInstance, asset: dg.AssetsDefinition, **fault: object) -> str:
    config = {"ops": {asset.node_def.name: {"config": fault}}} if fault else {}
    return dg.materialize([asset], instance=instance, run_config=config, raise_on_error=False).run_id


def stands(instance: dg.DagsterInstance, hours: float = 0.0) -> dict[str, tuple[Standing, Freshness]]:
    health = read_asset_health(instance, REPOSITORY, utc_now() + timedelta(hours=hours))
    return {one.key.to_user_string(): (one.standing, one.freshness) for one in health}


def test_an_asset_is_late_and_then_overdue_by_its_own_policy(instance: dg.DagsterInstance) -> None:
    assert stands(instance)["clocked"] == (Standing.NEVER_MADE, Freshness.NONE)
    make(instance, clocked)
    make(instance, fragile)
    assert stands(instance)["clocked"] == (Standing.WELL, Freshness.IN_TIME)
    assert stands(instance, hours=3)["clocked"] == (Standing.WARNING, Freshness.LATE)
    assert stands(instance, hours=5)["clocked"] == (Standing.FAILING, Freshness.OVERDUE)
    assert stands(instance, hours=5)["fragile"] == (Standing.WELL, Freshness.NONE)  # it has no policy


def test_a_failed_run_is_named_until_the_asset_is_made_again(instance: dg.DagsterInstance) -> None:
    make(instance, fragile)
    failed = make(instance, fragile, breaks=True)
    [row] = [one for one in read_asset_health(instance, REPOSITORY, utc_now()) if one.key == fragile.key]
    assert (row.failed_run, row.standing) == (failed, Standing.FAILING)
    assert row.made_at is not None  # by the run before
    make(instance, fragile)
    assert stands(instance)["fragile"] == (Standing.WELL, Freshness.NONE)


def test_a_failing_check_weighs_as_much_as_its_severity(instance: dg.DagsterInstance) -> None:
    make(instance, checked, severity="WARN")
    assert stands(instance)["checked"][0] is Standing.WARNING
    make(instance, checked, severity="ERROR")
    assert stands(instance)["checked"][0] is Standing.FAILING
    make(instance, checked)
    assert stands(instance)["checked"][0] is Standing.WELL


def test_a_check_that_was_planned_and_never_evaluated_keeps_its_last_result(instance: dg.DagsterInstance) -> None:
    make(instance, checked, severity="ERROR")
    job = dg.Definitions(assets=[checked], jobs=[dg.define_asset_job("again")]).resolve_job_def("again")
    instance.create_run_for_job(job, asset_selection=frozenset({checked.key}), status=dg.DagsterRunStatus.STARTED)
    assert stands(instance)["checked"][0] is Standing.FAILING


def test_it_shows_a_table_of_ids_and_a_check(instance: dg.DagsterInstance) -> None:
    make(instance, clocked)
    make(instance, checked, severity="WARN")
    failed = make(instance, fragile, breaks=True)

    [made, check] = asset_health_events(read_asset_health(instance, REPOSITORY, utc_now()))

    assert isinstance(made, dg.AssetMaterialization)
    table = made.metadata["assets"]
    assert isinstance(table, dg.TableMetadataValue)
    rows = {record.data["asset"]: record.data for record in table.records}
    assert sorted(str(name) for name in rows) == ["checked", "clocked", "fragile"]
    assert rows["checked"]["failing_checks"] == "adds_up (warning)"
    assert (rows["fragile"]["standing"], rows["fragile"]["failed_run"]) == ("failing", failed)
    assert (rows["clocked"]["freshness"], rows["clocked"]["age_minutes"]) == ("in time", 0)
    assert str(rows["clocked"]["due_by"]).endswith("UTC")
    assert isinstance(check, dg.AssetCheckEvaluation)
    assert (check.passed, check.severity) == (False, WARN)
    assert check.description == "1 of 3 assets are failing: fragile"
    assert "example.com" not in str(made.metadata)


def test_the_shops_own_job_looks_at_all_of_its_assets(
    instance: dg.DagsterInstance, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", databases.operational)
    job = ReconstructableRepository.for_module("pipelines.definitions", "defs").get_reconstructable_job(
        "report_operations"
    )

    with dg.execute_job(job, instance) as result:
        assert result.success

    made = instance.get_latest_materialization_event(ASSET_HEALTH_KEY)
    assert made is not None
    assert made.asset_materialization is not None
    assert made.asset_materialization.metadata["dagster/row_count"].value == len(defs.resolve_all_asset_specs()) - 1


def test_the_sensor_reports_what_changed_and_every_five_minutes(
    instance: dg.DagsterInstance, source: Source, shop: Shop
) -> None:
    cursor: str | None = None

    def tick() -> list[bool]:
        nonlocal cursor
        context = dg.build_sensor_context(instance, cursor, repository_def=REPOSITORY, resources={"operations": source})
        result = asset_health_sensor.evaluate_tick(context)
        cursor = result.cursor
        for event in result.asset_events:
            instance.report_runless_asset_event(event)
        return [event.passed for event in result.asset_events if isinstance(event, dg.AssetCheckEvaluation)]

    assert tick() == [True]
    assert tick() == []
    make(instance, fragile, breaks=True)
    assert tick() == [False]
    shop.clock.advance(seconds=REPORT_EVERY.total_seconds())
    assert tick() == [False]
    assert instance.get_latest_materialization_event(ASSET_HEALTH_KEY) is not None


def test_every_asset_of_the_shop_has_its_row(instance: dg.DagsterInstance) -> None:
    specs = [spec for spec in defs.resolve_all_asset_specs() if spec.key != ASSET_HEALTH_KEY]

    health = read_asset_health(instance, defs.get_repository_def(), utc_now())

    assert sorted(one.key for one in health) == sorted(spec.key for spec in specs)
    assert {one.standing for one in health} == {Standing.NEVER_MADE}
    policies = [spec.freshness_policy for spec in specs if spec.freshness_policy is not None]
    assert policies
    assert all(isinstance(policy, TimeWindowFreshnessPolicy) for policy in policies)  # the kind that is judged here
