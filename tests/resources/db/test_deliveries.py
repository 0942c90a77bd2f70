"""Deliveries in one transaction leave exactly what the careful way leaves, and leave to it whatever is out of line."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, insert, select, text, update

from esim.money import Cost
from esim.provisioning import BuyableOffer
from esim.purchase import EsimProfile, Provisioned
from resources.db.attempts import new_reference
from resources.db.deliveries import Delivery, deliver_together
from resources.db.intents import Clearance, Intent, clear_intents, write_intents
from resources.db.order_store import Claim, claim_units
from resources.db.settlement import Scribe, keep_outcome
from resources.db.tables import esims, orders, purchase_attempts, stock_esims
from resources.db.transitions import hold_order, lock_order
from resources.db.vault import Vault
from resources.settings import Settings
from tests.resources.db.shop import NOW, OfferSpec, open_shop, order_state, paid_order, unit_states

COST = Cost.parse("2", "USD")
ORDER_OF: dict[int, UUID] = {}  # of the purchases that this test prepared


@pytest.fixture
def vault(settings: Settings) -> Vault:
    return Vault.from_settings(settings)


@pytest.fixture
def shop(engine: Engine) -> Engine:
    open_shop(engine, [OfferSpec("airalo", "2.00")])
    return engine


def intent_of(claim: Claim) -> Intent:
    offer = BuyableOffer("airalo:plan-1", "airalo", "plan-1", "one", COST, Cost.parse("4", "USD"), 2_000_000)
    return Intent(
        claim.esim_id,
        claim.order_id,
        claim.fence,
        claim.owner,
        0,
        offer.provider,
        offer.offer_id,
        offer.provider_package_id,
        offer.name,
        {},
        new_reference(),
        offer.expected_cost.amount,
        offer.cost_ceiling.amount,
        "USD",
        None,
        "run-1",
        NOW,
    )


def prepared(engine: Engine, count: int) -> list[tuple[Claim, int]]:
    """Claim units and bring each to a purchase that may be on the wire."""
    claims = claim_units(engine, "drain-a", count, NOW, deadline_minutes=70)
    intents = [intent_of(claim) for claim in claims]
    with engine.begin() as conn:
        ids = write_intents(conn, intents)
        cleared = clear_intents(conn, [Clearance(one.reference, one.fence, one.owner, NOW, {}) for one in intents])
    assert all(ids)
    assert all(cleared)
    purchases = [(claim, int(attempt_id or 0)) for claim, attempt_id in zip(claims, ids, strict=True)]
    ORDER_OF.update({attempt_id: claim.order_id for claim, attempt_id in purchases})
    return purchases


def bought(attempt_id: int, iccid: str = "", cost: Cost = COST) -> Provisioned:
    profile = EsimProfile(iccid or f"8900{attempt_id:015d}", "smdp.example.com", f"CODE-{attempt_id}")
    return Provisioned(profile, f"A-{attempt_id}", cost)


def delivery(attempt_id: int, outcome: Provisioned | None = None) -> Delivery:
    return Delivery(attempt_id, outcome or bought(attempt_id), ORDER_OF[attempt_id], "drain-a", NOW, "run-1", 12)


def left_behind(engine: Engine, order_id: UUID) -> dict[str, Any]:
    """Everything an order's delivery wrote, without what is different each time (ids, keys, ciphertexts, xids)."""
    statements = {
        "order": "select status, completed_at, attention_reason from orders where order_id = :id",
        "units": "select n, status, provider, offer_id, cost_amount, cost_currency, cost_micros, delivered_at,"
        " next_attempt_at, lease_owner, lease_until from esims where order_id = :id order by n",
        "attempts": "select number, state, cost, cost_micros, finished_at, latency_ms, slot, error"
        " from purchase_attempts where order_id = :id order by esim_id, number",
        "events": "select esim_n, from_status, to_status, reason, actor, run_id, details - 'payment_intent' as d, at"
        " from order_events where order_id = :id order by coalesce(esim_n, 0), event_id",
        "ledger": "select account, esim_n, amount_micros, original_amount, original_currency from ledger_entries"
        " where order_id = :id order by esim_n, account",
        "notices": "select split_part(replace(key, 'slack:', ''), ':', 1) as key, channel, kind, payload - 'text' as p"
        " from outbox where order_id = :id order by 1",
    }
    with engine.connect() as conn:
        return {name: conn.execute(text(sql), {"id": order_id}).all() for name, sql in statements.items()}


@pytest.mark.parametrize("units", [1, 3])
def test_batch_leaves_exactly_what_the_careful_way_leaves(shop: Engine, vault: Vault, units: int) -> None:
    ids = [paid_order(shop, units=units) for _ in range(4)]
    purchases = prepared(shop, 4 * units)
    batch = [(claim, one) for claim, one in purchases if claim.order_id in ids[:2]]
    careful = [(claim, one) for claim, one in purchases if claim.order_id in ids[2:]]
    assert deliver_together(shop, vault, [delivery(one) for _, one in batch]) == [True] * (2 * units)
    for _, one in careful:
        keep_outcome(shop, one, bought(one), Scribe(vault, "drain-a", NOW, "run-1"), 12)
    told = [left_behind(shop, order_id) for order_id in ids]
    assert told[0]["order"][0].status == "completed"
    assert [row.status for row in told[0]["units"]] == ["delivered"] * units
    assert sum(row.amount_micros for row in told[0]["ledger"]) == 0
    assert told[0] == told[1] == told[2] == told[3]


def test_profile_can_be_read_back(shop: Engine, vault: Vault) -> None:
    paid_order(shop)
    [(claim, one)] = prepared(shop, 1)
    assert deliver_together(shop, vault, [delivery(one)]) == [True]
    with shop.connect() as conn:
        sealed = conn.scalar(select(esims.c.profile_enc).where(esims.c.esim_id == claim.esim_id))
    assert vault.decrypt_profile(bytes(sealed)) == bought(one).profile


def test_same_delivery_again_changes_nothing(shop: Engine, vault: Vault) -> None:
    order_id = paid_order(shop)
    [(_, one)] = prepared(shop, 1)
    deliver_together(shop, vault, [delivery(one)])
    before = left_behind(shop, order_id)
    assert deliver_together(shop, vault, [delivery(one)]) == [False]
    assert left_behind(shop, order_id) == before


def test_one_esim_named_twice_in_a_batch_is_delivered_to_nobody(shop: Engine, vault: Vault) -> None:
    order_ids = [paid_order(shop) for _ in range(3)]
    purchases = prepared(shop, 3)
    twice = {purchases[0][1], purchases[1][1]}
    batch = [delivery(one, bought(one, "89001" if one in twice else "")) for _, one in purchases]
    assert deliver_together(shop, vault, batch) == [False, False, True]
    states = {claim.order_id: unit_states(shop, claim.order_id)[0] for claim, _ in purchases}
    assert sorted(states.values()) == ["delivered", "working", "working"]
    assert set(states) == set(order_ids)


def test_esim_that_another_unit_has_is_left_to_the_careful_way(shop: Engine, vault: Vault) -> None:
    paid_order(shop), paid_order(shop)
    (_, first), (_, second) = prepared(shop, 2)
    assert deliver_together(shop, vault, [delivery(first, bought(first, "89001"))]) == [True]
    assert deliver_together(shop, vault, [delivery(second, bought(second, "89001"))]) == [False]


def hold(engine: Engine, claim: Claim) -> None:
    with engine.begin() as conn:
        hold_order(conn, lock_order(conn, claim.order_id), reason="a dispute", actor="stripe", now=NOW)


def give_up(engine: Engine, claim: Claim) -> None:
    with engine.begin() as conn:
        conn.execute(update(esims).where(esims.c.esim_id == claim.esim_id).values(status="refunded"))


def close(engine: Engine, claim: Claim) -> None:
    with engine.begin() as conn:
        closed = update(purchase_attempts).where(purchase_attempts.c.esim_id == claim.esim_id)
        conn.execute(closed.values(state="rejected"))


@pytest.mark.parametrize("disturb", [hold, give_up, close])
def test_whatever_is_out_of_line_is_left_alone(shop: Engine, vault: Vault, disturb: Any) -> None:
    paid_order(shop), paid_order(shop)
    (odd, odd_attempt), (_, plain_attempt) = prepared(shop, 2)
    disturb(shop, odd)
    before = left_behind(shop, odd.order_id)
    assert deliver_together(shop, vault, [delivery(odd_attempt), delivery(plain_attempt)]) == [False, True]
    assert left_behind(shop, odd.order_id) == before


def test_cost_above_the_ceiling_and_in_another_currency_are_left_to_the_careful_way(shop: Engine, vault: Vault) -> None:
    paid_order(shop), paid_order(shop)
    paid_order(shop)
    (_, dear), (_, foreign), (_, unrated) = prepared(shop, 3)
    told = [bought(dear, cost=Cost.parse("4.01", "USD")), bought(foreign, cost=Cost.parse("1", "EUR"))]
    without_rate = delivery(unrated, bought(unrated, cost=Cost.parse("1", "XAU")))
    with shop.begin() as conn:
        conn.execute(
            text("insert into reference_rates (currency, quoted_on, usd_micros) values ('EUR', '2026-11-20', 1100000)")
        )
    deliveries = [delivery(dear, told[0]), delivery(foreign, told[1]), without_rate]
    assert deliver_together(shop, vault, deliveries) == [False, False, False]


def in_stock(engine: Engine, attempt_id: int, number: str, iccid_hash: bytes | None) -> None:
    """Put an eSIM into stock for the attempt, with the state that such attempts have."""
    with engine.begin() as conn:
        conn.execute(
            update(purchase_attempts).where(purchase_attempts.c.attempt_id == attempt_id).values(state="stocked")
        )
        row = {"attempt_id": attempt_id, "provider": "airalo", "offer_id": "airalo:plan-1", "reason": "test"}
        conn.execute(insert(stock_esims).values(**row, provider_order_id=number, iccid_hash=iccid_hash))


@pytest.mark.parametrize("by", ["number", "iccid", "another's number"])
def test_what_is_in_stock_or_anothers_order_is_left_alone(shop: Engine, vault: Vault, by: str) -> None:
    for _ in range(3):
        paid_order(shop)
    (_, late), (_, odd), (_, plain) = prepared(shop, 3)
    found = bought(odd)
    if by == "another's number":
        with shop.begin() as conn:
            other = update(purchase_attempts).where(purchase_attempts.c.attempt_id == late)
            conn.execute(other.values(state="pending", provider_order_id=found.provider_order_id))
    else:
        number = found.provider_order_id if by == "number" else "another-number"
        in_stock(shop, late, number, vault.lookup_hash(found.profile.iccid) if by == "iccid" else None)
    assert deliver_together(shop, vault, [delivery(odd, found), delivery(plain)]) == [False, True]


def test_two_orders_of_one_number_in_one_batch_are_left_alone(shop: Engine, vault: Vault) -> None:
    paid_order(shop), paid_order(shop)
    (_, one), (_, two) = prepared(shop, 2)
    second = Provisioned(bought(two).profile, bought(one).provider_order_id, COST)
    assert deliver_together(shop, vault, [delivery(one), delivery(two, second)]) == [False, False]


def test_batches_over_the_same_orders_do_not_block_each_other(shop: Engine, vault: Vault) -> None:
    ids = [paid_order(shop, units=4) for _ in range(6)]
    purchases = [one for _, one in prepared(shop, 24)]
    halves = [purchases[::2], purchases[1::2][::-1]]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda half: deliver_together(shop, vault, [delivery(one) for one in half]), halves))
    assert done == [[True] * 12, [True] * 12]
    assert {order_state(shop, order_id) for order_id in ids} == {"completed"}
    with shop.connect() as conn:
        told = conn.execute(text("select count(*), count(distinct order_id) from outbox where channel = 'mail'")).one()
    assert tuple(told) == (6, 6)


def later(minutes: int) -> datetime:
    return NOW + timedelta(minutes=minutes)


def test_intent_is_written_once_and_only_for_its_own_worker(shop: Engine) -> None:
    paid_order(shop), paid_order(shop)
    first, second = claim_units(shop, "drain-a", 2, NOW, deadline_minutes=70)
    stranger = intent_of(second)
    with shop.begin() as conn:
        conn.execute(update(esims).where(esims.c.esim_id == second.esim_id).values(fence=second.fence + 1))
    with shop.begin() as conn:
        written = write_intents(conn, [intent_of(first), stranger])
    assert [one is not None for one in written] == [True, False]
    with shop.begin() as conn:
        assert write_intents(conn, [intent_of(first)]) == [None]  # one open purchase a unit


def test_clearance_wants_a_running_lease(shop: Engine) -> None:
    paid_order(shop), paid_order(shop)
    claims = claim_units(shop, "drain-a", 2, NOW, deadline_minutes=70)
    intents = [intent_of(claim) for claim in claims]
    with shop.begin() as conn:
        write_intents(conn, intents)
        late = Clearance(intents[1].reference, intents[1].fence, "drain-a", later(5), {})
        in_time = Clearance(intents[0].reference, intents[0].fence, "drain-a", later(0), {"dry_run": "ok"})
        assert clear_intents(conn, [in_time, late]) == [True, False]
        assert clear_intents(conn, [in_time]) == [False]  # a purchase is cleared once
        states = conn.execute(select(purchase_attempts.c.state).order_by(purchase_attempts.c.attempt_id)).scalars()
        assert sorted(states) == ["intent", "prepared"]


def test_orders_are_what_their_units_say(shop: Engine, vault: Vault) -> None:
    order_id = paid_order(shop, units=2)
    (_, first), (_, second) = prepared(shop, 2)
    deliver_together(shop, vault, [delivery(first)])
    assert order_state(shop, order_id) == "processing"
    with shop.connect() as conn:
        assert conn.scalar(text("select count(*) from outbox")) == 0  # nobody is told before the last one is there
    deliver_together(shop, vault, [delivery(second)])
    assert order_state(shop, order_id) == "completed"
    with shop.connect() as conn:
        assert conn.scalar(select(orders.c.completed_at)) == NOW


def test_nothing_is_begun_or_cleared_for_an_order_that_is_held(shop: Engine) -> None:
    paid_order(shop), paid_order(shop)
    held, free = claim_units(shop, "drain-a", 2, NOW, deadline_minutes=70)
    begun = [intent_of(held), intent_of(free)]
    with shop.begin() as conn:
        assert all(write_intents(conn, begun))
    hold(shop, held)
    with shop.begin() as conn:
        clearances = [Clearance(one.reference, one.fence, one.owner, NOW, {}) for one in begun]
        assert clear_intents(conn, clearances) == [False, True]
        conn.execute(update(purchase_attempts).values(state="rejected"))
        again = write_intents(conn, [intent_of(held), intent_of(free)])
    assert [one is not None for one in again] == [False, True]
