"""Releasing a hold asks where the money is: nothing is delivered for money that a bank or the customer has."""

import re
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest

from esim.errors import PaymentRejected
from esim.money import Money
from esim.purchase import ErrorType
from pipelines.aftermath import pay_refunds
from pipelines.hand_over import send_notices
from resources.db import hold_reasons
from resources.db.attention import Item, attention
from resources.db.operator_refunds import RefundOptions
from resources.db.operator_retry import RetryOptions
from resources.db.payments import Booking, Payment, record_payment
from resources.db.refund_events import refunded_in_all
from resources.db.tellers import Teller
from resources.db.transitions import hold_order, lock_order
from resources.operator_desk import OperatorDesk
from tests.cli.typed import parse
from tests.pipelines.actors import rejects
from tests.pipelines.conftest import Shop
from tests.pipelines.operating import Action, Counter
from tests.pipelines.test_disputes import AT, bought, dispute, event, lost, opened, told, won
from tests.resources.db.shop import order_state, place_order, unit_states

Rows = Callable[[str], list[dict[str, object]]]
PAID_BACK = "4.99 USD was refunded at the payment service by hand, all of it"
DISPUTED = "the customer's bank opened a dispute"
INQUIRY = event("created", dispute("warning_needs_response"))
INQUIRY_CLOSED = event("closed", dispute("warning_closed"), AT + timedelta(days=1))


@pytest.fixture
def counter(shop: Shop) -> Counter:
    return Counter(shop)


def retry(order_id: UUID, *units: int, goodwill: bool = False, extend: int | None = 60) -> Action:
    options = RetryOptions(units, extend, release_hold=True, goodwill=goodwill)
    return lambda desk, who: desk.retry(order_id, who, options)


def elsewhere(order_id: UUID, *units: int) -> Action:
    return lambda desk, who: desk.paid_elsewhere(order_id, who, RefundOptions(units, release_hold=True))


def hold(shop: Shop, order_id: UUID, reason: str) -> bool:
    with shop.engine.begin() as conn:
        return hold_order(conn, lock_order(conn, order_id), reason=reason, actor="test", now=shop.clock.now)


def back_by_hand(shop: Shop, order_id: UUID, total: int) -> None:
    with shop.engine.begin() as conn:
        refunded_in_all(conn, order_id, "pi_1", Money(total, "USD"), Teller("stripe", shop.clock.now))


def odd_payment(shop: Shop, minor: int) -> UUID:
    with shop.engine.begin() as conn:
        order_id = place_order(conn, now=AT)
        record_payment(conn, Payment(order_id, "pi_1", "cs_1", Money(minor, "USD"), "evt_1"), Booking("stripe", AT, 70))
    return order_id


def queue(shop: Shop) -> list[Item]:
    with shop.engine.connect() as conn:
        items = attention(conn, shop.clock.now)
    for line in (line for item in items for line in item.commands):
        parse(line)
    return items


def suggested(shop: Shop) -> set[str]:
    """What the attention queue says to type, without order and reason."""
    return {
        re.sub(r"(numnaroad order (show )?|OID\w+ ?| --reason .*)", "", line).strip()
        for item in queue(shop)
        for line in item.commands
    } - {""}


def last_slack(shop: Shop) -> str:
    send_notices(shop.tools)
    return shop.notifier.posted[-1][1]


def test_order_paid_back_by_hand_during_an_inquiry_is_not_delivered_as_well(
    shop: Shop, counter: Counter, rows: Rows
) -> None:
    order_id = bought(shop.engine)
    told(shop.engine, INQUIRY)
    back_by_hand(shop, order_id, 499)
    assert rows("select hold_reason, attention_reason from orders") == [
        {"hold_reason": f"{DISPUTED}; {PAID_BACK}", "attention_reason": f"{DISPUTED}; {PAID_BACK}"}
    ]
    assert last_slack(shop).endswith(f"Nothing more is bought for it; it is held for: {DISPUTED}; {PAID_BACK}.")
    told(shop.engine, INQUIRY_CLOSED)
    assert "Release the order" not in last_slack(shop)
    assert "All of its payment went back to the customer" in last_slack(shop)
    paid = "refund --all --paid-elsewhere --release-hold"
    assert suggested(shop) == {paid, "retry --release-hold --goodwill"}
    counter.refused(retry(order_id), "all of its payment went back .4.99 USD.*--paid-elsewhere.*--goodwill")
    counter.do(elsewhere(order_id))
    shop.drain()
    assert (shop.sold, unit_states(shop.engine, order_id), queue(shop)) == (0, ["refunded"], [])


def test_what_was_paid_back_is_delivered_as_a_gift_where_that_is_said(shop: Shop, counter: Counter, rows: Rows) -> None:
    order_id = bought(shop.engine)
    back_by_hand(shop, order_id, 499)
    done = counter.do(retry(order_id, goodwill=True))
    assert "goodwill: all of its payment went back (4.99 USD)" in done.changes
    [audited] = rows("select details from audit_events")
    assert audited["details"]["goodwill"] is True  # type: ignore[index]
    assert rows("select 1 from order_events where reason like 'goodwill: all of its payment%'") != []
    shop.drain()
    assert order_state(shop.engine, order_id) == "completed"


def test_dispute_that_comes_while_the_order_is_held_for_something_else_stops_the_release(
    shop: Shop, counter: Counter, rows: Rows
) -> None:
    order_id = bought(shop.engine)
    with shop.engine.begin() as conn:
        second = Payment(order_id, "pi_2", "cs_2", Money(499, "USD"), "evt_2")
        record_payment(conn, second, Booking("stripe", AT, 70))
    shop.gateway.failures.append(PaymentRejected("no such charge"))
    pay_refunds(shop.tools, "test")
    told(shop.engine, opened())
    refused = "refund second:pi_2 was refused by the payment service"
    assert rows("select hold_reason from orders") == [{"hold_reason": f"{refused}; {DISPUTED}"}]
    assert suggested(shop) == set()
    counter.refused(retry(order_id), r"the bank has the payment for dispute du_1 \(needs_response\).*--goodwill")
    told(shop.engine, won())
    assert last_slack(shop).endswith(f"It is held for more: {refused}. Release it when that is settled too.")
    assert {item.kind for item in queue(shop)} == {"dispute", "refund_failed"}
    counter.do(retry(order_id))
    shop.drain()
    assert order_state(shop.engine, order_id) == "completed"


def test_lost_dispute_stops_a_release_until_it_is_written_down(shop: Shop, counter: Counter) -> None:
    order_id = bought(shop.engine, units=2)
    told(shop.engine, opened(), lost())
    counter.refused(retry(order_id), "the customer has the money by the lost dispute du_1.*--paid-elsewhere")
    counter.do(elsewhere(order_id, 1))
    counter.do(retry(order_id, 2))
    shop.drain()
    assert unit_states(shop.engine, order_id) == ["refunded", "delivered"]


def test_lost_dispute_whose_money_is_not_booked_yet_stops_a_release_too(shop: Shop, counter: Counter) -> None:
    order_id = bought(shop.engine)
    told(shop.engine, event("closed", dispute("lost")))
    counter.refused(retry(order_id), "by the lost dispute du_1")


def test_one_dispute_won_is_no_release_while_another_stands(shop: Shop, counter: Counter) -> None:
    order_id = bought(shop.engine)
    told(shop.engine, opened("du_2", 200), opened("du_1"), won())
    assert last_slack(shop).endswith("Another dispute of its payment stands: leave the order held.")
    assert suggested(shop) == set()
    counter.refused(retry(order_id), "for dispute du_2")


def test_dispute_that_is_won_releases_the_order_as_before(shop: Shop, counter: Counter) -> None:
    order_id = bought(shop.engine)
    told(shop.engine, opened(), won())
    assert last_slack(shop).endswith("Release the order.")
    assert suggested(shop) == {"retry --release-hold"}
    counter.do(retry(order_id))


def test_hold_of_a_delivered_order_is_released_whoever_has_its_money(shop: Shop, counter: Counter) -> None:
    order_id = bought(shop.engine)
    shop.drain()
    told(shop.engine, opened())
    assert len(counter.once(retry(order_id, extend=None)).changes) == 1
    assert order_state(shop.engine, order_id) == "completed"


def test_goodwill_that_delivers_to_a_disputing_customer_is_written_down(
    shop: Shop, counter: Counter, rows: Rows
) -> None:
    order_id = bought(shop.engine)
    told(shop.engine, opened())
    done = counter.do(retry(order_id, goodwill=True))
    assert "goodwill: the bank has the payment for dispute du_1 (needs_response)" in done.changes
    shop.drain()
    assert (shop.sold, len(rows("select * from audit_events"))) == (1, 1)


def test_price_of_one_esim_that_went_back_by_hand_is_written_down_first(shop: Shop, counter: Counter) -> None:
    order_id = bought(shop.engine, units=2)
    hold(shop, order_id, "looks like fraud")
    back_by_hand(shop, order_id, 499)
    counter.refused(retry(order_id), "4.99 USD went back by hand, enough for eSIM 1.*--unit N --paid-elsewhere")
    counter.do(elsewhere(order_id, 1))
    counter.do(retry(order_id, 2))
    shop.drain()
    assert unit_states(shop.engine, order_id) == ["refunded", "delivered"]


def test_small_sum_given_back_by_hand_stops_nothing(shop: Shop, counter: Counter) -> None:
    order_id = bought(shop.engine)
    hold(shop, order_id, "looks like fraud")
    back_by_hand(shop, order_id, 100)
    assert last_slack(shop).endswith("Nothing more is bought for it; it is held for: looks like fraud.")
    counter.do(retry(order_id))
    shop.drain()
    assert shop.sold == 1


def test_refund_of_another_unit_that_is_under_way_stops_nothing(shop: Shop, counter: Counter) -> None:
    order_id = bought(shop.engine, units=2)
    counter.once(lambda desk, who: desk.refund(order_id, who, RefundOptions((1,))))
    hold(shop, order_id, "looks like fraud")
    counter.do(retry(order_id, 2))


def test_too_much_that_went_back_leaves_the_price(shop: Shop, counter: Counter) -> None:
    order_id = odd_payment(shop, 1000)
    back_by_hand(shop, order_id, 501)
    retry(order_id)(OperatorDesk(shop.tools), counter.who())  # more went back than the order costs, which is no fault
    shop.drain()
    assert shop.sold == 1


def test_too_little_that_went_back_whole_leaves_nothing(shop: Shop, counter: Counter) -> None:
    order_id = odd_payment(shop, 400)
    back_by_hand(shop, order_id, 400)
    counter.refused(retry(order_id), "all of its payment went back .4.00 USD")
    assert "retry --release-hold --goodwill" in suggested(shop)


def test_given_up_unit_of_an_order_that_was_paid_back_is_suggested_to_be_written_down(shop: Shop) -> None:
    for provider in (shop.cheap, shop.dear):
        provider.script.append(rejects(ErrorType.INVALID_PRODUCT))
    order_id = bought(shop.engine)
    shop.drain(tools=shop.tools_with(enable_auto_refund=False))
    back_by_hand(shop, order_id, 499)
    [unit] = [item for item in queue(shop) if item.kind == "not_refunded"]
    assert ["--paid-elsewhere" in unit.commands[0], "--goodwill" in unit.commands[1]] == [True, True]
    assert order_state(shop.engine, order_id) == "attention"


def test_hold_keeps_every_reason_once_and_not_without_end(shop: Shop, rows: Rows) -> None:
    order_id = bought(shop.engine)
    assert [hold(shop, order_id, why) for why in ("one", "two", "one")] == [True, True, False]
    assert rows("select hold_reason, attention_reason from orders") == [
        {"hold_reason": "one; two", "attention_reason": "one; two"}
    ]
    assert rows("select from_status, to_status, reason from order_events order by event_id desc limit 1") == [
        {"from_status": "attention", "to_status": "attention", "reason": "two"}
    ]
    held = ""
    for n in range(200):
        held = hold_reasons.add(held or None, f"refund {n} was refused by the payment service")
    assert len(held) < 1_100
    assert held.endswith("; and more: see its history")
    assert hold_reasons.besides("one; two; three", "two") == "one; three"
