"""Which launcher took a run, and so who ends it and knows of its health: told by the run's tags."""

import dagster as dg
from dagster._core.storage.tags import GRPC_INFO_TAG

LAUNCHED_BY = "numnaroad/launched_by"
BY_WARM_HOST = "warm host"
BY_DEFAULT = "default launcher"


def is_of_default(run: dg.DagsterRun) -> bool:
    """Return whether the default launcher took a run.

    Our tag says so of every run that fell back. A run launched before this launcher was chosen has only the default
    launcher's own tag. Both are copied to a run that is executed again: the launcher then writes ours anew.
    """
    return run.tags.get(LAUNCHED_BY, BY_DEFAULT if GRPC_INFO_TAG in run.tags else BY_WARM_HOST) == BY_DEFAULT
