"""Where workers die: points are named by what a transaction wrote, and a fate strikes once, at its turn."""

import signal
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from chaos.clock import SharedClock
from chaos.points import AFTER, BEFORE, COMMIT, SURVEY, Fate, Reaper, name_of, writes_of
from chaos.tally import deaths


@pytest.mark.parametrize(
    ("statement", "writes"),
    [
        ("select 1 from esims for update", set()),
        ("select 1 from esims for update of e, o skip locked", set()),
        ("with t as (update esims set fence = 1 returning *) select * from t", {"update esims"}),
        ("INSERT INTO outbox (key) VALUES (1) ON CONFLICT DO UPDATE SET key = 2", {"insert outbox"}),
        ("insert into rate_limits as r (key) values (1)", {"insert rate_limits"}),
        ("delete from provider_tokens", {"delete provider_tokens"}),
    ],
)
def test_writes_are_read_from_statements(statement: str, writes: set[str]) -> None:
    assert writes_of(statement) == writes


def test_a_transaction_is_named_by_what_it_wrote_and_an_unknown_one_by_its_writes() -> None:
    assert name_of({"insert purchase_attempts"}) == "intent to buy"
    assert name_of({"update purchase_attempts", "insert order_events", "update esims"}).startswith("purchase open")
    assert name_of({"insert something"}) == "insert something"


def test_a_survey_sees_each_commit_before_and_after_it_but_no_rollback(engine: Engine, tmp_path: Path) -> None:
    reaper = Reaper(Fate(SURVEY, "", 0), tmp_path / "diary")
    reaper.watch(engine)
    with engine.begin() as conn:
        conn.execute(text("update drains set busy = 1"))
    with engine.connect() as conn:
        conn.execute(text("update outbox set attempts = 1"))
    with engine.begin() as conn:
        conn.execute(text("select 1"))
    name = "drain's heartbeat or end"
    assert dict(reaper.seen) == {f"{COMMIT}|{BEFORE}|{name}": 1, f"{COMMIT}|{AFTER}|{name}": 1}


def test_a_fate_strikes_at_its_turn_and_writes_it_down(tmp_path: Path) -> None:
    fate = Fate(COMMIT, AFTER, 2, "intent to buy", signal.SIGCONT)  # a signal that does no harm
    reaper = Reaper(fate, tmp_path / "diary")
    for side, name in ((AFTER, "intent to buy"), (BEFORE, "intent to buy"), (AFTER, "drain registered")):
        reaper.passes(COMMIT, side, name)
    assert not (tmp_path / "diary").exists()
    for _ in range(3):
        reaper.passes(COMMIT, AFTER, "intent to buy")
    assert (tmp_path / "diary").read_text() == "SIGCONT after commit: intent to buy\n"


def test_deaths_are_counted_by_point(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    assert not deaths(diary)
    diary.write_text("SIGKILL after commit: a\nSIGKILL after commit: a\nSIGSTOP before request: POST b\n")
    assert deaths(diary) == {"worker killed after commit: a": 2, "worker paused before request: POST b": 1}


def test_a_shared_clock_is_ahead_for_everybody_who_names_its_file(tmp_path: Path) -> None:
    one, other = SharedClock(tmp_path / "clock"), SharedClock(tmp_path / "clock")
    one.set_ahead(3_600.0)
    assert other.ahead_seconds == 3_600.0
    assert (other() - SharedClock(tmp_path / "another")()).total_seconds() > 3_500
