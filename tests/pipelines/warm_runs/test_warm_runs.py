"""Runs on a warm host: they go through, end when told to, and are accounted for when their process dies."""

import json
import os
import signal
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from tests.pipelines.warm_runs.conftest import Staged
from tests.pipelines.warm_runs.stage import Stage, wait_until

SUCCESS, FAILURE, CANCELED = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED


@pytest.fixture(scope="module")
def stage(staged: Staged) -> Stage:
    stage = staged()
    stage.start_host()
    return stage


def test_a_run_goes_through_and_its_logs_and_output_are_there(stage: Stage) -> None:
    run_id = stage.launch("greet_job")

    assert stage.ended(run_id) is SUCCESS
    wait_until(lambda: stage.health(run_id) == "SUCCESS", "the host knows that it ended well")
    assert "logged by the first version" in stage.messages(run_id)
    assert "Started process for run" in stage.messages(run_id)
    assert "Process for run exited" in stage.messages(run_id)
    assert "printed by the first version" in _captured(stage, run_id)
    assert not stage.cards.lies(run_id)


def _captured(stage: Stage, run_id: str) -> str:
    (captured,) = stage.instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.LOGS_CAPTURED).records
    event = captured.event_log_entry.dagster_event
    assert event is not None
    key = [run_id, "compute_logs", event.logs_captured_data.file_key]
    return (stage.instance.compute_log_manager.get_log_data(key).stdout or b"").decode()


def test_a_run_that_fails_is_dagsters_to_report(stage: Stage) -> None:
    run_id = stage.launch("fail_job")

    assert stage.ended(run_id) is FAILURE
    assert "unexpectedly" not in stage.messages(run_id)


def test_a_terminated_run_is_interrupted_where_it_waits(stage: Stage) -> None:
    fifo = stage.fifo("terminated")
    run_id = stage.launch("wait_at_the_fifo_job", fifo=str(fifo))
    fifo.wait_for_a_reader()
    assert stage.health(run_id) == "RUNNING"

    assert stage.launcher.terminate(run_id)

    assert stage.ended(run_id) is CANCELED
    wait_until(lambda: "Process for run exited" in stage.messages(run_id), "the process ended by itself")
    assert not stage.launcher.terminate(run_id)


def test_a_killed_process_is_named_and_its_run_fails(stage: Stage) -> None:
    run_id = stage.launch("kill_itself_job")

    assert stage.ended(run_id) is FAILURE
    assert "was terminated by signal 9 (SIGKILL)" in stage.messages(run_id)
    wait_until(lambda: stage.health(run_id) == "FAILED", "the host knows that it was lost")


def test_a_process_that_leaves_before_its_run_ended_fails_it(stage: Stage) -> None:
    run_id = stage.launch("leave_job")

    assert stage.ended(run_id) is FAILURE
    assert "unexpectedly exited with code 0" in stage.messages(run_id)


def test_more_runs_than_may_go_at_once_wait_their_turn(stage: Stage) -> None:
    fifos = [stage.fifo(f"turn-{n}") for n in range(2)]
    first, second = (stage.launch("wait_at_the_fifo_job", fifo=str(fifo)) for fifo in fifos)
    for fifo in fifos:
        fifo.wait_for_a_reader()
    third, fourth = stage.launch("greet_job"), stage.launch("greet_job")
    assert stage.health(third) == "RUNNING"
    assert "queued" in str(stage.launcher.get_run_worker_debug_info(stage.run(third)))

    assert stage.launcher.terminate(fourth)
    assert stage.ended(fourth) is CANCELED
    assert "Started process" not in stage.messages(third) + stage.messages(fourth)
    fifos[0].release()

    assert stage.ended(third) is SUCCESS
    assert stage.ended(first) is SUCCESS
    assert stage.run(second).status is dg.DagsterRunStatus.STARTED
    fifos[1].release()
    assert stage.ended(second) is SUCCESS
    assert "Started process" not in stage.messages(fourth)


def test_a_run_given_twice_is_run_once(stage: Stage) -> None:
    fifo = stage.fifo("twice")
    run_id = stage.launch("wait_at_the_fifo_job", fifo=str(fifo))
    fifo.wait_for_a_reader()

    stage.instance.launch_run(run_id, None)  # type: ignore[arg-type]  # the workspace is not looked at
    fifo.release()
    assert stage.ended(run_id) is SUCCESS
    stage.instance.launch_run(run_id, None)  # type: ignore[arg-type]  # nor here
    assert stage.ended(stage.launch("greet_job")) is SUCCESS  # what was given after it was run after it

    assert stage.messages(run_id).count("Started process for run") == 1


def test_a_process_inherits_no_connection_no_thread_and_no_state(stage: Stage, tmp_path: Path) -> None:
    answers = [tmp_path / "one", tmp_path / "two"]
    runs = [stage.launch("look_around_job", answer=str(answer)) for answer in answers]
    assert [stage.ended(run_id) for run_id in runs] == [SUCCESS, SUCCESS]
    seen, other = (json.loads(answer.read_text()) for answer in answers)

    assert seen["stdin"] == os.devnull
    assert seen["leads_its_session"]
    assert seen["python_threads"] == ["MainThread", "given_up", "lifeline"]
    assert seen["sockets"]  # its own, to Postgres
    assert stage.host is not None
    assert not _sockets(seen["parent"]) & set(seen["sockets"])
    assert not _sockets(stage.host.pid) & set(seen["sockets"])
    assert seen["blocked_signals"] == []
    assert seen["child_signal_is_default"]
    assert seen["log_handlers"] == []
    assert seen["random"] != other["random"]


def test_a_run_does_not_ask_postgres_for_tables_that_its_launcher_has_used(stage: Stage, tmp_path: Path) -> None:
    answer = tmp_path / "answer"
    assert stage.ended(stage.launch("look_around_job", answer=str(answer))) is SUCCESS

    assert json.loads(answer.read_text())["looks_for_tables"] == [False, False, False]


def _sockets(pid: int) -> set[str]:
    opened = {str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()}
    found = {name for name in opened if name.startswith("socket:")}
    assert found
    return found


def test_an_idle_host_has_no_connection_to_the_database(stage: Stage) -> None:
    assert stage.ended(stage.launch("greet_job")) is SUCCESS
    url = stage.instance.run_storage.postgres_url  # type: ignore[attr-defined]  # it is the Postgres one
    mine = stage.instance
    mine.get_runs(limit=1)

    with psycopg.connect(url.replace("+psycopg2", ""), autocommit=True) as connection:

        def others() -> int:
            query = (
                "select count(*) from pg_stat_activity where datname = current_database() and pid != pg_backend_pid()"
            )
            row = connection.execute(query).fetchone()
            assert row is not None
            return int(row[0])

        wait_until(lambda: others() == 0, "everybody has gone")


def test_who_is_no_launcher_is_refused_and_the_host_goes_on(stage: Stage) -> None:
    import socket

    for nonsense in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"[]\n",
        b'{"do": "launch", "run_id": "../../x", "instance_ref": ""}\n',
        b"",
    ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.connect(str(stage.place / "host.sock"))
            caller.sendall(nonsense)

    assert stage.ended(stage.launch("greet_job")) is SUCCESS


def test_a_zygote_that_is_killed_is_replaced_and_its_runs_are_accounted_for(stage: Stage) -> None:
    fifo = stage.fifo("orphan")
    run_id = stage.launch("wait_at_the_fifo_job", fifo=str(fifo))
    fifo.wait_for_a_reader()

    os.kill(stage.parent(stage.pid(run_id)), signal.SIGKILL)

    assert stage.ended(run_id) is FAILURE
    assert stage.ended(stage.launch("greet_job")) is SUCCESS
