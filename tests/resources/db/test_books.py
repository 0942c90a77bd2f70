"""The proof of our own books: a good shop has no findings, and every deliberately broken row is found."""

from datetime import timedelta
from time import monotonic
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from esim.money import Cost, Money
from esim.orders import UnitStatus
from esim.ports import Refund
from esim.purchase import EsimProfile, Provisioned
from resources.db import ledger
from resources.db.book_rules import RULES
from resources.db.books import BooksLook, account_totals, check_books, check_order
from resources.db.payments import Booking, Payment, record_payment
from resources.db.refunds import claim_refunds, record_refund, request_unit_refund
from resources.db.settlement import Scribe, record_outcome
from resources.db.transitions import lock_order, lock_units, move_unit, settle_order
from resources.db.vault import Vault
from resources.settings import Settings
from tests.resources.db.shop import NOW, OfferSpec, open_shop, paid_order, place_order


def look(engine: Engine, since: str = "") -> BooksLook:
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn, conn.begin():
        return check_books(conn, since)


def kinds(engine: Engine) -> set[str]:
    return {finding.kind for finding in look(engine).findings}


def run(engine: Engine, statement: str, **values: Any) -> None:
    with engine.begin() as conn:
        conn.execute(text(statement), values)


def deliver(engine: Engine, order_id: UUID, n: int, settings: Settings) -> None:
    """Buy one unit as a worker would: attempt, outcome, cost, event."""
    with engine.begin() as conn:
        lock_order(conn, order_id)
        unit = lock_units(conn, order_id)[n - 1]
        move_unit(conn, unit, UnitStatus.WORKING, reason="claimed by a worker", actor="test", now=NOW)
        attempt_id = conn.execute(
            text(
                "insert into purchase_attempts (esim_id, order_id, number, failover_step, provider, offer_id,"
                " provider_package_id, reference, fence, expected_cost, ceiling_cost, currency, state, started_at,"
                " sent_at)"
                " values (:esim_id, :order_id, 1, 0, 'airalo', 'airalo:plan-1', 'plan-1', :reference, 1, 2, 3, 'USD',"
                " 'prepared', :now, :now) returning attempt_id"
            ),
            {"esim_id": unit.esim_id, "order_id": order_id, "reference": f"{order_id.hex[:20]}{n}", "now": NOW},
        ).scalar_one()
        profile = EsimProfile(f"89{order_id.int % 10**14:014d}{n}", "smdp.example.com", f"CODE-{n}")
        outcome = Provisioned(profile, f"{order_id.hex[:8]}-{n}", Cost.parse("2.00", "USD"))
        record_outcome(conn, attempt_id, outcome, Scribe(Vault.from_settings(settings), "test", NOW))


def give_up_and_refund(engine: Engine, order_id: UUID, n: int) -> None:
    with engine.begin() as conn:
        order = lock_order(conn, order_id)
        unit = lock_units(conn, order_id)[n - 1]
        move_unit(conn, unit, UnitStatus.FAILED, reason="given up", actor="test", now=NOW)
        request_unit_refund(conn, order, unit, "given up")
        settle_order(conn, order_id, reason="given up", actor="test", now=NOW)
    for due in claim_refunds(engine, 10):
        with engine.begin() as conn:
            paid = Refund(f"re_{due.refund_key[-8:]}{due.esim_n}", due.amount, "succeeded", due.payment_intent)
            record_refund(conn, due, paid, actor="test", now=NOW)


@pytest.fixture
def order(engine: Engine, settings: Settings) -> UUID:
    """An order of three: one delivered, one paid back, one waiting."""
    open_shop(engine, [OfferSpec("airalo", "2.00")])
    order_id = paid_order(engine, units=3)
    deliver(engine, order_id, 1, settings)
    give_up_and_refund(engine, order_id, 2)
    return order_id


def test_a_shop_at_work_has_no_findings(engine: Engine, order: UUID) -> None:
    with engine.begin() as conn:
        place_order(conn)
        other = place_order(conn, units=2)
        payment = Payment(other, "pi_2", "cs_2", Money(998, "USD"), "evt_1")
        record_payment(conn, payment, Booking("test", NOW, 70))
        again = Payment(other, "pi_3", "cs_3", Money(998, "USD"), "evt_2")
        record_payment(conn, again, Booking("test", NOW, 70))
    found = look(engine)
    assert found.findings == ()
    assert found.orders == 3


UNIT = "where order_id = :order_id and n = 1"
BROKEN: dict[str, tuple[str, str]] = {
    "a posting off by a micro": (
        "posting_unbalanced",
        "update ledger_entries set amount_micros = amount_micros + 1"
        " where posting_key like 'cost:%' and account = 'cost_of_sales'",
    ),
    "a posting off in its own currency": (
        "posting_unbalanced",
        "update ledger_entries set original_amount = original_amount + 1"
        " where posting_key like 'refund:%' and account = 'cash'",
    ),
    "a ledger that does not sum to zero": (
        "ledger_unbalanced",
        "delete from ledger_entries where posting_key like 'cost:%' and account = 'provider_balance'",
    ),
    "a posting of an order that is not there": (
        "posting_without_order",
        "update ledger_entries set order_id = gen_random_uuid() where posting_key like 'cost:%'",
    ),
    "a cost without a delivery in the history": (
        "posting_without_event",
        "delete from order_events where to_status = 'delivered'",
    ),
    "a payment without an event": (
        "posting_without_event",
        "update order_events set details = '{}' where to_status = 'paid'",
    ),
    "a payment that is not booked": (
        "payment_differs",
        "delete from ledger_entries where posting_key like 'payment:%'",
    ),
    "another amount than was paid": (
        "payment_differs",
        "update orders set amount_minor = amount_minor + 100 where order_id = :order_id",
    ),
    "a payment of nobody": (
        "payment_unexplained",
        "update ledger_entries set posting_key = 'payment:pi_other' where posting_key like 'payment:%'",
    ),
    "a refund that is not booked": (
        "refund_unbooked",
        "delete from ledger_entries where posting_key like 'refund:%'",
    ),
    "a booked refund that nobody made": (
        "refund_unexplained",
        "update refunds set state = 'requested' where order_id = :order_id",
    ),
    "money of a dispute that nobody told of": (
        "dispute_unexplained",
        "insert into ledger_entries"
        " (posting_key, order_id, account, amount_micros, original_amount, original_currency)"
        " select 'dispute:txn_1', cast(:order_id as uuid), account, micros, micros, 'USD'"
        " from (values ('cash', -1), ('disputes', 1)) as side(account, micros)",
    ),
    "another sum paid back": ("refunds_differ", "update orders set refunded_minor = 0 where order_id = :order_id"),
    "more paid back than was paid": ("paid_back_over", "update refunds set amount_minor = amount_minor * 100"),
    "a delivery without its cost": ("cost_differs", "delete from ledger_entries where posting_key like 'cost:%'"),
    "a delivery booked twice": (
        "cost_differs",
        "insert into ledger_entries"
        " (posting_key, order_id, esim_n, account, amount_micros, original_amount, original_currency)"
        " select 'cost:999', order_id, esim_n, account, amount_micros, original_amount, original_currency"
        " from ledger_entries where posting_key like 'cost:%'",
    ),
    "a cost that differs from the unit's": ("cost_differs", f"update esims set cost_micros = 1 {UNIT}"),
    "stock without a posting": (
        "stock_unbooked",
        "insert into stock_esims (attempt_id, provider, offer_id, provider_order_id, reason)"
        " select attempt_id, provider, offer_id, 'x', 'test' from purchase_attempts where order_id = :order_id",
    ),
    "a refunded unit without a refund": (
        "unit_refund_differs",
        "update ledger_entries set esim_n = null where posting_key like 'refund:%'",
    ),
    "a unit that is delivered and paid back": (
        "unit_refund_differs",
        "update refunds set esim_n = 1 where order_id = :order_id",
    ),
    "a unit nobody works on": (
        "unit_left_behind",
        "update esims set status = 'unpaid' where order_id = :order_id and n = 3",
    ),
    "two purchases of one unit": (
        "bought_twice",
        "insert into purchase_attempts (esim_id, order_id, number, failover_step, provider, offer_id,"
        " provider_package_id, reference, fence, expected_cost, ceiling_cost, currency, state, started_at)"
        " select esim_id, order_id, 2, 1, 'esim_go', 'o', 'p', 'again', 1, 2, 3, 'USD', 'stocked', now()"
        " from purchase_attempts where order_id = :order_id",
    ),
    "a hole in the history": (
        "chain_broken",
        "delete from order_events where order_id = :order_id and esim_n = 1 and to_status = 'queued'",
    ),
    "a history that begins in the middle": (
        "chain_broken",
        "delete from order_events where order_id = :order_id and esim_n is null and to_status = 'paid'",
    ),
    "an order moved by hand": (
        "state_unexplained",
        "update orders set status = 'completed' where order_id = :order_id",
    ),
    "a unit moved by hand": ("unit_state_unexplained", f"update esims set status = 'attention' {UNIT}"),
}


def test_every_kind_of_broken_row_is_found(engine: Engine, order: UUID) -> None:
    for case, (kind, statement) in BROKEN.items():
        with engine.connect() as conn, conn.begin() as broken:
            conn.execute(text(statement), {"order_id": order} if ":order_id" in statement else {})
            found = [finding for finding in check_books(conn).findings if finding.kind == kind]
            broken.rollback()
        assert found, case
        assert all(finding.text and finding.subject for finding in found), case
        assert "customer@numnaroad.test" not in str(found), case
    assert {kind for kind, _ in BROKEN.values()} == {rule.kind for rule in RULES} | {"ledger_unbalanced"}


def settled_look(engine: Engine) -> BooksLook:
    """Look until the next look has nothing to take: a position is no newer than the server's oldest transaction."""
    until = monotonic() + 30
    while (first := look(engine)) and look(engine, first.position).orders:
        assert monotonic() < until, "another test's transaction goes on and on"
    return first


def test_the_next_look_takes_only_what_changed(engine: Engine, order: UUID) -> None:
    first = settled_look(engine)
    paid_order(engine)
    assert look(engine, first.position).orders == 1
    run(engine, "update esims set status = 'attention' where order_id = :order_id", order_id=order)
    second = look(engine, first.position)
    assert second.orders == 2
    assert {finding.order_id for finding in second.findings} == {order}


def test_a_change_that_was_not_committed_at_the_last_look_is_seen_by_the_next(engine: Engine, order: UUID) -> None:
    with engine.begin() as late:
        late.execute(text("update orders set status = 'completed' where order_id = :id"), {"id": order})
        first = look(engine)
        paid_order(engine)
    assert {finding.order_id for finding in look(engine, first.position).findings} == {order}


def test_one_order_can_be_looked_at_alone(engine: Engine, order: UUID) -> None:
    other = paid_order(engine)
    run(engine, "update orders set status = 'completed' where order_id = :id", id=other)
    with engine.begin() as conn:
        assert check_order(conn, order) == ()
        assert dict((name, micros) for name, micros, _ in account_totals(conn, order)) == dict(
            ledger.balance(conn, order)
        )
    with engine.begin() as conn:
        assert {finding.kind for finding in check_order(conn, other)} == {"state_unexplained"}


def test_yen_are_compared_without_decimals(engine: Engine) -> None:
    with engine.begin() as conn:
        order_id = place_order(conn, price_minor=700)
        conn.execute(text("update orders set currency = 'JPY'"))
        conn.execute(text("update order_items set currency = 'JPY', unit_price_micros_usd = 4500000"))
        payment = Payment(order_id, "pi_yen", "cs_yen", Money(700, "JPY"), "evt_yen")
        record_payment(conn, payment, Booking("test", NOW + timedelta(0), 70))
    assert kinds(engine) == set()
