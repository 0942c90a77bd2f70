"""Orders that should be done by now end moved on or in front of a person; what waits for its next try is left alone."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import Engine, text

from resources.db.stuck import nudge_order, show_stuck_order, stuck_orders
from tests.pipelines.actors import never_hears
from tests.pipelines.conftest import Shop
from tests.resources.db.shop import NOW, order_state, paid_order, unit_states

HOUR = timedelta(hours=1)
LATE = NOW + timedelta(minutes=65)  # within the deadline of 70 minutes
TOO_LATE = NOW + timedelta(minutes=80)


def found(engine: Engine, now: object = LATE) -> list[UUID]:
    assert isinstance(now, type(NOW))
    with engine.connect() as conn:
        return stuck_orders(conn, now - HOUR, now)


def change(engine: Engine, statement: str, **values: object) -> None:
    with engine.begin() as conn:
        conn.execute(text(statement), values)


def check(shop: Shop, order_id: UUID, now: object) -> bool:
    """Do for one order what the hourly check does: nudge it, work it, and show it when it is stuck still."""
    assert isinstance(now, type(NOW))
    shop.clock.now = now
    nudge_order(shop.engine, order_id, "test", now)
    shop.drain()
    return order_id in found(shop.engine, now) and show_stuck_order(shop.engine, order_id, "test", now)


def test_a_unit_that_waits_for_its_retry_is_not_stuck_until_its_deadline(shop: Shop, engine: Engine) -> None:
    order_id = paid_order(engine)
    change(engine, "update orders set status = 'processing'")
    change(engine, "update esims set next_attempt_at = :at", at=TOO_LATE + HOUR)
    assert found(engine, LATE) == []
    assert found(engine, TOO_LATE) == [order_id]


def test_beside_a_waiting_unit_another_may_be_stuck(shop: Shop, engine: Engine) -> None:
    order_id = paid_order(engine, units=2)
    change(engine, "update esims set next_attempt_at = :at", at=TOO_LATE)
    change(engine, "update esims set status = 'unknown' where n = 2")
    assert found(engine) == [order_id]


def test_a_unit_whose_retry_comes_after_the_deadline_is_paid_back_at_the_deadline(shop: Shop, engine: Engine) -> None:
    order_id = paid_order(engine)
    change(engine, "update esims set next_attempt_at = :at", at=TOO_LATE + HOUR)
    assert check(shop, order_id, TOO_LATE) is False
    assert unit_states(engine, order_id) == ["refunded"]


def test_a_unit_that_was_never_queued_is_shown_with_the_reason(shop: Shop, engine: Engine) -> None:
    order_id = paid_order(engine)
    change(engine, "update esims set status = 'unpaid'")
    check(shop, order_id, LATE)
    assert order_state(engine, order_id) == "attention"
    with engine.connect() as conn:
        reason = conn.scalar(text("select reason from order_events where to_status = 'attention' and esim_n = 1"))
    assert reason == "its order is paid, but it was never queued"


def test_an_order_that_is_not_paid_is_left_alone(shop: Shop, engine: Engine) -> None:
    order_id = paid_order(engine)
    change(engine, "update orders set status = 'pending'")
    change(engine, "update esims set status = 'unpaid', next_attempt_at = null")
    nudge_order(engine, order_id, "test", LATE)
    assert (order_state(engine, order_id), unit_states(engine, order_id)) == ("pending", ["unpaid"])


def test_an_open_purchase_is_looked_up_on_and_has_an_end_after_the_deadline(shop: Shop, engine: Engine) -> None:
    shop.cheap.script.append(never_hears)
    shop.cheap.on_resolve = never_hears
    order_id = paid_order(engine)
    shop.drain(max_seconds=0.2)
    assert check(shop, order_id, LATE) is False
    assert unit_states(engine, order_id) == ["unknown"]
    check(shop, order_id, TOO_LATE)
    assert order_state(engine, order_id) in {"attention", "refunded"}  # a person's word, or the money back


def test_an_open_purchase_of_an_order_without_a_deadline_is_shown_too(shop: Shop, engine: Engine) -> None:
    shop.cheap.script.append(never_hears)
    shop.cheap.on_resolve = never_hears
    order_id = paid_order(engine)
    shop.drain(max_seconds=0.2)
    change(engine, "update orders set deadline_at = null")
    assert check(shop, order_id, TOO_LATE) is True
    assert order_state(engine, order_id) == "attention"


def test_what_a_worker_holds_is_left_to_it(shop: Shop, engine: Engine) -> None:
    order_id = paid_order(engine)
    change(engine, "update esims set status = 'working', lease_owner = 'w', lease_until = :at", at=TOO_LATE + HOUR)
    assert show_stuck_order(engine, order_id, "test", TOO_LATE) is False
    assert unit_states(engine, order_id) == ["working"]


def test_an_order_left_behind_by_its_units_follows_them(shop: Shop, engine: Engine) -> None:
    order_id = paid_order(engine)
    shop.drain()
    change(engine, "update orders set status = 'processing'")
    assert found(engine) == [order_id]
    check(shop, order_id, LATE)
    assert order_state(engine, order_id) == "completed"
