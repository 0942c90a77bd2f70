"""An operator cancels orders, gives eSIMs in stock back, switches providers and has notices sent again."""

from collections.abc import Callable
from typing import cast
from uuid import UUID

import pytest
from sqlalchemy import text

from esim.errors import NotFound, PaymentRejected, PaymentUnavailable, Refused
from esim.money import Money
from esim.orders import OrderStatus
from esim.ports import Capabilities, CheckoutSession, PaymentGateway
from esim.purchase import Cancelled, CancelRefused, ErrorType
from pipelines.aftermath import pay_refunds, send_notices
from resources.db.operator_refunds import RefundOptions
from resources.db.operator_resolve import Doubt
from resources.db.payments import Booking, Payment, cancel_unpaid, record_payment
from resources.operator_desk import OperatorDesk
from tests.pipelines.actors import RefundingGateway, accepts, never_hears, rejects, sells_without_answer
from tests.pipelines.conftest import Shop
from tests.pipelines.operating import Action, Counter
from tests.resources.db.shop import NOW, order_state, paid_order, place_order, unit_states

Rows = Callable[[str], list[dict[str, object]]]


class PageGateway(RefundingGateway):
    """A payment service with one payment page."""

    def __init__(self, page: str = "open") -> None:
        super().__init__()
        self.page, self.away = page, False

    def expire(self, session_id: str) -> None:
        if self.away:
            raise PaymentUnavailable("no answer")
        if self.page == "complete":
            raise PaymentRejected("it was paid")
        self.page = "expired"

    def session(self, session_id: str) -> CheckoutSession:
        paid = self.page == "complete"
        status, intent = ("paid", "pi_page") if paid else ("unpaid", None)
        return CheckoutSession(session_id, None, self.page, status, intent, Money(499, "USD"), "", NOW)


@pytest.fixture
def counter(shop: Shop) -> Counter:
    return Counter(shop)


def cancel(order_id: UUID, release: bool = False) -> Action:
    return lambda desk, who: desk.cancel(order_id, who, release_hold=release)


def open_checkout(shop: Shop, gateway: PageGateway) -> UUID:
    shop.tools.gateway = cast(PaymentGateway, gateway)
    with shop.engine.begin() as conn:
        order_id = place_order(conn)
        conn.execute(text("update orders set session_id = 'cs_1'"))
        for n, state in ((None, "pending"), (1, "unpaid")):
            values = {"order_id": order_id, "n": n, "state": state}
            conn.execute(
                text(
                    "insert into order_events (order_id, esim_n, to_status, reason, actor)"
                    " values (:order_id, :n, :state, 'placed', 'test')"
                ),
                values,
            )
    return order_id


def test_unpaid_order_is_cancelled_here_and_its_page_closed(shop: Shop, counter: Counter) -> None:
    gateway = PageGateway()
    order_id = open_checkout(shop, gateway)
    assert counter.try_out(cancel(order_id)).changes
    assert gateway.page == "open"
    counter.do(cancel(order_id))
    assert (gateway.page, order_state(shop.engine, order_id)) == ("expired", "cancelled")
    assert unit_states(shop.engine, order_id) == ["cancelled"]


def test_order_whose_payment_failed_is_over(shop: Shop, counter: Counter) -> None:
    order_id = open_checkout(shop, PageGateway("expired"))
    with shop.engine.begin() as conn:
        into = OrderStatus.FAILED
        cancel_unpaid(conn, order_id, reason="the bank refused", actor="stripe", now=shop.clock.now, into=into)
    assert counter.once(cancel(order_id)).changes == ()
    assert order_state(shop.engine, order_id) == "failed"


def test_page_whose_webhook_is_quicker_leaves_the_action_audited(shop: Shop, counter: Counter, rows: Rows) -> None:
    class QuickGateway(PageGateway):
        def expire(self, session_id: str) -> None:
            super().expire(session_id)
            with shop.engine.begin() as conn:
                cancel_unpaid(conn, order_id, reason="the checkout expired", actor="stripe", now=shop.clock.now)

    order_id = open_checkout(shop, QuickGateway())
    counter.do(cancel(order_id))
    assert rows("select actor, action from audit_events") == [{"actor": "operator:mia", "action": "order cancel"}]


def test_order_that_was_paid_meanwhile_is_kept_with_its_payment(shop: Shop, counter: Counter) -> None:
    order_id = open_checkout(shop, PageGateway("complete"))
    with pytest.raises(Refused, match=r"was paid meanwhile: its payment is recorded .paid. and nothing is cancelled"):
        counter.once(cancel(order_id))
    assert (order_state(shop.engine, order_id), unit_states(shop.engine, order_id)) == ("paid", ["queued"])
    counter.once(cancel(order_id))
    pay_refunds(shop.tools, "test")
    shop.drain()
    assert (order_state(shop.engine, order_id), shop.sold) == ("refunded", 0)


def test_what_was_not_agreed_to_is_not_done(shop: Shop, counter: Counter, rows: Rows) -> None:
    with shop.engine.begin() as conn:
        order_id = place_order(conn)
    agreed = cancel(order_id)(OperatorDesk(shop.tools, preview=True), counter.who()).changes
    with shop.engine.begin() as conn:
        payment = Payment(order_id, "pi_1", "cs_1", Money(499, "USD"), "evt_1")
        record_payment(conn, payment, Booking("stripe", shop.clock.now, 70))
    with pytest.raises(Refused, match="changed since you were shown what would be done; look again"):
        cancel(order_id)(OperatorDesk(shop.tools, agreed=agreed), counter.who())
    assert (unit_states(shop.engine, order_id), rows("select * from refunds")) == (["queued"], [])


def test_nothing_is_cancelled_while_stripe_does_not_answer(shop: Shop, counter: Counter) -> None:
    gateway = PageGateway()
    gateway.away = True
    order_id = open_checkout(shop, gateway)
    with pytest.raises(PaymentUnavailable):
        counter.once(cancel(order_id))
    assert order_state(shop.engine, order_id) == "pending"


def test_paid_order_is_paid_back_and_what_is_delivered_stays(shop: Shop, counter: Counter) -> None:
    order_id = paid_order(shop.engine, units=2)
    with shop.engine.begin() as conn:
        conn.execute(text("update esims set next_attempt_at = now() + interval '1 day' where n = 2"))
    shop.drain(max_seconds=0.5)
    assert unit_states(shop.engine, order_id) == ["delivered", "queued"]
    done = counter.do(cancel(order_id))
    assert done.left_alone == ("eSIM 1 is delivered",)
    pay_refunds(shop.tools, "test")
    assert unit_states(shop.engine, order_id) == ["delivered", "refunded"]
    counter.refused(cancel(order_id), "every eSIM of order .* is delivered or paid back; .*numnaroad order refund")


def test_order_with_an_open_purchase_is_not_cancelled(shop: Shop, counter: Counter) -> None:
    shop.cheap.script.append(accepts)
    shop.cheap.on_status = accepts
    order_id = paid_order(shop.engine)
    shop.drain(max_seconds=0.3)
    counter.refused(cancel(order_id), r"a purchase of eSIM 1 at airalo is open \(pending\)")


def late_arrival(shop: Shop) -> int:
    """An eSIM in stock."""
    shop.cheap.script.append(sells_without_answer)
    shop.cheap.on_resolve = never_hears
    order_id = paid_order(shop.engine)
    shop.drain(max_seconds=0.3)
    desk, who = OperatorDesk(shop.tools), Counter(shop).who()
    desk.refund(order_id, who, RefundOptions(even_if_open=True))
    desk.bought(order_id, who, Doubt(1), "airalo-order-1")
    with shop.engine.connect() as conn:
        return int(conn.scalar(text("select stock_id from stock_esims where state = 'stock'")) or 0)


def test_esim_in_stock_is_given_back_and_its_cost_returns(shop: Shop, counter: Counter, rows: Rows) -> None:
    number = late_arrival(shop)
    shop.cheap.capabilities = Capabilities(cancel=True)
    shop.cheap.takes_back = Cancelled(refunded=True)
    counter.do(lambda desk, who: desk.return_stock(number, who))
    assert len(shop.cheap.asked_to_take_back) == 1
    balances = rows("select account, sum(amount_micros)::bigint as m from ledger_entries group by 1 order by 1")
    assert [row for row in balances if row["account"] in {"stock", "provider_balance"}] == [
        {"account": "provider_balance", "m": 0},
        {"account": "stock", "m": 0},
    ]
    assert rows("select state from stock_esims") == [{"state": "cancelled"}]


def test_esim_that_is_not_taken_back_stays_until_it_is_written_off(shop: Shop, counter: Counter, rows: Rows) -> None:
    number = late_arrival(shop)
    shop.cheap.capabilities = Capabilities(cancel=True)
    shop.cheap.takes_back = CancelRefused("installed")
    with pytest.raises(Refused, match=r"airalo does not take it back .installed.; it stays in stock"):
        counter.once(lambda desk, who: desk.return_stock(number, who))
    counter.do(lambda desk, who: desk.write_off_stock(number, who))
    assert rows("select state from stock_esims") == [{"state": "written_off"}]
    assert rows("select sum(amount_micros)::bigint as m from ledger_entries where account = 'loss'") == [
        {"m": 2_000_000}
    ]
    with pytest.raises(NotFound, match="no eSIM 99 in stock"):
        counter.once(lambda desk, who: desk.write_off_stock(99, who))


def test_provider_is_switched_off_and_on(shop: Shop, counter: Counter, rows: Rows) -> None:
    counter.do(lambda desk, who: desk.enable_provider("airalo", who, enabled=False))
    paid_order(shop.engine)
    shop.drain()
    assert (shop.cheap.purchases, shop.dear.purchases) == (0, 1)
    counter.do(lambda desk, who: desk.enable_provider("airalo", who, enabled=True))
    assert [row["action"] for row in rows("select action from audit_events order by audit_id")] == [
        "provider disable",
        "provider enable",
    ]
    with pytest.raises(NotFound, match="no provider 'nobody'; the providers are airalo, esim_access"):
        counter.once(lambda desk, who: desk.enable_provider("nobody", who, enabled=True))


def test_open_circuit_is_closed_at_once(shop: Shop, counter: Counter) -> None:
    shop.cheap.script.extend([rejects(ErrorType.PROVIDER_API_ERROR)] * 5)
    for _ in range(5):
        paid_order(shop.engine)
    shop.drain(tools=shop.tools_with(drain_workers=1))
    done = counter.do(lambda desk, who: desk.reset_provider("airalo", who))
    assert done.changes == ("the circuit of airalo is closed (it was open after 5 failures)",)
    bought = shop.cheap.purchases
    paid_order(shop.engine)
    shop.drain()
    assert shop.cheap.purchases == bought + 1


def test_notices_that_failed_are_handed_over_again(shop: Shop, counter: Counter, rows: Rows) -> None:
    shop.mailer.failures = 1
    order_id = paid_order(shop.engine)
    shop.drain()
    assert counter.once(lambda desk, who: desk.resend(who, order_id)).changes == ()  # it is tried again soon anyway
    with shop.engine.begin() as conn:
        conn.execute(text("update outbox set attempts = 200 where sent_at is null"))
    assert send_notices(shop.tools) == (0, 0)
    done = counter.do(lambda desk, who: desk.resend(who, order_id))
    assert done.changes == (f"notice confirmation:{order_id} is handed over again",)
    assert send_notices(shop.tools) == (1, 0)
    assert len(shop.mailer.sent) == 1
    assert rows("select count(*) as n from outbox where sent_at is null") == [{"n": 0}]


def test_what_people_did_stays_as_it_was_written(shop: Shop, counter: Counter) -> None:
    counter.once(lambda desk, who: desk.enable_provider("airalo", who, enabled=False))
    for statement in ("update audit_events set actor = 'nobody'", "delete from audit_events"):
        with pytest.raises(Exception, match="written once and stay"), shop.engine.begin() as conn:
            conn.execute(text(statement))
