"""Refunds made by hand, heard of at once, late or never: the money is booked once, as it went, and paid once."""

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from uuid import UUID

import pytest
from sqlalchemy import text

from esim.errors import PaymentError, PaymentRejected, PaymentUnavailable
from esim.money import Money
from esim.ports import PaymentEvent, Refund
from esim.purchase import ErrorType
from pipelines.aftermath import pay_refunds, send_notices
from resources.db.attention import items_of_order
from resources.db.books import check_books
from resources.db.operator_refunds import RefundOptions
from resources.db.operator_retry import RetryOptions
from resources.db.payments import Booking
from resources.db.refund_events import refunded_in_all
from resources.db.tellers import Teller
from resources.payment_events import TakenEvent, take_event_asking
from tests.pipelines.actors import rejects
from tests.pipelines.conftest import Shop
from tests.pipelines.operating import Action, Counter
from tests.resources.db.shop import order_state, paid_order, unit_states

Rows = Callable[[str], list[dict[str, object]]]
PRICE = 499


@pytest.fixture
def counter(shop: Shop) -> Counter:
    return Counter(shop)


def elsewhere(order_id: UUID, *units: int, **options: bool) -> Action:
    return lambda desk, who: desk.paid_elsewhere(order_id, who, RefundOptions(units, **options))


def sold_out(shop: Shop, units: int) -> UUID:
    """An order whose eSIMs wait for their next try."""
    refuse(shop, units, ErrorType.OUT_OF_STOCK)
    order_id = paid_order(shop.engine, units=units)
    shop.drain()
    assert set(unit_states(shop.engine, order_id)) == {"queued"}
    return order_id


def refuse(shop: Shop, units: int, error: ErrorType = ErrorType.INVALID_PRODUCT) -> None:
    for provider in (shop.cheap, shop.dear):
        provider.script.extend([rejects(error)] * units)


def intent_of(order_id: UUID) -> str:
    return f"pi_{order_id.hex}"


def event(shop: Shop, kind: str, order_id: UUID, **raw: object) -> PaymentEvent:
    """An event of the payment service, all within the same second."""
    intent = intent_of(order_id)
    amount = Money(int(str(raw["amount"])), "USD") if "amount" in raw else None
    told = {"currency": "usd", "payment_intent": intent, **raw}
    name = f"evt_{kind}_{'_'.join(str(value) for value in raw.values())}"
    return PaymentEvent(name, kind, shop.clock.now, "", "", intent, amount, "", told)


def take(shop: Shop, what: PaymentEvent) -> TakenEvent:
    booking = Booking("stripe webhook", shop.clock.now, 70)
    return take_event_asking(shop.engine, shop.tools.gateway, what, booking)


def charge_refunded(shop: Shop, order_id: UUID, total: int) -> str:
    return take(shop, event(shop, "charge.refunded", order_id, amount_refunded=total)).handled


def refund_updated(shop: Shop, order_id: UUID, made: Refund, status: str) -> str:
    metadata = {"refund_key": made.key}
    raw = {"id": made.refund_id, "amount": made.amount.minor, "status": status, "metadata": metadata}
    return take(shop, event(shop, "refund.updated", order_id, **raw)).handled


def money(shop: Shop) -> dict[str, int]:
    """Each account in cents."""
    with shop.engine.connect() as conn:
        found = conn.execute(text("select account, sum(amount_micros)::bigint / 10000 from ledger_entries group by 1"))
        return {str(account): int(cents) for account, cents in found}


def disagreements(shop: Shop) -> list[str]:
    with shop.engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn, conn.begin():
        return [finding.kind for finding in check_books(conn).findings]


def refunded(rows: Rows) -> object:
    return rows("select refunded_minor from orders")[0]["refunded_minor"]


# --- written down before the event is heard of -----------------------------------------------------------------------


def test_a_refund_in_the_dashboard_is_booked_once_however_late_its_event(
    shop: Shop, counter: Counter, rows: Rows
) -> None:
    order_id = sold_out(shop, 1)
    shop.gateway.pays_by_hand(intent_of(order_id), PRICE)
    done = counter.do(elsewhere(order_id, 1))
    assert done.changes == (
        "4.99 USD was refunded at the payment service, of which nobody had told: booked now",
        "eSIM 1 counts as paid back, booked when it was paid",
    )
    assert charge_refunded(shop, order_id, PRICE) == "known already"
    assert (order_state(shop.engine, order_id), unit_states(shop.engine, order_id)) == ("refunded", ["refunded"])
    assert (money(shop)["refunds"], money(shop)["cash"], refunded(rows)) == (PRICE, 0, PRICE)
    assert [row["refund_key"] for row in rows("select refund_key from refunds")] == [
        f"external:{intent_of(order_id)}:{PRICE}"
    ]
    assert disagreements(shop) == []


def test_the_other_units_of_an_order_go_on_after_one_was_refunded_in_the_dashboard(
    shop: Shop, counter: Counter, rows: Rows
) -> None:
    order_id = sold_out(shop, 3)
    shop.gateway.pays_by_hand(intent_of(order_id), PRICE)
    counter.do(elsewhere(order_id, 1))
    charge_refunded(shop, order_id, PRICE)
    refuse(shop, 2)
    shop.clock.advance(minutes=31)
    shop.drain()
    assert pay_refunds(shop.tools, "test") == (0, 0)
    assert (unit_states(shop.engine, order_id), len(shop.gateway.paid)) == (["refunded"] * 3, 2)
    assert (money(shop)["refunds"], refunded(rows), order_state(shop.engine, order_id)) == (3 * PRICE, 1497, "refunded")
    assert disagreements(shop) == []


def test_nothing_is_written_down_while_the_payment_service_is_away(shop: Shop, counter: Counter) -> None:
    order_id = sold_out(shop, 1)
    shop.gateway.away = PaymentUnavailable("Stripe did not list the refunds; try again later")
    before = money(shop)
    with pytest.raises(PaymentError, match=r"must be known first, and nothing was changed.*try again later"):
        counter.once(elsewhere(order_id, 1))
    assert (unit_states(shop.engine, order_id), money(shop)) == (["queued"], before)


def test_a_transfer_stays_apart_from_what_was_refunded_before_and_after_it(
    shop: Shop, counter: Counter, rows: Rows
) -> None:
    order_id = sold_out(shop, 3)
    shop.gateway.pays_by_hand(intent_of(order_id), PRICE)
    charge_refunded(shop, order_id, PRICE)
    counter.do(elsewhere(order_id, 1))  # that one
    done = counter.do(elsewhere(order_id, 2))  # by bank
    assert done.changes == ("eSIM 2 counts as paid back, 4.99 USD of it booked now",)
    assert money(shop)["refunds"] == 2 * PRICE
    shop.gateway.pays_by_hand(intent_of(order_id), PRICE)
    counter.do(elsewhere(order_id, 3))
    assert charge_refunded(shop, order_id, 2 * PRICE) == "known already"
    assert (money(shop)["refunds"], refunded(rows), order_state(shop.engine, order_id)) == (3 * PRICE, 1497, "refunded")
    assert disagreements(shop) == []


def test_money_beyond_one_unit_is_kept_for_a_person_where_the_order_is_not_done(
    shop: Shop, counter: Counter, rows: Rows
) -> None:
    order_id = sold_out(shop, 2)
    shop.gateway.pays_by_hand(intent_of(order_id), 2 * PRICE)
    counter.once(elsewhere(order_id, 1))
    assert (order_state(shop.engine, order_id), unit_states(shop.engine, order_id)) == (
        "attention",
        ["refunded", "attention"],
    )
    assert "by hand, all of it" in str(rows("select hold_reason from orders"))
    assert disagreements(shop) == []
    counter.do(elsewhere(order_id, 2, release_hold=True))
    assert (order_state(shop.engine, order_id), money(shop)["refunds"]) == ("refunded", 2 * PRICE)


def test_money_that_is_really_paid_twice_is_booked_told_and_a_finding(shop: Shop, counter: Counter, rows: Rows) -> None:
    order_id = sold_out(shop, 1)
    counter.do(elsewhere(order_id, 1))
    shop.gateway.pays_by_hand(intent_of(order_id), PRICE)
    assert charge_refunded(shop, order_id, PRICE) == "refund by hand recorded"
    assert (money(shop)["refunds"], money(shop)["cash"], refunded(rows)) == (2 * PRICE, -PRICE, PRICE)
    assert disagreements(shop) == ["paid_back_over"]
    send_notices(shop.tools)
    assert any(
        "9.98 USD went back to the customer, of a payment of 4.99 USD" in note for _, note in shop.notifier.posted
    )


def test_a_refund_after_one_paid_another_way_holds_the_order(shop: Shop, counter: Counter, rows: Rows) -> None:
    order_id = sold_out(shop, 3)
    counter.do(elsewhere(order_id, 1))
    shop.gateway.pays_by_hand(intent_of(order_id), PRICE)
    charge_refunded(shop, order_id, PRICE)
    assert "after eSIM 1 was written down as paid another way" in str(rows("select hold_reason from orders"))
    counter.do(lambda desk, who: desk.retry(order_id, who, RetryOptions(release_hold=True, goodwill=True)))
    refuse(shop, 2)
    shop.drain()
    first, *others = unit_states(shop.engine, order_id)  # the first that fails holds the order again
    assert (first, set(others) <= {"failed", "attention"}, shop.gateway.calls) == ("refunded", True, 0)
    assert (refunded(rows), disagreements(shop)) == (2 * PRICE, [])


# --- what would pay twice, or never end -----------------------------------------------------------------------------


def test_what_the_payment_service_paid_is_booked_even_beyond_the_amount(
    shop: Shop, counter: Counter, rows: Rows
) -> None:
    order_id = paid_order(shop.engine, units=2)
    refuse(shop, 2)
    shop.gateway.failures.extend([PaymentUnavailable("away")] * 2)
    shop.drain()
    with shop.engine.begin() as conn:  # both were paid, and both answers lost; then somebody pays by hand as well
        for n in (1, 2):
            key = f"refund:{order_id}:{n}"
            shop.gateway.paid[key] = Refund(f"re_{n}", Money(PRICE, "USD"), "succeeded", intent_of(order_id), key)
        refunded_in_all(conn, order_id, intent_of(order_id), Money(3 * PRICE, "USD"), Teller("stripe", shop.clock.now))
    for n in (1, 2):
        refund_updated(shop, order_id, shop.gateway.paid[f"refund:{order_id}:{n}"], "succeeded")
    assert unit_states(shop.engine, order_id) == ["refunded", "refunded"]
    assert (money(shop)["refunds"], money(shop)["cash"], refunded(rows)) == (3 * PRICE, -PRICE, 2 * PRICE)
    assert disagreements(shop) == ["paid_back_over"]


def test_a_unit_whose_price_went_back_by_hand_is_left_to_a_person(shop: Shop, counter: Counter, rows: Rows) -> None:
    order_id = sold_out(shop, 2)
    shop.gateway.pays_by_hand(intent_of(order_id), PRICE)
    charge_refunded(shop, order_id, PRICE)
    refuse(shop, 1)
    shop.clock.advance(minutes=31)
    shop.drain()
    assert sorted(unit_states(shop.engine, order_id)) == ["delivered", "failed"]
    assert (shop.gateway.calls, order_state(shop.engine, order_id)) == (0, "attention")
    assert "may be paid back already: 4.99 USD went back by hand" in str(rows("select hold_reason from orders"))
    [n] = [int(str(row["n"])) for row in rows("select n from esims where status = 'failed'")]
    counter.do(lambda desk, who: desk.refund(order_id, who, RefundOptions((n,), again=True, release_hold=True)))
    assert pay_refunds(shop.tools, "test") == (1, 0)  # it was for the delivered one: an operator says so
    assert (refunded(rows), disagreements(shop)) == (2 * PRICE, [])


def test_the_machine_pays_no_more_than_is_left_of_the_payment(shop: Shop, rows: Rows) -> None:
    order_id = sold_out(shop, 2)
    shop.gateway.pays_by_hand(intent_of(order_id), 100)
    charge_refunded(shop, order_id, 100)
    refuse(shop, 2)
    shop.clock.advance(minutes=31)
    shop.drain()
    assert (sorted(unit_states(shop.engine, order_id)), shop.gateway.calls) == (["failed", "refunded"], 1)
    assert "only 3.99 USD of its payment is left" in str(rows("select hold_reason from orders"))
    assert disagreements(shop) == []


def test_a_refund_by_hand_that_was_taken_for_ours_is_heard_when_ours_is_refused(shop: Shop, rows: Rows) -> None:
    order_id = paid_order(shop.engine)
    refuse(shop, 1)
    shop.gateway.failures.append(PaymentUnavailable("away"))
    shop.drain()
    shop.gateway.pays_by_hand(intent_of(order_id), PRICE)
    assert charge_refunded(shop, order_id, PRICE) == "known already"  # ours is under way
    shop.gateway.failures.append(PaymentRejected("charge_already_refunded"))
    with shop.engine.begin() as conn:
        conn.execute(text("update refunds set next_attempt_at = now()"))
    assert pay_refunds(shop.tools, "test") == (0, 1)
    assert (money(shop)["refunds"], refunded(rows)) == (PRICE, PRICE)
    assert disagreements(shop) == []


def test_a_refund_that_was_made_after_all_is_written_down_as_what_it_is(
    shop: Shop, counter: Counter, rows: Rows
) -> None:
    order_id = paid_order(shop.engine)
    refuse(shop, 1)
    shop.gateway.failures.append(PaymentRejected("charge disputed"))
    shop.drain()
    key = f"refund:{order_id}:1"
    shop.gateway.paid[key] = Refund("re_late", Money(PRICE, "USD"), "succeeded", intent_of(order_id), key)
    counter.do(elsewhere(order_id, 1, release_hold=True))
    assert rows("select refund_key, state, stripe_refund_id from refunds") == [
        {"refund_key": key, "state": "succeeded", "stripe_refund_id": "re_late"}
    ]
    assert charge_refunded(shop, order_id, PRICE) == "known already"
    assert (order_state(shop.engine, order_id), money(shop)["refunds"]) == ("refunded", PRICE)
    assert disagreements(shop) == []


# --- a refund that failed, and old news of it -----------------------------------------------------------------------


@pytest.mark.parametrize("lost", [False, True], ids=["we know of it", "its answer was lost"])
@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_news_of_a_refund_that_failed_may_come_in_any_order(
    shop: Shop, counter: Counter, rows: Rows, order: tuple[int, ...], lost: bool
) -> None:
    order_id = paid_order(shop.engine)
    refuse(shop, 1)
    shop.gateway.status = "pending"
    if lost:
        shop.gateway.failures.append(PaymentUnavailable("away"))
    shop.drain()
    key = f"refund:{order_id}:1"
    made = Refund("re_1", Money(PRICE, "USD"), "pending", intent_of(order_id), key)
    shop.gateway.paid[key] = replace(made, status="failed")  # all is over when the first news arrives
    story = [
        lambda: charge_refunded(shop, order_id, PRICE),
        lambda: refund_updated(shop, order_id, made, "succeeded"),
        lambda: refund_updated(shop, order_id, made, "failed"),
    ]
    for place in order:
        story[place]()
    assert [row["state"] for row in rows("select state from refunds")] == ["failed"]
    assert (money(shop).get("refunds", 0), money(shop)["cash"], refunded(rows)) == (0, PRICE, 0)
    in_vain = unit_states(shop.engine, order_id) == ["refunded"]  # until it is made good, that is no lie to overlook
    assert disagreements(shop) == ["unit_refund_differs"] * in_vain
    shop.gateway.status = "succeeded"
    again = RefundOptions((1,), again=True, release_hold=True)
    counter.do(lambda desk, who: desk.refund(order_id, who, again))
    assert pay_refunds(shop.tools, "test") == (1, 0)
    assert charge_refunded(shop, order_id, PRICE) == "duplicate"
    assert (money(shop)["refunds"], refunded(rows)) == (PRICE, PRICE)
    assert disagreements(shop) == []


@pytest.mark.parametrize("by_hand", [False, True], ids=["by bank", "in the dashboard"])
def test_old_news_of_a_failed_refund_changes_nothing_after_it_was_made_good(
    shop: Shop, counter: Counter, rows: Rows, by_hand: bool
) -> None:
    order_id = paid_order(shop.engine)
    refuse(shop, 1)
    shop.drain()
    key = f"refund:{order_id}:1"
    made = shop.gateway.paid[key]
    shop.gateway.paid[key] = replace(made, status="failed")
    refund_updated(shop, order_id, made, "failed")
    if by_hand:
        shop.gateway.pays_by_hand(intent_of(order_id), PRICE)
    counter.do(elsewhere(order_id, 1))
    assert charge_refunded(shop, order_id, PRICE) == "known already"
    assert (money(shop)["refunds"], money(shop)["cash"], refunded(rows)) == (PRICE, 0, PRICE)
    assert unit_states(shop.engine, order_id) == ["refunded"]
    assert disagreements(shop) == []


def test_the_same_total_a_second_time_is_another_refund(shop: Shop, rows: Rows) -> None:
    order_id = paid_order(shop.engine, units=2)
    refuse(shop, 1)
    shop.drain()
    [(key, made)] = shop.gateway.paid.items()
    shop.gateway.pays_by_hand(intent_of(order_id), PRICE)
    charge_refunded(shop, order_id, 2 * PRICE)
    shop.gateway.paid[key] = replace(made, status="failed")
    refund_updated(shop, order_id, made, "failed")
    shop.gateway.pays_by_hand(intent_of(order_id), PRICE)
    again = replace(event(shop, "charge.refunded", order_id, amount_refunded=2 * PRICE), event_id="evt_again")
    assert take(shop, again).handled == "refunds compared, some were not known"
    assert (money(shop)["refunds"], refunded(rows), len(rows("select 1 from refunds"))) == (2 * PRICE, 998, 3)
    assert disagreements(shop) == []


def test_an_event_that_needs_an_answer_is_not_taken_while_there_is_none(shop: Shop, rows: Rows) -> None:
    order_id = paid_order(shop.engine)
    refuse(shop, 1)
    shop.drain()
    [(key, made)] = shop.gateway.paid.items()
    shop.gateway.paid[key] = replace(made, status="failed")
    refund_updated(shop, order_id, made, "failed")
    shop.gateway.away = PaymentUnavailable("away")
    with pytest.raises(PaymentUnavailable):
        charge_refunded(shop, order_id, PRICE)
    assert rows("select 1 from inbox_events where type = 'charge.refunded'") == []
    shop.gateway.away = None
    assert charge_refunded(shop, order_id, PRICE) == "known already"


# --- a refund by hand that failed -----------------------------------------------------------------------------------


def fails(shop: Shop, made: Refund) -> Refund:
    """Have a refund by hand fail at the payment service; nobody is told yet."""
    place = shop.gateway.by_hand.index(made)
    shop.gateway.by_hand[place] = replace(made, status="failed")
    return shop.gateway.by_hand[place]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_refund_by_hand_that_fails_leaves_nothing_in_the_books_in_whatever_order_it_is_told(
    shop: Shop, rows: Rows, order: tuple[int, ...]
) -> None:
    order_id = paid_order(shop.engine)
    shop.drain()
    made = shop.gateway.pays_by_hand(intent_of(order_id), PRICE)
    story = [
        lambda: charge_refunded(shop, order_id, PRICE),
        lambda: refund_updated(shop, order_id, made, "succeeded"),
        lambda: refund_updated(shop, order_id, fails(shop, made), "failed"),
    ]
    for place in order:
        story[place]()
    assert (money(shop).get("refunds", 0), money(shop)["cash"], refunded(rows)) == (0, PRICE, 0)
    assert unit_states(shop.engine, order_id) == ["delivered"]
    assert disagreements(shop) == []


def test_a_refund_by_hand_that_fails_is_told_to_operations_once(shop: Shop, rows: Rows) -> None:
    order_id = sold_out(shop, 1)
    made = shop.gateway.pays_by_hand(intent_of(order_id), PRICE)
    charge_refunded(shop, order_id, PRICE)
    failed = fails(shop, made)
    assert refund_updated(shop, order_id, failed, "failed") == "refunds compared, some were not known"
    assert refund_updated(shop, order_id, failed, "canceled") == "known already"
    [told] = rows("select payload->>'text' as text from outbox where key like 'slack:refund_failed:%'")
    assert "a refund of 4.99 USD by hand (re_hand_1) did not reach the customer" in str(told["text"])
    assert "did not reach the customer" in str(rows("select hold_reason from orders")[0]["hold_reason"])


def test_of_several_refunds_by_hand_only_the_one_that_failed_is_taken_back(shop: Shop, rows: Rows) -> None:
    order_id = paid_order(shop.engine, units=3)
    shop.drain()
    shop.gateway.pays_by_hand(intent_of(order_id), 100)
    lost = shop.gateway.pays_by_hand(intent_of(order_id), 200)
    charge_refunded(shop, order_id, 300)  # both of them are told of at once
    shop.gateway.pays_by_hand(intent_of(order_id), 50)
    charge_refunded(shop, order_id, 350)
    refund_updated(shop, order_id, fails(shop, lost), "failed")
    assert (money(shop)["refunds"], refunded(rows)) == (150, 150)
    assert charge_refunded(shop, order_id, 300) == "duplicate"
    assert disagreements(shop) == []


@pytest.mark.parametrize("by_bank", [True, False], ids=["by bank", "in the dashboard"])
def test_an_esim_whose_refund_by_hand_failed_waits_for_a_person_until_it_is_made_good(
    shop: Shop, counter: Counter, rows: Rows, by_bank: bool
) -> None:
    order_id = sold_out(shop, 2)
    made = shop.gateway.pays_by_hand(intent_of(order_id), 2 * PRICE)
    counter.do(elsewhere(order_id))
    assert (unit_states(shop.engine, order_id), disagreements(shop)) == (["refunded"] * 2, [])
    refund_updated(shop, order_id, fails(shop, made), "failed")
    assert disagreements(shop) == ["unit_refund_differs"] * 2
    with shop.engine.connect() as conn:
        items = items_of_order(conn, order_id, shop.clock.now)
    assert [(item.kind, "--paid-elsewhere" in item.commands[0]) for item in items] == [("refund_failed", True)] * 2
    if not by_bank:
        shop.gateway.pays_by_hand(intent_of(order_id), 2 * PRICE)
    done = counter.do(elsewhere(order_id))
    assert [("of it booked now" in change) for change in done.changes] == ([True] * 2 if by_bank else [False])
    assert (money(shop)["refunds"], refunded(rows), disagreements(shop)) == (2 * PRICE, 2 * PRICE, [])
    with shop.engine.connect() as conn:
        assert items_of_order(conn, order_id, shop.clock.now) == []
