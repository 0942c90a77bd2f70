"""The campaign on the whole running platform: its own parts as processes, in real time, killed at random.

storm (faults, customers, kills) -> faults end, lost webhooks are healed -> recovery of each part -> one provider goes
down and comes back -> quiet, with nobody's help -> all sides are read and compared.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from time import monotonic, sleep

from sqlalchemy import Engine, text

from chaos import mischief
from chaos.campaign import BUYERS_AT_ONCE, Result, count_ends
from chaos.customers import Basket, Buyer, Customers, draw_buyer
from chaos.hand import KINDS, Hand, draw_kinds
from chaos.invariants import check
from chaos.outage import time_an_outage
from chaos.parts import Parts, Process
from chaos.patience import rest
from chaos.platform_recovery import Back, recover_each
from chaos.postgres import Crashable
from chaos.run_processes import RunProcesses
from chaos.sides import read_sides
from chaos.stage import Outside
from chaos.tally import Tally
from resources.db.databases import databases, make_engine
from resources.db.vault import Vault
from resources.settings import Settings

# What the platform is told apart from where it is. A paid order has an end within the customer's deadline, so that a
# short one makes retries and settle times pass in minutes; drains that end soon make the sensor start others.
_OWN = {
    "CUSTOMER_DEADLINE_MINUTES": "4",
    "DRAIN_IDLE_SECONDS": "6",
    "DRAIN_WORKERS": "8",
    "PROVIDER_TIMEOUT_MS": "2500",
    "RATE_LIMIT_PER_MINUTE": "1000000",
    "PYTHONWARNINGS": "ignore",
    "SANDBOX_ASYNC_SECONDS": "0.5",
    "SANDBOX_LATENCY_MS": "150",
    "SANDBOX_PLANS_PER_PROVIDER": "400",
    "SANDBOX_RATE_LIMITS": "0",
    "SANDBOX_WEBHOOK_RETRIES": "40",
}
_ORDERS_PER_ROUND = 5
_ROUND_SECONDS = 12.0
_FEWEST_ROUNDS = 3
_KILLS_PER_ROUND = 1.4
# Dear enough that a part of it can be paid back, and on offer at several providers, each the first choice of some.
_CHOICE = text(
    """
    select package_id from (
        select p.package_id, row_number() over (
            partition by b.provider order by count(distinct o.provider) desc, p.package_id
        ) as nth
        from packages p join offers b on b.offer_id = p.best_offer_id join offers o on o.package_id = p.package_id
        where p.on_sale and p.kind = 'plan' and p.price_minor_usd between 1300 and 10000
        group by p.package_id, b.provider having count(distinct o.provider) >= 3
    ) c where nth <= 4 order by package_id
    """
)


@dataclass(frozen=True)
class Processes:
    """How the platform's parts are started and ended, and the part that fills the shop once they are up."""

    start: Callable[[str], Process]
    end: Callable[[Sequence[Process]], None]
    fill: Callable[[], None]
    names: Sequence[str]


def own_settings(seed: int) -> dict[str, str]:
    """Return the platform's own settings; with an odd seed what every provider refuses is paid back at once."""
    return {**_OWN, "MAX_RETRY_ATTEMPTS": "0" if seed % 2 else "3"}


def play_platform(
    settings: Settings, processes: Processes, seed: int, orders: int, say: Callable[[str], None]
) -> tuple[Result, list[Back]]:
    """Play the campaign; return what it came to, and how long each part and a best price took to be back."""
    started, tally = monotonic(), Tally()
    urls = databases(settings)
    parts = Parts(processes.start, processes.end, tally)
    with _engine(urls.operational) as engine, _engine(urls.dagster) as dagster, parts.kept_up(processes.names):
        processes.fill()
        outside, runs = Outside(settings.sandbox_url), RunProcesses(settings.dagster_home_path, dagster)
        hand = Hand(parts, runs, Crashable(settings.data_dir.absolute()), engine, tally)
        with engine.connect() as conn:
            package_ids = list(conn.scalars(_CHOICE))
        customers = Customers(settings.api_url, settings.sandbox_url, tally)
        storm = _Storm(outside, customers, hand, package_ids, seed, orders)
        storm.blow(tally)
        say(f"platform-{seed}: the storm is over after {monotonic() - started:.0f} s")
        outside.clear_faults()
        for basket in storm.baskets:
            customers.trouble(basket)
        back, baskets = recover_each(engine, parts, hand, customers, package_ids, say)
        moved, ordered = time_an_outage(engine, outside, customers, package_ids, say)
        rest(engine, outside, customers, [*storm.baskets, *baskets, *ordered], tally)
        customers.close()
        sides = read_sides(engine, outside, Vault.from_settings(settings))
        tally.take_over(Counter({f"fault at {name}": count for name, count in outside.struck().items()}))
        outside.http.close()
    violations, waiting = check(sides)
    count_ends(sides, tally)
    return Result(f"platform-{seed}", violations, waiting, tally.counts, sides, monotonic() - started), [*back, *moved]


class _Storm:
    """The rounds of the campaign, in real time."""

    def __init__(
        self, outside: Outside, customers: Customers, hand: Hand, package_ids: list[str], seed: int, orders: int
    ) -> None:
        self._outside, self._customers, self._hand = outside, customers, hand
        self._rng = Random(f"platform {seed}")  # noqa: S311 - repeatable, not secret
        self._buyers = [draw_buyer(self._rng, f"platform-{seed}-{n}", package_ids) for n in range(orders)]
        self._rounds = max(_FEWEST_ROUNDS, -(-orders // _ORDERS_PER_ROUND))
        kinds = draw_kinds(self._rng, max(len(KINDS), round(_KILLS_PER_ROUND * self._rounds)))
        self._kinds = [kinds[n :: self._rounds] for n in range(self._rounds)]
        self._bought: list[Future[Basket | None]] = []

    @property
    def baskets(self) -> list[Basket]:
        """What customers hold by now."""
        return [basket for one in self._bought if one.done() and (basket := one.result()) is not None]

    def blow(self, tally: Tally) -> None:
        """Play every round; what could not be killed in its round is killed in a later one."""
        left: list[str] = []
        with ThreadPoolExecutor(BUYERS_AT_ONCE) as crowd:
            for n, kinds in enumerate(self._kinds):
                left = self._round(self._buyers[n :: self._rounds], [*left, *kinds], crowd)
                tally.add("rounds of the storm")

    def _round(self, buyers: list[Buyer], kinds: list[str], crowd: ThreadPoolExecutor) -> list[str]:
        rng, until = self._rng, monotonic() + _ROUND_SECONDS
        self._outside.clear_faults()
        self._outside.put_faults(mischief.provider_faults(rng, lasting=False))
        for part, fault in mischief.other_faults(rng, lasting=False):
            self._outside.put_other_faults(part, fault)
        for earlier in [one for one in self.baskets if rng.random() < 0.4]:
            crowd.submit(self._customers.trouble, earlier)
        for buyer in buyers:
            self._bought.append(crowd.submit(self._arrive, buyer, rng.uniform(0.0, 0.6 * _ROUND_SECONDS)))
        left = []
        for kind in kinds:
            sleep(rng.uniform(0.2, _ROUND_SECONDS / (len(kinds) + 1)))
            if not self._hand.kill(kind, rng):
                left.append(kind)
        sleep(max(0.0, until - monotonic()))
        return left

    def _arrive(self, buyer: Buyer, after: float) -> Basket | None:
        sleep(after)
        return self._customers.buy(buyer)


@contextmanager
def _engine(url: str) -> Iterator[Engine]:
    engine = make_engine(url, pool_size=4)
    try:
        yield engine
    finally:
        engine.dispose()
