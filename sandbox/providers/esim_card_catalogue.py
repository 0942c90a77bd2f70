"""eSIMCard's package lists: decimal text prices, number and unit, one coverage row per country *and* network."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import cache
from typing import Any

from starlette.responses import Response

from sandbox.geography import ZONES, countries
from sandbox.plans import Plan, provider_plans
from sandbox.providers.ledger import uuid_text
from sandbox.providers.recorded import recorded_pages
from sandbox.providers.shelf import Entry, Knobs, Package, Shelf, bend, is_bent
from sandbox.providers.site import Ask
from sandbox.wire import dumps, raw
from sandbox.world import World

_BRANDS = (("Telecom", "TEL"), ("Cell", "CEL"))
_MOST_PER_PAGE = 100
_GB, _MB = 1024**3, 1024**2


def country_id(iso: str) -> int:
    """ESIMCard's own number of a country."""
    return list(countries()).index(iso) + 1


def _name(plan: Plan) -> str:
    shape, place = plan.shape, plan.destination
    if shape.minutes:
        return f"{place.name} Talk, Text {shape.size.replace(' ', '').lower()}"
    days = f"{shape.days} Day{'' if shape.days == 1 else 's'}"
    size = "Unlimited" if shape.unlimited else shape.size.replace(" ", "")
    where = "Global" if place.kind == "global" else f"in {place.name}"
    return f"{size} eSIM Data For {days} {where}"


@cache
def _coverage(members: tuple[str, ...]) -> list[Entry]:
    table = countries()
    ids = {iso: number for number, iso in enumerate(table, start=1)}
    return [
        {
            "id": ids[iso], "country_name": table[iso].name, "code": iso, "iso": iso,
            "country_image_url": f"https://flagcdn.com/w80/{iso.lower()}.png",
            "network_name": f"{table[iso].name} {brand}", "network_code": f"{table[iso].iso3}{code}",
        }
        for iso in members for brand, code in _BRANDS
    ]  # fmt: skip


def _entry(plan: Plan) -> Entry:
    shape = plan.shape
    small = not shape.unlimited and shape.mb < 1000
    return {
        "id": uuid_text("esim_card", plan.key), "name": _name(plan), "price": f"{Decimal(plan.cents).scaleb(-2):.2f}",
        "data_quantity": 0 if shape.unlimited else shape.mb if small else shape.mb // 1000,
        "data_unit": "MB" if small else "GB", "voice_quantity": shape.minutes, "voice_unit": "Minutes",
        "sms_quantity": shape.texts, "package_validity": shape.days, "package_validity_unit": "Day",
        "package_type": "DATA-VOICE-SMS" if shape.minutes else "DATA-ONLY", "unlimited": shape.unlimited,
        "coverage": _coverage(plan.coverage),
    }  # fmt: skip


def _flat(entries: list[Entry]) -> Iterator[list[Entry]]:
    yield entries


def _set_price(entry: Entry, change: Callable[[Decimal], Decimal]) -> None:
    if entry.get("price") is not None:
        entry["price"] = f"{change(Decimal(str(entry['price']))):.2f}"


def _set_currency(entry: Entry, currency: str) -> None:
    entry["currency"] = currency


KNOBS = Knobs(
    lists=_flat,
    package_id=lambda entry: str(entry["id"]),
    name="name",
    set_price=_set_price,
    set_currency=_set_currency,
    breaks=("data_quantity", "package_validity", "price"),
)


def _read_page(payload: Any) -> list[Entry] | None:
    rows = payload.get("data") if isinstance(payload, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "data_quantity" in row for row in rows):
        return None
    return rows


def is_voice(entry: Entry) -> bool:
    """Whether a package is of the kind with calls and texts."""
    return entry.get("package_type") == "DATA-VOICE-SMS"


def _sold(entry: Entry) -> Package:
    quantity = Decimal(str(entry.get("data_quantity") or 0))
    size = int(quantity * (_MB if entry.get("data_unit") == "MB" else _GB))
    return Package(
        package_id=str(entry["id"]), title=str(entry.get("name") or ""), price=Decimal(str(entry.get("price") or 0)),
        data_bytes=None if entry.get("unlimited") else size, days=int(entry.get("package_validity") or 0), entry=entry,
    )  # fmt: skip


class EsimCardCatalogue:
    """The packages of one sandbox, generated or recorded."""

    def __init__(self, world: World) -> None:
        pages = recorded_pages(world.config.catalogues, "esim_card", _read_page)
        recorded = None if pages is None else [entries for entries, _ in pages]
        if recorded is None:
            plans = provider_plans("esim_card", world.config.seed, world.config.plans_per_provider)
            entries = [_entry(plan) for plan in plans]
        else:
            entries = [entry for page in recorded for entry in page]
        self.shelf = Shelf(entries, map(_sold, entries), recorded)

    def answer(self, ask: Ask, place: str = "") -> Response:
        """One page of packages, of one place when it is named (`country:9`, `continent:2`, `global`)."""
        page, size = numbers(ask, usual=20)
        kind = ask.query("package_type") or str(ask.request.path_params.get("kind") or "")
        key = (place, kind, page, size)
        if is_bent(ask):
            return raw(self._page(ask, *key))
        return raw(self.shelf.bytes_for(key, lambda: self._page(ask, *key)))

    def _page(self, ask: Ask, place: str, kind: str, page: int, size: int) -> bytes:
        rows = self._chosen(self.shelf.entries, place, kind)
        if self.shelf.pages is not None and not place:
            last = len(self.shelf.pages)
            part = self._chosen(self.shelf.pages[page - 1], place, kind) if page <= last else []
        else:
            last = max(1, -(-len(rows) // size))
            part = rows[(page - 1) * size : page * size]
        if ask.fault("endless_pages"):
            part, last = part or rows[:size], page + 1
        meta = {"total": len(rows), "perPage": size, "currentPage": page, "lastPage": last}
        return dumps({"status": True, "meta": meta, "data": bend(ask, part, KNOBS)})

    @staticmethod
    def _chosen(entries: list[Entry], place: str, kind: str) -> list[Entry]:
        found = [entry for entry in entries if not kind or entry.get("package_type", "DATA-ONLY") == kind]
        return [entry for entry in found if _located(entry, place)] if place else found

    def pricing(self) -> bytes:
        """The price list by country, codes in lower case."""
        shown = ("id", "name", "price", "data_quantity", "data_unit", "package_validity", "package_validity_unit")
        by_country: dict[str, list[Entry]] = {}
        for entry in self.shelf.entries:
            isos = {str(row["iso"]) for row in entry.get("coverage") or []}
            if len(isos) == 1:
                by_country.setdefault(isos.pop(), []).append({key: entry.get(key) for key in shown})
        table = countries()
        rows = [
            {"name": table[iso].name, "code": iso.lower(), "packages": packages}
            for iso, packages in by_country.items() if iso in table
        ]  # fmt: skip
        return dumps({"status": True, "data": {"countries": rows}})


def numbers(ask: Ask, usual: int) -> tuple[int, int]:
    """Page number and page size; `limit` and `perPage` are ignored, as at the provider."""
    page, size = ask.query("page") or "1", ask.query("per_page") or str(usual)
    return (
        max(1, int(page)) if page.isdigit() else 1,
        min(max(1, int(size)), _MOST_PER_PAGE) if size.isdigit() else usual,
    )


def _located(entry: Entry, place: str) -> bool:
    rows = entry.get("coverage") or []
    isos = {str(row.get("iso")) for row in rows}
    kind, _, number = place.partition(":")
    if kind == "global":
        return len(isos) > 60
    if kind == "country":
        return any(str(row.get("id")) == number for row in rows)
    zone = ZONES[int(number) - 1] if number.isdigit() and 1 <= int(number) <= len(ZONES) else ""
    table = countries()
    return 1 < len(isos) <= 60 and all(iso in table and table[iso].zone == zone for iso in isos)


def places() -> list[Entry]:
    """All countries, for `packages/country`."""
    return [
        {
            "id": number, "name": country.name, "code": country.iso.lower(), "code_alpha3": country.iso3,
            "image_url": f"https://flagcdn.com/w80/{country.iso.lower()}.png",
        }
        for number, country in enumerate(countries().values(), start=1)
    ]  # fmt: skip


def continents() -> list[Entry]:
    """All continents, for `packages/continent`."""
    image = "https://portal.example.com/images/continents"
    return [
        {"id": number, "name": zone, "code": zone[:2].lower(), "image_url": f"{image}/{zone.replace(' ', '')}.svg"}
        for number, zone in enumerate(ZONES, start=1)
    ]


def networks(isos: list[str]) -> list[Entry]:
    """Networks per country, as the detail call and `network-coverages` show them."""
    table = countries()
    return [
        {
            "id": country_id(iso), "name": table[iso].name, "image_url": f"https://flagcdn.com/w80/{iso.lower()}.png",
            "network_coverage": [
                {
                    "network_name": f"{table[iso].name} {brand}", "network_code": f"{table[iso].iso3}{code}",
                    "two_g": True, "three_g": True, "four_G": True, "five_G": brand == "Telecom",
                }
                for brand, code in _BRANDS
            ],
        }
        for iso in isos if iso in table
    ]  # fmt: skip
