"""An operator pays units back: exactly their price, once, and nothing is bought after."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from esim.errors import PaymentRejected, Refused
from esim.money import Money
from esim.orders import UnitStatus
from esim.ports import Capabilities, Refund
from esim.purchase import Cancelled, CancelRefused, CancelUnknown, ErrorType, Outcome, PurchaseRequest
from pipelines.aftermath import pay_refunds, send_notices
from resources.db.operator_refunds import RefundOptions, refund_units
from resources.db.operator_resolve import Doubt
from resources.db.order_store import claim_units
from resources.db.payments import Booking, Payment, record_payment
from resources.db.refund_events import refund_told, refunded_in_all
from resources.db.refunds import request_unit_refund
from resources.db.stuck import refund_failed_units
from resources.db.tellers import Teller
from resources.db.transitions import hold_order, lock_order, lock_units, move_unit
from tests.pipelines.actors import ScriptedProvider, never_hears, rejects, sells_without_answer, wait_until
from tests.pipelines.conftest import Shop
from tests.pipelines.operating import Action, Counter
from tests.resources.db.shop import order_state, paid_order, place_order, unit_states

Rows = Callable[[str], list[dict[str, object]]]
TAKES_BACK = Capabilities(reference_lookup=True, settle_seconds=0.0, cancel=True)


@pytest.fixture
def counter(shop: Shop) -> Counter:
    return Counter(shop)


def refund(order_id: UUID, *units: int, cancel: bool = False, **options: bool) -> Action:
    return lambda desk, who: desk.refund(order_id, who, RefundOptions(units, **options), cancel_esim=cancel)


def elsewhere(order_id: UUID, *units: int, **options: bool) -> Action:
    return lambda desk, who: desk.paid_elsewhere(order_id, who, RefundOptions(units, **options))


def delivered(shop: Shop, units: int = 1) -> UUID:
    order_id = paid_order(shop.engine, units=units)
    shop.drain()
    assert set(unit_states(shop.engine, order_id)) == {"delivered"}
    return order_id


def refused_at_stripe(shop: Shop, units: int = 1) -> UUID:
    """A given-up order whose refund Stripe refused for good: held."""
    for provider in (shop.cheap, shop.dear):
        provider.script.extend([rejects(ErrorType.INVALID_PRODUCT)] * units)
    shop.gateway.failures.extend([PaymentRejected("charge disputed")] * units)
    order_id = paid_order(shop.engine, units=units)
    shop.drain()
    assert order_state(shop.engine, order_id) == "attention"
    return order_id


def balance(rows: Rows) -> dict[str, int]:
    found = rows("select account, sum(amount_micros)::bigint as micros from ledger_entries group by account")
    return {str(row["account"]): int(str(row["micros"])) for row in found}


def test_queued_unit_is_given_up_and_never_bought_after(shop: Shop, counter: Counter, rows: Rows) -> None:
    order_id = paid_order(shop.engine, units=2)
    done = counter.do(refund(order_id, 1))
    assert done.changes == ("4.99 USD for eSIM 1 goes back to the customer",)
    assert unit_states(shop.engine, order_id) == ["failed", "queued"]
    pay_refunds(shop.tools, "test")  # a drain skips an order that is being changed
    shop.drain()
    assert (shop.sold, unit_states(shop.engine, order_id)) == (1, ["refunded", "delivered"])
    assert (order_state(shop.engine, order_id), len(shop.gateway.paid)) == ("completed", 1)
    assert rows("select refunded_minor, payment_status from orders") == [
        {"refunded_minor": 499, "payment_status": "partially_refunded"}
    ]
    [row] = rows("select reason, asked_by, as_it_stands from refunds")
    assert row == {"reason": "an operator asked for it", "asked_by": "operator:mia", "as_it_stands": False}


def test_delivered_unit_is_paid_back_because_an_operator_asked(shop: Shop, counter: Counter, rows: Rows) -> None:
    order_id = delivered(shop)
    counter.do(refund(order_id))
    assert unit_states(shop.engine, order_id) == ["delivered"]
    assert pay_refunds(shop.tools, "test") == (1, 0)
    assert (order_state(shop.engine, order_id), unit_states(shop.engine, order_id)) == ("refunded", ["refunded"])
    assert counter.once(refund(order_id)).changes == ()
    send_notices(shop.tools)
    mail = shop.mailer.sent[-1][1]
    assert "could not deliver" not in mail.text + mail.html
    assert "4.99 USD" in mail.text
    assert balance(rows)["refunds"] == 4_990_000


def test_machines_request_never_pays_a_delivered_unit_back(shop: Shop, rows: Rows) -> None:
    order_id = delivered(shop)
    with shop.engine.begin() as conn:
        order = lock_order(conn, order_id)
        [unit] = lock_units(conn, order_id)
        request_unit_refund(conn, order, unit, "the eSIM could not be delivered")
    assert pay_refunds(shop.tools, "test") == (0, 1)
    assert rows("select state from refunds") == [{"state": "called_off"}]
    assert (shop.gateway.calls, unit_states(shop.engine, order_id)) == (0, ["delivered"])


def test_refund_of_a_given_up_unit_that_was_delivered_after_all_is_paid_only_when_asked_for_anew(
    shop: Shop, counter: Counter, rows: Rows
) -> None:
    order_id = paid_order(shop.engine)
    counter.once(refund(order_id))
    with shop.engine.begin() as conn:  # somebody takes the unit up again
        [unit] = lock_units(conn, order_id)
        move_unit(conn, unit, UnitStatus.QUEUED, reason="again", actor="test", now=shop.clock.now)
    with shop.engine.begin() as conn:
        conn.execute(text("update refunds set next_attempt_at = now() + interval '1 hour'"))
    shop.drain()
    assert unit_states(shop.engine, order_id) == ["delivered"]
    with shop.engine.begin() as conn:
        conn.execute(text("update refunds set next_attempt_at = now()"))
    assert pay_refunds(shop.tools, "test") == (0, 1)
    counter.do(refund(order_id))
    assert rows("select state, as_it_stands from refunds") == [{"state": "requested", "as_it_stands": True}]
    assert pay_refunds(shop.tools, "test") == (1, 0)
    assert (len(shop.gateway.paid), unit_states(shop.engine, order_id)) == (1, ["refunded"])


def test_all_pays_back_what_is_left_and_once(shop: Shop, counter: Counter, rows: Rows) -> None:
    order_id = delivered(shop, units=3)
    counter.once(refund(order_id, 2))
    pay_refunds(shop.tools, "test")
    done = counter.do(refund(order_id))
    assert len(done.changes) == 2
    pay_refunds(shop.tools, "test")
    assert order_state(shop.engine, order_id) == "refunded"
    assert rows("select refunded_minor from orders") == [{"refunded_minor": 3 * 499}]
    assert sum(paid.amount.minor for paid in shop.gateway.paid.values()) == 3 * 499


def test_unit_in_work_is_not_paid_back(shop: Shop, counter: Counter) -> None:
    order_id = paid_order(shop.engine)
    assert claim_units(shop.engine, "worker", 1, shop.clock.now, deadline_minutes=70)
    counter.refused(refund(order_id), "eSIM 1 is being worked on right now; try again in a minute")
    counter.refused(refund(order_id, even_if_open=True), "is being worked on")
    counter.refused(elsewhere(order_id), "is being worked on")
    counter.refused(lambda desk, who: desk.cancel(order_id, who), "is being worked on")


def test_operator_waits_for_a_worker_that_is_claiming_and_then_leaves_the_unit_to_it(
    shop: Shop, counter: Counter, rows: Rows
) -> None:
    order_id = paid_order(shop.engine)

    def somebody_waits() -> bool:
        return rows("select count(*) as n from pg_locks where not granted") != [{"n": 0}]

    with ThreadPoolExecutor(1) as pool:
        with shop.engine.begin() as worker:
            lock_order(worker, order_id)
            [unit] = lock_units(worker, order_id)
            lease = {"lease_owner": "worker", "lease_until": shop.clock.now + timedelta(minutes=1)}
            move_unit(
                worker, unit, UnitStatus.WORKING, reason="claimed", actor="worker", now=shop.clock.now, values=lease
            )
            asked = pool.submit(counter.once, refund(order_id))
            wait_until(somebody_waits)
        with pytest.raises(Refused, match="is being worked on right now"):
            asked.result(timeout=30)
    assert (unit_states(shop.engine, order_id), rows("select * from refunds")) == (["working"], [])


def test_worker_claims_nothing_that_an_operator_is_giving_up(shop: Shop, counter: Counter) -> None:
    order_id = paid_order(shop.engine)
    with shop.engine.begin() as conn:
        refund_units(conn, order_id, counter.who(), RefundOptions())
        assert claim_units(shop.engine, "worker", 1, shop.clock.now, deadline_minutes=70) == []
    assert claim_units(shop.engine, "worker", 1, shop.clock.now, deadline_minutes=70) == []
    assert unit_states(shop.engine, order_id) == ["failed"]


def test_open_purchase_is_given_up_only_where_that_is_said_and_turns_up_in_stock(
    shop: Shop, counter: Counter, rows: Rows
) -> None:
    shop.cheap.script.append(sells_without_answer)
    shop.cheap.on_resolve = never_hears
    order_id = paid_order(shop.engine)
    shop.drain(max_seconds=0.3)
    assert unit_states(shop.engine, order_id) == ["unknown"]
    counter.refused(refund(order_id), "a purchase of eSIM 1 at airalo is open.*--even-if-open")
    counter.do(refund(order_id, even_if_open=True))
    pay_refunds(shop.tools, "test")
    assert unit_states(shop.engine, order_id) == ["refunded"]
    assert rows("select state from purchase_attempts") == [{"state": "unknown"}]
    found = f"{shop.cheap.slug}-order-1"
    done = counter.once(lambda desk, who: desk.bought(order_id, who, Doubt(1), found))
    assert done.changes == ("eSIM 1 stays refunded; what was bought is in stock",)
    assert rows("select state from stock_esims") == [{"state": "stock"}]
    assert balance(rows)["stock"] == 2_000_000


def test_unpaid_order_and_unknown_unit_have_nothing_to_pay_back(shop: Shop, counter: Counter) -> None:
    with shop.engine.begin() as conn:
        order_id = place_order(conn)
    counter.refused(refund(order_id), "is pending and not paid")
    counter.refused(refund(order_id, 7), "there is no eSIM 7")


def test_refund_that_failed_is_asked_for_again_under_a_new_key(shop: Shop, counter: Counter, rows: Rows) -> None:
    order_id = refused_at_stripe(shop)
    counter.refused(refund(order_id), r"the refund of eSIM 1 failed \(charge disputed\).*--again.*--paid-elsewhere")
    counter.refused(refund(order_id, again=True), "--release-hold")
    counter.do(refund(order_id, again=True, release_hold=True))
    pay_refunds(shop.tools, "test")
    assert (order_state(shop.engine, order_id), unit_states(shop.engine, order_id)) == ("refunded", ["refunded"])
    assert list(shop.gateway.paid) == [f"refund:{order_id}:1:2"]
    assert [row["state"] for row in rows("select state from refunds order by created_at")] == ["failed", "succeeded"]


def test_refund_that_stripe_made_after_all_is_not_made_again(shop: Shop, counter: Counter) -> None:
    order_id = refused_at_stripe(shop)
    key = f"refund:{order_id}:1"
    shop.gateway.paid[key] = Refund("re_late", Money(499, "USD"), "succeeded", f"pi_{order_id.hex}")
    counter.refused(refund(order_id, again=True, release_hold=True), "Stripe made this refund after all .re_late.")


def test_money_that_went_back_another_way_is_written_down_and_booked(shop: Shop, counter: Counter, rows: Rows) -> None:
    order_id = refused_at_stripe(shop)
    done = counter.do(elsewhere(order_id, release_hold=True))
    assert done.changes[1] == "eSIM 1 counts as paid back, 4.99 USD of it booked now"
    assert (order_state(shop.engine, order_id), unit_states(shop.engine, order_id)) == ("refunded", ["refunded"])
    assert rows("select refunded_minor, payment_status from orders") == [
        {"refunded_minor": 499, "payment_status": "refunded"}
    ]
    assert balance(rows)["refunds"] == 4_990_000
    assert (shop.gateway.paid, rows("select state from refunds")) == ({}, [{"state": "elsewhere"}])


def test_several_units_whose_refunds_failed_are_each_written_down_and_booked(
    shop: Shop, counter: Counter, rows: Rows
) -> None:
    order_id = refused_at_stripe(shop, units=2)
    assert [row["state"] for row in rows("select state from refunds")] == ["failed"] * 2
    done = counter.do(elsewhere(order_id, release_hold=True))
    assert done.changes[1:] == tuple(f"eSIM {n} counts as paid back, 4.99 USD of it booked now" for n in (1, 2))
    assert rows("select refunded_minor, payment_status from orders") == [
        {"refunded_minor": 998, "payment_status": "refunded"}
    ]
    assert balance(rows)["refunds"] == 9_980_000


def test_refund_from_the_dashboard_gets_its_units_and_is_not_booked_twice(
    shop: Shop, counter: Counter, rows: Rows
) -> None:
    order_id = paid_order(shop.engine, units=2)
    with shop.engine.begin() as conn:
        teller = Teller("stripe", shop.clock.now)
        refunded_in_all(conn, order_id, f"pi_{order_id.hex}", Money(998, "USD"), teller)
    counter.refused(refund(order_id), "--release-hold")
    counter.refused(refund(order_id, release_hold=True), "only 0.00 USD of its payment is left, not 9.98 USD")
    done = counter.do(elsewhere(order_id, release_hold=True))
    assert done.changes[1:] == tuple(f"eSIM {n} counts as paid back, booked when it was paid" for n in (1, 2))
    assert (order_state(shop.engine, order_id), balance(rows)["refunds"]) == ("refunded", 9_980_000)
    shop.drain()
    assert shop.sold == 0


def test_refund_by_hand_that_comes_after_one_elsewhere_is_still_seen(shop: Shop, counter: Counter, rows: Rows) -> None:
    order_id = delivered(shop, units=2)
    counter.once(elsewhere(order_id, 1))
    with shop.engine.begin() as conn:
        teller = Teller("stripe", shop.clock.now)
        told = refunded_in_all(conn, order_id, f"pi_{order_id.hex}", Money(499, "USD"), teller)
    assert told == "refund by hand recorded"
    assert rows("select refunded_minor from orders") == [{"refunded_minor": 998}]


def test_payment_that_is_not_the_price_is_paid_back_by_hand(shop: Shop, counter: Counter) -> None:
    with shop.engine.begin() as conn:
        order_id = place_order(conn)
        payment = Payment(order_id, "pi_odd", "cs_1", Money(900, "USD"), "evt_1")
        record_payment(conn, payment, Booking("stripe", shop.clock.now, 70))
    counter.refused(refund(order_id, release_hold=True), "is not its price: pay the payment back in Stripe's dashboard")


def test_payment_that_came_while_the_order_waited_is_paid_back(shop: Shop, counter: Counter) -> None:
    with shop.engine.begin() as conn:
        order_id = place_order(conn)
        hold_order(conn, lock_order(conn, order_id), reason="looks like fraud", actor="test", now=shop.clock.now)
        payment = Payment(order_id, "pi_held", "cs_1", Money(499, "USD"), "evt_1")
        record_payment(conn, payment, Booking("stripe", shop.clock.now, 70))
    counter.do(refund(order_id, release_hold=True))
    pay_refunds(shop.tools, "test")
    assert (order_state(shop.engine, order_id), len(shop.gateway.paid)) == ("refunded", 1)


def test_disputed_order_is_not_paid_back_a_second_way(shop: Shop, counter: Counter) -> None:
    order_id = delivered(shop)
    with shop.engine.begin() as conn:
        hold_order(conn, lock_order(conn, order_id), reason="a dispute", actor="stripe", now=shop.clock.now)
    counter.refused(refund(order_id), "waits for a person's decision: a dispute")


def test_provider_takes_an_esim_back_and_its_cost_returns(shop: Shop, counter: Counter, rows: Rows) -> None:
    shop.cheap.capabilities, shop.cheap.takes_back = TAKES_BACK, Cancelled(refunded=True)
    order_id = delivered(shop)
    assert balance(rows)["provider_balance"] == -2_000_000
    shown = counter.try_out(refund(order_id, cancel=True))
    assert (shown.changes[-1], shop.cheap.asked_to_take_back) == ("airalo is asked to take eSIM 1 back", [])
    done = counter.once(refund(order_id, cancel=True))
    assert done.changes[-1] == "eSIM 1: airalo took it back"
    [esim] = shop.cheap.asked_to_take_back
    assert (esim.provider_order_id, esim.iccid) == ("airalo-order-1", "8900airalo000001")
    assert (balance(rows)["provider_balance"], balance(rows)["cost_of_sales"]) == (0, 0)
    assert rows("select cost_micros from esims") == [{"cost_micros": 0}]
    assert counter.once(refund(order_id, cancel=True)).changes == ()
    assert len(shop.cheap.asked_to_take_back) == 1
    pay_refunds(shop.tools, "test")
    assert order_state(shop.engine, order_id) == "refunded"
    assert rows("select count(*) as n from audit_events where action = 'order return'") == [{"n": 1}]


def test_provider_may_sell_what_it_took_back_to_somebody_else(shop: Shop, counter: Counter) -> None:
    shop.cheap.capabilities, shop.cheap.takes_back = TAKES_BACK, Cancelled(refunded=True)
    first = delivered(shop)
    counter.once(refund(first, cancel=True))
    pay_refunds(shop.tools, "test")

    def sells_it_again(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
        returned = provider.found(replace(request, reference=next(iter(provider.sold))))
        return replace(returned, provider_order_id="airalo-order-2")

    shop.cheap.script.append(sells_it_again)
    second = paid_order(shop.engine)
    shop.drain()
    assert (unit_states(shop.engine, first), unit_states(shop.engine, second)) == (["refunded"], ["delivered"])


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (Cancelled(refunded=False), "airalo took it back; its cost is not refunded"),
        (CancelRefused("it is installed"), r"airalo does not take it back \(it is installed\)"),
        (CancelUnknown("timed out"), r"airalo gave no clear answer to taking it back \(timed out\)"),
    ],
)
def test_cost_stays_where_the_provider_does_not_return_it(
    shop: Shop, counter: Counter, rows: Rows, answer: Cancelled | CancelRefused | CancelUnknown, sentence: str
) -> None:
    shop.cheap.capabilities, shop.cheap.takes_back = TAKES_BACK, answer
    order_id = delivered(shop)
    done = counter.once(refund(order_id, cancel=True))
    assert sentence.replace("\\", "") in done.changes[-1]
    assert balance(rows)["provider_balance"] == -2_000_000
    assert rows("select count(*) as n from order_events where reason like 'airalo%'") == [{"n": 1}]


def test_provider_without_cancellation_is_not_asked(shop: Shop, counter: Counter) -> None:
    order_id = delivered(shop)
    done = counter.once(refund(order_id, cancel=True))
    assert "takes nothing back through its API" in done.changes[-1]
    assert shop.cheap.asked_to_take_back == []


@pytest.mark.parametrize("another_way", [False, True])
def test_refund_that_failed_at_the_bank_after_all_is_made_good(
    shop: Shop, counter: Counter, rows: Rows, another_way: bool
) -> None:
    order_id = delivered(shop)
    counter.once(refund(order_id))
    pay_refunds(shop.tools, "test")
    key = f"refund:{order_id}:1"
    failed = Refund(shop.gateway.paid[key].refund_id, Money(499, "USD"), "failed", f"pi_{order_id.hex}")
    shop.gateway.paid[key] = failed
    with shop.engine.begin() as conn:
        refund_told(conn, order_id, failed, key, Teller("stripe", shop.clock.now))
    assert (unit_states(shop.engine, order_id), balance(rows)["refunds"]) == (["refunded"], 0)
    counter.refused(refund(order_id), "the refund of eSIM 1 failed")
    if another_way:
        counter.do(elsewhere(order_id))
    else:
        counter.do(refund(order_id, again=True))
        assert pay_refunds(shop.tools, "test") == (1, 0)
    assert (unit_states(shop.engine, order_id), balance(rows)["refunds"]) == (["refunded"], 4_990_000)
    assert rows("select refunded_minor from orders") == [{"refunded_minor": 499}]
    assert counter.once(refund(order_id)).changes == ()


def test_nobody_is_left_out_when_the_machine_asks_first(shop: Shop, counter: Counter) -> None:
    for provider in (shop.cheap, shop.dear):
        provider.script.append(rejects(ErrorType.INVALID_PRODUCT))
    order_id = paid_order(shop.engine)
    shop.drain(tools=shop.tools_with(enable_auto_refund=False))
    assert refund_failed_units(shop.engine, "test", shop.clock.now) == 1
    assert counter.once(refund(order_id)).changes == ()
    assert pay_refunds(shop.tools, "test") == (1, 0)
