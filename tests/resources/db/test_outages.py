"""What a refused purchase says about its offer or our account is heeded at once, and ends by itself."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from esim.money import Cost
from esim.provisioning import BuyableOffer
from esim.purchase import ErrorType, Rejected, Unknown
from resources.db.balances import note_balance
from resources.db.candidates import Candidates, UnitSale, candidates
from resources.db.outages import REST, note_refusal, resting_offers, unfunded_providers
from resources.db.provider_events import newest_events
from resources.db.provider_state import note_outcome
from tests.resources.db.shop import NOW, OfferSpec, open_shop
from tests.resources.db.test_alerts import is_open, told

SALE = UnitSale("jp-1gb-7d", 4_990_000, 1)


def found(engine: Engine, now: datetime = NOW) -> Candidates:
    with engine.connect() as conn:
        [offers] = candidates(conn, [SALE], failover_order="landed_cost", allowed_loss_minor_usd=0, now=now)
        return offers


def ids(engine: Engine, now: datetime = NOW) -> list[str]:
    return [offer.offer_id for offer in found(engine, now).offers]


def airalos(cost: str = "2") -> BuyableOffer:
    price = Cost.parse(cost, "USD")
    return BuyableOffer("airalo:plan-1", "airalo", "plan-1", "", price, price, int(price.amount * 1_000_000))


def refuse(engine: Engine, error: ErrorType, cost: str = "2") -> None:
    note_outcome(engine, "airalo", Rejected(error, "no"), NOW)
    note_refusal(engine, airalos(cost), Rejected(error, "no"), NOW)


def change(engine: Engine, statement: str, **values: object) -> None:
    with engine.begin() as conn:
        conn.execute(text(statement), values)


@pytest.fixture(autouse=True)
def shop(engine: Engine) -> None:
    open_shop(engine, [OfferSpec("airalo", "2.00"), OfferSpec("esim_go", "3.00")])


def test_a_sold_out_offer_is_not_tried_again_for_half_an_hour_and_its_provider_is_not_blamed(engine: Engine) -> None:
    for _ in range(6):
        refuse(engine, ErrorType.OUT_OF_STOCK)
    assert ids(engine) == ["esim_go:plan-1"]
    assert ids(engine, NOW + REST - timedelta(seconds=1)) == ["esim_go:plan-1"]
    assert ids(engine, NOW + REST) == ["airalo:plan-1", "esim_go:plan-1"]
    with engine.connect() as conn:
        assert resting_offers(conn, NOW) == {"airalo:plan-1"}
        assert resting_offers(conn, NOW + REST) == frozenset()
        assert conn.execute(text("select sum(failures) from providers")).scalar_one() == 0


@pytest.mark.parametrize(("stock", "back"), [(5, True), (0, False), (None, False)])
def test_a_newer_catalogue_ends_the_rest_where_it_tells_a_stock(engine: Engine, stock: int | None, back: bool) -> None:
    refuse(engine, ErrorType.OUT_OF_STOCK)
    change(engine, "update offers set stock = :stock where provider = 'airalo'", stock=stock)
    assert "airalo:plan-1" not in ids(engine)
    change(engine, "update providers set synced_at = :at", at=NOW + timedelta(seconds=1))
    assert ("airalo:plan-1" in ids(engine)) is back
    with engine.connect() as conn:
        assert (not resting_offers(conn, NOW)) is back


def test_other_refusals_and_lost_answers_let_the_offer_be_tried_again(engine: Engine) -> None:
    refuse(engine, ErrorType.PRICE_CHANGED)
    note_refusal(engine, airalos(), Unknown(ErrorType.PROVIDER_TIMEOUT, "late"), NOW)
    assert ids(engine) == ["airalo:plan-1", "esim_go:plan-1"]


def test_a_provider_without_funds_is_held_back_told_once_and_bought_from_when_the_balance_covers_it(
    engine: Engine,
) -> None:
    for _ in range(7):
        refuse(engine, ErrorType.INSUFFICIENT_BALANCE)
    held = found(engine)
    assert [offer.provider for offer in held.offers] == ["esim_go"]
    assert held.held_back
    assert is_open(engine) == [("provider_unfunded", "airalo")]
    with engine.connect() as conn:
        assert conn.execute(text("select sum(failures) from providers")).scalar_one() == 0  # no fault of the provider
        assert unfunded_providers(conn, NOW) == ["airalo"]
    for amount, provider in (("1.99", "esim_go"), ("2.00", "airalo")):
        with engine.begin() as conn:
            note_balance(conn, "airalo", Cost.parse(amount, "USD"), 0, NOW, "test")
        assert found(engine).offers[0].provider == provider
    assert is_open(engine) == []
    assert len(told(engine)) == 2
    with engine.connect() as conn:
        assert {what for _, what, _, _ in newest_events(conn, "airalo")} == {"funded", "unfunded"}


def test_the_dearest_purchase_that_was_refused_is_what_the_balance_has_to_cover(engine: Engine) -> None:
    refuse(engine, ErrorType.INSUFFICIENT_BALANCE)
    refuse(engine, ErrorType.INSUFFICIENT_BALANCE, "4")
    refuse(engine, ErrorType.INSUFFICIENT_BALANCE, "1")
    with engine.begin() as conn:
        note_balance(conn, "airalo", Cost.parse("3", "USD"), 0, NOW, "test")
    assert "airalo:plan-1" not in ids(engine)


def test_a_low_balance_is_told_once_an_episode_in_any_currency(engine: Engine) -> None:
    change(
        engine, "insert into reference_rates (currency, quoted_on, usd_micros) values ('EUR', '2026-11-20', 2000000)"
    )
    for amount, currency in (
        ("99", "USD"),
        ("49.99", "EUR"),
        ("98", "USD"),
        ("50", "EUR"),
        ("60", "EUR"),
        ("3", "USD"),
    ):
        with engine.begin() as conn:
            note_balance(conn, "airalo", Cost.parse(amount, currency), 100_000_000, NOW, "test")
    notes = told(engine)
    assert len(notes) == 3
    assert "below 100 USD" in notes[0]
    assert "again" in notes[1]
    assert is_open(engine) == [("low_balance", "airalo")]


def test_a_balance_in_a_currency_without_a_rate_is_kept_and_judges_nothing(engine: Engine) -> None:
    with engine.begin() as conn:
        note_balance(conn, "airalo", Cost.parse("1", "XOF"), 100_000_000, NOW, "test")
        kept = conn.execute(text("select balance_currency, balance_at from providers where slug = 'airalo'")).one()
    assert tuple(kept) == ("XOF", NOW)
    assert told(engine) == []


def test_providers_most_of_whose_purchases_fail_come_last(engine: Engine) -> None:
    change(engine, "insert into provider_health (provider, degraded_since) values ('airalo', now())")
    assert ids(engine) == ["esim_go:plan-1", "airalo:plan-1"]
