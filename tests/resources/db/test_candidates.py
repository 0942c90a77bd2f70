"""Which offers a unit may be bought from: equivalent, allowed, cheap enough, in the right order."""

from collections.abc import Sequence
from decimal import Decimal

import pytest
from sqlalchemy import Engine, insert, text

from resources.db.candidates import Candidates, UnitSale, candidates, ceiling_micros, payment_fee
from resources.db.tables import reference_rates
from tests.resources.db.shop import NOW, OfferSpec, open_shop

SALE = UnitSale("jp-1gb-7d", 4_990_000, 1)


def found(engine: Engine, sale: UnitSale = SALE, order: str = "landed_cost", loss: int = 0) -> Candidates:
    with engine.connect() as conn:
        [found] = candidates(conn, [sale], failover_order=order, allowed_loss_minor_usd=loss, now=NOW)
        return found


def ids(engine: Engine, **options: str) -> Sequence[str]:
    return [offer.offer_id for offer in found(engine, **options).offers]  # type: ignore[arg-type]  # only `order`


def test_same_package_comes_first_then_better_plans_of_the_same_coverage(engine: Engine) -> None:
    open_shop(
        engine,
        [
            OfferSpec("esim_go", "3.00"),
            OfferSpec("airalo", "3.50"),
            OfferSpec("airalo", "1.00", "jp-3gb-7d", "more-data", data_mb=3000),
            OfferSpec("airalo", "1.10", "jp-1gb-30d", "longer", validity_days=30),
            OfferSpec("airalo", "0.50", "jp-500mb-7d", "less-data", data_mb=500),
            OfferSpec("airalo", "0.50", "jp-1gb-1d", "shorter", validity_days=1),
            OfferSpec("airalo", "0.40", "kr-1gb-7d", "elsewhere", coverage_key="KR"),
            OfferSpec("airalo", "0.40", "jp-1gb-7d-topup", "top-up", values={"kind": "top_up"}),
            OfferSpec("mobimatter", "2.00", "jp-unl-7d", "unlimited", data_mb=None, allowance="unlimited"),
            OfferSpec("mobimatter", "0.30", "jp-1gb-daily-7d", "daily", allowance="daily"),
        ],
    )
    assert ids(engine) == [
        "esim_go:plan-1",
        "airalo:plan-1",
        "airalo:more-data",
        "airalo:longer",
        "mobimatter:unlimited",
    ]
    assert ids(engine, order="priority")[:2] == ["airalo:plan-1", "esim_go:plan-1"]


def test_limited_plans_never_stand_in_for_unlimited_ones(engine: Engine) -> None:
    open_shop(
        engine,
        [
            OfferSpec("airalo", "1.00"),
            OfferSpec("esim_go", "1.00", data_mb=None, allowance="unlimited", package_id="jp-unl-7d"),
        ],
    )
    with engine.begin() as conn:
        conn.execute(text("update packages set allowance = 'unlimited', data_mb = null where package_id = 'jp-unl-7d'"))
    unlimited = UnitSale("jp-unl-7d", 4_990_000, 1)
    assert [offer.offer_id for offer in found(engine, unlimited).offers] == ["esim_go:plan-1"]


@pytest.mark.parametrize(
    "change",
    [
        "update offers set on_offer = false where provider = 'airalo'",
        "update offers set stock = 0 where provider = 'airalo'",
        "update offers set excluded_reason = 'cost jumped' where provider = 'airalo'",
        "update offers set auto_mode = false, is_enabled = false where provider = 'airalo'",
        "update offers set landed_micros = 4600000 where provider = 'airalo'",
        "update providers set enabled = false where slug = 'airalo'",
    ],
)
def test_offers_that_may_not_be_bought_are_left_out(engine: Engine, change: str) -> None:
    open_shop(engine, [OfferSpec("airalo", "2.00"), OfferSpec("esim_go", "3.00")])
    assert ids(engine) == ["airalo:plan-1", "esim_go:plan-1"]
    with engine.begin() as conn:
        conn.execute(text(change))
    assert ids(engine) == ["esim_go:plan-1"]
    assert not found(engine).held_back


def test_offer_switched_on_by_a_person_serves(engine: Engine) -> None:
    open_shop(engine, [OfferSpec("airalo", "2.00", values={"auto_mode": False, "is_enabled": True})])
    assert ids(engine) == ["airalo:plan-1"]


def test_open_circuit_holds_back_and_a_half_open_one_says_so(engine: Engine) -> None:
    open_shop(engine, [OfferSpec("airalo", "2.00"), OfferSpec("esim_go", "3.00")])
    with engine.begin() as conn:
        conn.execute(text("update providers set open_until = :at where slug = 'airalo'"), {"at": NOW.replace(hour=13)})
        conn.execute(text("update providers set open_until = :at where slug = 'esim_go'"), {"at": NOW.replace(hour=11)})
    result = found(engine)
    assert result.held_back
    assert [(offer.provider, offer.half_open) for offer in result.offers] == [("esim_go", True)]


def test_ceiling_keeps_the_order_above_the_allowed_loss(engine: Engine) -> None:
    open_shop(engine, [])
    with engine.connect() as conn:
        fee = payment_fee(conn)
        # 4.99 less 2.9 % (0.14471) less 0.30, and for one of three units a third of the fixed fee
        assert ceiling_micros(SALE, fee, 0) == 4_990_000 - 144_710 - 300_000
        assert ceiling_micros(SALE, fee, 50) == 4_990_000 - 144_710 - 300_000 + 500_000
        assert ceiling_micros(UnitSale("jp-1gb-7d", 4_990_000, 3), fee, 0) == 4_990_000 - 144_710 - 100_000
        # the allowed loss is the order's, shared by its units
        assert ceiling_micros(UnitSale("jp-1gb-7d", 4_990_000, 5), fee, 50) == 4_990_000 - 144_710 - 60_000 + 100_000


def test_ceiling_is_in_the_offers_currency_and_leaves_room_for_the_order_fee(engine: Engine) -> None:
    open_shop(engine, [OfferSpec("airalo", "2.00", currency="EUR"), OfferSpec("esim_go", "2.50", currency="XAU")])
    with engine.begin() as conn:
        conn.execute(insert(reference_rates).values(currency="EUR", quoted_on=NOW.date(), usd_micros=1_100_000))
        conn.execute(text("update providers set order_fee_micros = 145290 where slug = 'airalo'"))
    [offer] = found(engine).offers  # there is no rate for the other one's currency
    assert str(offer.expected_cost) == "2 EUR"
    assert (offer.cost_ceiling.amount, offer.cost_ceiling.currency) == (Decimal("4.000000"), "EUR")


def test_package_that_is_gone_is_served_by_its_own_group(engine: Engine) -> None:
    open_shop(engine, [OfferSpec("airalo", "2.00"), OfferSpec("esim_go", "1.00", "jp-3gb-7d", data_mb=3000)])
    with engine.begin() as conn:
        conn.execute(text("delete from packages where package_id = 'jp-1gb-7d'"))
    assert ids(engine) == ["airalo:plan-1"]
