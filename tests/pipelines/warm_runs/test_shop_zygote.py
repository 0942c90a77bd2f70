"""A zygote of the shop's own definitions: what it forks beside, and that native libraries work in what it forks."""

import json
from pathlib import Path

import dagster as dg
import pytest

from pipelines.warm_runs.native_threads import PARKED
from tests.pipelines.warm_runs.conftest import Staged
from tests.pipelines.warm_runs.stage import HEAVY, Stage


@pytest.fixture(scope="module")
def stage(staged: Staged) -> Stage:
    stage = staged(code=HEAVY)
    stage.start_host()
    return stage


def test_it_forks_beside_one_thread_that_has_nothing_to_do_and_what_it_forks_computes(
    stage: Stage, tmp_path: Path
) -> None:
    zygote, first = _compute(stage, tmp_path / "first")
    before = _other_threads(zygote)
    rest = [_compute(stage, tmp_path / f"again-{n}") for n in range(3)]

    assert [seen["agree"] for seen in (first, *(seen for _, seen in rest))] == [True] * 4
    assert {forked_by for forked_by, _ in rest} == {zygote}
    assert [name for name, _ in before] == sorted(PARKED)
    assert _other_threads(zygote) == before  # it has not run for a moment: no fork can have found it at work
    assert stage.said("native threads") == 0


def _compute(stage: Stage, answer: Path) -> tuple[int, dict[str, object]]:
    run_id = stage.launch("compute_job", answer=str(answer))
    assert stage.ended(run_id) is dg.DagsterRunStatus.SUCCESS
    seen = json.loads(answer.read_text())
    return seen["parent"], seen


def _other_threads(pid: int) -> list[tuple[str, list[str]]]:
    """Return the threads of a process but for its first: name, and how often each was given a processor."""
    tasks = [task for task in Path(f"/proc/{pid}/task").iterdir() if task.name != str(pid)]
    return sorted(((task / "comm").read_text().strip(), _switches(task)) for task in tasks)


def _switches(task: Path) -> list[str]:
    return [line for line in (task / "status").read_text().splitlines() if "ctxt_switches" in line]
