"""A run of nothing, in a process that ends with it: it shows what a run must import beyond the definitions."""

import os
import sys
from contextlib import suppress

import dagster as dg


@dg.op
def nothing() -> None:
    """Do nothing."""


@dg.job(executor_def=dg.in_process_executor)
def rehearsal() -> None:
    """Do nothing, as a job."""
    nothing()


def imported_by_a_run() -> list[str]:
    """Open the instance that DAGSTER_HOME names, run a job on one in memory, and return the modules this took.

    An instance that cannot be opened now costs its runs some imports, and nothing else.
    """
    before = set(sys.modules)
    with suppress(Exception):
        if "DAGSTER_HOME" in os.environ:
            with dg.DagsterInstance.get() as instance:
                instance.get_runs(limit=1)
        with dg.DagsterInstance.ephemeral() as instance:
            rehearsal.execute_in_process(instance=instance)
    return [name for name in sys.modules if name not in before]
