"""The daily proof against the payment service, and what the jobs show of it in Dagster."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import dagster as dg
import pytest
from sqlalchemy import Engine, text

from assets.reconciliation import KEY, check_name, reconciliation
from esim.errors import PaymentError
from esim.money import Money
from pipelines.prove_books import BooksReport, prove_books
from pipelines.reconcile_jobs import prove_books_job, reconcile_payments_job, reconcile_providers_job
from resources.db.findings import open_findings
from resources.db.payments import Booking, Payment, record_payment
from resources.order_operations import OrderTools
from tests.pipelines.scripted_gateway import Account
from tests.resources.db.shop import NOW, place_order

PAID_AT = NOW - timedelta(hours=2)
Rows = Callable[[str], list[dict[str, object]]]


def bought(engine: Engine, account: Account, intent: str = "pi_1") -> UUID:
    """An order that is paid at the payment service and here."""
    with engine.begin() as conn:
        order_id = place_order(conn, now=PAID_AT)
        payment = Payment(order_id, intent, f"cs_{intent}", Money(499, "USD"), "evt_1")
        record_payment(conn, payment, Booking("stripe webhook", PAID_AT, 70))
    account.pays(order_id, PAID_AT, intent=intent)
    return order_id


def kinds(engine: Engine) -> list[str]:
    with engine.connect() as conn:
        return [finding.kind for finding in open_findings(conn)]


def later(tools: OrderTools, full: bool = False) -> BooksReport:
    tools.clock.advance(days=1)  # type: ignore[attr-defined]  # a clock set by hand
    return prove_books(tools, full=full)


def test_a_shop_that_agrees_shows_equal_sums_per_day(tools: OrderTools, account: Account, engine: Engine) -> None:
    bought(engine, account)
    report = later(tools)
    assert kinds(engine) == []
    (day,) = report.days
    assert (str(day.day), day.currency, day.paid, day.booked_paid) == ("2026-11-21", "USD", day.booked_paid, day.paid)
    assert day.paid > 0
    assert sum(micros for _, micros, _ in report.totals) == 0


def test_a_payment_without_a_posting_is_found_until_it_is_booked(
    tools: OrderTools, account: Account, engine: Engine, rows: Rows
) -> None:
    with engine.begin() as conn:
        order_id = place_order(conn, now=PAID_AT)
    account.pays(order_id, PAID_AT, intent="pi_lost")
    later(tools)
    later(tools)
    assert kinds(engine) == ["payment_unbooked"]
    tools.clock.advance(days=10)  # type: ignore[attr-defined]  # beyond the days that are looked at
    later(tools)
    assert kinds(engine) == ["payment_unbooked"]
    assert len(rows("select 1 from outbox where key like 'slack:finding:%:payment_unbooked:%'")) == 1
    with engine.begin() as conn:
        payment = Payment(order_id, "pi_lost", "cs_1", Money(499, "USD"), "evt_1")
        record_payment(conn, payment, Booking("reconciler", PAID_AT, 70))
    later(tools)
    assert kinds(engine) == []


def test_a_payment_stripe_does_not_know_is_found(tools: OrderTools, account: Account, engine: Engine) -> None:
    bought(engine, account)
    account.charges.clear()
    later(tools)
    assert kinds(engine) == ["payment_not_at_stripe"]


def test_another_amount_at_stripe_is_found(tools: OrderTools, account: Account, engine: Engine) -> None:
    bought(engine, account)
    (charge,) = account.charges
    account.charges = [type(charge)(charge.charge_id, charge.payment_intent, Money(500, "USD"), "", PAID_AT)]
    later(tools)
    assert kinds(engine) == ["payment_unbooked"]


def test_a_refund_of_the_dashboard_that_is_not_here_is_found(
    tools: OrderTools, account: Account, engine: Engine
) -> None:
    order_id = bought(engine, account)
    account.pays_back("pi_1", 100, PAID_AT)
    later(tools)
    assert kinds(engine) == ["refund_not_here"]
    event = account.tells("charge.refunded", PAID_AT, order_id, "pi_1", amount_refunded=100, currency="usd")
    from resources.payment_events import take_event

    with engine.begin() as conn:
        take_event(conn, event, Booking("stripe webhook", PAID_AT, 70))
    later(tools)
    assert kinds(engine) == []


def test_a_refund_stripe_does_not_know_is_found_and_a_failed_one_is_none(
    tools: OrderTools, account: Account, engine: Engine
) -> None:
    bought(engine, account)
    with engine.begin() as conn:
        conn.execute(
            text(
                "insert into refunds (refund_key, order_id, payment_intent, amount_minor, currency, reason, state,"
                " stripe_refund_id, finished_at) select 'second:x', order_id, 'pi_x', 5, 'USD', 'x', 'sent', 're_x',"
                " :at from orders"
            ),
            {"at": PAID_AT},
        )
    account.pays_back("pi_1", 100, PAID_AT, status="failed")
    later(tools)
    assert kinds(engine) == ["refund_not_at_stripe"]


def test_what_is_younger_than_ten_minutes_is_left_out(tools: OrderTools, account: Account, engine: Engine) -> None:
    with engine.begin() as conn:
        order_id = place_order(conn, now=PAID_AT)
    account.pays(order_id, NOW - timedelta(minutes=5))
    prove_books(tools)
    assert kinds(engine) == []


def test_stripe_going_away_keeps_what_was_found(tools: OrderTools, account: Account, engine: Engine) -> None:
    bought(engine, account)
    account.charges.clear()
    later(tools)
    account.breaks_after = 0
    account.pays_back("pi_1", 1, PAID_AT)
    with pytest.raises(PaymentError):
        later(tools)
    assert kinds(engine) == ["payment_not_at_stripe"]


def test_a_broken_row_is_told_once_and_closes_itself(
    tools: OrderTools, account: Account, engine: Engine, rows: Rows
) -> None:
    bought(engine, account)
    later(tools)
    for status in ("completed", "paid"):
        with engine.begin() as conn:
            conn.execute(text("update orders set status = :status"), {"status": status})
        later(tools)
        later(tools)
        assert kinds(engine) == (["state_unexplained"] if status == "completed" else [])
    assert len(rows("select 1 from outbox where key like 'slack:finding:%:state_unexplained:%'")) == 1


def test_the_jobs_report_the_agreement_of_every_side(tools: OrderTools, account: Account, engine: Engine) -> None:
    bought(engine, account)

    class Source:
        def tools(self) -> OrderTools:
            return tools

    tools.clock.advance(days=1)  # type: ignore[attr-defined]
    with dg.instance_for_test() as instance:

        def checks() -> dict[str, bool]:
            keys = [dg.AssetCheckKey(KEY, check_name(side)) for side in ("payments", "providers", "books")]
            found = {}
            for key in keys:
                record = instance.get_latest_asset_check_evaluation_record(key)
                assert record is not None
                evaluation = record.event.asset_check_evaluation  # type: ignore[union-attr]
                found[key.name] = evaluation.passed
            return found

        for job in (reconcile_payments_job, reconcile_providers_job, prove_books_job):
            assert job.execute_in_process(instance=instance, resources={"operations": Source()}).success
        assert checks() == {"payments_agree": True, "providers_agree": True, "books_agree": True}
        with engine.begin() as conn:
            conn.execute(text("update orders set status = 'completed'"))
        assert prove_books_job.execute_in_process(instance=instance, resources={"operations": Source()}).success
        assert checks() == {"payments_agree": True, "providers_agree": True, "books_agree": False}
        assert instance.get_latest_materialization_event(KEY) is not None
    counted = dg.materialize([reconciliation], resources={"operations": Source()}, raise_on_error=False)
    assert {one.check_name: one.passed for one in counted.get_asset_check_evaluations()}["books_agree"] is False
