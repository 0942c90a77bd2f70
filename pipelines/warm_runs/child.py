"""What a forked child does: one run, or one errand about a run that nothing accounts for.

Everything that touches Dagster's storage happens here, in a process of its own, on connections it opened itself.
"""

import os
import random
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import sleep

import dagster as dg
from dagster._core.events import EngineEventData
from dagster._grpc.impl import core_execute_run
from dagster._utils.hosted_user_process import recon_job_from_origin
from dagster._utils.interrupts import capture_interrupts

from pipelines.warm_runs.cards import Cards
from pipelines.warm_runs.errands import ERRANDS
from pipelines.warm_runs.instance import open_instance
from pipelines.warm_runs.wire import Message

_ENDED_BY = {signal.SIGTERM, signal.SIGINT}  # blocked from before the fork until somebody listens
_ORPHAN_GRACE_SECONDS = 30.0


def work(task: Message, cards: Cards, lifeline: int) -> None:
    """Do what the zygote was asked to have done, as a process that has nothing of it but its memory."""
    _become_a_process(lifeline)
    run_id: str = task["run_id"]
    reference: str = task["instance_ref"]
    if task["task"] != "run":
        with open_instance(reference) as instance:
            ERRANDS[task["task"]](instance, run_id, task["why"])
        cards.tear_up(run_id)
        return
    cards.hold(run_id)
    with capture_interrupts():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDED_BY)
        with open_instance(reference) as instance:
            with _ended_when_given_up(instance, run_id, task["look_seconds"], task["grace_seconds"]):
                _execute(instance, run_id)
            if _is_accounted_for(instance, run_id):
                cards.tear_up(run_id)


def _become_a_process(lifeline: int) -> None:
    """Undo what a fork inherits badly; the zygote has closed its own sockets already."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    random.seed()
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()
    threading.Thread(target=_end_with_the_zygote, args=(lifeline,), name="lifeline", daemon=True).start()


def _end_with_the_zygote(lifeline: int) -> None:
    """End this process when the zygote is gone: nobody would watch over it any more."""
    os.read(lifeline, 1)  # nobody writes: it returns when the other end is closed
    os.kill(os.getpid(), signal.SIGTERM)
    sleep(_ORPHAN_GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def _ended_when_given_up(instance: dg.DagsterInstance, run_id: str, look: float, grace: float) -> Iterator[None]:
    """End this process if the run ends in Dagster's eyes while it goes on here: marked as failed by hand, say.

    Dagster tells nobody (dagster#15325). Two looks in a row must find it ended: the first may come on its last moments.
    """
    over = threading.Event()

    def watch() -> None:
        times = 0
        while times < 2 and not over.wait(look):
            with suppress(Exception):  # the storage is away: look again
                times = times + 1 if _is_gone_or_finished(instance, run_id) else 0
        if not over.is_set():
            os.kill(os.getpid(), signal.SIGTERM)
            if not over.wait(grace):
                os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="given_up", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _execute(instance: dg.DagsterInstance, run_id: str) -> None:
    """Execute a run as Dagster's code server does in its subprocess; failures are in the event log when this returns.

    Raises:
        LookupError: there is no such run, or it does not say where its code is.
    """
    run = instance.get_run_by_id(run_id)
    if run is None or run.job_code_origin is None:
        raise LookupError(f"run {run_id} is not in the instance's storage, or has no code origin")
    pid = os.getpid()
    instance.report_engine_event(f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid))
    try:
        for _ in core_execute_run(recon_job_from_origin(run.job_code_origin), run, instance, inject_env_vars=False):
            pass
    except BaseException as error:  # noqa: BLE001 - core_execute_run wrote it to the event log before it raised
        sys.stderr.write(f"run {run_id} broke off: {type(error).__name__}\n")
    instance.report_engine_event(f"Process for run exited (pid: {pid}).", run)


def _is_accounted_for(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Return whether the run has ended in Dagster's eyes; one terminated before it began is ended here."""
    run = instance.get_run_by_id(run_id)
    if run is not None and run.status is dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run)
        return True
    return run is None or run.is_finished


def _is_gone_or_finished(instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is None or run.is_finished
