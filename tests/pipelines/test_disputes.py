"""Disputes and their money: cash follows the bank, once, whatever the order of the news; nothing is paid back twice."""

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import permutations
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from esim.disputes import DisputeMovement
from esim.errors import PaymentRejected, Refused
from esim.money import Money
from esim.ports import PaymentEvent
from pipelines.prove_books import prove_books
from pipelines.reconcile_payments import reconcile_payments
from resources.db import ledger
from resources.db.attention import Item, attention
from resources.db.audit import Operator
from resources.db.books import check_books
from resources.db.findings import open_findings
from resources.db.operator_refunds import RefundOptions, refund_units
from resources.db.operator_retry import RetryOptions, retry_order
from resources.db.operator_settled import note_paid_elsewhere
from resources.db.payments import Booking, Payment, PaymentResult, record_payment
from resources.order_operations import OrderTools
from resources.payment_events import take_event, take_first_payments
from tests.cli.typed import parse
from tests.pipelines.conftest import Shop
from tests.pipelines.scripted_gateway import Account
from tests.resources.db.shop import NOW, place_order

Rows = Callable[[str], list[dict[str, object]]]
AT = NOW - timedelta(minutes=30)
BOOKING = Booking("stripe webhook", AT, 70)
MIA = Operator("mia", "looked at it", NOW)
CENT = 10_000  # micro-USD


def transaction(name: str, minor: int, fee: int = 0, currency: str = "usd") -> dict[str, Any]:
    moved = {"id": name, "amount": minor, "fee": fee, "currency": currency, "created": int(AT.timestamp())}
    return moved | {"reporting_category": "dispute" if minor < 0 else "dispute_reversal"}


WITHDRAWN = transaction("txn_out", -499, 1500)
REINSTATED = transaction("txn_back", 499)


def dispute(status: str, *moved: dict[str, Any], name: str = "du_1", intent: str = "pi_1", minor: int = 499) -> Any:
    told = {"id": name, "object": "dispute", "amount": minor, "currency": "usd", "payment_intent": intent}
    due = int((AT + timedelta(days=7)).timestamp())
    return {**told, "status": status, "balance_transactions": list(moved), "evidence_details": {"due_by": due}}


def event(kind: str, raw: Any, at: datetime = AT) -> PaymentEvent:
    event_id = f"evt_{kind}_{raw['id']}_{raw['status']}"
    amount = Money(raw["amount"], "USD")
    name = f"charge.dispute.{kind}"
    return PaymentEvent(event_id, name, at, "", "", raw["payment_intent"], amount, raw["status"], raw)


def opened(name: str = "du_1", minor: int = 499) -> PaymentEvent:
    taken = transaction(f"txn_out_{name}", -minor, 1500)
    return event("created", dispute("needs_response", taken, name=name, minor=minor))


def lost(name: str = "du_1", minor: int = 499) -> PaymentEvent:
    taken = transaction(f"txn_out_{name}", -minor, 1500)
    return event("closed", dispute("lost", taken, name=name, minor=minor), AT + timedelta(days=1))


def won() -> PaymentEvent:
    back = (transaction("txn_out_du_1", -499, 1500), REINSTATED)
    return event("closed", dispute("won", *back), AT + timedelta(days=1))


def told(engine: Engine, *events: PaymentEvent) -> list[str]:
    done = []
    for one in events:
        with engine.begin() as conn:
            done.append(take_event(conn, one, BOOKING).handled)
    return done


def bought(engine: Engine, units: int = 1) -> UUID:
    with engine.begin() as conn:
        order_id = place_order(conn, units=units, now=AT)
        record_payment(conn, Payment(order_id, "pi_1", "cs_1", Money(499 * units, "USD"), "evt_paid"), BOOKING)
    return order_id


def accounts(engine: Engine, order_id: UUID) -> dict[str, int]:
    """Every account's balance in cents; the books as a whole agree with themselves."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn, conn.begin():
        assert [finding.kind for finding in check_books(conn).findings] == []
    with engine.connect() as conn:
        return {name: micros // CENT for name, micros in ledger.balance(conn, order_id).items() if micros}


def queue(engine: Engine) -> list[Item]:
    with engine.connect() as conn:
        items = attention(conn, NOW)
    for line in (line for item in items for line in item.commands):
        parse(line)
    return items


def test_a_dispute_takes_its_amount_and_fee_from_cash_and_holds_the_order(shop: Shop) -> None:
    order_id = bought(shop.engine)
    assert told(shop.engine, opened()) == ["a person must look"]
    assert accounts(shop.engine, order_id) == {
        "cash": -1500,
        "customer_payment": -499,
        "disputes": 499,
        "payment_fees": 1500,
    }
    shop.drain()
    assert shop.sold == 0


def test_a_dispute_that_is_won_brings_the_amount_back_and_keeps_the_fee(shop: Shop, rows: Rows) -> None:
    order_id = bought(shop.engine)
    told(shop.engine, opened(), won())
    assert accounts(shop.engine, order_id) == {"cash": -1001, "customer_payment": -499, "payment_fees": 1500}
    [item] = queue(shop.engine)
    assert (item.kind, "the money is ours" in item.reason) == ("dispute", True)
    with shop.engine.begin() as conn:
        retry_order(conn, order_id, MIA, RetryOptions(extend_minutes=60, release_hold=True))
    assert queue(shop.engine) == []
    assert [row["kind"] for row in rows("select kind from outbox where channel = 'slack'")] == ["dispute", "dispute"]


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_news_of_a_dispute_may_come_in_any_order_and_twice(shop: Shop, order: tuple[int, ...]) -> None:
    order_id = bought(shop.engine)
    later = AT + timedelta(days=30)
    story = [
        event("created", dispute("needs_response")),
        event("funds_withdrawn", dispute("needs_response", WITHDRAWN)),
        event("funds_reinstated", dispute("won", WITHDRAWN, REINSTATED), later),
        event("closed", dispute("won", WITHDRAWN, REINSTATED), later),
    ]
    told(shop.engine, *(story[place] for place in order))
    told(shop.engine, *(story[place] for place in order))
    assert accounts(shop.engine, order_id) == {"cash": -1001, "customer_payment": -499, "payment_fees": 1500}


def test_old_news_after_the_end_does_not_hold_a_released_order(shop: Shop, rows: Rows) -> None:
    bought(shop.engine)
    told(shop.engine, won(), opened())
    assert rows("select status, hold_reason from orders") == [{"status": "paid", "hold_reason": None}]


def test_an_inquiry_that_grows_into_a_dispute_calls_a_person_again(shop: Shop, rows: Rows) -> None:
    order_id = bought(shop.engine)
    told(shop.engine, event("created", dispute("warning_needs_response")))
    with shop.engine.begin() as conn:
        retry_order(conn, order_id, MIA, RetryOptions(release_hold=True))
    grown = event("updated", dispute("needs_response", WITHDRAWN), AT + timedelta(days=1))
    assert told(shop.engine, grown) == ["a person must look"]
    assert rows("select status from orders") == [{"status": "attention"}]


def test_a_dispute_told_before_its_payment_is_taken_up_with_it(shop: Shop, rows: Rows) -> None:
    with shop.engine.begin() as conn:
        order_id = place_order(conn, now=AT)
    assert told(shop.engine, opened()) == ["no such order"]
    paid = PaymentEvent(
        "evt_paid", "checkout.session.completed", AT, str(order_id), "cs_1", "pi_1", Money(499, "USD"), "paid"
    )
    assert take_first_payments(shop.engine, [(paid, BOOKING)]) == [None]
    assert told(shop.engine, paid) == [PaymentResult.HELD]
    assert accounts(shop.engine, order_id)["cash"] == -1500
    shop.drain()
    assert shop.sold == 0


def test_a_lost_dispute_is_booked_as_the_refund_it_is(shop: Shop) -> None:
    order_id = bought(shop.engine, units=2)
    told(shop.engine, opened(minor=998), lost(minor=998))
    [item] = queue(shop.engine)
    assert item.kind == "dispute"
    assert "--paid-elsewhere" in item.commands[-1]
    with shop.engine.begin() as conn:
        note_paid_elsewhere(conn, order_id, MIA, RefundOptions(release_hold=True))
    assert accounts(shop.engine, order_id) == {
        "cash": -1500,
        "customer_payment": -998,
        "payment_fees": 1500,
        "refunds": 998,
    }
    assert queue(shop.engine) == []


def test_a_dispute_of_a_part_is_booked_with_the_rest_from_cash(shop: Shop) -> None:
    order_id = bought(shop.engine)
    told(shop.engine, opened(minor=200), lost(minor=200))
    with shop.engine.begin() as conn:
        note_paid_elsewhere(conn, order_id, MIA, RefundOptions(release_hold=True))
    assert accounts(shop.engine, order_id) == {
        "cash": -1500,
        "customer_payment": -499,
        "payment_fees": 1500,
        "refunds": 499,
    }


def test_a_dispute_after_a_refund_is_seen_and_when_lost_is_a_loss(shop: Shop, rows: Rows) -> None:
    order_id = bought(shop.engine)
    with shop.engine.begin() as conn:
        refund_units(conn, order_id, MIA, RefundOptions())
    shop.drain()
    assert rows("select status from orders") == [{"status": "refunded"}]
    told(shop.engine, opened())
    [item] = queue(shop.engine)
    assert "4.99 USD went back to the customer before, which the answer must say" in item.reason
    told(shop.engine, lost())
    assert queue(shop.engine) == []
    assert accounts(shop.engine, order_id) == {
        "cash": -1999,
        "customer_payment": -499,
        "payment_fees": 1500,
        "refunds": 499,
        "loss": 499,
    }


def test_nothing_is_paid_back_while_the_bank_has_the_money(shop: Shop) -> None:
    order_id = bought(shop.engine)
    told(shop.engine, opened())
    options = RefundOptions(release_hold=True)
    with shop.engine.begin() as conn, pytest.raises(Refused, match="pays nothing back until it is over"):
        refund_units(conn, order_id, MIA, options)
    with shop.engine.begin() as conn, pytest.raises(Refused, match="nobody knows yet who has the money"):
        note_paid_elsewhere(conn, order_id, MIA, options)
    told(shop.engine, lost())
    with shop.engine.begin() as conn, pytest.raises(Refused, match="by the lost dispute du_1; write that down"):
        refund_units(conn, order_id, MIA, options)
    assert shop.gateway.paid == {}


def test_a_refund_refused_for_a_dispute_is_told_of_with_the_dispute(shop: Shop, engine: Engine) -> None:
    order_id = bought(shop.engine)
    with shop.engine.begin() as conn:
        refund_units(conn, order_id, MIA, RefundOptions())
    shop.gateway.failures.append(PaymentRejected("charge_disputed"))
    shop.drain()
    told(shop.engine, opened())
    [item] = queue(engine)
    assert (item.kind, "the end of the dispute decides" in item.reason) == ("dispute", True)
    assert not any("--again" in line for line in item.commands)


def test_the_proof_compares_disputes_with_stripe(tools: OrderTools, account: Account, engine: Engine) -> None:
    order_id = bought(engine)
    account.pays(order_id, AT, intent="pi_1")
    moved = DisputeMovement("txn_out_du_1", "du_1", "pi_1", Money(-499, "USD"), Money(1500, "USD"), AT)
    account.movements.append(moved)

    def kinds() -> list[str]:
        tools.clock.advance(days=1)  # type: ignore[attr-defined]  # a clock set by hand
        prove_books(tools)
        with engine.connect() as conn:
            return [finding.kind for finding in open_findings(conn)]

    assert kinds() == ["dispute_unbooked"]
    told(engine, opened())
    account.movements.clear()
    assert kinds() == ["dispute_not_at_stripe"]
    account.movements.append(moved)
    assert kinds() == []


def test_the_proof_finds_a_fee_that_differs(tools: OrderTools, account: Account, engine: Engine) -> None:
    order_id = bought(engine)
    account.pays(order_id, AT, intent="pi_1")
    told(engine, opened())
    account.movements.append(DisputeMovement("txn_out_du_1", "du_1", "pi_1", Money(-499, "USD"), Money(0, "USD"), AT))
    prove_books(tools)
    with engine.connect() as conn:
        assert [finding.kind for finding in open_findings(conn)] == ["dispute_unbooked"]


def test_what_no_event_told_of_is_booked_by_the_reconciler(tools: OrderTools, account: Account, engine: Engine) -> None:
    order_id = bought(engine)
    told(engine, event("created", dispute("needs_response")))
    assert "disputes" not in accounts(engine, order_id)
    account.movements.append(DisputeMovement("txn_1", "du_1", "pi_1", Money(-499, "USD"), Money(1500, "USD"), AT))
    assert reconcile_payments(tools).mended == ["dispute du_1 moved -4.99 USD: booked"]
    assert accounts(engine, order_id)["disputes"] == 499
    assert reconcile_payments(tools).mended == []


def test_a_dispute_settled_in_another_currency_is_booked_as_it_was_paid(shop: Shop) -> None:
    order_id = bought(shop.engine)
    taken = transaction("txn_out", -450, 0, "eur")
    told(shop.engine, event("created", dispute("needs_response", taken)))
    assert accounts(shop.engine, order_id)["disputes"] == 499


def test_of_a_dispute_that_was_won_only_the_refund_that_was_refused_is_asked_for_again(shop: Shop) -> None:
    order_id = bought(shop.engine, units=2)
    with shop.engine.begin() as conn:
        refund_units(conn, order_id, MIA, RefundOptions((1,)))
    shop.gateway.failures.append(PaymentRejected("charge_disputed"))
    shop.drain()
    told(shop.engine, opened(), won())
    again = [line for item in queue(shop.engine) for line in item.commands if "--again" in line]
    assert [("--unit 1" in line, "--all" in line) for line in again] == [(True, False)]
