"""Ports for servers a test starts: every worker chooses among its own, so none takes what another is about to use."""

import os
from random import SystemRandom

from cli.ports import CHOICE, is_free


def free_port() -> int:
    """Return a free port of the loopback address that no other worker of this run chooses.

    Raises:
        OSError: there is none.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    mine = CHOICE[int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) :: workers]
    for port in SystemRandom().sample(mine, len(mine)):
        if is_free("127.0.0.1", port):
            return port
    raise OSError(f"no port between {CHOICE.start} and {CHOICE.stop - 1} is free")
