"""When the host ends, by itself or by force: nothing is lost from sight, and nothing is said that is not so."""

import os
import signal
import subprocess
import sys

import dagster as dg
import pytest

from tests.pipelines.warm_runs.conftest import Staged
from tests.pipelines.warm_runs.stage import Stage, wait_until

FAILURE, CANCELED = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED


@pytest.fixture(scope="module")
def stage(staged: Staged) -> Stage:
    stage = staged(max_concurrent=1, terminate_grace_seconds=0, shutdown_grace_seconds=1)
    stage.start_host()
    return stage


def test_a_run_that_does_not_end_in_time_is_killed_and_canceled(stage: Stage) -> None:
    fifo = stage.fifo("deaf")
    run_id = stage.launch("wait_deaf_job", fifo=str(fifo))
    fifo.wait_for_a_reader()

    assert stage.launcher.terminate(run_id)

    assert stage.ended(run_id) is CANCELED
    assert "SIGKILL" in stage.messages(run_id)


def test_a_second_host_for_the_same_instance_says_so_and_ends(stage: Stage) -> None:
    command = [sys.executable, "-m", "pipelines.warm_runs"]
    second = subprocess.run(
        command, check=False, cwd=stage.code.parent, env=dict(stage.environment), capture_output=True, timeout=60
    )

    assert second.returncode == 1
    assert b"another host serves" in second.stderr


def test_a_killed_host_leaves_no_run_unaccounted_for(stage: Stage) -> None:
    """One run is at work and looks at no signal, one waits in the queue; then the host is gone, and comes back."""
    fifo = stage.fifo("left")
    at_work = stage.launch("wait_deaf_job", fifo=str(fifo))
    fifo.wait_for_a_reader()
    process = stage.pid(at_work)
    waiting = stage.launch("greet_job")
    zygote = stage.parent(process)

    os.kill(zygote, signal.SIGSTOP)  # so that it does not end its child before we have asked
    stage.end_host(signal.SIGKILL)
    assert stage.health(at_work) == "RUNNING"
    assert stage.health(waiting) == "FAILED"
    os.kill(zygote, signal.SIGCONT)
    stage.start_host()

    assert stage.ended(waiting) is FAILURE
    assert "The warm run host ended before" in stage.messages(waiting)
    assert stage.ended(at_work) is FAILURE
    wait_until(lambda: not os.path.exists(f"/proc/{process}"), "its process is gone")  # noqa: PTH110 - no file of ours
    wait_until(lambda: not stage.cards.all(), "all runs are accounted for")
    assert stage.health(at_work) == "FAILED"


def test_a_host_asked_to_end_ends_its_runs_first(stage: Stage) -> None:
    fifo = stage.fifo("ended")
    at_work = stage.launch("wait_at_the_fifo_job", fifo=str(fifo))
    fifo.wait_for_a_reader()
    process = stage.pid(at_work)
    waiting = stage.launch("greet_job")

    assert stage.end_host() == 0

    assert stage.run(at_work).status is FAILURE
    assert stage.run(waiting).status is FAILURE
    assert "ended before" in stage.messages(waiting)
    assert not os.path.exists(f"/proc/{process}")  # noqa: PTH110 - no file of ours
    assert not stage.place.exists()
    assert stage.health(at_work) == "NOT_FOUND"
