"""What Airalo's plans cost right now, read again before each purchase within its limit of 80 list calls a minute.

A country's list answers for a few seconds. When orders for many countries come at once, one reading of the whole list
answers for all of them a little longer: 3,200 plans in one call cost Airalo less than eighty lists a minute.
"""

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta

from esim.errors import InvalidInput, MalformedReply, ProviderError, ProviderRejected
from esim.money import Cost
from esim.ports import Clock
from resources.providers.airalo_catalogue import SLUG, Pricing, pricing_of
from resources.providers.base import Patience
from resources.providers.payload import Row, loose_text, mapping

LIFE = timedelta(seconds=5)
WHOLE_LIFE = timedelta(seconds=15)
MANY_LISTS = 6  # different lists asked for within a list's life: from then on the whole list is read
_ENTRIES = 1000  # there are some 210 countries and regions
_MOST_PAGES = 20
_WHOLE = ""
ReadList = Callable[[Mapping[str, str | int], Patience], Row]


class _List:
    """What one list told last; whoever holds `lock` may ask again, the others wait for what that brings."""

    def __init__(self, life: timedelta) -> None:
        self.lock = threading.Lock()
        self._life = life
        self._read_at: datetime | None = None
        self._told: dict[str, Cost] | ProviderError = {}

    def known(self, asked_at: datetime, now: datetime) -> dict[str, Cost] | None:
        """Return the prices while they are fresh, None when the list must be read.

        Raises:
            ProviderError: the list was read since `asked_at`, and failed: not every worker waits through that.
        """
        if self._read_at is None:
            return None
        if isinstance(self._told, ProviderError):
            if self._read_at > asked_at:
                raise copy.copy(self._told)
            return None
        return self._told if now - self._read_at <= self._life else None

    def note(self, now: datetime, told: dict[str, Cost] | ProviderError) -> None:
        """Keep what a reading brought."""
        self._read_at, self._told = now, told


class AiraloPrices:
    """The price lists of one process, shared by its workers; `read` fetches one page of `GET /packages`."""

    def __init__(self, read: ReadList, clock: Clock) -> None:
        self._read, self._clock = read, clock
        self._whole = _List(WHOLE_LIFE)
        self._lists: dict[str, _List] = {}
        self._asked: OrderedDict[str, datetime] = OrderedDict()  # the newest last
        self._lock = threading.Lock()

    def cost(self, package_id: str, hints: Mapping[str, str], patience: Patience) -> Cost:
        """Return what one unit costs now; `hints` are the filters under which its country is listed.

        Raises:
            ProviderError: not to be read; `ProviderRejected` when the plan left the list (sold out or withdrawn).
        """
        asked_at = self._clock()
        key = "&".join(f"{name}={hints[name]}" for name in sorted(hints))
        if self._many_are_asked_for(key, asked_at):
            costs = self._costs(self._whole, {}, asked_at, patience)
        else:
            with self._lock:
                known = self._lists.setdefault(key, _List(LIFE))
            costs = self._costs(known, hints, asked_at, patience)
        try:
            return costs[package_id]
        except KeyError:
            raise ProviderRejected(f"{SLUG} packages: no plan {package_id} any more") from None

    def _many_are_asked_for(self, key: str, now: datetime) -> bool:
        with self._lock:
            self._asked[key] = now
            self._asked.move_to_end(key)
            while now - next(iter(self._asked.values())) > LIFE:
                self._asked.popitem(last=False)
            return key == _WHOLE or len(self._asked) >= MANY_LISTS

    def _costs(
        self, known: _List, hints: Mapping[str, str], asked_at: datetime, patience: Patience
    ) -> Mapping[str, Cost]:
        with known.lock:
            costs = known.known(asked_at, self._clock())
            if costs is None:
                try:
                    costs = self._all_pages(hints, patience)
                except ProviderError as error:
                    known.note(self._clock(), error)
                    raise
                known.note(self._clock(), costs)
            return costs

    def _all_pages(self, hints: Mapping[str, str], patience: Patience) -> dict[str, Cost]:
        costs: dict[str, Cost] = {}
        for page in range(1, _MOST_PAGES + 1):
            answer = self._read({**hints, "limit": _ENTRIES, "page": page}, patience)
            costs |= read_costs(answer)
            meta = answer.get("meta")
            last = meta.get("last_page") if isinstance(meta, dict) else None
            if not isinstance(last, int) or page >= last:
                return costs
        raise MalformedReply(f"{SLUG} packages: no end after {_MOST_PAGES} pages")


def read_costs(answer: Row) -> dict[str, Cost]:
    """Return the wholesale cost of every package in one answer of `GET /packages` that has a readable one.

    Raises:
        MalformedReply: it is no list of packages.
    """
    pricing, entries = pricing_of(answer), answer.get("data")
    if isinstance(entries, dict):  # page 2 and later may be an object keyed by index
        entries = list(entries.values())
    if not isinstance(entries, list):
        raise MalformedReply(f"{SLUG} packages: no list of countries in the answer")
    costs: dict[str, Cost] = {}
    for entry in entries:
        for operator in _rows(entry, "operators"):
            for package in _rows(operator, "packages"):
                _read_cost(package, pricing, costs)
    return costs


def _read_cost(package: object, pricing: Pricing, costs: dict[str, Cost]) -> None:
    with suppress(InvalidInput, MalformedReply):  # one that cannot be read is not for sale just now
        row = mapping(package, f"{SLUG} package")
        costs[loose_text(row, "id")] = pricing.cost(row)


def _rows(parent: object, name: str) -> list[object]:
    rows = parent.get(name) if isinstance(parent, dict) else None
    return rows if isinstance(rows, list) else []
