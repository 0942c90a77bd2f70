"""The health table is rolled up from purchases, and a provider most of whose purchases fail is degraded, told once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Engine, insert, select, text

from esim.health import HealthRule, Standing
from esim.money import Cost
from resources.db.audit import Operator
from resources.db.catalogue_store import provider_states
from resources.db.operator_providers import reset_provider
from resources.db.provider_events import newest_events
from resources.db.provider_health import ProviderHealth, read_health, refresh_health
from resources.db.provider_state import end_read_probe, note_outcome
from resources.db.tables import esims, purchase_attempts
from tests.resources.db.shop import NOW, OfferSpec, open_shop, paid_order
from tests.resources.db.test_alerts import is_open, told
from tests.resources.db.test_provider_state import BOUGHT, TIMEOUT

RULE = HealthRule(min_attempts=4, min_success_percent=50)


def tried(engine: Engine, provider: str, *states: str, at: datetime = NOW, ms: int = 100) -> None:
    """Write purchases as they are kept when they are over."""
    for state in states:
        order_id = paid_order(engine)
        error = "provider_api_error" if state == "rejected" else None
        with engine.begin() as conn:
            row = {
                "esim_id": conn.execute(select(esims.c.esim_id).where(esims.c.order_id == order_id)).scalar_one(),
                "order_id": order_id,
                "number": 1,
                "failover_step": 0,
                "provider": provider,
                "offer_id": f"{provider}:plan-1",
                "provider_package_id": "plan-1",
                "reference": uuid4().hex[:26],
                "fence": 1,
                "expected_cost": 2,
                "ceiling_cost": 4,
                "currency": "USD",
                "state": state,
                "error_type": error,
                "started_at": at,
                "sent_at": at,
                "latency_ms": ms,
            }
            conn.execute(insert(purchase_attempts).values(**row))


def of(health: list[ProviderHealth], slug: str) -> ProviderHealth:
    return next(one for one in health if one.slug == slug)


@pytest.fixture(autouse=True)
def shop(engine: Engine) -> None:
    open_shop(engine, [OfferSpec("airalo", "2.00"), OfferSpec("esim_go", "3.00")])


def test_figures_are_those_of_each_providers_own_newest_purchases(engine: Engine) -> None:
    tried(engine, "airalo", "provisioned", "rejected", ms=40)
    tried(engine, "airalo", "provisioned", ms=400)
    tried(engine, "airalo", "rejected", at=NOW - timedelta(minutes=61))
    tried(engine, "esim_go", "unknown", ms=9000)
    health = refresh_health(engine, RULE, NOW)
    airalo = of(health, "airalo").figures
    assert (airalo.attempts, airalo.successes, airalo.p50_ms, airalo.p95_ms) == (3, 2, 40, 400)
    assert of(health, "esim_go").figures.success_percent == 0
    assert of(health, "mobimatter").reason == "no purchase that counts in the last hour"
    with engine.connect() as conn:
        assert read_health(conn, NOW) == health


def test_a_provider_below_the_rate_is_degraded_and_recovers_with_the_margin_told_once_each(engine: Engine) -> None:
    tried(engine, "airalo", "rejected", "rejected", "rejected")
    assert of(refresh_health(engine, RULE, NOW), "airalo").well  # too few to prove anything
    tried(engine, "airalo", "unknown")
    for _ in range(2):
        assert of(refresh_health(engine, RULE, NOW), "airalo").standing is Standing.DEGRADED
    with engine.connect() as conn:
        states = provider_states(conn, NOW)
    assert (states["airalo"].degraded, states["esim_go"].degraded) == (True, False)
    tried(engine, "airalo", *["provisioned"] * 5)  # 5 of 9: above the rate, within the margin
    assert not of(refresh_health(engine, RULE, NOW), "airalo").well
    tried(engine, "airalo", "provisioned")
    assert of(refresh_health(engine, RULE, NOW), "airalo").well
    notes = told(engine)
    assert ["only 0 of the last 4" in notes[0], "6 of the last 10" in notes[1], len(notes)] == [True, True, 2]
    assert is_open(engine) == []
    with engine.connect() as conn:
        assert {what for _, what, _, _ in newest_events(conn, "airalo")} == {"degraded", "recovered"}


def after(**passed: float) -> datetime:
    return NOW + timedelta(**passed)


def degraded_at(engine: Engine, now: datetime) -> bool:
    refresh_health(engine, RULE, now)
    with engine.connect() as conn:
        return provider_states(conn, now)["airalo"].degraded


def test_a_degraded_provider_that_nobody_asks_gets_another_chance_in_a_minute(engine: Engine) -> None:
    tried(engine, "airalo", *["rejected"] * 4)
    assert [degraded_at(engine, after(seconds=late)) for late in (0, 59, 60, 70)] == [True, True, False, False]
    assert "its next purchases decide" in told(engine)[-1]
    with engine.connect() as conn:
        assert newest_events(conn, "airalo")[0][1:3] == (
            "recovered",
            "it has rested for 60 s; its next purchases decide",
        )
    tried(engine, "airalo", *["provisioned"] * 4, at=after(seconds=80))
    assert not degraded_at(engine, after(seconds=90))
    assert len(told(engine)) == 2


def test_one_that_goes_on_failing_gets_its_chances_ever_more_rarely_and_loses_them_sooner(engine: Engine) -> None:
    tried(engine, "airalo", *["rejected"] * 4)
    assert degraded_at(engine, NOW)
    assert not degraded_at(engine, after(minutes=1))
    tried(engine, "airalo", *["rejected"] * 2, at=after(minutes=1, seconds=1))
    assert [degraded_at(engine, after(minutes=at)) for at in (2, 3.9, 4)] == [True, True, False]
    tried(engine, "airalo", *["rejected"] * 2, at=after(minutes=4, seconds=1))
    assert [degraded_at(engine, after(minutes=at)) for at in (5, 8.9, 9)] == [True, True, False]
    tried(engine, "airalo", *["rejected"] * 3, at=after(minutes=90))  # the past is forgotten by now
    assert not degraded_at(engine, after(minutes=91))


def test_after_an_outage_a_purchase_that_closes_the_circuit_makes_its_provider_whole(engine: Engine) -> None:
    for _ in range(5):
        note_outcome(engine, "airalo", TIMEOUT, NOW)
    tried(engine, "airalo", *["unknown"] * 12)
    assert degraded_at(engine, NOW)
    note_outcome(engine, "airalo", BOUGHT, after(seconds=55))
    assert not degraded_at(engine, after(seconds=56))
    assert "what failed before no longer counts" in told(engine)[-1]
    tried(engine, "airalo", "rejected", at=after(seconds=57))
    health = of(refresh_health(engine, RULE, after(seconds=58)), "airalo")
    assert health.well
    assert health.figures.attempts == 1


def test_outages_one_after_another_are_not_added_up(engine: Engine) -> None:
    for minute in (0, 10, 20):
        for _ in range(5):
            note_outcome(engine, "airalo", TIMEOUT, after(minutes=minute))
        tried(engine, "airalo", *["unknown"] * 4, at=after(minutes=minute))
        assert degraded_at(engine, after(minutes=minute, seconds=1))
        assert not degraded_at(engine, after(minutes=minute, seconds=61))
        note_outcome(engine, "airalo", BOUGHT, after(minutes=minute, seconds=62))


def test_a_provider_that_answers_again_after_an_outage_is_the_best_price_again_at_the_next_look(
    engine: Engine,
) -> None:
    for _ in range(5):
        note_outcome(engine, "airalo", TIMEOUT, NOW)
    tried(engine, "airalo", *["unknown"] * 12)
    for minute in range(90):
        with engine.begin() as conn:
            rest = text("update providers set open_until = :at where slug = 'airalo'")
            conn.execute(rest, {"at": after(minutes=minute, seconds=60)})
        assert degraded_at(engine, after(minutes=minute)), "nobody is told that it is well while it rests"
    again = after(minutes=90)
    with engine.begin() as conn:
        end_read_probe(conn, "airalo", "", again, "watch")
    assert not degraded_at(engine, again)
    with engine.connect() as conn:
        assert not provider_states(conn, again)["airalo"].circuit_open


def test_an_operators_reset_ends_it_at_once_also_where_the_circuit_never_opened(engine: Engine) -> None:
    tried(engine, "airalo", *["rejected"] * 4)
    assert degraded_at(engine, NOW)
    who = Operator("mia", "they say it is mended", after(seconds=5))
    with engine.begin() as conn:
        done = reset_provider(conn, "airalo", who)
        assert reset_provider(conn, "esim_go", who).changes == ()
    assert done.changes == (
        "airalo is degraded no longer: its purchases so far do not count; prices follow within a minute",
    )
    assert not degraded_at(engine, after(seconds=6))


def test_a_look_that_waited_for_another_one_does_not_take_its_chance_back(engine: Engine) -> None:
    tried(engine, "airalo", *["rejected"] * 4)
    assert degraded_at(engine, NOW)
    with ThreadPoolExecutor(2) as pool:
        looks = [pool.submit(refresh_health, engine, RULE, after(seconds=60)) for _ in range(2)]
        assert all(of(look.result(), "airalo").well for look in looks)
    assert len(told(engine)) == 2


def test_only_rows_that_changed_are_written(engine: Engine) -> None:
    tried(engine, "airalo", "provisioned")
    refresh_health(engine, RULE, NOW)
    refresh_health(engine, RULE, NOW + timedelta(seconds=15))
    with engine.connect() as conn:
        assert set(conn.scalars(text("select computed_at from provider_health"))) == {NOW}


def test_balance_errors_and_circuit_are_shown_beside_the_figures(engine: Engine) -> None:
    with engine.begin() as conn:
        conn.execute(
            text(
                "update providers set balance_amount = 12.5, balance_currency = 'USD', open_until = :until,"
                " last_error = 'provider_timeout: read timed out' where slug = 'airalo'"
            ),
            {"until": NOW + timedelta(seconds=30)},
        )
        airalo = of(read_health(conn, NOW), "airalo")
    assert airalo.balance == Cost.parse("12.5", "USD")
    assert airalo.standing is Standing.OPEN
    assert "read timed out" in airalo.reason


def test_a_roll_up_reads_few_rows_through_an_index_however_many_purchases_there_are(engine: Engine) -> None:
    with engine.begin() as conn:
        conn.execute(text("set local enable_seqscan = off"))
        lateral = (
            "explain select a.state from providers p cross join lateral (select * from purchase_attempts a"
            " where a.provider = p.slug order by a.attempt_id desc limit 100) a"
        )
        plan = "\n".join(conn.scalars(text(lateral)))
    assert "ix_purchase_attempts_provider_attempt_id" in plan
