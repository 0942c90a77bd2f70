"""Claims, rounds and notices in the store: who gets what, when it comes again, and what is told."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, select, text, update

from esim.orders import UnitStatus
from esim.provisioning import Exhausted, Waiting
from esim.purchase import ErrorType, EventKind, ProviderEvent
from resources.db import drains, inbox, notices
from resources.db.candidates import UnitSale
from resources.db.inbox import provider_work
from resources.db.leases import reclaim_expired
from resources.db.order_store import (
    CLAIM,
    LEASE_SECONDS,
    Claim,
    claim_open_units,
    claim_units,
    due_in_seconds,
    waiting_units,
)
from resources.db.rounds import RetryPolicy, next_round_at
from resources.db.tables import esims, orders, outbox
from resources.db.transitions import lock_units, move_unit, settle_order
from tests.resources.db.shop import NOW, order_state, paid_order, place_order, unit_states

POLICY = RetryPolicy(3, auto_refund=True)


def claim_all(engine: Engine, owner: str = "d", limit: int = 100) -> list[Claim]:
    return claim_units(engine, owner, limit, NOW, deadline_minutes=70)


def test_claims_are_given_once_with_rising_fences_and_orders_start(engine: Engine) -> None:
    first, second = paid_order(engine, units=3), paid_order(engine)
    with engine.begin() as conn:
        place_order(conn)  # not paid
    with ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(lambda n: claim_all(engine, f"d{n}", 2), range(4)))
    claims = [claim for batch in batches for claim in batch] + claim_all(engine)
    assert len({claim.esim_id for claim in claims}) == len(claims) == 4
    assert {claim.fence for claim in claims} == {1}
    assert {order_state(engine, one) for one in (first, second)} == {"processing"}
    assert claim_all(engine) == []
    assert claims[0].deadline_at == NOW + timedelta(minutes=70)


def test_units_of_an_order_that_is_being_written_are_skipped_not_waited_for(engine: Engine) -> None:
    busy, free = paid_order(engine), paid_order(engine)
    with engine.begin() as conn:
        conn.execute(select(orders).where(orders.c.order_id == busy).with_for_update())
        assert [claim.order_id for claim in claim_all(engine)] == [free]
    assert [claim.order_id for claim in claim_all(engine)] == [busy]


def test_reclaimed_unit_without_an_attempt_goes_back_to_the_queue(engine: Engine) -> None:
    order_id = paid_order(engine)
    claim_all(engine)
    assert reclaim_expired(engine, "other", NOW + timedelta(seconds=LEASE_SECONDS - 1)) == 0
    assert reclaim_expired(engine, "other", NOW + timedelta(seconds=LEASE_SECONDS + 1)) == 1
    assert unit_states(engine, order_id) == ["queued"]


def test_counting_what_waits_and_when_the_next_is_due(engine: Engine) -> None:
    with engine.connect() as conn:
        assert (waiting_units(conn, NOW), due_in_seconds(conn, NOW)) == (0, (None, None))
    paid_order(engine, units=2)
    with engine.connect() as conn:
        assert waiting_units(conn, NOW) == 2
        assert waiting_units(conn, NOW - timedelta(seconds=5)) == 0
        assert due_in_seconds(conn, NOW - timedelta(seconds=5)) == (5.0, None)
    claim_all(engine)
    with engine.connect() as conn:
        assert waiting_units(conn, NOW) == 0
        assert waiting_units(conn, NOW + timedelta(seconds=LEASE_SECONDS + 1)) == 2  # their worker is gone


def test_unit_that_waits_for_a_person_without_an_open_purchase_is_not_looked_up_for_ever(engine: Engine) -> None:
    order_id = paid_order(engine)
    with engine.begin() as conn:
        [unit] = lock_units(conn, order_id)
        move_unit(conn, unit, UnitStatus.ATTENTION, reason="look", actor="t", now=NOW)
    assert claim_open_units(engine, 10, NOW) == []
    with engine.connect() as conn:
        assert conn.scalar(select(esims.c.next_attempt_at)) is None


def claim_with(failures: int = 0, minutes_left: int = 70) -> Claim:
    deadline = NOW + timedelta(minutes=minutes_left)
    return Claim(uuid4(), uuid4(), 1, 1, "d", failures, NOW, deadline, None, UnitSale("jp-1gb-7d", 4_990_000, 1))


@given(st.integers(0, 6), st.integers(-10, 600), st.booleans())
def test_next_round_is_never_beyond_the_deadline_nor_after_the_last_retry(
    failures: int, minutes_left: int, retryable: bool
) -> None:
    again_at = next_round_at(
        claim_with(failures, minutes_left), Exhausted(retryable, ErrorType.NETWORK_ERROR, ""), POLICY, NOW
    )
    if not retryable or failures >= 3 or minutes_left <= 1:
        assert again_at is None
    else:
        assert again_at is not None
        delay = timedelta(minutes=(5, 15, 60)[failures])
        assert again_at == min(NOW + delay, NOW + timedelta(minutes=minutes_left - 1))


@pytest.mark.parametrize(("left", "expected"), [(70, 2.0), (0, None)])
def test_waiting_ends_with_the_deadline(left: int, expected: float | None) -> None:
    again_at = next_round_at(claim_with(9, left), Waiting(2.0, "slot"), POLICY, NOW)
    assert again_at == (None if expected is None else NOW + timedelta(seconds=expected))


def deliver(engine: Engine, order_id: object, n: int, to: UnitStatus = UnitStatus.DELIVERED) -> None:
    with engine.begin() as conn:
        units = lock_units(conn, order_id)  # type: ignore[arg-type]  # an order id
        unit = units[n - 1]
        move_unit(conn, unit, UnitStatus.WORKING, reason="", actor="t", now=NOW)
        move_unit(conn, unit, to, reason="", actor="t", now=NOW)
        order = settle_order(conn, unit.order_id, reason="", actor="t", now=NOW)
        notices.tell_of_changes(conn, order, units, NOW)


def mails(engine: Engine) -> list[tuple[str, list[int]]]:
    with engine.connect() as conn:
        rows = conn.execute(
            select(outbox.c.key, outbox.c.payload).where(outbox.c.channel == "mail").order_by("outbox_id")
        )
        return [(row.key, row.payload["esims"]) for row in rows]


def test_customer_is_written_to_once_when_nothing_is_in_work(engine: Engine) -> None:
    order_id = paid_order(engine, units=2)
    deliver(engine, order_id, 1)
    assert mails(engine) == []
    deliver(engine, order_id, 2)
    assert mails(engine) == [(f"confirmation:{order_id}", [1, 2])]
    with engine.begin() as conn:
        order = settle_order(conn, order_id, reason="", actor="t", now=NOW)
        notices.tell_of_changes(conn, order, lock_units(conn, order_id), NOW)
    assert len(mails(engine)) == 1


def test_delivered_units_are_not_kept_from_the_customer_while_another_waits_long(engine: Engine) -> None:
    order_id = paid_order(engine, units=2)
    with engine.begin() as conn:
        conn.execute(update(esims).where(esims.c.n == 2).values(next_attempt_at=NOW + timedelta(minutes=5)))
    deliver(engine, order_id, 1)
    deliver(engine, order_id, 2)
    assert mails(engine) == [(f"confirmation:{order_id}", [1]), (f"confirmation:{order_id}:2", [2])]


def test_provider_events_become_work_only_when_they_speak_of_orders() -> None:
    ready = ProviderEvent("e", EventKind.ORDER_READY, reference="r", provider_order_id="o", iccid="8900")
    assert provider_work("airalo", ready) == {"provider": "airalo", "reference": "r", "provider_order_id": "o"}
    assert provider_work("airalo", ProviderEvent("e", EventKind.USAGE, iccid="8900")) is None
    assert provider_work("airalo", ProviderEvent("e", EventKind.ORDER_READY, iccid="8900")) is None


def test_event_about_nothing_we_know_is_worked_once(engine: Engine) -> None:
    with engine.begin() as conn:
        inbox.record(conn, "airalo", "e", "order_ready", None, "queued", {"provider": "airalo", "reference": "nobody"})
        assert inbox.work_provider_event(conn, NOW) == []
        assert inbox.work_provider_event(conn, NOW) is None


def test_event_that_nobody_heeded_wants_work(engine: Engine) -> None:
    with engine.begin() as conn:
        work = {"provider": "airalo", "reference": "r-1"}
        inbox.record(conn, "airalo", "evt-1", "order_ready", None, "to be read again", work)
        assert waiting_units(conn, NOW) == 1
        assert inbox.work_provider_event(conn, NOW) == []
        assert waiting_units(conn, NOW) == 0


def test_room_counts_living_drains_only(engine: Engine) -> None:
    with engine.begin() as conn:
        for name in ("a", "b", "gone", "ended"):
            drains.register(conn, name, 8, NOW, f"run-{name}")
        drains.beat(conn, "a", 3, NOW)
        drains.beat(conn, "gone", 0, NOW - timedelta(minutes=1))
        drains.end(conn, "ended", NOW)
        assert drains.room(conn, NOW) == drains.Room(2, 13)
        assert drains.unregistered(conn, ["run-a", "run-x"]) == 1
        assert drains.unregistered(conn, []) == 0


def test_claiming_uses_its_index(engine: Engine) -> None:
    with engine.begin() as conn:
        conn.execute(text("set local enable_seqscan = off"))
        values = {"now": NOW, "limit": 16, "owner": "a", "until": NOW, "run_id": None}
        plan = "\n".join(conn.execute(text(f"explain {CLAIM.text}"), values).scalars())
    assert "ix_esims_claimable" in plan
    assert "Seq Scan on orders" not in plan
