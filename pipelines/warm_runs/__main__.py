"""`python -m pipelines.warm_runs`: the host of the run launcher that DAGSTER_HOME's `dagster.yaml` names.

Where it names another launcher there is nothing to do here, and the process just waits to be ended.
"""

import os
import signal
import sys
from pathlib import Path

import structlog

from pipelines.warm_runs.config import NoFolder, configured
from pipelines.warm_runs.host import Host
from pipelines.warm_runs.reception import AlreadyServed
from resources.logs import configure_logging

_log = structlog.get_logger("numnaroad.warm_runs")


def main() -> int:
    """Serve until SIGTERM; return 1 where it cannot."""
    configure_logging()
    home = os.environ.get("DAGSTER_HOME", "")
    if not home:
        _log.error("DAGSTER_HOME is not set: set it to the folder of dagster.yaml")
        return 1
    config = configured(Path(home))
    if config is None:
        _log.info("dagster.yaml names another run launcher; nothing to do here")
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
        return 0
    try:
        Host(config, config.place(home)).serve()
    except (AlreadyServed, NoFolder) as error:
        _log.error(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
