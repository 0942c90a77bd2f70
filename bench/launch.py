"""From a run's creation to its op: `make bench-launch` prints both launchers' times, their ratio and the target.

Real parts: embedded Postgres, the code server and the warm host with the shop's definitions. What is timed ends at the
start of the run's step, the last thing a run records before the first line of its op.
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._core.definitions.selector import JobSubsetSelector
from dagster._core.instance import InstanceRef
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import GrpcServerTarget

from cli.ports import free_port, is_free
from cli.processes import background, leave_on_sigterm
from cli.run import prepare_environment
from pipelines.warm_runs.tags import BY_DEFAULT, BY_WARM_HOST, is_of_default
from resources.db.embedded import leave_embedded
from resources.settings import load_settings

ROUNDS = 10
TARGET_SECONDS = 0.5
_JOB = "send_notices"
_WITHIN_SECONDS = 120.0
_UNSET = (
    *("run_id", "root_run_id", "parent_run_id", "resolved_op_selection", "op_selection"),
    *("step_keys_to_execute", "asset_selection", "asset_check_selection"),
)


def main() -> int:
    """Launch runs both ways in turn; return 1 when the warm median misses its target."""
    folder = Path(tempfile.mkdtemp(prefix="bench-launch-"))
    try:
        seconds = _race(folder)
    finally:
        leave_embedded(folder / "data")
        shutil.rmtree(folder, ignore_errors=True)
    default, warm = (statistics.median(seconds[by]) for by in (BY_DEFAULT, BY_WARM_HOST))
    for by, each in seconds.items():
        print(f"{by:18} median {statistics.median(each):5.2f} s   slowest {max(each):5.2f} s   n={len(each)}")
    print(f"warm against default: {default / warm:.1f} times as fast")
    print(f"target {TARGET_SECONDS:.1f} s, ratio {warm / TARGET_SECONDS:.2f}")
    return int(warm > TARGET_SECONDS)


def _race(folder: Path) -> dict[str, list[float]]:
    port = free_port()
    os.environ |= {"DATA_DIR": str(folder / "data"), "CODE_SERVER_PORT": str(port), "DATABASE_URL": ""}
    load_settings.cache_clear()
    environment = prepare_environment(load_settings())
    os.environ |= environment  # the launchers read it in this process
    home = Path(environment["DAGSTER_HOME"])
    seconds: dict[str, list[float]] = {BY_DEFAULT: [], BY_WARM_HOST: []}
    with background(("code", "runs"), environment, folder / "logs"):
        _wait_until_up(port, folder / "logs" / "runs.log")
        with _instance(home) as warm, _instance(_default_home(home, folder)) as default:
            for n in range(ROUNDS + 1):
                for by, instance in ((BY_DEFAULT, default), (BY_WARM_HOST, warm)):
                    took = _once(instance, port, by)
                    if n:  # the first one fills the caches
                        seconds[by].append(took)
    return seconds


def _wait_until_up(port: int, log: Path) -> None:
    end = time.monotonic() + _WITHIN_SECONDS
    while is_free("127.0.0.1", port) or "zygote is ready" not in log.read_text():
        assert time.monotonic() < end, f"code server and host are not up; the host said {log.read_text()[-2000:]}"
        time.sleep(0.1)


def _default_home(home: Path, folder: Path) -> Path:
    """Lay out a second DAGSTER_HOME on the same storage that names no launcher of ours."""
    content = yaml.safe_load((home / "dagster.yaml").read_text())
    del content["run_launcher"]
    other = folder / "default"
    other.mkdir()
    (other / "dagster.yaml").write_text(yaml.safe_dump(content))
    return other


@contextmanager
def _instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home))) as instance:
        yield instance


def _once(instance: dg.DagsterInstance, port: int, by: str) -> float:
    target = GrpcServerTarget("127.0.0.1", port, None, "numnaroad")
    with WorkspaceProcessContext(instance, target) as process:
        workspace = process.create_request_context()
        arguments = _run_arguments(workspace, instance)
        started = time.time()
        run = instance.create_run(**arguments)
        instance.submit_run(run.run_id, workspace)
        _wait_until_ended(instance, run.run_id)
    ended = instance.get_run_by_id(run.run_id)
    assert ended is not None
    assert ended.is_success, ended.status
    assert is_of_default(ended) == (by == BY_DEFAULT), "the run was not launched the way it is timed for"
    (begun,) = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_START).records
    return begun.timestamp - started


def _run_arguments(workspace: WorkspaceRequestContext, instance: dg.DagsterInstance) -> dict[str, Any]:
    """Return what the sensor daemon creates a run from."""
    location = workspace.get_code_location("numnaroad")
    job = location.get_job(JobSubsetSelector("numnaroad", "__repository__", _JOB, op_selection=None))
    plan = location.get_execution_plan(job, {}, step_keys_to_execute=None, known_state=None, instance=instance)
    repository = location.get_repository("__repository__")
    return dict.fromkeys(_UNSET) | {
        "job_name": _JOB,
        "run_config": {},
        "status": dg.DagsterRunStatus.NOT_STARTED,
        "tags": {},
        "job_snapshot": job.job_snapshot,
        "execution_plan_snapshot": plan.execution_plan_snapshot,
        "parent_job_snapshot": job.parent_job_snapshot,
        "remote_job_origin": job.get_remote_origin(),
        "job_code_origin": job.get_python_origin(),
        "asset_graph": repository.asset_graph,
    }


def _wait_until_ended(instance: dg.DagsterInstance, run_id: str) -> None:
    end = time.monotonic() + _WITHIN_SECONDS
    while time.monotonic() < end:
        run = instance.get_run_by_id(run_id)
        if run is not None and run.is_finished:
            return
        time.sleep(0.05)
    raise TimeoutError(f"run {run_id} did not end")


if __name__ == "__main__":
    leave_on_sigterm()
    sys.exit(main())
