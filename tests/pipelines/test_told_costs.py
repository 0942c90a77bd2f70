"""What a provider says a purchase cost, in whatever currency: booked, compared with the ceiling, and told of."""

from collections.abc import Callable
from datetime import date

import pytest
from sqlalchemy import text

from esim.money import Cost
from esim.purchase import ErrorType, Outcome, Pending, PurchaseRequest
from resources.db.settlement import Scribe, record_outcome
from tests.pipelines.actors import ScriptedProvider, rejects
from tests.pipelines.conftest import Shop
from tests.resources.db.shop import NOW, paid_order, unit_states

Rows = Callable[[str], list[dict[str, object]]]
BOOKED = "select cost_amount::float as amount, cost_currency as currency, cost_micros as micros from esims"


@pytest.fixture
def shop(shop: Shop) -> Shop:
    with shop.engine.begin() as conn:
        rate = {"currency": "EUR", "day": date(2026, 11, 20), "micros": 1_100_000}
        statement = "insert into reference_rates (currency, quoted_on, usd_micros) values (:currency, :day, :micros)"
        conn.execute(text(statement), rate)
    return shop


def sells_at(cost: str, currency: str) -> Callable[[ScriptedProvider, PurchaseRequest], Outcome]:
    def step(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
        made = provider.sell(request)
        return type(made)(made.profile, made.provider_order_id, Cost.parse(cost, currency))

    return step


def told(shop: Shop, kind: str) -> list[str]:
    with shop.engine.connect() as conn:
        return list(conn.scalars(text("select payload ->> 'text' from outbox where kind = :kind"), {"kind": kind}))


def bought(shop: Shop, cost: str, currency: str) -> None:
    shop.cheap.script.append(sells_at(cost, currency))
    order_id = paid_order(shop.engine)
    shop.drain()
    assert unit_states(shop.engine, order_id) == ["delivered"]


@pytest.mark.parametrize(("cost", "currency"), [("9", "EUR"), ("9", "USD")])
def test_a_cost_above_the_ceiling_is_told_in_any_currency(shop: Shop, cost: str, currency: str) -> None:
    bought(shop, cost, currency)
    [text] = told(shop, "above_ceiling")
    assert f"airalo charged {cost} {currency}, above its ceiling of " in text
    assert told(shop, "cost_unconverted") == []


def test_a_cost_within_the_ceiling_is_booked_in_its_own_currency(shop: Shop, rows: Rows) -> None:
    bought(shop, "2", "EUR")
    assert (told(shop, "above_ceiling"), told(shop, "cost_unconverted")) == ([], [])
    assert rows(BOOKED) == [{"amount": 2.0, "currency": "EUR", "micros": 2_200_000}]


def test_a_cost_that_cannot_be_converted_is_told_and_the_expected_one_booked(shop: Shop, rows: Rows) -> None:
    bought(shop, "9", "XAU")
    assert rows(BOOKED) == [{"amount": 2.0, "currency": "USD", "micros": 2_000_000}]
    [text] = told(shop, "cost_unconverted")
    assert "airalo charged 9 XAU" in text
    assert "the expected 2 USD is booked" in text
    assert told(shop, "above_ceiling") == []


@pytest.mark.parametrize(("currency", "kind"), [("EUR", "above_ceiling"), ("XAU", "cost_unconverted")])
def test_a_cost_told_at_acceptance_in_another_currency_is_told_once(shop: Shop, currency: str, kind: str) -> None:
    def accepted(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
        return Pending("airalo-accepted", 0.0, Cost.parse("9", currency))

    shop.cheap.script.append(accepted)
    shop.cheap.on_status = accepted
    order_id = paid_order(shop.engine)
    shop.drain(max_seconds=0.3)
    shop.clock.advance(minutes=2)
    shop.cheap.on_status = None
    shop.drain()
    assert unit_states(shop.engine, order_id) == ["delivered"]
    assert len(told(shop, kind)) == 1


def test_a_late_arrival_above_its_ceiling_is_told(shop: Shop, rows: Rows) -> None:
    shop.cheap.script.append(rejects(ErrorType.PROVIDER_API_ERROR))
    paid_order(shop.engine)
    shop.drain()
    [attempt] = rows("select attempt_id, reference from purchase_attempts where state = 'rejected'")
    two = Cost.parse("2", "USD")
    late = sells_at("9", "EUR")(shop.cheap, PurchaseRequest(str(attempt["reference"]), "plan-1", two, two, NOW))
    with shop.engine.begin() as conn:
        record_outcome(conn, int(str(attempt["attempt_id"])), late, Scribe(shop.tools.vault, "test", shop.clock.now))
    assert rows("select cost_micros from stock_esims") == [{"cost_micros": 9_900_000}]
    assert len(told(shop, "above_ceiling")) == 1
