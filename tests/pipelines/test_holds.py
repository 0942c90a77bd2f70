"""A held order: nothing more is bought for it, and no later event takes it from the person who must decide."""

from collections.abc import Callable
from uuid import UUID

from sqlalchemy import text

from esim.errors import PaymentRejected
from esim.money import Money
from esim.orders import UnitStatus
from esim.purchase import ErrorType, Outcome, PurchaseRequest
from resources.db.refund_events import Teller, refunded_in_all
from resources.db.transitions import hold_order, lock_order
from tests.pipelines.actors import ScriptedProvider, accepts, rejects, sells
from tests.pipelines.conftest import Shop
from tests.resources.db.shop import order_state, paid_order, place_order, unit_states

Rows = Callable[[str], list[dict[str, object]]]
WHY = "the customer's bank opened a dispute"


def hold(shop: Shop, order_id: UUID) -> bool:
    with shop.engine.begin() as conn:
        return hold_order(conn, lock_order(conn, order_id), reason=WHY, actor="test", now=shop.clock.now)


def refuse_all(shop: Shop, error_type: ErrorType, times: int = 1) -> None:
    for provider in (shop.cheap, shop.dear):
        provider.script.extend([rejects(error_type)] * times)


def test_disputed_order_that_waits_for_its_retry_is_not_bought(shop: Shop, rows: Rows) -> None:
    refuse_all(shop, ErrorType.OUT_OF_STOCK)
    order_id = paid_order(shop.engine)
    shop.drain()
    assert unit_states(shop.engine, order_id) == ["queued"]
    assert hold(shop, order_id)
    shop.clock.advance(minutes=30)
    shop.drain()
    assert (shop.sold, order_state(shop.engine, order_id)) == (0, "attention")
    assert unit_states(shop.engine, order_id) == ["attention"]
    assert rows("select attention_reason, hold_reason from orders") == [{"attention_reason": WHY, "hold_reason": WHY}]


def test_unit_in_work_when_the_hold_comes_is_not_tried_again(shop: Shop) -> None:
    def disputed_meanwhile(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
        hold(shop, order_id)
        return rejects(ErrorType.OUT_OF_STOCK)(provider, request)

    shop.cheap.script.append(disputed_meanwhile)
    shop.dear.script.append(rejects(ErrorType.OUT_OF_STOCK))
    order_id = paid_order(shop.engine)
    shop.drain()
    shop.clock.advance(minutes=30)
    shop.drain()
    assert (shop.sold, unit_states(shop.engine, order_id)) == (0, ["attention"])


def test_open_purchase_of_a_held_order_is_still_finished(shop: Shop) -> None:
    shop.cheap.script.append(accepts)
    shop.cheap.on_status = accepts
    order_id = paid_order(shop.engine)
    shop.drain(max_seconds=0.3)
    assert hold(shop, order_id)
    shop.cheap.on_status = sells
    shop.clock.advance(minutes=5)
    shop.drain()
    assert (order_state(shop.engine, order_id), unit_states(shop.engine, order_id)) == ("attention", ["delivered"])


def test_refused_refund_is_not_forgotten_when_another_succeeds(shop: Shop, rows: Rows) -> None:
    shop.gateway.failures.append(PaymentRejected("charge disputed"))
    refuse_all(shop, ErrorType.INVALID_PRODUCT, times=2)
    order_id = paid_order(shop.engine, units=2)
    shop.drain()
    assert sorted(unit_states(shop.engine, order_id)) == ["failed", "refunded"]
    assert order_state(shop.engine, order_id) == "attention"
    assert sorted(str(row["state"]) for row in rows("select state from refunds")) == ["failed", "succeeded"]


def test_order_paid_back_by_hand_is_not_bought_any_more(shop: Shop) -> None:
    order_id = paid_order(shop.engine)
    with shop.engine.begin() as conn:
        intent = str(conn.scalar(text("select payment_intent from orders")))
        refunded_in_all(conn, order_id, intent, Money(499, "USD"), Teller("stripe", shop.clock.now))
    shop.drain()
    assert (shop.sold, order_state(shop.engine, order_id)) == (0, "attention")
    [(_, told)] = [note for note in shop.notifier.posted if ":external" in note[0]]
    assert told.endswith("Nothing more is bought for it.")


def test_finished_order_paid_back_by_hand_needs_nobody(shop: Shop) -> None:
    order_id = paid_order(shop.engine)
    shop.drain()
    with shop.engine.begin() as conn:
        intent = str(conn.scalar(text("select payment_intent from orders")))
        refunded_in_all(conn, order_id, intent, Money(499, "USD"), Teller("stripe", shop.clock.now))
    assert (order_state(shop.engine, order_id), unit_states(shop.engine, order_id)) == ("completed", ["delivered"])


def test_unpaid_order_can_be_held_and_a_hold_is_noted_once(shop: Shop, rows: Rows) -> None:
    with shop.engine.begin() as conn:
        order_id = place_order(conn)
    assert [hold(shop, order_id), hold(shop, order_id)] == [True, False]
    assert (order_state(shop.engine, order_id), unit_states(shop.engine, order_id)) == (
        "attention",
        [UnitStatus.UNPAID],
    )
    assert rows("select to_status, reason from order_events") == [{"to_status": "attention", "reason": WHY}]
