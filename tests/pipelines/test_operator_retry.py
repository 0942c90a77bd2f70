"""An operator tries units again: at once, never what is bought, paid back or being bought."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text

from esim.errors import InvalidInput
from esim.money import Money
from esim.purchase import ErrorType
from resources.db.audit import Operator
from resources.db.operator_retry import RetryOptions
from resources.db.order_store import claim_units
from resources.db.payments import Booking, Payment, record_payment
from resources.db.stuck import refund_failed_units
from resources.db.transitions import hold_order, lock_order
from tests.pipelines.actors import accepts, never_hears, rejects
from tests.pipelines.conftest import Shop
from tests.pipelines.operating import Action, Counter
from tests.resources.db.shop import NOW, order_state, paid_order, place_order, unit_states

Rows = Callable[[str], list[dict[str, object]]]


@pytest.fixture
def counter(shop: Shop) -> Counter:
    return Counter(shop)


def retry(order_id: UUID, *units: int, extend: int | None = None, release: bool = False) -> Action:
    return lambda desk, who: desk.retry(order_id, who, RetryOptions(units, extend, release))


def refuse_all(shop: Shop, error_type: ErrorType, times: int = 1) -> None:
    for provider in (shop.cheap, shop.dear):
        provider.script.extend([rejects(error_type)] * times)


def hold(shop: Shop, order_id: UUID) -> None:
    with shop.engine.begin() as conn:
        hold_order(conn, lock_order(conn, order_id), reason="a dispute", actor="stripe", now=shop.clock.now)


def given_up(shop: Shop, units: int = 1) -> UUID:
    """A paid order whose units every provider refused for good; nobody asked for its refund."""
    refuse_all(shop, ErrorType.INVALID_PRODUCT, units)
    order_id = paid_order(shop.engine, units=units)
    shop.drain(tools=shop.tools_with(enable_auto_refund=False))
    assert set(unit_states(shop.engine, order_id)) == {"failed"}
    return order_id


def test_failed_unit_is_bought_at_once_with_all_its_retries(shop: Shop, counter: Counter, rows: Rows) -> None:
    order_id = given_up(shop)
    done = counter.do(retry(order_id))
    assert done.changes == ("eSIM 1 is tried again at once",)
    assert order_state(shop.engine, order_id) == "processing"
    assert rows("select failures, round_from from esims") == [{"failures": 0, "round_from": 2}]
    shop.drain()
    assert (order_state(shop.engine, order_id), shop.sold) == ("completed", 1)
    told = rows("select actor, reason from order_events where actor like 'operator:%' order by event_id limit 1")
    assert told == [{"actor": "operator:mia", "reason": "the customer asked"}]
    [audited] = rows("select actor, action, order_id, details from audit_events")
    assert (audited["actor"], audited["action"], audited["order_id"]) == ("operator:mia", "order retry", order_id)


def test_waiting_unit_is_due_at_once_and_listeners_hear_of_it(shop: Shop, counter: Counter) -> None:
    refuse_all(shop, ErrorType.OUT_OF_STOCK)
    order_id = paid_order(shop.engine)
    shop.drain()
    assert unit_states(shop.engine, order_id) == ["queued"]
    with psycopg.connect(shop.tools.url, autocommit=True) as ear:
        ear.execute("listen paid_units")
        counter.do(retry(order_id, 1))
        assert [note.channel for note in ear.notifies(timeout=5, stop_after=1)] == ["paid_units"]
    shop.drain()
    assert order_state(shop.engine, order_id) == "completed"


def test_what_is_delivered_or_paid_back_is_not_tried_again(shop: Shop, counter: Counter) -> None:
    shop.cheap.script.append(rejects(ErrorType.INVALID_PRODUCT))
    shop.dear.script.append(rejects(ErrorType.INVALID_PRODUCT))
    order_id = paid_order(shop.engine, units=2)
    shop.tools = shop.tools_with(drain_workers=1)
    shop.drain()
    states = unit_states(shop.engine, order_id)
    assert sorted(states) == ["delivered", "refunded"]
    delivered, refunded = states.index("delivered") + 1, states.index("refunded") + 1
    counter.refused(retry(order_id, delivered), f"eSIM {delivered} is delivered")
    counter.refused(retry(order_id, refunded), f"eSIM {refunded} is paid back")
    counter.refused(retry(order_id), "is delivered")
    counter.refused(retry(order_id, 3), "has eSIMs 1 to 2; there is no eSIM 3")


def test_unit_whose_refund_is_asked_for_is_not_tried_again(shop: Shop, counter: Counter) -> None:
    order_id = given_up(shop)
    refund_failed_units(shop.engine, "test", shop.clock.now)
    counter.refused(retry(order_id), "the refund of eSIM 1 is requested")


@pytest.mark.parametrize("step", [never_hears, accepts])
def test_open_purchase_is_looked_up_or_resolved_first(shop: Shop, counter: Counter, step: object) -> None:
    shop.cheap.capabilities = shop.dear.capabilities
    shop.cheap.script.append(step)  # type: ignore[arg-type]  # a step
    shop.cheap.on_resolve = shop.cheap.on_status = never_hears
    order_id = paid_order(shop.engine)
    shop.drain(max_seconds=0.3)
    counter.refused(retry(order_id), r"a purchase of eSIM 1 at airalo is open \((unknown|pending)\).*order resolve")


def test_unpaid_order_is_not_tried(shop: Shop, counter: Counter) -> None:
    with shop.engine.begin() as conn:
        order_id = place_order(conn)
    counter.refused(retry(order_id), "is pending and not paid")


def test_unit_in_work_needs_nothing(shop: Shop, counter: Counter) -> None:
    order_id = paid_order(shop.engine)
    [claim] = claim_units(shop.engine, "worker", 1, shop.clock.now, deadline_minutes=70)
    done = counter.do(retry(order_id))
    assert (done.changes, done.left_alone) == ((), ("eSIM 1 is being worked on right now",))
    assert unit_states(shop.engine, claim.order_id) == ["working"]


def test_held_order_goes_on_only_where_that_is_said(shop: Shop, counter: Counter, rows: Rows) -> None:
    order_id = paid_order(shop.engine)
    hold(shop, order_id)
    counter.refused(retry(order_id), "waits for a person's decision: a dispute.*--release-hold")
    done = counter.do(retry(order_id, release=True))
    assert done.changes == ("the hold is released (a dispute)", "eSIM 1 is tried again at once")
    assert rows("select hold_reason, attention_reason from orders") == [{"hold_reason": None, "attention_reason": None}]
    shop.drain()
    assert order_state(shop.engine, order_id) == "completed"


def test_hold_on_a_delivered_order_is_released_and_nothing_is_bought(shop: Shop, counter: Counter) -> None:
    order_id = paid_order(shop.engine)
    shop.drain()
    hold(shop, order_id)
    assert order_state(shop.engine, order_id) == "attention"
    assert counter.once(retry(order_id, release=True)).changes == ("the hold is released (a dispute)",)
    shop.drain()
    assert (order_state(shop.engine, order_id), shop.sold) == ("completed", 1)


def test_unit_past_its_deadline_needs_a_new_one(shop: Shop, counter: Counter, rows: Rows) -> None:
    order_id = given_up(shop)
    shop.clock.advance(minutes=90)
    counter.refused(retry(order_id), "deadline of order .* was .*--extend-deadline MINUTES")
    done = counter.do(retry(order_id, extend=60))
    assert len(done.changes) == 2
    shop.drain()
    assert order_state(shop.engine, order_id) == "completed"


def test_payment_that_did_not_fit_is_accepted_for_the_whole_order_or_not_at_all(shop: Shop, counter: Counter) -> None:
    with shop.engine.begin() as conn:
        order_id = place_order(conn, units=2)
        payment = Payment(order_id, "pi_odd", "cs_1", Money(900, "USD"), "evt_1")
        record_payment(conn, payment, Booking("stripe", shop.clock.now, 70))
    counter.refused(retry(order_id), "9.00 USD was paid instead of 9.98 USD.*--release-hold")
    counter.refused(retry(order_id, 1, release=True), "decide about all its eSIMs at once")
    counter.do(retry(order_id, release=True))
    shop.drain()
    assert (order_state(shop.engine, order_id), shop.sold) == ("completed", 2)


def test_one_unit_that_cannot_be_tried_stops_those_named_with_it(shop: Shop, counter: Counter) -> None:
    order_id = given_up(shop, units=2)
    with shop.engine.begin() as conn:
        conn.execute(text("update esims set status = 'delivered' where n = 2"))
        conn.execute(
            text(
                "insert into order_events (order_id, esim_n, to_status, reason, actor)"
                " select order_id, 2, 'delivered', 'test', 'test' from esims where n = 2"
            )
        )
    counter.refused(retry(order_id, 1, 2), "eSIM 2 is delivered")
    done = counter.once(retry(order_id))
    assert (done.changes, done.left_alone) == (("eSIM 1 is tried again at once",), ("eSIM 2 is delivered",))


def test_two_operators_at_once_are_served_one_after_the_other(shop: Shop, counter: Counter, rows: Rows) -> None:
    order_id = given_up(shop)
    with ThreadPoolExecutor(2) as pool:
        results = [future.result() for future in [pool.submit(counter.once, retry(order_id)) for _ in range(2)]]
    assert sorted(len(done.changes) for done in results) == [0, 1]
    assert rows("select count(*) as n from audit_events") == [{"n": 1}]


def test_action_without_a_reason_or_a_name_is_refused_and_addresses_are_not_kept() -> None:
    for name, reason in (("", "why"), ("mia", "  ")):
        with pytest.raises(InvalidInput):
            Operator(name, reason, NOW)
    assert "@" not in Operator("mia", "asked by jo@example.com", NOW).reason
