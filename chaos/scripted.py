"""Customers and workers for what is played step by step: orders that are simply paid, workers with one fate each."""

import time
from typing import Any

from chaos.campaign import Result, count_ends
from chaos.customers import SUCCEED, Basket, Buyer, Customers
from chaos.invariants import check
from chaos.quiet import settle_down
from chaos.sides import read_sides
from chaos.stage import Shop
from chaos.tally import Tally, deaths
from resources.db.vault import Vault

Json = dict[str, Any]
_PROMPT: Json = {"copies": 1, "reorder": False, "lost": False, "delay_s": 0.0}
_HEARD_WITHIN = 20.0
_SETTLED = frozenset({"delivered", "lost"})


class Scripted:
    """A shop played step by step; `end` brings it to rest and compares all sides."""

    def __init__(self, shop: Shop, name: str) -> None:
        self.shop, self._name = shop, name
        self.tally = Tally()
        self.customers = Customers(shop.settings.api_url, shop.settings.sandbox_url, self.tally)
        self.baskets: list[Basket] = []
        self._orders, self._started = 0, time.monotonic()

    def order(self, package_id: str) -> None:
        """Have a customer order one eSIM, pay it, and wait until the shop has heard of all that is not lost."""
        self._orders += 1
        basket = self.customers.buy(Buyer(f"{self._name}-{self._orders}", ((package_id, 1),), SUCCEED, _PROMPT))
        if basket is not None:
            self.baskets.append(basket)
        until = time.monotonic() + _HEARD_WITHIN
        while time.monotonic() < until:
            events = self.shop.stage.outside.read("/sandbox/stripe/events")["events"]
            if all(event["state"] in _SETTLED for event in events):
                return
            time.sleep(0.02)

    def end(self, bug: str = "") -> Result:
        """Bring the shop to rest and compare all sides."""
        settle_down(self.shop, self.baskets, self.customers, self.tally, bug)
        self.customers.close()
        sides = read_sides(self.shop.engine, self.shop.stage.outside, Vault.from_settings(self.shop.settings))
        violations, waiting = check(sides)
        self.tally.take_over(deaths(self.shop.diary))
        count_ends(sides, self.tally)
        seconds = time.monotonic() - self._started
        return Result(self._name, violations, waiting, self.tally.counts, sides, seconds)
