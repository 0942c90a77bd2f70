"""What an operator's documented remedy leaves behind: books that agree, by the very rules operations are alerted by."""

from uuid import UUID

import pytest
from sqlalchemy import text

from esim.money import Money
from esim.ports import Capabilities
from esim.purchase import Cancelled, CancelOutcome, CancelRefused, CancelUnknown
from pipelines.aftermath import pay_refunds
from resources.db.books import check_books
from resources.db.operator_refunds import RefundOptions
from resources.db.operator_retry import RetryOptions
from resources.db.payments import Booking, Payment, PaymentResult, record_payment
from resources.db.refund_events import refunded_in_all
from resources.db.tellers import Teller
from tests.pipelines.conftest import Rows, Shop
from tests.pipelines.operating import Counter
from tests.resources.db.shop import order_state, paid_order, place_order, unit_states

TAKES_BACK = Capabilities(reference_lookup=True, settle_seconds=0.0, cancel=True)


@pytest.fixture
def counter(shop: Shop) -> Counter:
    return Counter(shop)


def findings(shop: Shop) -> list[tuple[str, str]]:
    with shop.engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn, conn.begin():
        return [(found.kind, found.subject) for found in check_books(conn, "").findings]


def pays(shop: Shop, order_id: UUID, amount: Money) -> PaymentResult:
    with shop.engine.begin() as conn:
        payment = Payment(order_id, f"pi_{order_id.hex}", "cs_1", amount, "evt_1")
        return record_payment(conn, payment, Booking("stripe", shop.clock.now, 70))


def refunded_by_hand(shop: Shop, order_id: UUID, minor: int) -> None:
    with shop.engine.begin() as conn:
        teller = Teller("stripe", shop.clock.now)
        refunded_in_all(conn, order_id, f"pi_{order_id.hex}", Money(minor, "USD"), teller)


def settle_by_hand(counter: Counter, order_id: UUID, *units: int) -> None:
    options = RefundOptions(units, release_hold=True)
    counter.do(lambda desk, who: desk.paid_elsewhere(order_id, who, options))


def paid_odd(shop: Shop, amount: Money) -> UUID:
    """An order of 4.99 USD for which something else was paid: a person has to decide."""
    with shop.engine.begin() as conn:
        order_id = place_order(conn)
    assert pays(shop, order_id, amount) is PaymentResult.MISMATCH
    return order_id


@pytest.mark.parametrize(
    "answer",
    [Cancelled(refunded=True), Cancelled(refunded=False), CancelRefused("installed"), CancelUnknown("timed out")],
)
def test_an_esim_given_back_leaves_books_that_agree(shop: Shop, counter: Counter, answer: CancelOutcome) -> None:
    shop.cheap.capabilities, shop.cheap.takes_back = TAKES_BACK, answer
    order_id = paid_order(shop.engine)
    shop.drain()
    counter.once(lambda desk, who: desk.refund(order_id, who, RefundOptions(), cancel_esim=True))
    pay_refunds(shop.tools, "test")
    assert (order_state(shop.engine, order_id), findings(shop)) == ("refunded", [])


def test_books_agree_when_only_one_of_two_esims_brings_its_cost_back(shop: Shop, counter: Counter, rows: Rows) -> None:
    shop.cheap.capabilities = TAKES_BACK
    order_id = paid_order(shop.engine, units=2)
    shop.drain()
    for n, refunded in ((1, True), (2, False)):
        shop.cheap.takes_back = Cancelled(refunded=refunded)
        options = RefundOptions((n,))
        counter.once(lambda desk, who: desk.refund(order_id, who, options, cancel_esim=True))  # noqa: B023 - called now
    pay_refunds(shop.tools, "test")
    assert rows("select cost_micros from esims order by n") == [{"cost_micros": 0}, {"cost_micros": 2_000_000}]
    assert findings(shop) == []


def test_a_cost_that_came_back_wrong_is_still_found(shop: Shop, counter: Counter) -> None:
    shop.cheap.capabilities, shop.cheap.takes_back = TAKES_BACK, Cancelled(refunded=True)
    order_id = paid_order(shop.engine)
    shop.drain()
    counter.once(lambda desk, who: desk.refund(order_id, who, RefundOptions(), cancel_esim=True))
    pay_refunds(shop.tools, "test")
    with shop.engine.begin() as conn:
        conn.execute(text("delete from ledger_entries where posting_key like 'returned:%'"))
    assert findings(shop) == [("cost_differs", f"{order_id}/1")]


def test_money_paid_back_by_hand_and_written_down_leaves_books_that_agree(shop: Shop, counter: Counter) -> None:
    order_id = paid_order(shop.engine, units=2)
    refunded_by_hand(shop, order_id, 998)
    settle_by_hand(counter, order_id)
    assert (unit_states(shop.engine, order_id), findings(shop)) == (["refunded", "refunded"], [])


def test_money_paid_back_before_its_payment_was_heard_of_leaves_books_that_agree(shop: Shop, counter: Counter) -> None:
    with shop.engine.begin() as conn:
        order_id = place_order(conn)
    refunded_by_hand(shop, order_id, 499)
    assert pays(shop, order_id, Money(499, "USD")) is PaymentResult.HELD
    settle_by_hand(counter, order_id)
    assert (order_state(shop.engine, order_id), findings(shop)) == ("refunded", [])


def test_money_paid_back_by_hand_explains_no_more_esims_than_it_pays_for(shop: Shop, counter: Counter) -> None:
    order_id = paid_order(shop.engine, units=2)
    refunded_by_hand(shop, order_id, 499)
    settle_by_hand(counter, order_id, 1)
    assert findings(shop) == []
    with shop.engine.begin() as conn:  # somebody mends with SQL
        conn.execute(text("update esims set status = 'refunded' where n = 2"))
    assert {kind for kind, _ in findings(shop)} == {"unit_refund_differs", "unit_state_unexplained"}


def test_a_refund_by_hand_of_another_payment_explains_nothing(shop: Shop) -> None:
    order_id = paid_order(shop.engine)
    pays_twice = Payment(order_id, "pi_second", "cs_2", Money(499, "USD"), "evt_2")
    with shop.engine.begin() as conn:
        refunded_in_all(conn, order_id, "pi_second", Money(499, "USD"), Teller("stripe", shop.clock.now))
        record_payment(conn, pays_twice, Booking("stripe", shop.clock.now, 70))
        conn.execute(text("update esims set status = 'refunded'"))
    assert {kind for kind, _ in findings(shop)} == {"unit_refund_differs", "unit_state_unexplained"}


def test_no_more_is_booked_as_paid_back_than_was_paid(shop: Shop, counter: Counter, rows: Rows) -> None:
    order_id = paid_odd(shop, Money(299, "USD"))
    refunded_by_hand(shop, order_id, 299)
    settle_by_hand(counter, order_id)
    assert order_state(shop.engine, order_id) == "refunded"
    assert rows("select sum(amount_micros)::int as micros from ledger_entries where account = 'cash'") == [
        {"micros": 0}
    ]
    assert findings(shop) == []


@pytest.mark.parametrize("paid", [Money(299, "USD"), Money(899, "USD"), Money(450, "EUR")])
def test_another_amount_that_an_operator_accepted_leaves_books_that_agree(
    shop: Shop, counter: Counter, paid: Money
) -> None:
    with shop.engine.begin() as conn:
        conn.execute(
            text("insert into reference_rates (currency, quoted_on, usd_micros) values ('EUR', current_date, 1100000)")
        )
    order_id = paid_odd(shop, paid)
    counter.do(lambda desk, who: desk.retry(order_id, who, RetryOptions(release_hold=True)))
    assert findings(shop) == []
    shop.drain()
    assert (order_state(shop.engine, order_id), findings(shop)) == ("completed", [])


def test_another_amount_that_nobody_accepted_is_found(shop: Shop) -> None:
    order_id = paid_odd(shop, Money(299, "USD"))
    with shop.engine.begin() as conn:  # somebody mends with SQL
        conn.execute(text("update orders set status = 'paid'"))
    assert ("payment_differs", f"pi_{order_id.hex}") in findings(shop)


def test_another_amount_in_the_books_than_the_one_that_was_accepted_is_found(shop: Shop, counter: Counter) -> None:
    order_id = paid_odd(shop, Money(299, "USD"))
    counter.do(lambda desk, who: desk.retry(order_id, who, RetryOptions(release_hold=True)))
    with shop.engine.begin() as conn:
        conn.execute(text("update ledger_entries set original_amount = original_amount * 2"))
    assert findings(shop) == [("payment_differs", f"pi_{order_id.hex}")]
