"""The catalogue in memory: one immutable snapshot per published version, and the ready answers that belong to it.

Postgres -> `CatalogueSnapshot` (indexes and JSON pieces) -> `Shelf.swap` -> routes and hot path read `Shelf.current`.
A reader takes `Shelf.current` once and sees one version throughout; an answer is kept with the version it came from.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, reduce
from operator import or_
from types import MappingProxyType

import orjson

from api.ready_answer import ReadyAnswer
from esim.catalogue import Allowance
from resources.db.catalogue_reader import PublishedCatalogue, SoldPackage

READY_ANSWERS = 4096
READY_BYTES = 64 * 1024 * 1024
UNLIMITED_MB_PER_DAY = 2000  # what an unlimited plan counts as where plans are ranked by value

SortKey = tuple[int, int, str]


@dataclass(frozen=True, slots=True)
class Listing:
    """A package with its public JSON in two pieces: the price, which depends on the currency, goes between them.

    `total_mb` is the data of the whole term: the daily allowance times the days, None for unlimited plans.
    """

    package: SoldPackage
    total_mb: int | None
    best_price: bool
    head: bytes
    tail: bytes

    def json(self, currency: str) -> bytes:
        """Return the package as JSON with its price in `currency`.

        Raises:
            KeyError: it has no price in that currency.
        """
        return b'%b{"amount_minor":%d,"currency":"%b"}%b' % (
            self.head,
            self.package.prices[currency],
            currency.encode(),
            self.tail,
        )


@dataclass(frozen=True, slots=True)
class DestinationListing:
    """One destination with its packages, cheapest (in USD) first."""

    code: str
    name: str
    type: str
    listings: tuple[Listing, ...]

    def from_price(self, currency: str) -> int | None:
        """Return the lowest price in minor units of `currency`; None where nothing is sold in it."""
        return min((p.package.prices[currency] for p in self.listings if currency in p.package.prices), default=None)


class CatalogueSnapshot:
    """One catalogue version: never changed after it is built."""

    def __init__(self, published: PublishedCatalogue) -> None:
        self.version = published.version
        self.published_at = published.published_at
        grouped: dict[str, list[SoldPackage]] = {}
        for package in published.packages:
            grouped.setdefault(package.destination_code, []).append(package)
        self.destinations: Mapping[str, DestinationListing] = MappingProxyType(
            {code: _destination(code, group) for code, group in grouped.items()}
        )
        self.by_id: Mapping[str, Listing] = MappingProxyType(
            {listing.package.package_id: listing for d in self.destinations.values() for listing in d.listings}
        )
        self._orders: dict[tuple[str | None, str, str], Sequence[tuple[SortKey, Listing]]] = {}

    @cached_property
    def listings(self) -> tuple[Listing, ...]:
        """Every package on sale."""
        return tuple(self.by_id.values())

    def in_order(self, destination: str | None, sort: str, currency: str) -> Sequence[tuple[SortKey, Listing]]:
        """Return the packages of a destination (None for all) priced in `currency`, with their sort keys, in order."""
        key = (destination, sort, currency)
        found = self._orders.get(key)
        if found is None:
            here = self.listings if destination is None else self._at(destination)
            priced = (listing for listing in here if currency in listing.package.prices)
            found = sorted(((sort_key(listing, sort, currency), listing) for listing in priced), key=lambda row: row[0])
            if destination is None or destination in self.destinations:  # what strangers make up is not kept
                self._orders[key] = found
        return found

    def _at(self, destination: str) -> tuple[Listing, ...]:
        found = self.destinations.get(destination)
        return found.listings if found else ()


def sort_key(listing: Listing, sort: str, currency: str) -> SortKey:
    """Return where a package stands: price and value ascending, data and days descending; ties by price, then id."""
    package = listing.package
    price = package.prices[currency]
    total = listing.total_mb
    first = {
        "price": price,
        "data": -total if total is not None else -(10**12),
        "days": -package.validity_days,
        "value": price * 10**6 // (total or package.validity_days * UNLIMITED_MB_PER_DAY),
    }[sort]
    return (first, price, package.package_id)


def _destination(code: str, group: Sequence[SoldPackage]) -> DestinationListing:
    by_price = sorted(group, key=lambda p: (p.prices.get("USD", 0), -p.validity_days, p.package_id))
    bargains = _best_prices(by_price)
    listings = tuple(_listing(package, best_price=package.package_id in bargains) for package in by_price)
    return DestinationListing(code, group[0].destination_name, group[0].destination_type, listings)


def _best_prices(by_price: Sequence[SoldPackage]) -> set[str]:
    """Return the packages that no cheaper one of the same destination matches in data, days, extras and countries.

    Countries are bits of one integer: a region has thousands of plans, and comparing sets takes seconds.
    """
    bits = {code: 1 << n for n, code in enumerate(sorted({code for p in by_price for code in p.coverage}))}
    front: list[tuple[int, int, int, int, int]] = []
    best: set[str] = set()
    for package in by_price:
        mb, days = _ranked_mb(package), package.validity_days
        voice, sms = package.voice_minutes, package.sms
        area = reduce(or_, map(bits.__getitem__, package.coverage), 0)
        for other_mb, other_days, other_area, other_voice, other_sms in front:
            as_much = other_mb >= mb and other_days >= days and other_area & area == area
            if as_much and other_voice >= voice and other_sms >= sms:
                break
        else:
            front.append((mb, days, area, voice, sms))
            best.add(package.package_id)
    return best


def _ranked_mb(package: SoldPackage) -> int:
    total = total_mb(package)
    return 10**12 if total is None else total


def total_mb(package: SoldPackage) -> int | None:
    """Return the data of the whole term in MB; None for unlimited plans."""
    if package.data_mb is None:
        return None
    return package.data_mb * package.validity_days if package.allowance == Allowance.DAILY else package.data_mb


def _listing(package: SoldPackage, *, best_price: bool) -> Listing:
    total = total_mb(package)
    head = {
        "id": package.package_id,
        "name": package.name,
        "destination": {
            "code": package.destination_code,
            "name": package.destination_name,
            "type": package.destination_type,
        },
        "coverage": package.coverage,
        "data_mb": total,
        "unlimited": total is None,
        "validity_days": package.validity_days,
        "networks": package.networks,
        "top_up": bool(package.supports_top_up),
    }
    tail = {"best_price": best_price, "updated_at": package.updated_at}
    return Listing(
        package,
        total,
        best_price,
        head=orjson.dumps(head)[:-1] + b',"price":',
        tail=b"," + orjson.dumps(tail, option=orjson.OPT_UTC_Z | orjson.OPT_OMIT_MICROSECONDS)[1:],
    )


class ReadyAnswers:
    """Answers of one catalogue version by path and raw query, the least recently used thrown out first."""

    def __init__(self, answers: int = READY_ANSWERS, size: int = READY_BYTES) -> None:
        self._kept: OrderedDict[tuple[str, bytes], ReadyAnswer] = OrderedDict()
        self._most_answers, self._most_bytes, self._bytes = answers, size, 0

    def get(self, path: str, query: bytes) -> ReadyAnswer | None:
        """Return the answer that is ready, if there is one."""
        key = (path, query)
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, path: str, query: bytes, answer: ReadyAnswer) -> None:
        """Keep an answer; one that is kept already stays."""
        if (path, query) in self._kept:
            return
        self._kept[path, query] = answer
        self._bytes += answer.size
        while len(self._kept) > self._most_answers or self._bytes > self._most_bytes:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.size

    def __len__(self) -> int:
        return len(self._kept)


@dataclass(frozen=True, slots=True)
class Shelved:
    """A snapshot and the answers made from it: swapped together."""

    snapshot: CatalogueSnapshot
    ready: ReadyAnswers


class Shelf:
    """Holds the current catalogue; only the event loop touches it."""

    def __init__(self) -> None:
        self.current = Shelved(CatalogueSnapshot(PublishedCatalogue(0, None, ())), ReadyAnswers())
        self.checked_at: datetime | None = None

    def swap(self, snapshot: CatalogueSnapshot) -> None:
        """Put another version on the shelf; readers of the old one finish with it."""
        self.current = Shelved(snapshot, ReadyAnswers())
