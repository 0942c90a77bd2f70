"""How long the running platform takes to deliver a fresh order after each of its parts was killed.

Nobody helps but the supervisor, which starts a dead part again after a second. With daemon, code server and run host
every run's process is killed too: a drain that lingers would deliver the order without the part.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from time import monotonic, sleep

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from chaos.customers import PROMPT, SUCCEED, Basket, Buyer, Customers
from chaos.hand import API, CODE, DAEMON, HOST, PARTS, RUN, Hand
from chaos.parts import Parts

WITHIN_SECONDS = 60.0
_CALM_WITHIN = 240.0
_KINDS = (API, DAEMON, CODE, HOST, RUN)
_COMPLETED = text("select count(*) from orders where order_id = cast(:order_id as uuid) and status = 'completed'")


@dataclass(frozen=True, slots=True)
class Back:
    """Seconds from a breakage until the platform had done what it is timed by; None where not within the limit."""

    killed: str
    seconds: float | None
    done: str = "a fresh order was delivered"


def recover_each(
    engine: Engine,
    parts: Parts,
    hand: Hand,
    customers: Customers,
    package_ids: list[str],
    say: Callable[[str], None],
) -> tuple[list[Back], list[Basket]]:
    """Kill one part after the other, and time a fresh order each; return the times and what was ordered."""
    shop = _Till(engine, customers, package_ids)
    shop.time_one(_CALM_WITHIN)  # what rests after the storm is back on sale first
    found = []
    for kind in _KINDS:
        shop.order(monotonic() + WITHIN_SECONDS)  # something is in work when it happens
        rng = Random(kind)  # noqa: S311 - repeatable, not secret
        if kind in PARTS:
            hand.kill(kind, rng)
        if kind != API:
            hand.kill_runs()
        seconds = shop.time_one(WITHIN_SECONDS)
        found.append(Back(f"{kind} killed", seconds))
        say(f"platform recovery, {kind} killed: {'never' if seconds is None else f'{seconds:.1f} s'}")
        if kind in PARTS:
            parts.await_another(PARTS[kind], hand.last_pid[kind], WITHIN_SECONDS)
        if seconds is None:
            shop.time_one(_CALM_WITHIN)  # its fault is not the next one's
    return found, shop.baskets


class _Till:
    """Orders one eSIM after the other, each from a customer of its own."""

    def __init__(self, engine: Engine, customers: Customers, package_ids: list[str]) -> None:
        self._engine, self._customers, self._package_ids = engine, customers, package_ids
        self.baskets: list[Basket] = []
        self._orders = 0

    def order(self, until: float) -> Basket | None:
        """Order and pay, again and again while the shop does not answer."""
        while monotonic() < until:
            self._orders += 1
            package_id = self._package_ids[self._orders % len(self._package_ids)]
            buyer = Buyer(f"fresh-{self._orders}", ((package_id, 1),), SUCCEED, PROMPT)
            if basket := self._customers.buy(buyer):
                self.baskets.append(basket)
                return basket
        return None

    def time_one(self, within: float) -> float | None:
        """Order, and return the seconds until it was delivered; None where it was not in time."""
        started = monotonic()
        basket = self.order(started + within)
        while basket is not None and monotonic() < started + within:
            with suppress(SQLAlchemyError), self._engine.connect() as conn:
                if conn.scalar(_COMPLETED, {"order_id": basket.order_id}):
                    return monotonic() - started
            sleep(0.05)
        return None
