"""Writers that meet take their locks in one order, so that nobody waits in a circle."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

from sqlalchemy import Engine, text

from esim.money import Money
from esim.ports import PaymentEvent
from resources.db import inbox
from resources.db.attempts import new_reference
from resources.db.databases import at_once
from resources.db.intents import Intent, write_intents
from resources.db.order_store import Claim, claim_units
from resources.db.payments import Booking, Payment, first_payments
from resources.payment_events import DUPLICATE, SOURCE, take_event
from tests.pipelines.actors import wait_until
from tests.pipelines.conftest import Shop
from tests.resources.db.shop import NOW, paid_order, place_order

BOOKING = Booking("test", NOW, 70)


def blocked(engine: Engine) -> Callable[[], bool]:
    """Whether another session of this database waits for a lock."""
    waiting = text(
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    )

    def look() -> bool:
        with engine.connect() as conn:
            return bool(conn.scalar(waiting))

    return look


def intent(claim: Claim, slot: str) -> Intent:
    return Intent(
        esim_id=claim.esim_id,
        order_id=claim.order_id,
        fence=claim.fence,
        owner=claim.owner,
        failover_step=0,
        provider="esim_go",
        offer_id=f"esim_go:{slot}",
        provider_package_id=slot,
        package_name=slot,
        order_hints={},
        reference=new_reference(),
        expected_cost=Decimal(2),
        ceiling_cost=Decimal(3),
        currency="USD",
        slot=slot,
        run_id=None,
        started_at=NOW,
    )


def test_batches_that_want_the_same_slots_do_not_wait_in_a_circle(shop: Shop) -> None:
    for _ in range(4):
        paid_order(shop.engine)
    one, two, three, four = claim_units(shop.engine, "drain-1", 4, NOW, deadline_minutes=70)

    def other_batch() -> list[int | None]:
        with at_once(shop.engine).connect() as conn:
            return write_intents(conn, [intent(three, "plan-b"), intent(four, "plan-a")])

    with ThreadPoolExecutor(1) as pool:
        with shop.engine.begin() as conn:
            (first,) = write_intents(conn, [intent(one, "plan-a")])
            other = pool.submit(other_batch)
            wait_until(blocked(shop.engine))
            (second,) = write_intents(conn, [intent(two, "plan-b")])
        assert None not in (first, second)
        assert other.result(20) == [None, None]


def test_an_event_and_a_batch_of_payments_do_not_wait_in_a_circle(shop: Shop) -> None:
    with shop.engine.begin() as conn:
        order_id = place_order(conn)
    paid = Money(499, "USD")
    event = PaymentEvent("evt_1", "checkout.session.completed", NOW, str(order_id), "cs_1", "pi_1", paid, "paid", {})
    payment = Payment(order_id, "pi_1", "cs_1", paid, "evt_1")

    def reconciler() -> str:
        with shop.engine.begin() as conn:
            return take_event(conn, event, BOOKING).handled

    with ThreadPoolExecutor(1) as pool:
        with shop.engine.begin() as conn:
            assert len(first_payments(conn, [(payment, BOOKING)])) == 1
            other = pool.submit(reconciler)
            wait_until(blocked(shop.engine))
            assert inbox.record_many(conn, SOURCE, [("evt_1", event.type, order_id)], "paid") == {"evt_1"}
        assert other.result(20) == DUPLICATE
