"""Jobs for a warm host to run: a copy of this file is the code location of the tests.

What a job waits for is a FIFO named in its run's tags: opening it returns when the test opens the other end.
"""

import json
import logging
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import dagster as dg

VERSION = "first"


@dg.op
def greet(context: dg.OpExecutionContext) -> None:
    print(f"printed by the {VERSION} version")
    context.log.info(f"logged by the {VERSION} version")


@dg.op
def wait_at_the_fifo(context: dg.OpExecutionContext) -> None:
    with Path(context.run_tags["fifo"]).open() as fifo:
        fifo.read()


@dg.op
def wait_deaf(context: dg.OpExecutionContext) -> None:
    """Wait as a C call does that looks at no signal."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    with Path(context.run_tags["fifo"]).open() as fifo:
        fifo.read()


@dg.op
def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dg.op
def leave() -> None:
    os._exit(0)


@dg.op
def fail() -> None:
    raise ValueError("a fault of the op")


@dg.op
def look_around(context: dg.OpExecutionContext) -> None:
    """Say what the process has."""
    seen = {
        "stdin": str(Path("/proc/self/fd/0").readlink()),
        "leads_its_session": os.getsid(0) == os.getpid(),
        "python_threads": sorted(thread.name for thread in threading.enumerate()),
        "sockets": [name for name in _open_files() if name.startswith("socket:")],
        "parent": os.getppid(),
        "blocked_signals": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
        "child_signal_is_default": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
        "log_handlers": [repr(handler) for handler in logging.getLogger().handlers],
        "random": random.random(),
        "looks_for_tables": [part.should_autocreate_tables for part in _storages(context.instance)],
    }
    Path(context.run_tags["answer"]).write_text(json.dumps(seen))


def _open_files() -> list[str]:
    """Name what is open, but for what the listing itself needs."""
    return [str(file.readlink()) for file in list(Path("/proc/self/fd").iterdir()) if file.is_symlink()]


def _storages(instance: dg.DagsterInstance) -> list[Any]:
    return [instance.run_storage, instance.event_log_storage, instance.schedule_storage]


def _job_of(op: dg.OpDefinition) -> dg.JobDefinition:
    @dg.job(name=f"{op.name}_job", executor_def=dg.in_process_executor)
    def job() -> None:
        op()

    return job


defs = dg.Definitions(
    jobs=[_job_of(op) for op in (greet, wait_at_the_fifo, wait_deaf, kill_itself, leave, fail, look_around)]
)
