"""What is timed while a provider is down is the published best price: when it leaves, and when it is back."""

from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import cast

import pytest
from sqlalchemy import Engine, text

from chaos.customers import Basket, Buyer, Customers
from chaos.outage import SELL_TO_MANY, Limits, time_an_outage
from chaos.stage import Outside
from esim.ports import Serialise
from resources.db.provider_events import Event, note_event
from resources.order_operations import utc_now
from resources.providers.registry import FACTORIES
from sandbox.faults import FaultBook
from tests.resources.db.shop import OfferSpec, open_shop

SOON = Limits(moved=20.0, found_away=20.0)
NEVER = Limits(moved=0.0, found_away=0.0)


class World:
    """A sandbox and a platform that follows its faults at once, as far as it does."""

    def __init__(self, engine: Engine, *, follows: bool = True, returns: bool = True) -> None:
        self._engine, self._follows, self._returns = engine, follows, returns
        self.log: list[str] = []

    def put_faults(self, faults: list[dict[str, object]]) -> None:
        [fault] = faults
        FaultBook(Random(0)).check(fault)  # what the sandbox takes
        self.log.append(f"{fault['provider']} down: {fault['call']}")
        if self._follows:
            with self._engine.begin() as conn:
                note_event(conn, str(fault["provider"]), Event.PROBE_FAILED, "away", utc_now(), "watch_providers")
            self._best("mobimatter:plan-1")

    def clear_faults(self) -> None:
        self.log.append("up")
        if self._follows and self._returns:
            self._best("airalo:plan-1")

    def buy(self, buyer: Buyer) -> Basket:
        self.log.append(f"{buyer.items[0][1]} ordered")
        return Basket(buyer, "an order", "token", "session", 1)

    def _best(self, offer_id: str) -> None:
        with self._engine.begin() as conn:
            conn.execute(text("update packages set best_offer_id = :best"), {"best": offer_id})

    def time(self, limits: Limits, say: Callable[[str], None] = print) -> tuple[list[float | None], list[Basket]]:
        outside, customers = cast(Outside, self), cast(Customers, self)
        back, baskets = time_an_outage(self._engine, outside, customers, ["jp-1gb-7d"], say, limits)
        assert [each.killed for each in back] == ["provider down", "provider up again"]
        return [each.seconds for each in back], baskets


@pytest.fixture(autouse=True)
def shop(engine: Engine) -> None:
    open_shop(engine, [OfferSpec("airalo", "2.00"), OfferSpec("mobimatter", "3.00")])


def test_the_provider_of_the_best_price_is_taken_down_and_both_ways_are_timed_and_said(engine: Engine) -> None:
    world, said = World(engine), list[str]()
    seconds, baskets = world.time(SOON, said.append)
    assert all(each is not None and 0 <= each < 20 for each in seconds)
    assert world.log == ["airalo down: *", "6 ordered", "up"]
    assert len(baskets) == 1
    assert ["down" in said[0], "up again" in said[1]] == [True, True]


def test_only_those_that_sell_to_many_at_a_time_are_taken_down() -> None:
    rules = {slug: factory.capabilities.serialise for slug, factory in FACTORIES.items()}  # type: ignore[attr-defined]  # a class
    assert {slug for slug, rule in rules.items() if rule is Serialise.NONE} == set(SELL_TO_MANY)


def test_a_price_that_stays_and_one_that_does_not_come_back_have_no_time(engine: Engine) -> None:
    assert World(engine, follows=False).time(NEVER)[0] == [None, None]
    assert World(engine, returns=False).time(NEVER)[0][1] is None


def test_a_provider_that_was_not_degraded_lately_is_chosen_first(engine: Engine) -> None:
    with engine.begin() as conn:
        conn.execute(
            text('insert into packages select (jsonb_populate_record(p, \'{"package_id": "a"}\')).* from packages p')
        )
        conn.execute(text("update packages set best_offer_id = 'mobimatter:plan-1' where package_id = 'a'"))
        note_event(conn, "mobimatter", Event.DEGRADED, "0 of 10", utc_now() - timedelta(minutes=5))
    world = World(engine, follows=False)
    outside, customers = cast(Outside, world), cast(Customers, world)
    time_an_outage(engine, outside, customers, ["a", "jp-1gb-7d"], print, NEVER)
    assert world.log[0] == "airalo down: *"
