"""The report of campaigns: a table to paste, the command that repeats a part, and a status that cannot lie."""

from collections import Counter

from typer.testing import CliRunner

from chaos.platform_recovery import Back
from chaos.recovery import Recovered
from chaos.runner import Plan, Report, Told, run
from cli.app import app

PLAN = Plan((7,), 60)


def told(broken: int = 0) -> Told:
    return Told("seed 7", 1.0, Counter({"orders paid": 1_234, "nothing": 0}), Counter({"a dispute": 2}), [], broken)


def test_counts_are_printed_as_a_table_without_what_never_happened() -> None:
    text = Report(PLAN, [told(), told()], seconds=9.0).text()
    assert "2 campaigns of 60 orders in 9 s: 0 violations" in text
    assert "| orders paid | 2,468 |" in text
    assert "| a dispute | 4 |" in text
    assert "nothing" not in text


def test_only_a_report_without_any_trouble_is_clean() -> None:
    assert Report(PLAN, [told()], [Recovered("worker killed", 3.0, True, 0)]).clean
    assert not Report(PLAN, [told(broken=1)]).clean
    assert not Report(PLAN, [told()], [Recovered("worker killed", None, True, 0)]).clean
    assert not Report(PLAN, [told()], [Recovered("worker killed", 3.0, False, 0)]).clean
    assert not Report(PLAN, [told()], [Recovered("worker killed", 3.0, True, 1)]).clean
    assert Report(PLAN, [told()], back=[Back("daemon killed", 3.0)]).clean
    assert not Report(PLAN, [told()], back=[Back("daemon killed", None)]).clean
    assert not Report(PLAN, [told()], crashed=["it ended with 1"]).clean


def test_each_part_names_the_command_that_plays_it_again() -> None:
    assert PLAN.command("seed 7") == "numnaroad chaos --seed 7 --orders 60"
    assert PLAN.command("sweep-7") == "numnaroad chaos --seed 7 --orders 60 --sweep"
    assert PLAN.command("platform-7") == "numnaroad chaos --seeds 0 --seed 7 --orders 60 --platform"
    assert Plan((7,), 8, bug="buys-again").command("seed 7").endswith("--orders 8 --plant buys-again")


def test_a_bug_that_does_not_exist_is_refused_before_anything_starts() -> None:
    ran = CliRunner().invoke(app, ["chaos", "--plant", "nonsense"])
    assert ran.exit_code == 2
    assert "buys-again" in ran.output


def test_the_time_each_part_took_to_be_back_is_printed() -> None:
    text = Report(PLAN, [told()], back=[Back("daemon killed", 3.04), Back("API killed", None)]).text()
    assert "| daemon killed | 3.0 s |" in text
    assert "| API killed | never |" in text


def test_what_was_timed_by_something_else_is_a_table_of_its_own() -> None:
    moved = Back("provider down", 21.0, "the best price of its package moved")
    text = Report(PLAN, [told()], back=[Back("daemon killed", 3.04), moved]).text()
    assert "| a fresh order was delivered after (limit 60 s) |\n|---|---:|\n| daemon killed | 3.0 s |\n\n" in text
    assert "| the best price of its package moved after (limit 60 s) |\n|---|---:|\n| provider down | 21.0 s |" in text


def test_the_platform_is_played_alone_without_seeds_and_nothing_else_is() -> None:
    assert "--platform" in CliRunner().invoke(app, ["chaos", "--help"], env={"COLUMNS": "200"}).output
    assert run(Plan((), 60, 7), [], print).text().startswith("0 campaigns")
    for rest in (["--platform", "--sweep"], ["--platform", "--recovery"], []):
        ran = CliRunner().invoke(app, ["chaos", "--seeds", "0", *rest])
        assert ran.exit_code == 2
        assert "--platform" in ran.output
