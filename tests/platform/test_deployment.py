"""What `deploy/dagster.yaml` promises, as the instance it makes has it."""

import shutil
from pathlib import Path

import dagster as dg
import pytest

from pipelines.provisioning import MAX_RUNTIME
from pipelines.warm_runs.launcher import WarmRunLauncher
from resources.db.databases import Databases
from resources.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def test_run_monitoring_is_on_and_gives_runs_up_when_intended(
    databases: Databases, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", databases.dagster_sqlalchemy)
    shutil.copy(ROOT / "deploy" / "dagster.yaml", tmp_path / "dagster.yaml")

    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.run_monitoring_enabled
        assert "MONITORING" in instance.get_required_daemon_types()
        assert instance.run_monitoring_poll_interval_seconds == 60
        assert instance.run_monitoring_start_timeout_seconds == 180
        assert instance.run_monitoring_cancel_timeout_seconds == 180
        assert str(instance.run_monitoring_max_runtime_seconds) == MAX_RUNTIME["dagster/max_runtime"] == "1800"
        assert instance.run_monitoring_max_resume_run_attempts == 0  # nobody's run is begun a second time
        assert isinstance(instance.run_launcher, WarmRunLauncher)
        assert instance.run_launcher.supports_check_run_worker_health
        assert instance.freshness_enabled
        assert settings.drain_max_seconds < instance.run_monitoring_max_runtime_seconds
