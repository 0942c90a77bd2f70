"""The commands that mend orders and providers: what they show, ask, do and refuse, on a real store."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from cli.app import app
from esim.errors import InvalidInput, NotFound, NumnaRoadError, PaymentUnavailable, Refused
from esim.money import Money
from esim.ports import CheckoutLine, CheckoutRequest
from resources.db.order_store import claim_units
from resources.db.payments import Booking, Payment, record_payment
from resources.order_operations import utc_now
from resources.payments.stripe import stripe_gateway
from resources.settings import load_settings
from sandbox.config import SandboxConfig
from sandbox.serve import served
from tests.cli.typed import parse
from tests.resources.db.shop import order_state, paid_order, place_order, unit_states

ROOT = Path(__file__).resolve().parents[2]


def ask(*words: object) -> str:
    """Run a command that must succeed and return what it printed."""
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refused(message: str, *words: object, kind: type[NumnaRoadError] = Refused) -> None:
    with pytest.raises(kind, match=message):
        CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def rows(engine: Engine, statement: str) -> list[tuple[object, ...]]:
    with engine.connect() as conn:
        return [tuple(row) for row in conn.execute(text(statement))]


def test_order_shows_what_it_waits_for_its_events_and_its_balance(shop: Engine) -> None:
    order_id = paid_order(shop, now=utc_now())
    with shop.begin() as conn:
        conn.execute(text("update orders set display_id = 'OID001'"))
    ask("order", "refund", order_id, "--unit", 1, "--reason", "they changed their mind", "--yes")
    shown = ask("order", "show", "oid001")
    assert "operator:mia" in shown
    assert "they changed their mind" in shown
    assert "requested" in shown
    assert "together 0" in shown
    assert "customer@" not in shown
    with shop.begin() as conn:
        conn.execute(text("update refunds set state = 'failed', last_error = 'card expired'"))
    shown = ask("order", "show", order_id)
    assert "its refund failed: card expired" in shown
    assert 'numnaroad order refund OID001 --unit 1 --again --reason "…"' in shown


def test_nothing_changes_unasked_where_nobody_can_be_asked(shop: Engine) -> None:
    order_id = paid_order(shop, now=utc_now())
    refused("add --yes", "order", "cancel", order_id, "--reason", "why", kind=InvalidInput)
    refused("add --yes", "provider", "disable", "airalo", "--reason", "why", kind=InvalidInput)
    assert (order_state(shop, order_id), rows(shop, "select * from audit_events")) == ("paid", [])


def test_asked_person_may_say_no_or_yes(shop: Engine) -> None:
    order_id = paid_order(shop, now=utc_now())
    code, shown = _at_a_terminal("n\n", "order", "cancel", str(order_id), "--reason", "why")
    assert (code, order_state(shop, order_id)) == (1, "paid")
    assert "About to do" in shown
    assert "4.99 USD for eSIM 1 goes back" in shown
    assert "Nothing was changed" in shown
    code, shown = _at_a_terminal("y\n", "order", "cancel", str(order_id), "--reason", "why")
    assert (code, unit_states(shop, order_id)) == (0, ["failed"])
    assert "Done" in shown


def _at_a_terminal(typed: str, *words: str) -> tuple[int, str]:
    """Run the command as a process whose input and output are a terminal."""
    outside, inside = pty.openpty()
    environment = {**os.environ, "COLUMNS": "160", "TERM": "dumb"}
    command = [sys.executable, "-c", "from cli.app import main; main()", *words]
    with subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside, cwd=ROOT, env=environment) as process:
        os.close(inside)
        os.write(outside, typed.encode())
        shown = b""
        while True:
            try:
                shown += os.read(outside, 4096)
            except OSError:  # the other end is closed: the command has ended
                break
        code = process.wait(timeout=60)
    os.close(outside)
    return code, shown.decode()


def test_repeated_command_finds_nothing_to_do(shop: Engine) -> None:
    order_id = paid_order(shop, now=utc_now())
    words = ("order", "refund", order_id, "--all", "--reason", "why", "--yes")
    assert "Done" in ask(*words)
    assert "Nothing to do" in ask(*words)
    for slug_words in (("disable", "airalo"), ("enable", "airalo")):
        assert "Done" in ask("provider", *slug_words, "--reason", "why", "--yes")
        assert "Nothing to do" in ask("provider", *slug_words, "--reason", "why", "--yes")


def test_unit_that_a_worker_holds_is_not_touched(shop: Engine) -> None:
    order_id = paid_order(shop, now=utc_now())
    assert claim_units(shop, "worker", 1, utc_now(), deadline_minutes=70)
    refused("being worked on right now", "order", "refund", order_id, "--all", "--reason", "why", "--yes")
    refused("being worked on right now", "order", "cancel", order_id, "--reason", "why", "--yes")
    assert "is being worked on" in ask("order", "retry", order_id, "--reason", "why", "--yes")
    assert unit_states(shop, order_id) == ["working"]


def test_what_makes_no_sense_is_said_before_anything_is_read(shop: Engine) -> None:
    order_id = paid_order(shop, now=utc_now())
    why = ("--reason", "why", "--yes")
    refused("say which eSIMs", "order", "refund", order_id, *why, kind=InvalidInput)
    refused("say which eSIMs", "order", "refund", order_id, "--all", "--unit", 1, *why, kind=InvalidInput)
    elsewhere = ("order", "refund", order_id, "--all", "--paid-elsewhere")
    refused("goes with neither", *elsewhere, "--again", *why, kind=InvalidInput)
    refused("say one of", "order", "resolve", order_id, "--unit", 1, *why, kind=InvalidInput)
    sure = ("--not-bought", "--although-unproven")
    refused("goes with --bought", "order", "resolve", order_id, "--unit", 1, *sure, *why, kind=InvalidInput)
    both = ("--abandon", "--not-bought")
    refused("say one of", "order", "resolve", order_id, "--unit", 1, *both, *why, kind=InvalidInput)
    refused("no order 'OID999'", "order", "retry", "OID999", *why, kind=NotFound)
    refused("there is no provider", "provider", "show", "nobody", kind=NotFound)
    refused("say why", "order", "cancel", order_id, "--reason", " ", "--yes", kind=InvalidInput)


@pytest.fixture
def stripe(monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """A sandbox that the commands find by their settings, and a client for its control routes."""
    with served(replace(SandboxConfig(plans_per_provider=10), api_url="http://127.0.0.1:9")) as sandbox:
        monkeypatch.setenv("STRIPE_API_BASE", f"{sandbox.base_url}/stripe")
        with httpx.Client(base_url=sandbox.base_url, timeout=10) as client:
            yield client


def paid_in_stripe(shop: Engine, stripe: httpx.Client) -> tuple[UUID, str]:
    """An order whose payment the sandbox's Stripe has, and the charge of it."""
    with shop.begin() as conn:
        order_id = place_order(conn, now=utc_now())
    line = CheckoutLine("Japan", Money(499, "USD"), 1)
    until = utc_now() + timedelta(hours=1)
    asked = CheckoutRequest(str(order_id), "OID001", (line,), "a@b.test", "http://x.test/", "http://x.test/", until)
    gateway = stripe_gateway(load_settings())
    page = gateway.create_checkout(asked)
    gateway.close()
    told = stripe.post(f"/sandbox/stripe/pay/{page.session_id}", json={"outcome": "succeed"}).raise_for_status()
    intent = str(told.json()["payment_intent"])
    with shop.begin() as conn:
        payment = Payment(order_id, intent, page.session_id, Money(499, "USD"), "test")
        record_payment(conn, payment, Booking("test", utc_now(), 70))
    [charge] = stripe.get("/sandbox/charges").json()["charges"]
    return order_id, str(charge["charge_id"])


def test_money_refunded_in_the_dashboard_is_found_before_it_is_written_down(shop: Engine, stripe: httpx.Client) -> None:
    order_id, charge = paid_in_stripe(shop, stripe)
    stripe.post(f"/stripe/charges/{charge}/refund", data={"amount": ""})
    said = ask("order", "refund", order_id, "--all", "--paid-elsewhere", "--reason", "by hand", "--yes")
    assert "4.99 USD was refunded at the payment service, of which nobody had told" in " ".join(said.split())
    assert rows(shop, "select reason, amount_minor::int, esim_n from refunds") == [("refunded by hand", 499, None)]
    assert (order_state(shop, order_id), unit_states(shop, order_id)) == ("refunded", ["refunded"])


def test_nothing_is_written_down_as_paid_elsewhere_while_stripe_is_away(
    shop: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRIPE_API_BASE", "http://127.0.0.1:9/stripe")
    order_id = paid_order(shop, now=utc_now())
    words = ("order", "refund", order_id, "--all", "--paid-elsewhere", "--reason", "by bank", "--yes")
    refused("must be known first, and nothing was changed: Stripe did not list", *words, kind=PaymentUnavailable)
    assert (unit_states(shop, order_id), rows(shop, "select 1 from refunds")) == (["queued"], [])


def test_every_command_on_orders_reaches_its_action(shop: Engine, stripe: httpx.Client) -> None:
    order_id = paid_order(shop, now=utc_now(), units=2)
    why = ("--reason", "why", "--yes")
    assert "Nothing to do" in ask("order", "retry", order_id, *why)
    assert "deadline is" in ask("order", "retry", order_id, "--extend-deadline", 120, *why)
    for how in (("--not-bought",), ("--bought", "x", "--although-unproven"), ("--abandon", "--attempt", 1)):
        refused("no purchase of it is open", "order", "resolve", order_id, "--unit", 1, *how, *why)
    assert "counts as paid back" in ask("order", "refund", order_id, "--unit", 1, "--paid-elsewhere", *why)
    assert "goes back" in ask("order", "cancel", order_id, *why)
    assert unit_states(shop, order_id) == ["refunded", "failed"]
    assert "Nothing to do" in ask("notices", "resend", "--order", order_id, *why)
    assert "Nothing to do" in ask("notices", "resend", *why)
    with shop.begin() as conn:
        conn.execute(text("update refunds set next_attempt_at = now() + interval '1 hour' where state = 'requested'"))
    assert "is tried again at once" in ask("refunds", "retry", "--order", order_id, *why)
    assert "Nothing to do" in ask("refunds", "retry", *why)


def test_unpaid_order_without_a_payment_page_is_cancelled(shop: Engine) -> None:
    with shop.begin() as conn:
        order_id = place_order(conn)
    refused("is pending and not paid", "order", "retry", order_id, "--reason", "why", "--yes")
    assert "nothing was paid" in ask("order", "cancel", order_id, "--reason", "why", "--yes")
    assert order_state(shop, order_id) == "cancelled"


def test_who_acts_is_the_named_person_the_setting_or_the_login(shop: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    ask("provider", "disable", "airalo", "--reason", "why", "--as", "noor", "--yes")
    ask("provider", "enable", "airalo", "--reason", "why", "--yes")
    monkeypatch.delenv("NUMNAROAD_OPERATOR")
    monkeypatch.setenv("LOGNAME", "kim")
    load_settings.cache_clear()
    ask("provider", "disable", "airalo", "--reason", "why", "--yes")
    assert rows(shop, "select actor, action from audit_events order by audit_id") == [
        ("operator:noor", "provider disable"),
        ("operator:mia", "provider enable"),
        ("operator:kim", "provider disable"),
    ]
    shown = ask("audit")
    assert shown.index("kim") < shown.index("mia") < shown.index("noor")
    assert "noor" not in ask("audit", "--actor", "mia")
    assert "Nobody did anything" in ask("audit", "--since", "2100-01-01")


def test_providers_are_listed_with_what_is_open_there(shop: Engine) -> None:
    with shop.begin() as conn:
        conn.execute(
            text(
                "update providers set failures = 5, open_until = now() + interval '1 hour', last_error = 'down',"
                " balance_amount = 12.5, balance_currency = 'USD' where slug = 'airalo'"
            )
        )
    listed = ask("provider", "list")
    assert [slug for slug in ("airalo", "esim_access", "esim_go", "mobimatter", "esim_card") if slug in listed]
    assert "12.5 USD" in listed
    shown = ask("provider", "show", "airalo")
    assert re.search(r"circuit +open\n", shown)
    assert "down" in shown
    assert "is closed (it was open after 5 failures)" in ask("provider", "reset", "airalo", "--reason", "up", "--yes")
    assert "Nothing to do" in ask("provider", "reset", "airalo", "--reason", "up", "--yes")


def test_attention_says_when_nothing_waits_and_what_to_type_when_something_does(shop: Engine) -> None:
    assert ask("attention").strip() == "Nothing waits for anybody."
    assert json.loads(ask("attention", "--json")) == []
    with shop.begin() as conn:
        conn.execute(
            text("update providers set held_reason = 'it [b]shrank[/b]', held_at = now() where slug = 'airalo'")
        )
    shown = ask("attention")
    assert "numnaroad sync --provider airalo --accept airalo" in shown
    assert "it [b]shrank[/b]" in shown
    [item] = json.loads(ask("attention", "--json"))
    assert (item["kind"], item["urgency"], item["subject"]) == ("catalogue_held", "today", "provider airalo")


def test_empty_stock_is_said_and_unknown_numbers_are_refused(shop: Engine) -> None:
    assert "Nothing is in stock" in ask("stock", "list")
    refused("no eSIM 7 in stock", "stock", "write-off", 7, "--reason", "why", "--yes", kind=NotFound)
    refused("no eSIM 7 in stock", "stock", "return", 7, "--reason", "why", "--yes", kind=NotFound)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom cli.app import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "heavy = {'dagster', 'polars', 'duckdb', 'stripe', 'resources.operator_desk'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-1000:]


def test_purchases_are_shown_with_their_esim_and_the_whole_reference(shop: Engine) -> None:
    order_id = paid_order(shop, now=utc_now(), units=2)
    reference = "nr-7d3f0c7a-2b64-4a63-9a3e-7f8f0e1c2d3b-2-1"
    with shop.begin() as conn:
        conn.execute(
            text(
                "insert into purchase_attempts (attempt_id, order_id, esim_id, number, provider, offer_id,"
                " provider_package_id, state, reference, run_id, error_type, error, failover_step, fence,"
                " expected_cost, ceiling_cost, currency, started_at)"
                " select 7, order_id, esim_id, 1, 'airalo', 'airalo:plan-1', 'plan-1', 'rejected', :reference,"
                " '0c7b8a52-6f8e-4d8e-9a51-1d1f3a4b5c6d', 'out_of_stock', 'sold out', 1, 1, 2, 3, 'USD', now()"
                " from esims where order_id = :id and n = 2"
            ),
            {"id": order_id, "reference": reference},
        )
    shown = ask("order", "show", order_id)
    assert reference in shown
    table = shown[shown.index("Purchase attempts") :]
    [heads] = [line for line in table.splitlines() if "reference" in line]
    assert [word for word in re.split(r"\W+", heads) if word][:2] == ["n", "number"]


def test_cancel_names_commands_that_exist_where_it_may_not_go_on(shop: Engine) -> None:
    order_id = paid_order(shop, now=utc_now())
    with shop.begin() as conn:
        conn.execute(
            text(
                "insert into purchase_attempts (attempt_id, order_id, esim_id, number, provider, offer_id,"
                " provider_package_id, state, reference, failover_step, fence, expected_cost, ceiling_cost, currency,"
                " started_at) select 7, order_id, esim_id, 1, 'airalo', 'airalo:plan-1', 'plan-1', 'unknown', 'nr-1',"
                " 1, 1, 2, 3, 'USD', now() from esims where order_id = :id"
            ),
            {"id": order_id},
        )
    with pytest.raises(Refused) as refusal:
        ask("order", "cancel", order_id, "--reason", "why", "--yes")
    said = str(refusal.value)
    named = re.findall(r"numnaroad order refund .*--even-if-open", said)
    assert named, said
    assert parse(f'{named[0]} --reason "why"') == "order refund"
