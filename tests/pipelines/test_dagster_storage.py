"""A sensor's first state, written by half before a crash: Dagster's own storage never gets over it, ours does."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from dagster._core.errors import DagsterInvariantViolationError
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    SensorInstigatorData,
)

from pipelines.dagster_storage import DagsterStorage
from resources.db.databases import Databases

ROOT = Path(__file__).resolve().parents[2]
LOCATION = GrpcServerCodeLocationOrigin(host="127.0.0.1", port=9, location_name="numnaroad")
ORIGIN = RemoteInstigatorOrigin(RemoteRepositoryOrigin(LOCATION, "__repository__"), "paid_orders_sensor")
STATE = InstigatorState(
    ORIGIN, InstigatorType.SENSOR, InstigatorStatus.DECLARED_IN_CODE, SensorInstigatorData(min_interval=1)
)


@pytest.fixture
def instance(databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """The instance that `deploy/dagster.yaml` makes."""
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", databases.dagster_sqlalchemy)
    shutil.copy(ROOT / "deploy" / "dagster.yaml", tmp_path / "dagster.yaml")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def write_half(instance: dg.DagsterInstance, databases: Databases) -> None:
    instance.add_instigator_state(STATE)
    with psycopg.connect(databases.dagster) as connection:
        connection.execute("delete from instigators")


def test_a_state_that_a_crash_left_half_written_is_completed(
    instance: dg.DagsterInstance, databases: Databases
) -> None:
    write_half(instance, databases)
    assert instance.all_instigator_state() == []

    instance.add_instigator_state(STATE)

    assert [state.name for state in instance.all_instigator_state()] == ["paid_orders_sensor"]


def test_a_state_that_is_there_is_refused_as_ever(instance: dg.DagsterInstance) -> None:
    instance.add_instigator_state(STATE)
    with pytest.raises(DagsterInvariantViolationError):
        instance.add_instigator_state(STATE)


def test_a_run_in_another_process_opens_the_same_storage(instance: dg.DagsterInstance) -> None:
    assert "DAGSTER_POSTGRES_URL" in os.environ
    with dg.DagsterInstance.from_ref(instance.get_ref()) as other:
        other.add_instigator_state(STATE)
    assert len(instance.all_instigator_state()) == 1


def test_storage_told_that_the_tables_are_there_asks_nobody(databases: Databases) -> None:
    """The database is empty: who looks for tables makes them, who does not leaves it as it was."""
    config = {"postgres_url": databases.dagster_sqlalchemy}

    DagsterStorage.from_config_value(None, {**config, "should_autocreate_tables": False})
    assert _tables(databases) == 0
    DagsterStorage.from_config_value(None, config)
    assert _tables(databases) > 0


def _tables(databases: Databases) -> int:
    with psycopg.connect(databases.dagster) as connection:
        row = connection.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone()
    assert row is not None
    return int(row[0])
