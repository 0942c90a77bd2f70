"""Dagster's storage in Postgres, but for one flaw that a crash can lay bare: `dagster.yaml` names it.

Dagster writes the first state of a sensor or schedule as two rows, each committed by itself. A daemon or a database
that dies between them leaves the first without the second: from then on Dagster takes the state for missing, fails to
write it because it is there, and breaks off every round of all sensors at that one, for ever.
"""

from collections.abc import Mapping
from typing import Any, cast

from dagster._core.errors import DagsterInvariantViolationError
from dagster._core.scheduler.instigation import InstigatorState
from dagster._core.storage.config import PostgresStorageConfig
from dagster._serdes import ConfigurableClassData
from dagster_postgres import (
    DagsterPostgresStorage,
    PostgresEventLogStorage,
    PostgresRunStorage,
    PostgresScheduleStorage,
)
from dagster_postgres.utils import pg_url_from_config


class WholeScheduleStorage(PostgresScheduleStorage):
    """States of sensors and schedules; one that is written by half is completed."""

    def add_instigator_state(self, state: InstigatorState) -> InstigatorState:
        """Write a state for the first time.

        Raises:
            DagsterInvariantViolationError: it is there, whole.
        """
        try:
            return super().add_instigator_state(state)
        except DagsterInvariantViolationError:
            if self.get_instigator_state(state.instigator_origin_id, state.selector_id) is not None:
                raise
            with self.connect() as conn:
                self._add_or_update_instigators_table(conn, state)
            return state


class DagsterStorage(DagsterPostgresStorage):
    """The storage of runs, events and schedules, as Dagster's own but for the schedules.

    Each of the three looks for its tables when it is opened, unless `should_autocreate_tables` is false.
    """

    def __init__(
        self, postgres_url: str, should_autocreate_tables: bool = True, inst_data: ConfigurableClassData | None = None
    ) -> None:
        self.postgres_url, self.should_autocreate_tables = postgres_url, should_autocreate_tables
        self._inst_data = inst_data
        self._run_storage = PostgresRunStorage(postgres_url, should_autocreate_tables)
        self._event_log_storage = PostgresEventLogStorage(postgres_url, should_autocreate_tables)
        self._schedule_storage = WholeScheduleStorage(postgres_url, should_autocreate_tables)
        # Past the parent, which would open a schedule storage of its own in every run's process.
        super(DagsterPostgresStorage, self).__init__()  # type: ignore[no-untyped-call]  # dagster's has no annotations

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "DagsterStorage":
        """Build it from what stands in `dagster.yaml`."""
        url = pg_url_from_config(cast(PostgresStorageConfig, config_value))
        return cls(url, config_value.get("should_autocreate_tables", True), inst_data)
