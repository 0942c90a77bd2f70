"""Reads that tell how providers are doing without buying anything: balances, and probes of providers that rest.

`watch_providers` is one bounded run per outage: it lasts while a circuit is open, and asks each resting provider for
its balance just before its rest is over. A provider that cannot be reached rests on and is asked again in twenty
seconds; any answer, even a refusal, lets the next purchase decide.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from threading import Event
from time import monotonic

from esim.errors import ProviderError, ProviderThrottled, ProviderUnavailable
from esim.money import Cost
from resources.db.balances import note_balance
from resources.db.outages import unfunded_providers
from resources.db.provider_state import (
    PROBE_LEAD_SECONDS,
    claim_read_probe,
    end_read_probe,
    resting_providers,
)
from resources.order_operations import OrderTools

UNFUNDED_EVERY = timedelta(minutes=5)
_LOOK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What asking one provider for our balance came to; `error` is empty where it was read."""

    slug: str
    balance: Cost | None
    error: str = ""
    reachable: bool = True


def read_balances(tools: OrderTools, slugs: Iterable[str], actor: str) -> list[Reading]:
    """Ask providers for our balance at once, and keep what they say; one that fails does not stop the others."""
    wanted = [slug for slug in slugs if slug in tools.providers]
    with ThreadPoolExecutor(max(1, len(wanted)), thread_name_prefix="balance") as pool:
        return list(pool.map(partial(read_balance, tools, actor=actor), wanted))


def read_balance(tools: OrderTools, slug: str, *, actor: str) -> Reading:
    """Ask one provider for our balance and keep it; never raises for what the provider does."""
    try:
        balance = tools.providers[slug].balance()
    except ProviderError as error:
        gone = isinstance(error, ProviderUnavailable) and not isinstance(error, ProviderThrottled)
        return Reading(slug, None, f"{type(error).__name__}: {error}"[:300], not gone)
    except Exception as error:  # noqa: BLE001 - a defect of one adapter must not keep the others from being read
        return Reading(slug, None, f"{type(error).__name__} while reading the balance")
    low = tools.settings.low_balance_micros(slug)
    with tools.engine.begin() as conn:
        note_balance(conn, slug, balance, low, tools.clock(), actor)
    return Reading(slug, balance)


def watch_providers(tools: OrderTools, actor: str, max_seconds: float) -> Counter[str]:
    """Probe resting providers while there are any, for at most so many seconds; count what came of it."""
    watch = _Watch(tools, actor)
    until, pause = monotonic() + max_seconds, Event()
    with ThreadPoolExecutor(max(1, len(tools.providers)), thread_name_prefix="probe") as watch.pool:
        while watch.look() and monotonic() < until:
            pause.wait(_LOOK_SECONDS)
    return watch.counts


class _Watch:
    """The reads of one run, at most one at a time for each provider."""

    pool: ThreadPoolExecutor

    def __init__(self, tools: OrderTools, actor: str) -> None:
        self._tools, self._actor = tools, actor
        self._reading: dict[str, Future[None]] = {}
        self._asked_for_money: set[str] = set()
        self.counts: Counter[str] = Counter()

    def look(self) -> bool:
        """Start the reads that are due; return whether anything is left to watch.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the store is away; the next run goes on from what it says then.
        """
        self._collect()
        now, known = self._tools.clock(), set(self._tools.providers)
        with self._tools.engine.connect() as conn:
            resting = [one for one in resting_providers(conn, now) if one.slug in known]
            unfunded = known & set(unfunded_providers(conn, now - UNFUNDED_EVERY)) - self._asked_for_money
        soon = now + timedelta(seconds=PROBE_LEAD_SECONDS)
        for slug in [one.slug for one in resting if one.open_until <= soon]:
            self._start(slug, self._probe)
        self._asked_for_money |= unfunded
        for slug in sorted(unfunded):
            self._start(slug, self._read)
        return bool(resting or self._reading)

    def _collect(self) -> None:
        for slug in [slug for slug, future in self._reading.items() if future.done()]:
            self._reading.pop(slug).result()

    def _start(self, slug: str, work: Callable[[str], None]) -> None:
        if slug not in self._reading:
            self._reading[slug] = self.pool.submit(work, slug)

    def _read(self, slug: str) -> None:
        reading = read_balance(self._tools, slug, actor=self._actor)
        self.counts[f"{slug}: balance {'not ' if reading.error else ''}read"] += 1

    def _probe(self, slug: str) -> None:
        with self._tools.engine.begin() as conn:
            if not claim_read_probe(conn, slug, self._tools.clock()):
                return
        reading = read_balance(self._tools, slug, actor=self._actor)
        error = "" if reading.reachable else reading.error
        with self._tools.engine.begin() as conn:
            end_read_probe(conn, slug, error, self._tools.clock(), self._actor)
        self.counts[f"{slug}: {'still away' if error else 'answers'}"] += 1
