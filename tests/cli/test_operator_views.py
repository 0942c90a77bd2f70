"""What operators are shown besides orders: providers in trouble, who did what, the warm host, only our logs."""

import re
import selectors
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from sqlalchemy import Engine, text

from cli.doctor import warm_runs
from esim.errors import InvalidInput, NotFound
from esim.money import Cost
from pipelines.warm_runs.reception import Reception
from resources.db.balances import note_balance
from resources.db.findings import Finding, settle_findings
from resources.db.outages import note_unfunded
from resources.order_operations import utc_now
from tests.cli.test_order_commands import ROOT, ask, refused, rows
from tests.resources.db.shop import paid_order

WHY = ("--reason", "why", "--yes")


def test_a_provider_without_funds_is_seen_wherever_one_looks(shop: Engine) -> None:
    with shop.begin() as conn:
        note_unfunded(conn, "airalo", 2_000_000, utc_now())
    assert re.search(r"airalo .*unfunded", ask("provider", "list"))
    shown = ask("provider", "show", "airalo")
    assert re.search(r"standing +unfunded\n", shown)
    assert "our balance there did not suffice" in shown
    waits = ask("attention")
    assert "provider_unfunded" in waits
    assert "numnaroad provider show airalo" in waits
    ask("provider", "disable", "airalo", *WHY)
    assert "Nothing waits" in ask("attention")


def test_a_degraded_provider_is_seen_with_its_figures(shop: Engine) -> None:
    with shop.begin() as conn:
        conn.execute(
            text(
                "insert into provider_health (provider, attempts, successes, degraded_since)"
                " values ('airalo', 20, 3, now())"
            )
        )
    assert re.search(r"airalo .*degraded", ask("provider", "list"))
    assert "3 of the last 20 purchases succeeded" in ask("provider", "show", "airalo")


def test_a_low_balance_waits_until_it_is_topped_up(shop: Engine) -> None:
    for amount, waits in (("12", True), ("900", False)):
        with shop.begin() as conn:
            note_balance(conn, "airalo", Cost.parse(amount, "USD"), 100_000_000, utc_now(), "test")
        assert ("low_balance" in ask("attention")) is waits
    with shop.begin() as conn:
        note_balance(conn, "airalo", Cost.parse("1", "USD"), 100_000_000, utc_now(), "test")
        note_unfunded(conn, "airalo", 2_000_000, utc_now())
    assert "low_balance" not in ask("attention"), "it is told as out of funds"


def test_every_change_says_in_the_audit_what_changed(shop: Engine) -> None:
    with shop.begin() as conn:
        conn.execute(text("update providers set failures = 5, open_until = now() where slug = 'airalo'"))
    ask("provider", "disable", "airalo", *WHY)
    ask("provider", "reset", "airalo", *WHY)
    changed = rows(shop, "select action, details -> 'changes' from audit_events order by audit_id")
    assert changed == [
        ("provider disable", ["airalo is disabled: it is not bought from; prices follow within a minute"]),
        ("provider reset", ["the circuit of airalo is closed (it was half-open after 5 failures)"]),
    ]
    assert "is not bought from" in " ".join(ask("audit").split())


def test_an_accepted_finding_is_audited_under_the_operators_name(shop: Engine) -> None:
    with shop.begin() as conn:
        settle_findings(conn, "books", [Finding("cost_differs", "x", "It differs.", paid_order(shop))], utc_now())
        number = conn.scalar(text("select finding_id from reconciliation_findings"))
    refused("say why", "reconcile", "--accept", number, "--yes", kind=InvalidInput)
    refused("add --yes", "reconcile", "--accept", number, "--reason", "known", kind=InvalidInput)
    assert "is accepted" in ask("reconcile", "--accept", number, "--as", "anna", "--reason", "known", "--yes")
    assert rows(shop, "select actor, action, subject, reason from audit_events") == [
        ("operator:anna", "finding accept", f"finding {number}", "known")
    ]
    assert rows(shop, "select actor from order_events order by event_id desc limit 1") == [("operator:anna",)]


def test_accepting_a_catalogue_needs_a_reason_and_a_word(shop: Engine) -> None:
    refused("say why", "sync", "--accept", "airalo", "--yes", kind=InvalidInput)
    refused("add --yes", "sync", "--accept", "airalo", "--reason", "they say so", kind=InvalidInput)
    refused("there is no provider 'nobody'", "sync", "--accept", "nobody", *WHY, kind=NotFound)
    assert rows(shop, "select * from audit_events") == []


def test_ledger_check_and_notes_of_findings_name_the_order(shop: Engine) -> None:
    order_id = paid_order(shop)
    with shop.begin() as conn:
        name = conn.scalar(text("select display_id from orders"))
        conn.execute(text("update esims set status = 'delivered'"))
        told = [
            Finding("unit_refund_differs", "x", "eSIM 1 is refunded and was paid back 0 times.", order_id),
            Finding("y", "y", f"Order {name} is odd.", order_id),
            Finding("z", "z", "Nobody's.", None),
        ]
        settle_findings(conn, "books", told, utc_now() + timedelta(seconds=1))
    assert rows(shop, "select payload ->> 'text' from outbox where kind = 'finding' order by outbox_id") == [
        (f"Order {name}: eSIM 1 is refunded and was paid back 0 times.",),
        (f"Order {name} is odd.",),
        ("Nobody's.",),
    ]
    from typer.testing import CliRunner

    from cli.app import app

    checked = CliRunner().invoke(app, ["ledger", "check"]).output
    assert re.search(rf"unit_state_unexplained {name}: ", checked)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A DAGSTER_HOME whose runs are to be launched warm."""
    launcher = {"module": "pipelines.warm_runs.launcher", "class": "WarmRunLauncher"}
    content = {"run_launcher": {**launcher, "config": {"folder": str(tmp_path / "host")}}}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


@pytest.fixture
def host(home: Path) -> Iterator[None]:
    """Somebody who answers where the host should."""
    with selectors.DefaultSelector() as selector:
        reception = Reception(home / "host", selector, lambda _visit, _message: {"state": "unknown"})
        reception.open()
        over = threading.Event()

        def answer() -> None:
            while not over.is_set():
                for key, _ in selector.select(timeout=0.05):
                    key.data()

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        over.set()
        thread.join()
        reception.close()
        reception.leave(keep_folder=False)


def test_the_doctor_says_when_the_warm_host_is_gone(home: Path) -> None:
    [finding] = warm_runs(home)
    assert (finding.part, finding.well) == ("warm runs", False)
    assert "default" in finding.advice


@pytest.mark.usefixtures("host")
def test_the_doctor_is_content_with_a_host_that_answers(home: Path) -> None:
    assert [finding.well for finding in warm_runs(home)] == [True]


def test_the_doctor_does_not_ask_for_a_host_where_none_is_wanted(tmp_path: Path) -> None:
    assert list(warm_runs(tmp_path)) == []
    (tmp_path / "dagster.yaml").write_text("run_launcher: {module: dagster, class: DefaultRunLauncher}\n")
    assert list(warm_runs(tmp_path)) == []


def test_operators_see_warnings_of_ours_only() -> None:
    code = (
        "import logging, stamina, structlog\nfrom cli.app import show_our_warnings\nshow_our_warnings()\n"
        "for attempt in stamina.retry_context(on=ValueError, attempts=2, wait_initial=0, wait_max=0):\n"
        "    with attempt:\n        if attempt.num == 1: raise ValueError('not yet')\n"
        "logging.getLogger('resources.db').info('chatter')\n"
        "structlog.get_logger('resources.mail').warning('the carrier is away')\n"
        "logging.getLogger('urllib3').warning('theirs')\n"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == ""
    assert [line for line in run.stderr.splitlines() if "the carrier is away" not in line] == []
    assert "the carrier is away" in run.stderr
