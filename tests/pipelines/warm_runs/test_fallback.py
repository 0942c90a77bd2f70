"""Without a warm host, Dagster's default launcher; and with new code, never the old."""

import socket
import threading
from collections.abc import Callable, Iterator

import dagster as dg
import pytest
from dagster._core.errors import DagsterInvariantViolationError
from dagster._core.events import DagsterEvent
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import GrpcServerTarget

from cli.ports import is_free
from pipelines.warm_runs.config import make_place
from pipelines.warm_runs.errands import ERRANDS
from pipelines.warm_runs.tags import BY_DEFAULT, BY_WARM_HOST, LAUNCHED_BY
from tests.pipelines.warm_runs.conftest import Staged
from tests.pipelines.warm_runs.stage import LOCATION, Stage, code_server, wait_until
from tests.ports import free_port

Errand = Callable[[dg.DagsterInstance, str, str], None]
SUCCESS, CANCELED = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED


@pytest.fixture(scope="module")
def stage(staged: Staged) -> Iterator[Stage]:
    stage = staged()
    stage.port = free_port()
    with code_server(stage, stage.port):
        wait_until(lambda: not is_free("127.0.0.1", stage.port), "the code server answers")
        yield stage


@pytest.fixture(scope="module")
def workspace(stage: Stage) -> Iterator[WorkspaceRequestContext]:
    target = GrpcServerTarget("127.0.0.1", stage.port, None, LOCATION)
    with WorkspaceProcessContext(stage.instance, target) as process:
        yield process.create_request_context()


def test_without_a_host_the_default_launcher_takes_the_run_and_ends_it(
    stage: Stage, workspace: WorkspaceRequestContext
) -> None:
    fifo = stage.fifo("default")
    run_id = stage.launch("wait_at_the_fifo_job", workspace, fifo=str(fifo))
    assert "Not launched warm" in stage.messages(run_id)
    assert "host.sock" in stage.messages(run_id) or str(stage.place) in stage.messages(run_id)
    assert stage.run(run_id).tags[LAUNCHED_BY] == BY_DEFAULT
    fifo.wait_for_a_reader()
    assert stage.health(run_id) == "RUNNING"

    assert stage.launcher.terminate(run_id)

    assert stage.ended(run_id) is CANCELED


def test_a_run_the_host_may_have_taken_is_given_to_nobody_else(stage: Stage) -> None:
    """The host hangs up on `start`: nobody can know whether it took the run, so nobody else may run it."""
    place = make_place(stage.place)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(place / "host.sock"))
        listener.listen()
        host = threading.Thread(target=_hang_up_on_start, args=(listener,))
        host.start()
        run_id = stage.launch("greet_job")  # without a workspace the default launcher would fail
        host.join()
    (place / "host.sock").unlink()

    assert "may have taken this run" in stage.messages(run_id)
    assert stage.run(run_id).status is dg.DagsterRunStatus.STARTING
    assert LAUNCHED_BY not in stage.run(run_id).tags


def _hang_up_on_start(listener: socket.socket) -> None:
    caller, _ = listener.accept()
    with caller:
        caller.recv(65536)
        caller.sendall(b'{"ready": "yes"}\n')
        caller.recv(65536)


def test_code_that_changes_is_new_in_the_next_run_and_broken_code_falls_back_until_it_is_mended(
    stage: Stage, workspace: WorkspaceRequestContext
) -> None:
    stage.start_host()
    fifo = stage.fifo("old")
    old = stage.launch("wait_at_the_fifo_job", fifo=str(fifo))
    fifo.wait_for_a_reader()
    source = stage.code.read_text()

    stage.code.write_text(source.replace('VERSION = "first"', 'VERSION = "second"'))
    second = stage.launch("greet_job")
    assert stage.ended(second) is SUCCESS
    assert "logged by the second version" in stage.messages(second)
    fifo.release()
    assert stage.ended(old) is SUCCESS

    stage.code.write_text(source + "\n)\n")
    queued = stage.launch("greet_job", workspace)
    wait_until(lambda: "default run launcher takes this run" in stage.messages(queued), "it is handed over")
    assert "SyntaxError" in stage.messages(queued)
    wait_until(lambda: not stage.cards.lies(queued), "the host is done with it")
    refused = stage.launch("greet_job", workspace)
    assert "does not import: SyntaxError" in stage.messages(refused)
    assert stage.run(refused).tags[LAUNCHED_BY] == BY_DEFAULT

    stage.code.write_text(source)
    mended = stage.launch("greet_job", None, **{LAUNCHED_BY: BY_DEFAULT})
    assert stage.ended(mended) is SUCCESS
    assert "logged by the first version" in stage.messages(mended)
    assert stage.run(mended).tags[LAUNCHED_BY] == BY_WARM_HOST


@pytest.mark.parametrize("errand", ERRANDS.values(), ids=ERRANDS.keys())
def test_a_run_that_was_handed_over_once_is_neither_launched_again_nor_failed(stage: Stage, errand: Errand) -> None:
    """The errand's process may be killed after the code server was told and before the host heard of it."""
    run = stage.create("greet_job", **{LAUNCHED_BY: BY_DEFAULT})
    starting = DagsterEvent(dg.DagsterEventType.PIPELINE_STARTING.value, run.job_name)
    stage.instance.report_dagster_event(starting, run.run_id)

    errand(stage.instance, run.run_id, "the code does not import.")

    assert stage.run(run.run_id).status is dg.DagsterRunStatus.STARTING
    assert "the code does not import" not in stage.messages(run.run_id)


def test_a_run_of_another_location_is_not_the_hosts(stage: Stage) -> None:
    run = stage.create("greet_job", location="elsewhere")

    with pytest.raises(DagsterInvariantViolationError, match="requires a workspace"):  # the default launcher's words
        stage.instance.launch_run(run.run_id, None)  # type: ignore[arg-type]  # the warm one needs none

    assert "the host serves code location light-location, this run is of elsewhere" in stage.messages(run.run_id)
