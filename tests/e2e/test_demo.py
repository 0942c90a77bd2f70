"""The main job on real parts: the demo passes, and afterwards an operator and an analyst find what happened."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NUMNAROAD = Path(sys.executable).parent / "numnaroad"

pytestmark = pytest.mark.timeout(420)


@pytest.fixture(scope="module")
def demo(shared_tmp: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Run the demo once and keep its shop: what it printed, and the environment that finds the shop again."""
    # Not in pytest's own folder: another run of it would take the database's user the way in.
    home = Path(tempfile.mkdtemp(prefix="demo-", dir=shared_tmp))
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home)}
    result = _run(environment, "demo", "--keep", seconds=400)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    kept = re.search(r"Kept: DATA_DIR=(\S+)", result.stdout)
    assert kept, result.stdout
    yield result.stdout, {**environment, "DATA_DIR": kept[1]}
    shutil.rmtree(Path(kept[1]).parent, ignore_errors=True)


def _run(environment: dict[str, str], *words: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    command = [str(NUMNAROAD), *words]
    return subprocess.run(
        command, check=False, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=seconds
    )


def test_the_main_job_passes_and_every_step_is_told(demo: tuple[str, dict[str, str]]) -> None:
    printed, _ = demo

    for step in ("Five catalogues", "made to fail", "signed webhook", "failover", "inbox", "margin", "every side"):
        assert step in printed
    assert "out_of_stock" in printed
    assert "All sides agree." in printed


def test_an_operator_sees_the_order_without_personal_data(demo: tuple[str, dict[str, str]]) -> None:
    shown = _run(demo[1], "order", "show", "OID001")

    assert shown.returncode == 0, shown.stderr
    assert "completed" in shown.stdout
    assert "provisioned" in shown.stdout
    assert "traveller@example.com" not in shown.stdout
    assert "LPA:" not in shown.stdout


def test_an_analyst_reads_the_margin(demo: tuple[str, dict[str, str]]) -> None:
    answered = _run(demo[1], "sql", "--json", "select * from marts.margins_by_day")

    assert answered.returncode == 0, answered.stderr
    (day,) = json.loads(answered.stdout)
    assert day["margin_micros"] == day["gross_micros"] - day["wholesale_cost_micros"] - day["payment_fee_micros"]
    assert day["margin_micros"] > 0


def test_prices_are_explained(demo: tuple[str, dict[str, str]]) -> None:
    explained = _run(demo[1], "packages", "--destination", "JP", "--explain", "--limit", "3")

    assert explained.returncode == 0, explained.stderr
    assert "best price" in explained.stdout
    assert "dearer" in explained.stdout


def test_what_cannot_be_found_is_said_in_one_line(demo: tuple[str, dict[str, str]]) -> None:
    order = _run(demo[1], "order", "show", "OID999")
    nowhere = _run(demo[1], "packages", "--destination", "QQ")
    writing = _run(demo[1], "sql", "delete from marts.margins_by_day")

    assert (order.returncode, nowhere.returncode, writing.returncode) == (1, 1, 1)
    assert "OID999" in order.stderr
    assert "QQ" in nowhere.stderr
    assert "Traceback" not in order.stderr + nowhere.stderr + writing.stderr


def test_the_doctor_says_what_to_do_when_the_sandbox_is_down(demo: tuple[str, dict[str, str]]) -> None:
    told = _run({**demo[1], "SANDBOX_PORT": "9"}, "doctor")

    assert told.returncode == 1
    assert "start the platform: make run" in told.stdout
    assert "PostgreSQL" in told.stdout


def test_migrating_again_changes_nothing(demo: tuple[str, dict[str, str]]) -> None:
    again = _run(demo[1], "migrate")

    assert again.returncode == 0, again.stderr
    assert "newest schema" in again.stdout
