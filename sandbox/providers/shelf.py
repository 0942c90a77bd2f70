"""What a provider has on offer: its catalogue in wire shape, found by package id, and bent by the catalogue faults."""

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from zlib import crc32

from starlette.responses import Response, StreamingResponse

from sandbox.faults import Fault
from sandbox.providers.site import Ask

Entry = dict[str, Any]

BENDING = (
    "price_change", "negative_price", "zero_price", "huge_name", "foreign_currency", "broken_plan", "delisted",
    "empty_catalogue",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Package:
    """One thing that can be bought, read from the wire entry that offers it."""

    package_id: str
    title: str
    price: Decimal
    data_bytes: int | None
    days: int
    kind: str = "sim"
    currency: str = "USD"
    retail: Decimal = Decimal(0)
    family: str = ""
    entry: Entry | None = None

    @property
    def wire(self) -> Entry:
        """The entry as the catalogue shows it."""
        return self.entry or {}


@dataclass(frozen=True)
class Knobs:
    """Where a provider's wire shape keeps what faults bend. `lists` yields the lists that hold plans."""

    lists: Callable[[list[Entry]], Iterator[list[Entry]]]
    package_id: Callable[[Entry], str]
    name: str
    set_price: Callable[[Entry, Callable[[Decimal], Decimal]], None]
    set_currency: Callable[[Entry, str], None]
    breaks: tuple[str, ...]


class Shelf:
    """A catalogue: top-level entries in pages or in one list, and every package in them by id."""

    def __init__(
        self, entries: list[Entry], packages: Iterable[Package], pages: list[list[Entry]] | None = None
    ) -> None:
        self.entries = entries
        self.pages = pages
        self.packages = {package.package_id: package for package in packages}
        self.ready: dict[object, bytes] = {}

    def bytes_for(self, key: object, make: Callable[[], bytes]) -> bytes:
        """Ready bytes of an answer, made on first use; the number kept is bounded."""
        found = self.ready.get(key)
        if found is None:
            if len(self.ready) >= 400:
                self.ready.clear()
            found = self.ready[key] = make()
        return found


def is_bent(ask: Ask) -> bool:
    """Whether a catalogue fault is in force, so that ready bytes must not be used."""
    faults = ask.world.faults
    return faults.active(ask.slug, ask.call, *BENDING, "endless_pages")


def bend(ask: Ask, entries: list[Entry], knobs: Knobs) -> list[Entry]:
    """Return the entries as the faults in force want them; the originals stay as they are."""
    struck = [fault for kind in BENDING if (fault := ask.fault(kind)) is not None]
    if not struck:
        return entries
    bent = copy.deepcopy(entries)
    for fault in struck:
        if fault.kind == "empty_catalogue":
            return []
        _BENDERS[fault.kind](fault, bent, knobs)
    return bent


def delists(fault: Fault, package_id: str) -> bool:
    """Whether this fault withdraws this package: by name, by share, or all when an order is refused for it."""
    named = fault.names("package_ids")
    if named:
        return package_id in named
    share = fault.number("share", 0.25)
    return crc32(package_id.encode()) % 1000 < share * 1000


def charged(ask: Ask, package: Package) -> Decimal:
    """The unit price a purchase pays now."""
    fault = ask.fault("price_change")
    if fault is None or (fault.names("package_ids") and package.package_id not in fault.names("package_ids")):
        return package.price
    return moved(package.price, fault)


def moved(price: Decimal, fault: Fault) -> Decimal:
    """A price moved by the fault's percentage, to the cent."""
    percent = Decimal(str(fault.params.get("percent", 20)))
    return (price * (100 + percent) / 100).quantize(Decimal("0.01"))


def endless(head: bytes, item: bytes, closing: asyncio.Event) -> Response:
    """A list that never ends, for replies without pages; stops when the client or the sandbox does."""

    async def pour() -> AsyncIterator[bytes]:
        yield head + item
        chunk = (b"," + item) * (1 + 65_536 // (len(item) + 1))
        while not closing.is_set():
            yield chunk
            await asyncio.sleep(0)

    return StreamingResponse(pour(), media_type="application/json")


def _first(entries: list[Entry], knobs: Knobs, count: int) -> Iterator[Entry]:
    left = count
    for plans in knobs.lists(entries):
        for plan in plans[:left]:
            left -= 1
            yield plan
        if left <= 0:
            return


def _change(fault: Fault, entries: list[Entry], knobs: Knobs) -> None:
    named = fault.names("package_ids")
    for plans in knobs.lists(entries):
        for plan in plans:
            if not named or knobs.package_id(plan) in named:
                knobs.set_price(plan, lambda price: moved(price, fault))


def _negative(fault: Fault, entries: list[Entry], knobs: Knobs) -> None:
    for plan in _first(entries, knobs, int(fault.number("count", 1))):
        knobs.set_price(plan, lambda price: -abs(price) or Decimal(-1))


def _zero(fault: Fault, entries: list[Entry], knobs: Knobs) -> None:
    for plan in _first(entries, knobs, int(fault.number("count", 1))):
        knobs.set_price(plan, lambda _price: Decimal(0))


def _huge(fault: Fault, entries: list[Entry], knobs: Knobs) -> None:
    for plan in _first(entries, knobs, 1):
        plan[knobs.name] = "A" * int(fault.number("bytes", 10_000_000))


def _foreign(fault: Fault, entries: list[Entry], knobs: Knobs) -> None:
    currency = str(fault.params.get("currency", "EUR"))
    for plans in knobs.lists(entries):
        for plan in plans:
            knobs.set_currency(plan, currency)


def _broken(fault: Fault, entries: list[Entry], knobs: Knobs) -> None:
    for plan in _first(entries, knobs, int(fault.number("count", 1))):
        for key in knobs.breaks:
            plan[key] = {"unexpected": None}


def _delist(fault: Fault, entries: list[Entry], knobs: Knobs) -> None:
    for plans in knobs.lists(entries):
        plans[:] = [plan for plan in plans if not delists(fault, knobs.package_id(plan))]


_BENDERS: dict[str, Callable[[Fault, list[Entry], Knobs], None]] = {
    "price_change": _change,
    "negative_price": _negative,
    "zero_price": _zero,
    "huge_name": _huge,
    "foreign_currency": _foreign,
    "broken_plan": _broken,
    "delisted": _delist,
}
