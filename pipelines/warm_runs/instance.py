"""Dagster's instance as a forked child opens it: on connections of its own, and without what costs a run its start."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import yaml
from dagster._core.instance import InstanceRef
from dagster._serdes import deserialize_value

_KNOW_AUTOCREATE = {("dagster_postgres", "DagsterPostgresStorage"), ("pipelines.dagster_storage", "DagsterStorage")}
_POOLED_SECONDS = 1  # as long as a connection may be used again; a longer one could outlive a restart of the server


@contextmanager
def open_instance(reference: str) -> Iterator[dg.DagsterInstance]:
    """Open the instance that a launcher's serialised reference names.

    Dagster's Postgres storage opens a connection for every statement, six milliseconds each time: the dozens of a run's
    start share one.
    """
    with dg.DagsterInstance.from_ref(_with_tables(deserialize_value(reference, InstanceRef))) as instance:
        instance.optimize_for_webserver(statement_timeout=0, pool_recycle=_POOLED_SECONDS, max_overflow=-1)
        yield instance


def _with_tables(reference: InstanceRef) -> InstanceRef:
    """Spare Postgres the question whether Dagster's tables are there: the launcher has created the run in them."""
    storage = reference.storage_data
    if storage is None or (storage.module_name, storage.class_name) not in _KNOW_AUTOCREATE:
        return reference
    config = {**yaml.safe_load(storage.config_yaml), "should_autocreate_tables": False}
    return reference._replace(storage_data=storage._replace(config_yaml=yaml.safe_dump(config)))
