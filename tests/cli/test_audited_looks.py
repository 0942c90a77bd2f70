"""Looks that people take by hand are kept in the audit: who looked, what was found and what was mended by it."""

import os
from collections.abc import Iterator

import pytest
from click.testing import Result
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from cli.app import app
from esim.errors import InvalidInput
from sandbox.config import SandboxConfig
from sandbox.serve import served
from tests.cli.test_order_commands import ask, refused, rows
from tests.resources.db.shop import paid_order

AUDIT = "select actor, action, subject, reason from audit_events order by audit_id"
TOLD = "select details from audit_events order by audit_id desc limit 1"


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stripe and the providers, where nothing was ever sold."""
    with served(SandboxConfig(plans_per_provider=10)) as sandbox:
        monkeypatch.setenv("SANDBOX_PORT", sandbox.base_url.rpartition(":")[2])
        yield


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def told(shop: Engine) -> dict[str, list[str]]:
    [(details,)] = rows(shop, TOLD)
    assert isinstance(details, dict)
    return details


@pytest.mark.usefixtures("outside")
def test_a_plain_reconciliation_is_audited_with_what_each_side_told(shop: Engine) -> None:
    assert run("reconcile").exit_code == 0
    assert rows(shop, AUDIT) == [("operator:mia", "reconcile", "payments, providers, books", "not said")]
    found = told(shop)["found"]
    assert found[0].endswith("0 events and 0 payment pages read, 0 webhooks lost")
    assert [line.partition(":")[0] for line in found[1:-1]] == [
        "airalo",
        "esim_access",
        "esim_go",
        "mobimatter",
        "esim_card",
    ]
    assert found[-1] == "books: 0 orders looked at, 0 findings open in the books, 0 against Stripe"
    assert told(shop)["changes"] == []


@pytest.mark.usefixtures("outside")
def test_one_side_is_audited_under_the_name_and_the_reason_that_were_given(shop: Engine) -> None:
    paid_order(shop)  # nobody paid at Stripe
    with shop.begin() as conn:
        conn.execute(text("update orders set paid_at = now() - interval '3 hours'"))
    assert run("reconcile", "--books", "--as", "anna", "--reason", "month's end").exit_code == 1
    assert rows(shop, AUDIT) == [("operator:anna", "reconcile", "books", "month's end")]
    assert any(line.startswith("new: payment_not_at_stripe of pi_") for line in told(shop)["found"])


@pytest.mark.usefixtures("outside")
def test_a_side_that_cannot_be_looked_at_is_audited_as_such(shop: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_SECRET_KEY", "sk_test_wrong")
    assert run("reconcile", "--payments").exit_code == 1
    assert told(shop)["found"] == ["payments: not looked at to the end (PaymentUnavailable)"]


@pytest.mark.usefixtures("outside")
def test_a_day_that_is_none_looks_at_nothing_and_leaves_nothing(shop: Engine) -> None:
    assert run("reconcile", "--since", "the day before").exit_code == 2
    assert rows(shop, AUDIT) == []


def test_a_login_without_a_name_must_say_who_looks(shop: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NUMNAROAD_OPERATOR", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)  # as in a container that was given a number only
    refused("say who acts", "ledger", "check", kind=InvalidInput)
    assert "explain each other" in ask("ledger", "check", "--as", "anna")
    assert rows(shop, AUDIT) == [("operator:anna", "ledger check", "ledger", "not said")]


def test_a_check_of_the_ledger_is_audited_with_what_disagreed(shop: Engine) -> None:
    order_id = paid_order(shop)
    [(name,)] = rows(shop, "select display_id from orders")
    ask("ledger", "check", str(order_id), "--reason", "they asked for the invoice")
    assert rows(shop, AUDIT) == [("operator:mia", "ledger check", f"order {name}", "they asked for the invoice")]
    assert rows(shop, "select order_id from audit_events") == [(order_id,)]
    assert told(shop) == {"found": ["2 entries, together 0 micro-USD"], "changes": []}
    with shop.begin() as conn:
        conn.execute(text("update orders set status = 'completed'"))
    assert run("ledger", "check").exit_code == 1
    assert told(shop)["found"] == ["2 entries, together 0 micro-USD", "1 state_unexplained"]
    assert "1 state_unexplained" in " ".join(ask("audit").split())
    assert run("ledger", "check", "OID404").exit_code == 1
    assert len(rows(shop, AUDIT)) == 2


def test_looking_at_an_order_a_provider_or_the_queue_leaves_no_trace(shop: Engine) -> None:
    order_id = paid_order(shop)
    for words in (("order", "show", order_id), ("provider", "show", "airalo"), ("attention",), ("stock", "list")):
        ask(*words)
    assert rows(shop, AUDIT) == []
