"""The health table is rolled up from purchases, and a provider most of whose purchases fail is degraded, told once."""

from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Engine, insert, select, text

from esim.health import HealthRule, Standing
from esim.money import Cost
from resources.db.catalogue_store import provider_states
from resources.db.provider_events import newest_events
from resources.db.provider_health import ProviderHealth, read_health, refresh_health
from resources.db.tables import esims, purchase_attempts
from tests.resources.db.shop import NOW, OfferSpec, open_shop, paid_order
from tests.resources.db.test_alerts import is_open, told

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
    assert of(health, "mobimatter").reason == "no purchase in the last hour"
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


def test_a_degraded_provider_that_nobody_asks_gets_another_chance_when_its_failures_are_an_hour_old(
    engine: Engine,
) -> None:
    tried(engine, "airalo", *["rejected"] * 4)
    assert not of(refresh_health(engine, RULE, NOW), "airalo").well
    assert of(refresh_health(engine, RULE, NOW + timedelta(minutes=61)), "airalo").well


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
