"""A held order: nothing more is bought for it, and no later event takes it from the person who must decide."""

from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from uuid import UUID

import pytest
from sqlalchemy import text

from esim.disputes import Dispute, DisputeMovement
from esim.errors import PaymentRejected
from esim.money import Money
from esim.orders import UnitStatus
from esim.provisioning import Held, Skipped
from esim.purchase import ErrorType, Outcome, PurchaseRequest
from pipelines.drain import Drain, DrainLimits
from resources.db.attempts import Lease, UnitJournal
from resources.db.attention import Item, attention
from resources.db.audit import Operator
from resources.db.disputes import dispute_told
from resources.db.operator_retry import RetryOptions
from resources.db.order_store import claim_units
from resources.db.refund_events import refunded_in_all
from resources.db.rounds import RetryPolicy, end_round
from resources.db.settlement import Scribe
from resources.db.stuck import refund_failed_units
from resources.db.tellers import Teller
from resources.db.transitions import hold_order, lock_order
from resources.operator_desk import OperatorDesk
from tests.pipelines.actors import ScriptedProvider, accepts, rejects, sells
from tests.pipelines.conftest import Shop
from tests.resources.db.shop import order_state, paid_order, place_order, unit_states

Rows = Callable[[str], list[dict[str, object]]]
WHY = "the customer's bank opened a dispute"


def hold(shop: Shop, order_id: UUID) -> bool:
    with shop.engine.begin() as conn:
        return hold_order(conn, lock_order(conn, order_id), reason=WHY, actor="test", now=shop.clock.now)


def paid_back(shop: Shop, order_id: UUID) -> None:
    with shop.engine.begin() as conn:
        intent = str(conn.scalar(text("select payment_intent from orders")))
        refunded_in_all(conn, order_id, intent, Money(499, "USD"), Teller("stripe", shop.clock.now))


def disputed(shop: Shop, order_id: UUID) -> None:
    with shop.engine.begin() as conn:
        intent = str(conn.scalar(text("select payment_intent from orders")))
        taken = DisputeMovement("txn_1", "du_1", intent, Money(-499, "USD"), Money(1500, "USD"), shop.clock.now)
        told = Dispute("du_1", intent, Money(499, "USD"), "needs_response", None, (taken,))
        dispute_told(conn, order_id, told, shop.clock.now, Teller("stripe", shop.clock.now))


HOLDS = {"held": hold, "paid back by hand": paid_back, "disputed": disputed}


def release(shop: Shop, order_id: UUID) -> None:
    who = Operator("mia", "settled", shop.clock.now)
    OperatorDesk(shop.tools).retry(order_id, who, RetryOptions(release_hold=True))


def queue(shop: Shop) -> list[Item]:
    with shop.engine.connect() as conn:
        return attention(conn, shop.clock.now)


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


@pytest.mark.parametrize("why", HOLDS)
def test_unit_in_work_when_the_hold_comes_is_bought_nowhere_else(shop: Shop, rows: Rows, why: str) -> None:
    def held_meanwhile(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
        HOLDS[why](shop, order_id)
        return rejects(ErrorType.OUT_OF_STOCK)(provider, request)

    shop.cheap.script.append(held_meanwhile)
    order_id = paid_order(shop.engine)
    report = shop.drain()
    assert (shop.dear.asked, shop.sold, unit_states(shop.engine, order_id)) == ([], 0, ["attention"])
    assert [one.outcome for one in report.reports] == ["rejected (out_of_stock)", "stopped: its order is held"]
    assert rows("select provider, state from purchase_attempts") == [{"provider": "airalo", "state": "rejected"}]
    assert rows("select failures, lease_owner, next_attempt_at from esims") == [
        {"failures": 0, "lease_owner": None, "next_attempt_at": None}
    ]
    [event] = rows("select to_status, reason from order_events where esim_n = 1 order by event_id desc limit 1")
    assert (event["to_status"], event["reason"]) == (
        "attention",
        rows("select hold_reason from orders")[0]["hold_reason"],
    )
    shop.clock.advance(minutes=90)
    shop.drain()
    assert (shop.sold, shop.gateway.calls, unit_states(shop.engine, order_id)) == (0, 0, ["attention"])


@pytest.mark.parametrize("why", HOLDS)
def test_hold_while_a_purchase_is_prepared_stops_it_before_it_is_sent(shop: Shop, rows: Rows, why: str) -> None:
    order_id = paid_order(shop.engine)
    shop.cheap.while_preparing = lambda: HOLDS[why](shop, order_id)
    shop.drain()
    assert (shop.cheap.asked, shop.dear.asked, unit_states(shop.engine, order_id)) == ([], [], ["attention"])
    [attempt] = rows("select state, error_type, sent_at from purchase_attempts")
    assert attempt == {"state": "rejected", "error_type": "not_bought", "sent_at": None}
    assert rows("select slug from providers where failures > 0") == []


def test_purchase_that_a_hold_stopped_is_made_when_the_hold_is_released(shop: Shop) -> None:
    order_id = paid_order(shop.engine)
    shop.cheap.while_preparing = lambda: hold(shop, order_id)
    shop.drain()
    shop.cheap.while_preparing = lambda: None
    release(shop, order_id)
    shop.drain()
    assert (order_state(shop.engine, order_id), shop.cheap.purchases, shop.dear.asked) == ("completed", 1, [])


def test_what_is_delivered_is_told_of_when_a_hold_stops_the_last_unit_in_work(shop: Shop, rows: Rows) -> None:
    shop.tools = shop.tools_with(drain_workers=1)
    order_id = paid_order(shop.engine, units=2)

    def second_is_stopped(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
        shop.cheap.while_preparing = lambda: hold(shop, order_id)
        return sells(provider, request)

    shop.cheap.script.append(second_is_stopped)
    Drain(shop.tools, DrainLimits(1, 0.0, 20.0)).run()
    assert sorted(unit_states(shop.engine, order_id)) == ["attention", "delivered"]
    assert len(rows("select key from outbox where kind = 'order_confirmation'")) == 1


def test_purchase_that_is_on_its_way_when_the_hold_comes_is_delivered(shop: Shop) -> None:
    def held_meanwhile(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
        hold(shop, order_id)
        return sells(provider, request)

    shop.cheap.script.append(held_meanwhile)
    order_id = paid_order(shop.engine)
    shop.drain()
    assert (unit_states(shop.engine, order_id), order_state(shop.engine, order_id)) == (["delivered"], "attention")


def test_held_unit_leaves_the_probe_of_a_resting_provider_to_others(shop: Shop, rows: Rows) -> None:
    with shop.engine.begin() as conn:
        over = {"over": shop.clock.now - timedelta(seconds=1)}
        conn.execute(text("update providers set failures = 5, open_until = :over where slug = 'airalo'"), over)
    before = rows("select open_until from providers where slug = 'airalo'")
    order_id = paid_order(shop.engine)
    [claim] = claim_units(shop.engine, "worker", 1, shop.clock.now, deadline_minutes=70)
    [found] = shop.tools.desk.offers([claim.sale])
    probe = next(offer for offer in found.offers if offer.half_open)
    hold(shop, order_id)
    assert UnitJournal(shop.tools.desk, Lease(claim, monotonic())).begin(probe, 0) is Skipped.HELD
    assert rows("select open_until from providers where slug = 'airalo'") == before


def test_unit_whose_hold_is_released_before_its_round_ends_is_tried_again_at_once(shop: Shop, rows: Rows) -> None:
    paid_order(shop.engine)
    [claim] = claim_units(shop.engine, "worker", 1, shop.clock.now, deadline_minutes=70)
    scribe = Scribe(shop.tools.vault, "worker", shop.clock.now)
    assert end_round(shop.engine, claim, Held(), RetryPolicy(2, True), scribe) is UnitStatus.QUEUED
    assert rows("select failures, next_attempt_at from esims") == [{"failures": 0, "next_attempt_at": shop.clock.now}]
    shop.drain()
    assert shop.sold == 1


def test_unit_of_a_held_order_that_nobody_sells_is_not_paid_back_by_itself(shop: Shop, rows: Rows) -> None:
    def held_meanwhile(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
        hold(shop, order_id)
        return rejects(ErrorType.INVALID_PRODUCT)(provider, request)

    shop.cheap.script.append(rejects(ErrorType.INVALID_PRODUCT))
    shop.dear.script.append(held_meanwhile)
    order_id = paid_order(shop.engine)
    shop.drain()
    assert (unit_states(shop.engine, order_id), rows("select state from refunds")) == (["attention"], [])
    assert rows("select last_error_type from esims") == [{"last_error_type": "invalid_product"}]
    [item] = queue(shop)
    assert (item.kind, item.reason) == ("held", WHY)
    assert any("order retry" in line and "--release-hold" in line for line in item.commands)
    release(shop, order_id)
    shop.drain()
    assert order_state(shop.engine, order_id) == "completed"


def test_given_up_unit_of_a_held_order_is_paid_back_only_after_the_release(shop: Shop, rows: Rows) -> None:
    refuse_all(shop, ErrorType.INVALID_PRODUCT)
    order_id = paid_order(shop.engine)
    shop.drain(tools=shop.tools_with(enable_auto_refund=False))
    assert hold(shop, order_id)
    assert refund_failed_units(shop.engine, "check", shop.clock.now) == 0
    assert (unit_states(shop.engine, order_id), rows("select state from refunds")) == (["failed"], [])
    [waits] = [item for item in queue(shop) if item.kind == "not_refunded"]
    assert all("--release-hold" in line for line in waits.commands)
    with shop.engine.begin() as conn:
        conn.execute(text("update orders set hold_reason = null"))
    assert refund_failed_units(shop.engine, "check", shop.clock.now) == 1


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
