"""What the queue says to type of held and undecided orders and of failed refunds is taken, and pays nobody twice."""

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from esim.errors import PaymentRejected
from esim.money import Money
from esim.orders import UnitStatus
from esim.purchase import ErrorType
from pipelines.aftermath import pay_refunds
from resources.db.attention import Item, attention, items_of_order
from resources.db.operator_actions import Done
from resources.db.operator_refunds import RefundOptions
from resources.db.operator_retry import RetryOptions
from resources.db.payments import Booking, Payment, record_payment
from resources.db.refund_events import refunded_in_all
from resources.db.refunds import request_refund
from resources.db.tellers import Teller
from resources.db.transitions import hold_order, lock_order, lock_units, move_unit
from resources.operator_desk import OperatorDesk
from tests.cli.typed import parsed
from tests.pipelines.actors import rejects
from tests.pipelines.conftest import Shop
from tests.pipelines.operating import Counter
from tests.resources.db.shop import order_state, paid_order, place_order, unit_states


def queue(shop: Shop) -> list[Item]:
    with shop.engine.connect() as conn:
        return attention(conn, shop.clock.now)


def typed(shop: Shop, line: str, *, preview: bool = True) -> Done:
    """Do what a printed command does when it is typed as it stands."""
    name, given = parsed(line)
    desk, who = OperatorDesk(shop.tools, preview=preview), Counter(shop).who()
    order_id, units = desk.order_id(given["reference"]), tuple(given.get("unit") or ())
    if name == "order show":
        return Done(line, ("shown",))
    if name == "order retry":
        return desk.retry(
            order_id, who, RetryOptions(units, given["extend_deadline"], given["release_hold"], given["goodwill"])
        )
    assert name == "order refund", line
    assert bool(units) != given["every"]
    options = RefundOptions(units, given["even_if_open"], given["release_hold"], given["again"])
    return (
        desk.paid_elsewhere(order_id, who, options) if given["paid_elsewhere"] else desk.refund(order_id, who, options)
    )


def only(shop: Shop) -> Item:
    """Return the one thing that waits; every command of it must be taken."""
    [item] = queue(shop)
    for line in item.commands:
        assert typed(shop, line).changes, line
    return item


def pay_back_by_hand(shop: Shop, order_id: UUID, minor: int = 499) -> None:
    with shop.engine.begin() as conn:
        intent = lock_order(conn, order_id).payment_intent
        assert intent is not None
        refunded_in_all(conn, order_id, intent, Money(minor, "USD"), Teller("stripe", shop.clock.now))


def hold(shop: Shop, order_id: UUID, reason: str = "somebody must look") -> None:
    with shop.engine.begin() as conn:
        hold_order(conn, lock_order(conn, order_id), reason=reason, actor="test", now=shop.clock.now)


def fail_refund_of_delivered(shop: Shop, order_id: UUID, n: int) -> None:
    shop.gateway.failures.append(PaymentRejected("charge too old"))
    Counter(shop).once(lambda desk, who: desk.refund(order_id, who, RefundOptions((n,))))
    pay_refunds(shop.tools, "test")


def test_an_order_paid_back_by_hand_is_written_down_or_delivered_not_paid_again(shop: Shop) -> None:
    order_id = paid_order(shop.engine)
    pay_back_by_hand(shop, order_id)
    item = only(shop)
    assert item.kind == "held"
    assert [parsed(line)[1].get("paid_elsewhere") for line in item.commands] == [None, True, None]
    typed(shop, item.commands[1], preview=False)
    assert (order_state(shop.engine, order_id), queue(shop)) == ("refunded", [])


@pytest.mark.parametrize("minutes", [0, 90])
def test_an_amount_that_does_not_fit_is_accepted_or_paid_back_in_stripe(shop: Shop, minutes: int) -> None:
    with shop.engine.begin() as conn:
        order_id = place_order(conn)
        payment = Payment(order_id, "pi_odd", "cs_1", Money(900, "USD"), "evt_1")
        record_payment(conn, payment, Booking("stripe", shop.clock.now, 70))
    shop.clock.advance(minutes=minutes)
    item = only(shop)
    assert item.kind == "undecided"
    assert "pay it back in Stripe" in item.reason
    assert all(given.get("paid_elsewhere", True) for given in (parsed(line)[1] for line in item.commands))


def test_a_second_payment_whose_refund_failed_waits_once_and_nothing_else_is_paid_back(shop: Shop) -> None:
    order_id = paid_order(shop.engine)
    shop.drain()
    shop.gateway.failures.append(PaymentRejected("no such charge"))
    with shop.engine.begin() as conn:
        second = {"key": "second:pi_2", "order_id": order_id, "payment_intent": "pi_2", "amount": Money(499, "USD")}
        request_refund(conn, **second, reason="second", esim_n=None)  # type: ignore[arg-type]  # one dict, many types
    pay_refunds(shop.tools, "test")
    item = only(shop)
    assert item.kind == "refund_failed"
    assert not any("refund" in line for line in item.commands)
    typed(shop, item.commands[1], preview=False)
    assert (order_state(shop.engine, order_id), shop.gateway.paid) == ("completed", {})
    assert [line.split()[2] for line in only(shop).commands] == ["show"], "it is not paid back yet"


def test_only_what_is_not_delivered_of_a_held_order_is_offered_to_be_paid_back(shop: Shop) -> None:
    order_id = paid_order(shop.engine, units=2)
    with shop.engine.begin() as conn:
        unit = lock_units(conn, order_id)[0]
        for step in (UnitStatus.WORKING, UnitStatus.DELIVERED):
            move_unit(conn, unit, step, reason="test", actor="test", now=shop.clock.now)
    hold(shop, order_id)
    item = only(shop)
    refunds = [given for name, given in map(parsed, item.commands) if name == "order refund"]
    assert [(given["every"], given["unit"]) for given in refunds] == [(False, [2])]


def test_a_held_order_past_its_deadline_is_tried_again_with_a_new_one(shop: Shop) -> None:
    hold(shop, paid_order(shop.engine))
    shop.clock.advance(minutes=71)
    assert "--extend-deadline 60" in only(shop).commands[1]


def test_a_failed_refund_of_a_delivered_esim_waits_also_when_the_hold_is_off(shop: Shop) -> None:
    order_id = paid_order(shop.engine, units=2)
    shop.drain()
    fail_refund_of_delivered(shop, order_id, 2)
    item = only(shop)
    assert (item.kind, item.reason) == ("refund_failed", "its refund failed: charge too old")
    name = item.subject.removeprefix("order ").removesuffix(", eSIM 2")
    assert item.commands == (
        f'numnaroad order refund {name} --unit 2 --again --release-hold --reason "…"',
        f'numnaroad order refund {name} --unit 2 --paid-elsewhere --release-hold --reason "…"',
    )
    Counter(shop).once(lambda desk, who: desk.retry(order_id, who, RetryOptions(release_hold=True)))
    assert order_state(shop.engine, order_id) == "completed"
    item = only(shop)
    assert (item.kind, item.commands[0]) == (
        "refund_failed",
        f'numnaroad order refund {name} --unit 2 --again --reason "…"',
    )
    typed(shop, item.commands[0], preview=False)
    assert queue(shop) == []


def test_a_failed_refund_of_a_unit_that_was_delivered_after_all_needs_nobody(shop: Shop) -> None:
    for provider in (shop.cheap, shop.dear):
        provider.script.append(rejects(ErrorType.INVALID_PRODUCT))
    shop.gateway.failures.append(PaymentRejected("charge too old"))
    order_id = paid_order(shop.engine)
    shop.drain()
    assert only(shop).kind == "refund_failed"
    Counter(shop).once(lambda desk, who: desk.retry(order_id, who, RetryOptions(release_hold=True)))
    shop.drain()
    assert (unit_states(shop.engine, order_id), queue(shop)) == (["delivered"], [])


def test_a_given_up_unit_whose_payment_went_back_by_hand_is_written_down(shop: Shop) -> None:
    for provider in (shop.cheap, shop.dear):
        provider.script.append(rejects(ErrorType.INVALID_PRODUCT))
    order_id = paid_order(shop.engine)
    shop.drain(tools=shop.tools_with(enable_auto_refund=False))
    pay_back_by_hand(shop, order_id)
    for item in queue(shop):
        for line in item.commands:
            assert typed(shop, line).changes, line


def test_what_the_machine_does_at_the_deadline_by_itself_is_left_to_it_for_a_few_minutes(shop: Shop) -> None:
    paid_order(shop.engine)
    shop.clock.advance(minutes=72)
    assert [item.kind for item in queue(shop)] == ["stuck"], "paid long ago"
    with shop.engine.begin() as conn:
        conn.execute(text("update orders set paid_at = :at"), {"at": shop.clock.now})
        conn.execute(text("update esims set next_attempt_at = :at"), {"at": shop.clock.now + timedelta(hours=1)})
        conn.execute(text("update orders set status = 'processing'"))
    assert queue(shop) == []
    shop.clock.advance(minutes=4)
    assert [item.kind for item in queue(shop)] == ["stuck"]


def test_an_order_shows_what_waits_of_it_as_a_whole(shop: Shop) -> None:
    first, second = (paid_order(shop.engine, now=shop.clock.now - timedelta(hours=age)) for age in (3, 2))
    with shop.engine.begin() as conn:
        late = "insert into refunds (refund_key, order_id, payment_intent, amount_minor, currency, reason, attempts)"
        conn.execute(text(f"{late} values ('second:x', :id, 'pi_x', 1, 'USD', 'second', 7)"), {"id": first})
        mail = "insert into outbox (key, channel, kind, order_id, attempts) values ('n', 'mail', 'x', :id, 12)"
        conn.execute(text(mail), {"id": first})
    with shop.engine.connect() as conn:
        shown = items_of_order(conn, first, shop.clock.now)
        assert {"refund_late", "mail_refused"} <= {item.kind for item in shown}
        assert {item.order_id for item in shown} == {first}
        assert shown == [item for item in attention(conn, shop.clock.now) if item.order_id == first]
        assert {item.order_id for item in items_of_order(conn, second, shop.clock.now)} == {second}
