"""The run launcher `dagster.yaml` names: hands runs to the warm host, and to Dagster's default launcher without it.

What the host may have taken is never given to anybody else (`wire` says how that is told apart). The tag `LAUNCHED_BY`
says of each run who took it; what became of it is asked there.
"""

import logging
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import Field, IntSource, StringSource
from dagster._config.config_schema import UserConfigSchema
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._serdes import ConfigurableClass, serialize_value
from dagster._serdes.config_class import ConfigurableClassData

from pipelines.warm_runs.cards import Cards
from pipelines.warm_runs.config import NoFolder, WarmRunsConfig, open_place
from pipelines.warm_runs.tags import BY_DEFAULT, BY_WARM_HOST, LAUNCHED_BY, is_of_default
from pipelines.warm_runs.wire import Conversation, HostAway, Message

_log = logging.getLogger("numnaroad.warm_runs")


class _Refused(Exception):
    """The host has not taken the run, and will not."""


class WarmRunLauncher(RunLauncher[dg.DagsterInstance], ConfigurableClass):
    """Launches runs as forks of a process that is warm, and as the default launcher does where there is none."""

    def __init__(self, config: WarmRunsConfig, inst_data: ConfigurableClassData | None = None) -> None:
        self._config, self._inst_data = config, inst_data
        self._default: RunLauncher[dg.DagsterInstance] = DefaultRunLauncher()
        super().__init__()  # type: ignore[no-untyped-call]  # dagster's base class has no annotations

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """What Dagster built this from."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """What may stand in `dagster.yaml`; the defaults are those of `WarmRunsConfig`."""
        return {
            "module": Field(StringSource, is_required=False),
            "location": Field(StringSource, is_required=False),
            "max_concurrent": Field(IntSource, is_required=False),
            "terminate_grace_seconds": Field(IntSource, is_required=False),
            "shutdown_grace_seconds": Field(IntSource, is_required=False),
            "look_seconds": Field(IntSource, is_required=False),
            "watch": Field([str], is_required=False),
            "preload": Field([str], is_required=False),
            "folder": Field(StringSource, is_required=False),
        }

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "WarmRunLauncher":
        """Build it from what stands in `dagster.yaml`."""
        return cls(WarmRunsConfig.of(config_value), inst_data)

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        """Learn the instance, for the default launcher too."""
        super().register_instance(instance)
        self._default.register_instance(instance)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Give a run to the host; where that cannot be, say so in the run's log and launch it the default way."""
        run = context.dagster_run
        try:
            self._check_is_served(run)
            self._give(run)
        except (_Refused, HostAway, NoFolder) as error:
            message = f"Not launched warm: {error}. The default run launcher takes this run."
            _log.warning("run %s: %s", run.run_id, message)
            self._instance.report_engine_event(message, run, cls=self.__class__)
            self._instance.add_run_tags(run.run_id, {LAUNCHED_BY: BY_DEFAULT})
            self._default.launch_run(context)

    def _check_is_served(self, run: dg.DagsterRun) -> None:
        origin, code = run.remote_job_origin, run.job_code_origin
        location = origin.location_name if origin else None
        if location != self._config.location:
            raise _Refused(f"the host serves code location {self._config.location}, this run is of {location}")
        module = getattr(code.repository_origin.code_pointer, "module", None) if code else None
        if module != self._config.module:
            raise _Refused(f"the host serves {self._config.module}, this run's code is in {module}")

    def _give(self, run: dg.DagsterRun) -> None:
        """Hand a run over in two steps.

        Raises:
            _Refused, HostAway, NoFolder: the run was not taken.
        """
        reference = serialize_value(self._instance.get_ref())
        with Conversation(self._open_place()) as host:
            answer = host.ask({"do": "launch", "run_id": run.run_id, "instance_ref": reference})
            if "ready" not in answer:
                raise _Refused(str(answer.get("refused")))
            if is_of_default(run):  # the tags of the run that this one repeats
                self._instance.add_run_tags(run.run_id, {LAUNCHED_BY: BY_WARM_HOST})
            try:
                answer = host.ask({"do": "start"})
            except HostAway as error:  # it may have taken the run: from here on the run is the host's
                message = f"The warm run host may have taken this run, and did not say so: {error}."
                _log.warning("run %s: %s", run.run_id, message)
                self._instance.report_engine_event(message, run, cls=self.__class__)
                return
            if "taken" not in answer:
                raise _Refused(str(answer.get("refused")))

    def terminate(self, run_id: str) -> bool:
        """End a run: its process is interrupted and, if that takes too long, killed; Dagster then has it canceled."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        if is_of_default(run):
            return self._default.terminate(run_id)
        self._instance.report_run_canceling(run)
        was = self._ask({"do": "terminate", "run_id": run_id}).get("was")
        if was == "queued":
            self._instance.report_run_canceled(run)
        if was in {"queued", "running"} or self._signal(run_id):
            return True
        self._instance.report_engine_event("There is no process to end for this run.", run, cls=self.__class__)
        return False

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether run monitoring may ask for the health of runs."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Say whether a run's process lives: the host knows, and without it the kernel does."""
        if is_of_default(run):
            why = "The default launcher's code server watches over this run and does not tell."
            return CheckRunHealthResult(WorkerStatus.RUNNING, why)
        answer = self._ask({"do": "ask", "run_id": run.run_id})
        match answer.get("state"):
            case "queued" | "running":
                return CheckRunHealthResult(WorkerStatus.RUNNING)
            case "ended":
                return CheckRunHealthResult(WorkerStatus.SUCCESS)
            case "lost":
                return CheckRunHealthResult(WorkerStatus.FAILED, str(answer.get("why")))
        return self._health_without_host(run.run_id)

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """Say where a run stands with the host, for the log of a run that did not start or end in time."""
        if is_of_default(run):
            return None
        state = self._ask({"do": "ask", "run_id": run.run_id}).get("state")
        return f"Its state with the warm run host: {state or 'the host does not answer'}."

    def _health_without_host(self, run_id: str) -> CheckRunHealthResult:
        try:
            cards = Cards(self._open_place())
        except NoFolder as error:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, str(error))
        if cards.is_held(run_id):
            return CheckRunHealthResult(WorkerStatus.RUNNING, "The warm run host is gone; the run's process lives.")
        if cards.lies(run_id):
            return CheckRunHealthResult(WorkerStatus.FAILED, f"The process of run {run_id} is gone.")
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"Nobody knows of a process for run {run_id}.")

    def _ask(self, message: Message) -> Message:
        """Return the host's answer; nothing where there is none."""
        try:
            with Conversation(self._open_place()) as host:
                return host.ask(message)
        except (HostAway, NoFolder):
            return {}

    def _signal(self, run_id: str) -> bool:
        try:
            return Cards(self._open_place()).signal(run_id, signal.SIGTERM)
        except NoFolder:
            return False

    def _open_place(self) -> Path:
        return open_place(self._config.place(os.environ.get("DAGSTER_HOME") or self._instance.root_directory))
