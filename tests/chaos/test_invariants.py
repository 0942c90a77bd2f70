"""The rules of the campaign: each fires on exactly the fault it names, and an honest shop breaks none."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from chaos.invariants import RULES, WAITS, check
from chaos.sides import Sides
from tests.chaos.honest_shop import (
    FEE,
    MICROS,
    PAID,
    PRICE,
    UNPAID,
    another_attempt,
    charge,
    hash_of,
    honest,
    live,
    mail,
    of,
    pay_back,
    post,
    sell,
    spend,
)

Spoil = Callable[[Sides], None]


def pays(sides: Sides, intent: str, order_id: Any) -> None:
    """Have an order paid, and book it."""
    sides.charges.append(charge(order_id, intent, PRICE))
    post(sides, f"payment:{intent}", order_id, "cash", (PRICE - FEE) * MICROS, "customer_payment")


def worked_unpaid(sides: Sides) -> None:
    of(sides, UNPAID, 1)["status"] = "queued"
    live(sides, UNPAID, 1, "unpaid", "queued")


def paid_and_forgotten(sides: Sides) -> None:
    of(sides, UNPAID)["payment_intent"] = "pi_2"
    pays(sides, "pi_2", UNPAID)


def paid_and_given_up(sides: Sides) -> None:
    paid_and_forgotten(sides)
    of(sides, UNPAID, 1)["status"] = "failed"
    live(sides, UNPAID, 1, "unpaid", "queued", "failed")


def bought_twice(sides: Sides) -> None:
    sell(sides, 4, another_attempt(sides, 1, "pending"))


def delivered_and_refunded(sides: Sides) -> None:
    row: Any = sides.attempts[1]
    row["state"] = "provisioned"
    sides.stock.clear()


def sold_to_nobody(sides: Sides) -> None:
    sell(sides, 4, None)


def sold_though_refused(sides: Sides) -> None:
    sell(sides, 4, another_attempt(sides, 2, "rejected"))


def booked_unsold(sides: Sides) -> None:
    row: Any = sides.purchases[1]
    row["state"] = "cancelled"
    spend(sides, -2)


def charged_more(sides: Sides) -> None:
    row: Any = sides.purchases[1]
    row["cost"] = "2.5"
    spend(sides, 0.5)


def delivered_something_else(sides: Sides) -> None:
    of(sides, PAID, 1)["iccid_hash"] = hash_of("8999")


def given_to_two(sides: Sides) -> None:
    of(sides, PAID, 3)["iccid_hash"] = hash_of("8901")


def in_stock_by_iccid(sides: Sides) -> None:
    row: Any = sides.stock[0]
    row["iccid_hash"] = hash_of("8901")


def in_stock_by_order(sides: Sides) -> None:
    row: Any = sides.stock[0]
    row |= {"iccid_hash": None, "provider_order_id": "A-1"}


def refunded_twice(sides: Sides) -> None:
    pay_back(sides, 2, PRICE)


def refunded_too_much(sides: Sides) -> None:
    pay_back(sides, 2, 1)
    made: Any = sides.charges[0]["refunds"]
    made.pop()
    made[0]["amount_minor"] += 1


def refunded_though_delivered(sides: Sides) -> None:
    pay_back(sides, 1, PRICE)


def never_refunded(sides: Sides) -> None:
    pay_back(sides, 2, -PRICE)
    sides.charges[0]["refunds"].clear()


def refund_uncounted(sides: Sides) -> None:
    of(sides, PAID)["refunded_minor"] -= 1


def second_payment_kept(sides: Sides) -> None:
    pays(sides, "pi_3", PAID)


def unbalanced(sides: Sides) -> None:
    row: Any = next(entry for entry in sides.ledger if entry["account"] == "refunds")
    row["amount_micros"] += 1


def cash_made_up(sides: Sides) -> None:
    post(sides, "payment:made-up", PAID, "cash", MICROS, "customer_payment")


def cost_unbooked(sides: Sides) -> None:
    sides.ledger[:] = [entry for entry in sides.ledger if entry["posting_key"] != "cost:1"]


def balance_differs(sides: Sides) -> None:
    spend(sides, 1)


def step_missing(sides: Sides) -> None:
    sides.events.remove(next(one for one in sides.events if one["to_status"] == "working"))


def end_missing(sides: Sides) -> None:
    sides.events.remove(next(one for one in sides.events if one["to_status"] == "refunded"))


def order_end_missing(sides: Sides) -> None:
    sides.events.remove(next(one for one in sides.events if one["to_status"] == "completed"))


def notice_unsent(sides: Sides) -> None:
    row: Any = sides.outbox[-1]
    row["sent_at"] = None


def mail_sent_twice(sides: Sides) -> None:
    sides.mails.append(sides.mails[0])


def mail_lost(sides: Sides) -> None:
    sides.mails.pop()


def told_twice(sides: Sides) -> None:
    mail(sides, "order_confirmation", 1)


def told_both(sides: Sides) -> None:
    mail(sides, "order_failed_refunded", 1)


def not_told(sides: Sides) -> None:
    named: Any = sides.outbox[0]["payload"]["esims"]
    named.remove(3)


def queued_twice(sides: Sides) -> None:
    sides.outbox.append(sides.outbox[-1])


FAULTS: list[tuple[Spoil, str]] = [
    (worked_unpaid, "unpaid means untouched"),
    (paid_and_given_up, "every paid unit ends once"),
    (paid_and_forgotten, "every paid unit ends once"),
    (bought_twice, "no unit is bought twice"),
    (delivered_and_refunded, "never delivered and refunded"),
    (sold_to_nobody, "nothing is sold unseen"),
    (sold_though_refused, "nothing is sold unseen"),
    (booked_unsold, "what is booked was sold"),
    (charged_more, "booked at what it cost"),
    (delivered_something_else, "delivered is what was sold"),
    (given_to_two, "no eSIM has two owners"),
    (in_stock_by_iccid, "stock is nobody's"),
    (in_stock_by_order, "stock is nobody's"),
    (refunded_twice, "refunded once with the right amount"),
    (refunded_too_much, "refunded once with the right amount"),
    (refunded_though_delivered, "refunded once with the right amount"),
    (never_refunded, "refunded once with the right amount"),
    (refund_uncounted, "refunds agree with Stripe"),
    (second_payment_kept, "a second payment goes back"),
    (unbalanced, "the ledger sums to zero"),
    (cash_made_up, "cash is what Stripe has"),
    (cost_unbooked, "costs are booked"),
    (balance_differs, "balances agree"),
    (step_missing, "events explain every state"),
    (end_missing, "events explain every state"),
    (order_end_missing, "events explain every state"),
    (notice_unsent, "every notice is sent"),
    (mail_sent_twice, "nobody is told twice"),
    (mail_lost, "nobody is told twice"),
    (queued_twice, "nobody is told twice"),
    (told_twice, "told what is true, once"),
    (told_both, "told what is true, once"),
    (not_told, "told what is true, once"),
]


def test_an_honest_shop_breaks_no_rule() -> None:
    violations, waiting = check(honest())
    assert violations == []
    assert not waiting


@pytest.mark.parametrize(("spoil", "rule"), FAULTS, ids=[spoil.__name__ for spoil, _ in FAULTS])
def test_a_fault_breaks_the_rule_that_names_it_and_no_other(spoil: Spoil, rule: str) -> None:
    sides = honest()
    spoil(sides)
    assert {violation.rule for violation in check(sides)[0]} == {rule}


@pytest.mark.parametrize("rule", RULES, ids=[rule.__name__ for rule in RULES])
def test_every_rule_is_broken_by_a_fault(rule: Callable[[Sides], Any]) -> None:
    spoilt = [honest() for _ in FAULTS]
    for sides, (spoil, _) in zip(spoilt, FAULTS, strict=True):
        spoil(sides)
    assert any(list(rule(sides)) for sides in spoilt)


def test_a_closed_purchase_that_operations_were_told_of_is_not_unseen() -> None:
    sides = honest()
    sold_to_nobody(sides)
    sides.attempts.append(another_attempt(sides, 2, "rejected"))
    sides.outbox.append({**sides.outbox[-1], "key": "slack:late_doubt:9", "kind": "late_doubt"})
    assert check(sides)[0] == []


def test_a_cost_that_no_look_up_tells_is_booked_as_expected() -> None:
    sides = honest()
    charged_more(sides)
    row: Any = sides.attempts[1]
    row["error_type"] = "network_error"
    assert row["expected_cost"] == Decimal(2)
    assert check(sides)[0] == []


@pytest.mark.parametrize(("why", "words"), WAITS)
@pytest.mark.parametrize("column", ["hold_reason", "attention_reason"])
def test_a_unit_waits_for_a_person_only_for_a_reason_that_has_a_name(why: str, words: str, column: str) -> None:
    sides = honest()
    paid_and_given_up(sides)
    of(sides, UNPAID)[column] = f"order 2 {words} today"
    violations, waiting = check(sides)
    assert violations == []
    assert waiting == {why: 1}
    of(sides, UNPAID)[column] = "it felt odd"
    assert {violation.rule for violation in check(sides)[0]} == {"every paid unit ends once"}


def test_of_a_held_order_the_customer_need_not_have_been_told_of_refunds() -> None:
    sides = honest()
    sides.outbox.pop(1)
    sides.mails.pop()
    assert {violation.rule for violation in check(sides)[0]} == {"told what is true, once"}
    of(sides, PAID)["hold_reason"] = "the customer opened a dispute"
    assert check(sides)[0] == []
