"""The supervisor of a campaign on the running platform, and the hand: small real processes that are killed."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from signal import SIGKILL

import pytest
from sqlalchemy import create_engine

from chaos.hand import API, KINDS, POSTGRES, RUN, Hand, draw_kinds
from chaos.parts import Parts, Process
from chaos.run_processes import RunProcesses
from chaos.tally import Tally
from pipelines.warm_runs.cards import Cards
from pipelines.warm_runs.config import configured, make_place

SOON = 20.0
WAITS = "import signal; signal.pause()"
# Holds a run's card as a run does, says so, and waits.
RUNS = (
    "import signal, sys; from pathlib import Path; from pipelines.warm_runs.cards import Cards;"
    " Cards(Path(sys.argv[1])).hold('a-run'); print('held', flush=True); signal.pause()"
)


class Programs:
    """Starts programs by name, and ends what it is told to."""

    def __init__(self, code: str = WAITS) -> None:
        self._code = code
        self.started: list[str] = []
        self.all: list[Process] = []
        self.third = threading.Event()

    def start(self, name: str) -> Process:
        self.started.append(name)
        self.all.append(subprocess.Popen([sys.executable, "-c", self._code]))
        if len(self.all) == 3:
            self.third.set()
        return self.all[-1]

    @staticmethod
    def end(processes: Sequence[Process]) -> None:
        for process in processes:
            process.kill()
            process.wait()


def test_a_part_that_is_killed_is_started_again_and_the_others_are_left_alone() -> None:
    programs, tally = Programs(), Tally()
    with Parts(programs.start, programs.end, tally).kept_up(("api", "daemon")) as parts:
        killed = parts.kill("daemon")
        assert killed == programs.all[1].pid
        assert parts.await_another("daemon", killed, SOON)
        assert programs.started == ["api", "daemon", "daemon"]
        assert programs.all[0].poll() is None
        assert programs.all[1].returncode == -SIGKILL
    assert all(process.poll() is not None for process in programs.all)
    assert tally.counts == {}


def test_a_dead_part_cannot_be_killed_before_it_is_started_again() -> None:
    programs = Programs()
    with Parts(programs.start, programs.end, Tally()).kept_up(("api",)) as parts:
        assert parts.kill("api") is not None
        assert parts.kill("api") is None


def test_a_part_that_ends_by_itself_is_started_again_and_counted() -> None:
    programs, tally = Programs("raise SystemExit(3)"), Tally()
    with Parts(programs.start, programs.end, tally).kept_up(("api",)):
        assert programs.third.wait(SOON)
    assert tally.counts["part api ended by itself with 3, started again"] >= 2


def test_parts_are_ended_where_the_campaign_breaks_off() -> None:
    programs = Programs()
    with pytest.raises(KeyError), Parts(programs.start, programs.end, Tally()).kept_up(("api",)) as parts:
        parts.kill("nothing")
    assert programs.all[0].poll() is not None


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_is_killed_and_postgres_twice_at_most(seed: int) -> None:
    for count in (1, len(KINDS), 20):
        drawn = draw_kinds(Random(seed), count)
        assert set(drawn) == set(KINDS)
        assert drawn.count(POSTGRES) <= 2
        assert drawn == draw_kinds(Random(seed), count)


class Crashes:
    """A server that counts its crashes."""

    count = 0

    def crash_and_restart(self) -> None:
        self.count += 1


@pytest.fixture
def home(tmp_path: Path) -> Path:
    place = tmp_path / "place"
    launcher = "module: pipelines.warm_runs.launcher, class: WarmRunLauncher"
    (tmp_path / "dagster.yaml").write_text(f"run_launcher: {{{launcher}, config: {{folder: {place}}}}}\n")
    return tmp_path


@pytest.fixture
def a_run(home: Path) -> Iterator[Process]:
    config = configured(home)
    assert config is not None
    place = make_place(config.place(str(home)))
    Cards(place).lay("a-run", "an instance")
    with subprocess.Popen([sys.executable, "-c", RUNS, str(place)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


@pytest.fixture
def hand_of(home: Path) -> Callable[[Parts, Tally], Hand]:
    nowhere = create_engine("postgresql+psycopg://127.0.0.1:1/nowhere")
    return lambda parts, tally: Hand(parts, RunProcesses(home, nowhere), Crashes(), nowhere, tally)


def test_a_run_is_killed_once_and_counted_even_while_the_store_is_down(
    a_run: Process, hand_of: Callable[[Parts, Tally], Hand]
) -> None:
    programs, tally = Programs(), Tally()
    hand = hand_of(Parts(programs.start, programs.end, tally), tally)
    assert hand.kill_runs() == 1
    assert a_run.wait(SOON) == -SIGKILL
    assert hand.kill(RUN, Random(1)) is False
    assert tally.counts == {"run process killed: unknown job": 1}


def test_a_run_that_the_code_server_spawned_is_killed_too_and_no_other_platforms(
    home: Path, hand_of: Callable[[Parts, Tally], Hand]
) -> None:
    programs, tally = Programs(), Tally()
    hand = hand_of(Parts(programs.start, programs.end, tally), tally)
    command = [sys.executable, "-c", f"{WAITS}  # spawn_main()"]
    with (
        subprocess.Popen(command, env={"DAGSTER_HOME": str(home)}) as ours,
        subprocess.Popen(command, env={"DAGSTER_HOME": "/elsewhere"}) as other,
    ):
        assert hand.kill_runs() == 1
        assert ours.wait(SOON) == -SIGKILL
        assert other.poll() is None
        other.kill()
    assert tally.counts == {"run process killed: launched by the code server": 1}


def test_the_hand_counts_what_it_kills(hand_of: Callable[[Parts, Tally], Hand]) -> None:
    programs, tally = Programs(), Tally()
    with Parts(programs.start, programs.end, tally).kept_up(("api",)) as parts:
        hand = hand_of(parts, tally)
        assert hand.kill(API, Random(1))
        assert hand.last_pid[API] == programs.all[0].pid
        assert hand.kill(POSTGRES, Random(1))
    assert tally.counts == {"API killed and started again": 1, "Postgres crashed and restarted": 1}
