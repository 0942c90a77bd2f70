"""Refunds: paid once whatever is lost on the way, and asked for again where a person took the unit up in between."""

from collections.abc import Callable
from typing import cast

from sqlalchemy import text

from esim.errors import PaymentUnavailable
from esim.money import Money
from esim.orders import UnitStatus
from esim.ports import PaymentGateway, Refund
from esim.purchase import ErrorType
from pipelines.aftermath import pay_refunds
from resources.db.refund_events import refund_told
from resources.db.refunds import request_refund, request_unit_refund
from resources.db.tellers import Teller
from resources.db.transitions import lock_order, lock_units, move_unit
from tests.pipelines.actors import RefundingGateway, rejects
from tests.pipelines.conftest import Shop
from tests.resources.db.shop import paid_order, unit_states

Rows = Callable[[str], list[dict[str, object]]]


class ForgetfulGateway(RefundingGateway):
    """A payment service that has forgotten every key by the next call, and loses its first answer."""

    def __init__(self) -> None:
        super().__init__()
        self.paid_out: list[Refund] = []

    def refund(self, payment_intent: str, amount: Money, *, key: str, reason: str, faults: int = 0) -> Refund:
        paid = Refund(f"re_{len(self.paid_out) + 1}", amount, "succeeded", payment_intent)
        self.paid_out.append(paid)
        self.paid[key] = paid
        if len(self.paid_out) == 1:
            raise PaymentUnavailable("the answer was lost")
        return paid


def refuse_all(shop: Shop) -> None:
    for provider in (shop.cheap, shop.dear):
        provider.script.append(rejects(ErrorType.INVALID_PRODUCT))


def test_refund_whose_answer_was_lost_is_not_paid_again_after_the_key_is_forgotten(shop: Shop, rows: Rows) -> None:
    gateway = ForgetfulGateway()
    shop.tools.gateway = cast(PaymentGateway, gateway)
    refuse_all(shop)
    order_id = paid_order(shop.engine)
    shop.drain()
    with shop.engine.begin() as conn:
        conn.execute(text("update refunds set next_attempt_at = now()"))
    assert pay_refunds(shop.tools, "test") == (1, 0)
    assert (len(gateway.paid_out), unit_states(shop.engine, order_id)) == (1, ["refunded"])
    assert rows("select state, stripe_refund_id from refunds") == [{"state": "succeeded", "stripe_refund_id": "re_1"}]


def test_refund_that_was_called_off_is_paid_when_the_unit_fails_again(shop: Shop, rows: Rows) -> None:
    shop.gateway.failures.append(PaymentUnavailable("away"))
    refuse_all(shop)
    order_id = paid_order(shop.engine)
    shop.drain()
    with shop.engine.begin() as conn:  # a person tries again
        order = lock_order(conn, order_id)
        [unit] = lock_units(conn, order_id)
        move_unit(conn, unit, UnitStatus.QUEUED, reason="again", actor="ops", now=shop.clock.now)
        conn.execute(text("update refunds set next_attempt_at = now()"))
    assert pay_refunds(shop.tools, "test") == (0, 1)
    assert rows("select state from refunds") == [{"state": "called_off"}]
    with shop.engine.begin() as conn:
        order = lock_order(conn, order_id)
        [unit] = lock_units(conn, order_id)
        move_unit(conn, unit, UnitStatus.FAILED, reason="in vain", actor="ops", now=shop.clock.now)
        assert request_unit_refund(conn, order, unit, "the eSIM could not be delivered")
    assert pay_refunds(shop.tools, "test") == (1, 0)
    assert (list(shop.gateway.paid), unit_states(shop.engine, order_id)) == ([f"refund:{order_id}:1"], ["refunded"])


def test_refund_of_a_payment_that_was_never_booked_leaves_no_trace_in_the_ledger(shop: Shop, rows: Rows) -> None:
    order_id = paid_order(shop.engine)
    shop.drain()
    before = rows("select posting_key, account from ledger_entries order by entry_id")
    with shop.engine.begin() as conn:
        back = Money(700, "XAF")  # no rate: the second payment was not booked
        request_refund(
            conn, key="second:pi_2", order_id=order_id, payment_intent="pi_2", amount=back, reason="second", esim_n=None
        )
    assert pay_refunds(shop.tools, "test") == (1, 0)
    with shop.engine.begin() as conn:
        told = Refund("re_1", back, "failed", "pi_2")
        assert refund_told(conn, order_id, told, "second:pi_2", Teller("stripe", shop.clock.now)) == (
            "refund failed after all"
        )
    assert rows("select posting_key, account from ledger_entries order by entry_id") == before
