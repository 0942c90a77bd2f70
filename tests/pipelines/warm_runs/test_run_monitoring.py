"""Dagster's own run monitoring over warm runs: whom it gives up is really gone, or is ended, and never starts later.

With Dagster's own launchers a run that was marked as failed may go on, or begin afterwards (dagster#15325).
"""

import logging
import os
import signal
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

from tests.pipelines.warm_runs.conftest import Staged
from tests.pipelines.warm_runs.stage import Stage, wait_until

SUCCESS, FAILURE, STARTED = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED


@pytest.fixture(scope="module")
def stage(staged: Staged) -> Stage:
    stage = staged(start_timeout=1, max_concurrent=1, look_seconds=1, terminate_grace_seconds=2)
    stage.start_host()
    return stage


def monitor(stage: Stage) -> None:
    """Let Dagster's daemon look at all runs once."""
    with WorkspaceProcessContext(stage.instance, EmptyWorkspaceTarget()) as workspace:
        errors = list(execute_run_monitoring_iteration(workspace, logging.getLogger("monitoring")))
    assert not any(errors)


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def at_work(stage: Stage, job: str, name: str, **tags: str) -> tuple[str, int]:
    """Launch a run that waits, and return it with its process when it does."""
    fifo = stage.fifo(name)
    run_id = stage.launch(job, fifo=str(fifo), **tags)
    fifo.wait_for_a_reader()
    return run_id, stage.pid(run_id)


def test_a_run_that_is_at_work_is_left_alone(stage: Stage) -> None:
    run_id, process = at_work(stage, "wait_at_the_fifo_job", "left-alone")

    monitor(stage)

    assert stage.run(run_id).status is STARTED
    assert not is_gone(process)
    assert stage.launcher.terminate(run_id)
    assert stage.ended(run_id) is dg.DagsterRunStatus.CANCELED


def test_a_run_whose_process_was_killed_is_failed_by_dagster_where_the_host_cannot(stage: Stage) -> None:
    run_id, process = at_work(stage, "wait_at_the_fifo_job", "killed")
    assert stage.host is not None
    stage.host.send_signal(signal.SIGSTOP)  # so that it reports nothing itself
    try:
        os.kill(process, signal.SIGKILL)
        wait_until(lambda: not stage.cards.is_held(run_id), "the process is gone")
        assert stage.run(run_id).status is STARTED

        monitor(stage)

        assert stage.run(run_id).status is FAILURE
        assert "Marking run" in stage.messages(run_id)
        assert f"The process of run {run_id} is gone." in stage.messages(run_id)
    finally:
        stage.host.send_signal(signal.SIGCONT)
    wait_until(lambda: not stage.cards.lies(run_id), "the host has accounted for it, too")
    assert len(stage.instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.RUN_FAILURE).records) == 1
    assert stage.ended(stage.launch("greet_job")) is SUCCESS


def test_a_run_that_is_too_old_is_failed_and_its_process_is_ended(stage: Stage) -> None:
    run_id, process = at_work(stage, "wait_at_the_fifo_job", "old", **{"dagster/max_runtime": "0.01"})

    monitor(stage)

    assert stage.run(run_id).status is FAILURE
    assert "Exceeded maximum runtime" in stage.messages(run_id)
    wait_until(lambda: is_gone(process), "its process has ended")
    assert stage.run(run_id).status is FAILURE


def test_a_run_given_up_before_its_turn_never_begins(stage: Stage) -> None:
    first, process = at_work(stage, "wait_at_the_fifo_job", "before")
    waiting = stage.launch("greet_job")

    def is_given_up() -> bool:
        monitor(stage)
        return stage.run(waiting).status is FAILURE

    wait_until(is_given_up, "the run that waits was given up")
    assert "its state with the warm run host: queued" in stage.messages(waiting).lower()
    assert stage.launcher.terminate(first)
    wait_until(lambda: is_gone(process), "it is the other one's turn")
    assert stage.ended(stage.launch("greet_job")) is SUCCESS

    assert stage.run(waiting).status is FAILURE
    assert "logged by" not in stage.messages(waiting)
    assert not stage.cards.lies(waiting)


@pytest.mark.parametrize("job", ["wait_at_the_fifo_job", "wait_deaf_job"])
def test_a_run_that_was_marked_as_failed_while_it_goes_on_is_ended(stage: Stage, job: str) -> None:
    run_id, process = at_work(stage, job, f"marked-{job}")

    stage.instance.report_run_failed(stage.run(run_id), "Somebody gave it up.")

    wait_until(lambda: is_gone(process), "its process has ended")
    wait_until(lambda: not stage.cards.lies(run_id), "it is accounted for")
    assert stage.run(run_id).status is FAILURE
    assert stage.ended(stage.launch("greet_job")) is SUCCESS
