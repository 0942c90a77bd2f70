"""The house's conventions, held by walking the tree: what every asset, model, provider and document must have."""

import os
import re
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from pipelines.definitions import defs
from resources.settings import PROVIDERS

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOT = ROOT / "tests" / "platform" / "graph.txt"
SPECS = sorted(defs.resolve_all_asset_specs(), key=lambda spec: spec.key.to_user_string())
MODELS = sorted((ROOT / "dbt_like_sql").glob("*/*.yml"))


def _graph() -> str:
    parents = {spec.key: sorted(dep.asset_key.to_user_string() for dep in spec.deps) for spec in SPECS}
    assets = [f"{key.to_user_string()} <- {', '.join(names)}".strip() for key, names in parents.items()]
    repository = defs.get_repository_def()
    jobs = sorted(name for name in repository.job_names if not name.startswith("__"))
    sensors = sorted(sensor.name for sensor in repository.sensor_defs)
    schedules = sorted(f"{each.name}: {each.cron_schedule}" for each in repository.schedule_defs)
    parts = {"assets": assets, "jobs": jobs, "sensors": sensors, "schedules": schedules}
    return "\n".join(f"[{name}]\n" + "\n".join(lines) for name, lines in parts.items()) + "\n"


def test_the_graph_is_the_one_we_know() -> None:
    """A change of assets, jobs, sensors or schedules is seen in review: write the new graph with UPDATE_GRAPH=1."""
    if os.environ.get("UPDATE_GRAPH"):
        SNAPSHOT.write_text(_graph())
    assert _graph() == SNAPSHOT.read_text()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.key.to_user_string())
def test_every_asset_tells_owner_group_kind_and_grain(spec: dg.AssetSpec) -> None:
    assert spec.owners
    assert spec.group_name not in {None, "default"}
    assert spec.kinds
    assert len(spec.description or "") > 20


def test_what_runs_by_itself_is_switched_on() -> None:
    repository = defs.get_repository_def()

    assert all(sensor.default_status is dg.DefaultSensorStatus.RUNNING for sensor in repository.sensor_defs)
    assert all(each.default_status is dg.DefaultScheduleStatus.RUNNING for each in repository.schedule_defs)


def test_definitions_import_with_an_empty_environment_and_no_network(tmp_path: Path) -> None:
    code = (
        "import socket\n"
        "def refuse(*_args, **_kw): raise AssertionError('definitions opened a connection')\n"
        "socket.socket.connect = refuse\n"
        "from pipelines.definitions import defs\n"
        "defs.get_repository_def()\n"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, check=False, cwd=ROOT, env={"HOME": str(tmp_path)}, capture_output=True, text=True)

    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.parametrize("yml", MODELS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_model_has_its_sql_and_a_case(yml: Path) -> None:
    sql = yml.with_suffix(".sql")

    assert sql.read_text().startswith("-- One row per ")
    assert any((ROOT / "tests" / "sql" / yml.stem).glob("*/expect.yaml"))


@pytest.mark.parametrize("slug", PROVIDERS)
def test_every_provider_has_contract_tests_a_page_and_a_row_in_the_matrix(slug: str) -> None:
    tests = ROOT / "tests" / "resources" / "providers" / f"test_{slug}_provider.py"

    assert "ProviderContract" in tests.read_text()
    assert (ROOT / "docs" / "providers" / f"{slug}.md").exists()
    assert f"{slug}.md" in (ROOT / "docs" / "providers" / "README.md").read_text()


def test_no_file_is_a_drawer() -> None:
    names = {"utils.py", "helpers.py", "common.py", "manager.py", "misc.py"}

    assert not [path for path in _python_files() if path.name in names]


def test_nothing_is_left_for_later() -> None:
    words = re.compile(r"\b(TODO|FIXME|HACK)\b")

    assert not [path for path in _python_files() if path != Path(__file__) and words.search(path.read_text())]


def test_tests_neither_skip_nor_sleep() -> None:
    banned = re.compile(r"pytest\.(mark\.)?skip|time\.sleep\(|mock\.patch|xfail\(")
    tests = [path for path in _python_files() if "tests" in path.relative_to(ROOT).parts and path != Path(__file__)]

    assert not [str(path) for path in tests if banned.search(path.read_text())]


def _python_files() -> list[Path]:
    folders = ("esim", "resources", "assets", "pipelines", "api", "cli", "sandbox", "bench", "chaos", "tests")
    return [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
