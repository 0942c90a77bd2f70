"""One seed's campaign: a shop in a storm, then calm, then everybody is asked what became of every unit.

Everything random is drawn from the seed. What the operating system does between the processes is not: a seed repeats
the plan, not the weather of the machine.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

from chaos import mischief
from chaos.customers import Basket, Buyer, Customers, draw_buyer
from chaos.healing import is_reconciled
from chaos.invariants import Violation, check
from chaos.points import Fate
from chaos.quiet import settle_down
from chaos.sides import Sides, read_sides
from chaos.stage import Shop, Stage
from chaos.tally import Tally, deaths
from resources.db.vault import Vault

FAULT = "fault at "  # what struck, in the counts
ORDERS_PER_ROUND = 10
BUYERS_AT_ONCE = 6
LEAPS = (0, 0, 2, 20, 61, 61, 130, 310, 400, 960)  # seconds leapt over between two rounds
_ROUND_SECONDS = 1.2
_DRAIN_ENDS_WITHIN = 15.0  # a worker reads with patience; one that takes longer is killed, and that is counted


@dataclass
class Result:
    """What one seed came to."""

    name: str
    violations: list[Violation] = field(default_factory=list)
    waiting: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    sides: Sides | None = None
    seconds: float = 0.0


def play(stage: Stage, seed: int, orders: int, bug: str = "") -> Result:
    """Run one campaign and compare all sides."""
    started, before = time.monotonic(), stage.outside.struck()
    with stage.shop(f"seed-{seed}", max_retry_attempts=_retries(seed)) as shop:
        storm = _Storm(shop, seed, orders, bug)
        storm.blow()
        missed = settle_down(
            shop,
            storm.baskets,
            storm.customers,
            storm.tally,
            bug,
            reconciled=is_reconciled(seed),
            gust=None if _retries(seed) else mischief.last_gust(Random(seed)),  # noqa: S311 - repeatable, not secret
        )
        storm.customers.close()
        sides = read_sides(shop.engine, stage.outside, Vault.from_settings(shop.settings))
        violations, waiting = check(sides)
        violations += [Violation("lost webhooks are found", what) for what in missed]
        storm.tally.take_over(deaths(shop.diary))
        count_ends(sides, storm.tally)
    struck = stage.outside.struck()
    storm.tally.take_over(faults_since(before, struck))
    return Result(f"seed {seed}", violations, waiting, storm.tally.counts, sides, time.monotonic() - started)


def faults_since(before: Mapping[str, int], now: Mapping[str, int]) -> Counter[str]:
    """Return how often each fault struck between two looks, under the names of a report."""
    return Counter({f"{FAULT}{name}": times for name, times in (Counter(now) - Counter(before)).items()})


def _retries(seed: int) -> int:
    """Return how often a unit is tried again: never in half of the seeds, which refund long before the deadline."""
    return 0 if seed % 4 in {0, 1} else 3


class _Storm:
    """The rounds of one campaign."""

    def __init__(self, shop: Shop, seed: int, orders: int, bug: str) -> None:
        self._shop, self._bug = shop, bug
        self._rng = Random(seed)  # noqa: S311 - repeatable, not secret
        self.tally = Tally()
        self.customers = Customers(shop.settings.api_url, shop.settings.sandbox_url, self.tally)
        self.baskets: list[Basket] = []
        buyers = [draw_buyer(self._rng, f"buyer-{seed}-{n}", shop.package_ids) for n in range(orders)]
        self._rounds = [buyers[at : at + ORDERS_PER_ROUND] for at in range(0, orders, ORDERS_PER_ROUND)]
        self._limited = self._rng.random() < 0.25

    def blow(self) -> None:
        """Play every round, with a leap of the clock after each."""
        with ThreadPoolExecutor(BUYERS_AT_ONCE) as crowd:
            for buyers in [*self._rounds, []]:
                self._round(buyers, crowd)
                self._leap()

    def _round(self, buyers: list[Buyer], crowd: ThreadPoolExecutor) -> None:
        shop, rng, until = self._shop, self._rng, time.monotonic() + _ROUND_SECONDS
        shop.stage.outside.put_faults(mischief.provider_faults(rng))
        for part, fault in mischief.other_faults(rng):
            shop.stage.outside.put_other_faults(part, fault)
        bought = [crowd.submit(self.customers.buy, buyer) for buyer in buyers]
        for earlier in [one for one in self.baskets if rng.random() < 0.5]:
            crowd.submit(self.customers.trouble, earlier)
        for _ in range(2):
            self._start_drain()
        for act in self._acts():
            time.sleep(rng.uniform(0.0, 0.3))
            act()
        self.baskets += [basket for one in bought if (basket := one.result()) is not None]
        while time.monotonic() < until:
            time.sleep(0.02)
        self.tally.add("workers that did not end by themselves, killed", shop.end_drains(_DRAIN_ENDS_WITHIN))

    def _start_drain(self) -> None:
        rng = self._rng
        fate = Fate.of(rng) if rng.random() < 0.6 else None
        self._shop.start_drain(
            fate=fate,
            workers=rng.choice((2, 6, 10)),
            max_seconds=rng.uniform(0.8, 2.0),
            limited=self._limited,
            bug=self._bug,
        )
        self.tally.add("workers started")

    def _acts(self) -> list[Callable[[], None]]:
        """Draw what else happens in this round."""
        acts: list[tuple[float, Callable[[], None]]] = [
            (0.35, self._kill_a_worker),
            (0.3, self._pause_a_worker),
            (0.25, self._kill_the_api),
            (0.4, self._kill_a_backend),
            (0.2, self._restart_postgres),
            (0.15, self._exhaust_connections),
        ]
        drawn = [act for chance, act in acts if self._rng.random() < chance]
        self._rng.shuffle(drawn)
        return drawn

    def _kill_a_worker(self) -> None:
        process = self._rng.choice(self._shop.drains)
        if process.exitcode is None:
            process.kill()
            self.tally.add("worker killed at a random moment")
        self._start_drain()

    def _pause_a_worker(self) -> None:
        process = self._rng.choice(self._shop.drains)
        seconds = self._rng.uniform(0.1, 0.5)
        if process.exitcode is None and process.pid is not None:
            with suppress(ProcessLookupError):  # its fate was quicker
                os.kill(process.pid, signal.SIGSTOP)
                time.sleep(seconds)
                os.kill(process.pid, signal.SIGCONT)
                self.tally.add("worker stopped and continued within its lease")

    def _kill_the_api(self) -> None:
        self._shop.kill_api()
        time.sleep(self._rng.uniform(0.0, 0.3))
        self._shop.start_api()
        self.tally.add("API killed and started again")

    def _kill_a_backend(self) -> None:
        postgres, url = self._shop.stage.postgres, self._shop.url
        killed = sum(postgres.kill_backend(url, self._rng) for _ in range(self._rng.randint(1, 4)))
        self.tally.add("Postgres backend killed", killed)

    def _restart_postgres(self) -> None:
        self._shop.stage.postgres.crash_and_restart()
        self.tally.add("Postgres crashed and restarted")

    def _exhaust_connections(self) -> None:
        with self._shop.stage.postgres.exhausted(self._shop.url):
            time.sleep(self._rng.uniform(0.3, 1.0))
        self.tally.add("Postgres connections used up")

    def _leap(self) -> None:
        """Leap while nobody works: a leap in the middle of a purchase would make the network slower than it can be."""
        seconds = self._rng.choice(LEAPS)
        self._shop.await_arrivals()
        self._shop.stage.leap_to(self._shop.clock.ahead_seconds + seconds)
        self.tally.add("leaps of the clock", int(seconds > 0))


def count_ends(sides: Sides, tally: Tally) -> None:
    """Count what became of everything."""
    for unit in sides.units.values():
        tally.add(f"units {unit['status']}" if sides.is_paid(unit["order_id"]) else "units never paid")
    tally.add("orders paid", sum(sides.is_paid(order_id) for order_id in sides.orders))
    tally.add("purchases that went to stock", len(sides.stock))
    paid_back = [row for row in sides.refunds if row["state"] in {"sent", "succeeded"}]
    tally.add("refunds paid", len(paid_back))
    tally.add("refunds paid at a second try or later", sum(row["attempts"] > 1 for row in paid_back))
    tally.add("purchases attempted", len(sides.attempts))
    tally.add("eSIMs sold by providers", sum(row["state"] == "delivered" for row in sides.purchases))
    tally.add("mails delivered", len(sides.mails))
    for why in ("its worker is gone; the purchase may have been sent", "its worker was gone before anything was sent"):
        tally.add(f"unit taken back: {why}", sum(event["reason"] == why for event in sides.events))
