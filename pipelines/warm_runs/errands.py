"""What is done about a run that was taken and that nothing accounts for; each errand may be sent again.

A run that was handed over is the default launcher's from the moment its tag says so: no errand touches it any more, so
an errand that broke off behind that point can neither launch it a second time nor fail it while it goes on.
"""

import sys
from collections.abc import Callable

import dagster as dg
from dagster._core.events import EngineEventData
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin
from dagster._utils.error import serializable_error_info_from_exc_info

from pipelines.warm_runs.tags import BY_DEFAULT, LAUNCHED_BY, is_of_default


def report_lost(instance: dg.DagsterInstance, run_id: str, why: str) -> None:
    """Report that a run's process is gone, unless the run had ended."""
    run = instance.get_run_by_id(run_id)
    if run is None or run.is_finished or is_of_default(run):
        return
    instance.report_engine_event(why, run)
    if run.status is dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run)
    else:
        instance.report_run_failed(run)


def hand_over(instance: dg.DagsterInstance, run_id: str, why: str) -> None:
    """Give a run that was taken and never started to the default launcher, once."""
    run = instance.get_run_by_id(run_id)
    if run is None or run.status is not dg.DagsterRunStatus.STARTING or is_of_default(run):
        return report_lost(instance, run_id, why)
    instance.report_engine_event(f"{why} The default run launcher takes this run.", run)
    instance.add_run_tags(run_id, {LAUNCHED_BY: BY_DEFAULT})
    try:
        origin = run.remote_job_origin.repository_origin.code_location_origin if run.remote_job_origin else None
        if not isinstance(origin, GrpcServerCodeLocationOrigin):
            raise LookupError(f"run {run_id} does not name a code server")
        DefaultRunLauncher.launch_run_from_grpc_client(instance, run, origin.create_client())
    except Exception:  # noqa: BLE001 - whatever it is, the run must not wait for ever
        error = serializable_error_info_from_exc_info(sys.exc_info())
        instance.report_engine_event(error.message, run, EngineEventData.engine_error(error))
        instance.report_run_failed(run)
    return None


ERRANDS: dict[str, Callable[[dg.DagsterInstance, str, str], None]] = {"lost": report_lost, "hand_over": hand_over}
