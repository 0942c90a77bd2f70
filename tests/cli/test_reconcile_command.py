"""`numnaroad reconcile` and `numnaroad ledger check`: what they print, and the exit status that scripts go by."""

from collections.abc import Iterator

import pytest
from click.testing import Result
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from cli.app import app
from resources.settings import Settings
from sandbox.config import SandboxConfig
from sandbox.serve import served
from tests.resources.db.shop import OfferSpec, open_shop, paid_order


@pytest.fixture
def shop(engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A shop beside a sandbox that was never bought from."""
    open_shop(engine, [OfferSpec("airalo", "2.00")])
    assert settings.database_url
    with served(SandboxConfig(plans_per_provider=10)) as sandbox:
        monkeypatch.setenv("DATABASE_URL", settings.database_url.get_secret_value())
        monkeypatch.setenv("SANDBOX_PORT", sandbox.base_url.rpartition(":")[2])
        yield engine


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def test_a_shop_without_orders_agrees_on_every_side(shop: Engine) -> None:
    result = run("reconcile")
    assert result.exit_code == 0, result.output
    assert "Everything agrees." in result.output
    assert "0 webhooks lost (those younger than 2 minutes are left to their webhook)" in result.output
    for provider in ("airalo", "esim_access", "esim_go", "mobimatter", "esim_card"):
        assert provider in result.output


def test_what_disagrees_is_listed_and_fails(shop: Engine) -> None:
    paid_order(shop)  # nobody paid at Stripe
    with shop.begin() as conn:
        conn.execute(text("update esims set status = 'delivered'"))
        conn.execute(text("update orders set paid_at = now() - interval '3 hours'"))
    result = run("reconcile", "--books", "--full")
    assert result.exit_code == 1
    for kind in ("unit_state_unexplained", "cost_differs", "payment_not_at_stripe"):
        assert kind in result.output
    assert "customer@numnaroad.test" not in result.output
    assert run("reconcile", "--since", "the day before").exit_code == 2


def test_the_ledger_of_all_and_of_one_order_is_checked(shop: Engine) -> None:
    good, bad = paid_order(shop), paid_order(shop)
    result = run("ledger", "check")
    assert result.exit_code == 0, result.output
    assert "9.980000" in result.output
    with shop.begin() as conn:
        conn.execute(text("update orders set status = 'completed' where order_id = :id"), {"id": bad})
    assert run("ledger", "check", str(good)).exit_code == 0
    for words in (["ledger", "check"], ["ledger", "check", str(bad)]):
        result = run(*words)
        assert result.exit_code == 1
        assert "state_unexplained" in result.output


def test_a_side_that_cannot_be_looked_at_fails_and_the_others_go_on(
    shop: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRIPE_SECRET_KEY", "sk_test_wrong")
    result = run("reconcile", "--payments", "--providers")
    assert result.exit_code == 1
    assert "Stripe did not" in result.output
    assert "mobimatter" in result.output
    for words in (("--payments",), ("--payments", "--providers")):
        printed = run("reconcile", *words).output
        assert "Everything agrees" not in printed
        assert "Nothing else is known to disagree, but not everything could be looked at or applied." in printed


def test_a_finding_can_be_accepted_by_name_and_comes_back_only_after_it_was_gone(shop: Engine) -> None:
    order_id = paid_order(shop)
    with shop.begin() as conn:
        conn.execute(text("update orders set paid_at = now() - interval '3 hours'"))
    assert run("reconcile", "--books").exit_code == 1
    with shop.connect() as conn:
        number = str(conn.scalar(text("select finding_id from reconciliation_findings")))
    assert run("reconcile", "--accept", number, "--yes").exit_code == 1
    assert run("reconcile", "--accept", number, "--as", "anna", "--reason", "paid by transfer", "--yes").exit_code == 0
    assert run("reconcile", "--books").exit_code == 0
    with shop.connect() as conn:
        events = text("select actor, reason from order_events where order_id = :id order by event_id desc limit 1")
        assert tuple(conn.execute(events, {"id": order_id}).one()) == (
            "operator:anna",
            "finding payment_not_at_stripe accepted: paid by transfer",
        )
    assert run("reconcile", "--accept", "999", "--as", "anna", "--reason", "x", "--yes").exit_code == 1
