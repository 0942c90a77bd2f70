"""A warm host in a process of its own, an instance that launches on it, and what a test does with both."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from time import monotonic
from types import ModuleType
from typing import Any

import dagster as dg
import yaml
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.instance import InstanceRef
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.workspace.context import BaseWorkspaceRequestContext

from pipelines.warm_runs.cards import Cards
from pipelines.warm_runs.config import WarmRunsConfig
from pipelines.warm_runs.launcher import WarmRunLauncher

ROOT = Path(__file__).resolve().parents[3]
LIGHT = Path(__file__).parent / "light.py"
HEAVY = Path(__file__).parent / "heavy.py"
DEPLOYED = yaml.safe_load((ROOT / "deploy" / "dagster.yaml").read_text())
LOCATION = "light-location"
ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def _storage_as_deployed(url: str) -> Any:
    """Return the storage block of `deploy/dagster.yaml` with the database of a stage in it."""
    custom = DEPLOYED["storage"]["custom"]
    return {"custom": {**custom, "config": {**custom["config"], "postgres_url": url}}}


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 120.0) -> Any:
    """Wait on a fact, never for a time; return what the condition gave."""
    end = monotonic() + seconds
    pause = Event()
    while not (found := condition()):
        assert monotonic() < end, f"after {seconds:.0f} s still not: {what}"
        pause.wait(0.02)
    return found


class Stage:
    """A folder with the code, DAGSTER_HOME in it, and the host that serves both."""

    port = 9  # where no code server answers; a test that has one says so

    def __init__(
        self, folder: Path, postgres: str, code: Path = LIGHT, start_timeout: int = 180, **config: Any
    ) -> None:
        self.folder, self.home = folder, folder / "home"
        self.code = folder / "code" / code.name
        self.code.parent.mkdir()
        shutil.copy(code, self.code)
        self.home.mkdir()
        self.config = {"module": code.stem, "location": LOCATION, "max_concurrent": 2, "watch": ["."], **config}
        launcher = {"module": WarmRunLauncher.__module__, "class": "WarmRunLauncher", "config": self.config}
        content = {
            "storage": _storage_as_deployed(postgres.replace("postgresql://", "postgresql+psycopg2://")),
            "run_coordinator": {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"},
            "run_launcher": launcher,
            "run_monitoring": {**DEPLOYED["run_monitoring"], "start_timeout_seconds": start_timeout},
            "telemetry": {"enabled": False},
        }
        (self.home / "dagster.yaml").write_text(yaml.safe_dump(content))
        self.place = WarmRunsConfig().place(str(self.home))
        self.cards = Cards(self.place)
        self.log = folder / "host.log"
        self.host: subprocess.Popen[bytes] | None = None
        self.instance = dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(self.home)))
        self.definitions = self._load()

    @property
    def environment(self) -> Mapping[str, str]:
        path = f"{ROOT}{os.pathsep}{self.code.parent}"
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": path,
            "DAGSTER_HOME": str(self.home),
            "PYTHONWARNINGS": "ignore",
        }

    def start_host(self) -> None:
        """Start a host and wait until it is warm."""
        before = self.said("zygote is ready")
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "pipelines.warm_runs"]
            self.host = subprocess.Popen(
                command, cwd=self.code.parent, env=dict(self.environment), stdout=log, stderr=log
            )
        wait_until(lambda: self.said("zygote is ready") > before or self._host_is_dead(), "the host is warm")

    def end_host(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the host, and return its exit code."""
        assert self.host is not None
        self.host.send_signal(number)
        code = self.host.wait(timeout=60)
        self.host = None
        return code

    def said(self, words: str) -> int:
        """Count the host's log lines with these words."""
        return self.log.read_text().count(words) if self.log.exists() else 0

    def close(self) -> None:
        if self.host is not None:
            self.end_host()
        self.instance.dispose()
        shutil.rmtree(self.place, ignore_errors=True)

    def create(self, job: str, location: str = LOCATION, **tags: str) -> dg.DagsterRun:
        """Create a run of a job as the location's sensors would."""
        origin = GrpcServerCodeLocationOrigin(host="127.0.0.1", port=self.port, location_name=location)
        repository = RemoteRepositoryOrigin(origin, "__repository__")
        code = ReconstructableRepository.for_module(self.code.stem, "defs", str(self.code.parent))
        return self.instance.create_run_for_job(
            self.definitions.defs.get_repository_def().get_job(job),
            tags=tags,
            remote_job_origin=RemoteJobOrigin(repository, job),
            job_code_origin=code.get_reconstructable_job(job).get_python_origin(),
        )

    def launch(self, job: str, workspace: BaseWorkspaceRequestContext | None = None, **tags: str) -> str:
        """Create and launch a run; return its id."""
        run = self.create(job, **tags)
        self.instance.launch_run(run.run_id, workspace)  # type: ignore[arg-type]  # only the default launcher needs it
        return run.run_id

    def run(self, run_id: str) -> dg.DagsterRun:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def ended(self, run_id: str) -> dg.DagsterRunStatus:
        """Wait until a run has ended, and say how."""
        wait_until(lambda: self.run(run_id).status in ENDED, f"run {run_id} has ended; the host said {self._tail()}")
        return self.run(run_id).status

    def messages(self, run_id: str) -> str:
        """Return all that stands in a run's log."""
        return "\n".join(entry.user_message or entry.message for entry in self.instance.all_logs(run_id))

    def fifo(self, name: str) -> "Fifo":
        """Make something to wait at."""
        return Fifo(self.folder / name)

    @property
    def launcher(self) -> WarmRunLauncher:
        launcher = self.instance.run_launcher
        assert isinstance(launcher, WarmRunLauncher)
        return launcher

    def health(self, run_id: str) -> str:
        """Say what run monitoring would hear."""
        return self.launcher.check_run_worker_health(self.run(run_id)).status.value

    def pid(self, run_id: str) -> int:
        """Return the process that runs a run."""
        return int(wait_until(lambda: self.cards.read(run_id).get("pid"), f"run {run_id} has a process"))

    def parent(self, pid: int) -> int:
        """Return the process that forked a process."""
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith("PPid"))

    def _load(self) -> Any:
        module = ModuleType(self.code.stem)
        exec(compile(self.code.read_text(), str(self.code), "exec"), module.__dict__)
        return module

    def _host_is_dead(self) -> bool:
        assert self.host is not None
        assert self.host.poll() is None, f"the host ended: {self._tail()}"
        return False

    def _tail(self) -> str:
        return self.log.read_text()[-3000:] if self.log.exists() else "nothing"


class Fifo:
    """What a job of `light` waits at: it stands in a read until the other end is closed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end: int | None = None
        os.mkfifo(path)

    def __str__(self) -> str:
        return str(self.path)

    def wait_for_a_reader(self) -> None:
        """Wait until a job stands there."""
        self._end = wait_until(self._open, f"somebody waits at {self.path.name}")

    def release(self) -> None:
        """Let the job go on."""
        if self._end is None:
            self.wait_for_a_reader()
        assert self._end is not None
        os.close(self._end)
        self._end = None

    def _open(self) -> int | None:
        try:
            return os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return None


@contextmanager
def code_server(stage: Stage, port: int) -> Iterator[None]:
    """Serve the stage's code as Dagster's own launcher needs it."""
    command = [sys.executable, "-m", "dagster", "api", "grpc", "-m", stage.code.stem, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--location-name", LOCATION]
    environment = {**stage.environment, "DAGSTER_DISABLE_TELEMETRY": "1"}
    with (stage.folder / "code.log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=stage.code.parent, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # with the runs it would wait for
        server.wait(timeout=60)
