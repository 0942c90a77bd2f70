"""eSIM Access `package/list`: the whole catalogue in one reply; prices in 1/10000 USD, data in bytes, days per plan.

Day passes are priced per day with duration 1. Sub-locations such as GB-SCT stand among the ISO codes of wide plans.
"""

from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import cache
from typing import Any

from starlette.responses import Response

from sandbox.geography import countries
from sandbox.plans import Plan, provider_plans
from sandbox.providers.ledger import token
from sandbox.providers.recorded import recorded_pages
from sandbox.providers.shelf import Entry, Knobs, Package, Shelf, bend, endless, is_bent
from sandbox.providers.site import Ask
from sandbox.wire import dumps, raw
from sandbox.world import World

UNITS = 10_000
_CODES = {
    "europe": "EU", "europe-plus": "EUP", "balkans": "BK", "asia": "AS", "southeast-asia": "SEA",
    "china-hong-kong-macao": "CNHKMO", "middle-east": "ME", "gulf": "GC", "africa": "AF", "north-america": "NA",
    "latin-america": "LA", "caribbean": "CB", "oceania": "OC", "global": "GL",
}  # fmt: skip
_HEAD = b'{"success":true,"errorCode":"0","errorMsg":null,"obj":{"packageList":['


def location_code(plan: Plan) -> str:
    """ISO-2 for one country, else a region code whose number counts its members."""
    place = plan.destination
    return place.code if place.kind == "country" else f"{_CODES[place.code]}-{len(plan.coverage)}"


def _members(plan: Plan) -> list[str]:
    extra = {"global": ["GB-SCT", "TRNC"], "europe-plus": ["GB-SCT", "GB-WLS"]}.get(plan.destination.code, [])
    return [*plan.coverage, *extra]


def _volume(plan: Plan) -> int:
    mb = plan.shape.mb
    return (mb // 1000 * 1024 if mb >= 1000 else mb) * 1024 * 1024


def _slug(plan: Plan) -> str:
    gb = f"{plan.shape.mb / 1000:g}"
    return f"{location_code(plan)}_{gb}_{'Daily' if plan.shape.daily else plan.shape.days}"


def _code(plan: Plan) -> str:
    base = f"P{token('esim_access', location_code(plan), plan.shape.mb, plan.shape.days, plan.shape.daily, size=8)}"
    return f"TOPUP_{base}" if plan.shape.kind == "topup" else base


@cache
def _networks(iso: str) -> Entry:
    country = countries().get(iso)
    name = country.name if country else iso
    operators = [
        {"operatorName": f"{name} Telecom", "networkType": "5G"},
        {"operatorName": f"{name} Cell", "networkType": "4G"},
    ]
    logo = f"/img/flags/{iso[:2].lower()}.png"
    return {"locationName": name, "locationLogo": logo, "locationCode": iso, "operatorList": operators}


def _entry(plan: Plan) -> Entry:
    shape, place = plan.shape, plan.destination
    size = shape.size.replace(" ", "")
    where = place.name if place.kind == "country" else f"{place.name} ({len(plan.coverage)} areas)"
    name = f"{where} {size}/Day FUP1Mbps" if shape.daily else f"{where} {size} {shape.days}Days"
    members = _members(plan)
    return {
        "packageCode": _code(plan), "slug": _slug(plan), "name": name, "price": plan.cents * 100, "currencyCode": "USD",
        "volume": _volume(plan), "smsStatus": 0, "dataType": 2 if shape.daily else 1, "unusedValidTime": 180,
        "duration": shape.days, "durationUnit": "DAY", "location": ",".join(members),
        "locationCode": location_code(plan), "description": name, "activeType": 2, "favorite": False,
        "retailPrice": plan.retail_cents * 100, "speed": "3G/4G/5G", "ipExport": "NL/FR",
        "supportTopUpType": 3 if shape.daily else 2, "fupPolicy": "1 Mbps" if shape.daily else "",
        "locationNetworkList": [_networks(iso) for iso in members],
    }  # fmt: skip


def _flat(entries: list[Entry]) -> Iterator[list[Entry]]:
    yield entries


def _set_price(entry: Entry, change: Callable[[Decimal], Decimal]) -> None:
    entry["price"] = int(change(Decimal(entry["price"]) / UNITS) * UNITS)


def _set_currency(entry: Entry, currency: str) -> None:
    entry["currencyCode"] = currency


KNOBS = Knobs(
    lists=_flat,
    package_id=lambda entry: str(entry["packageCode"]),
    name="name",
    set_price=_set_price,
    set_currency=_set_currency,
    breaks=("volume", "duration", "price"),
)


def _read_page(payload: Any) -> list[Entry] | None:
    obj = payload.get("obj") if isinstance(payload, dict) else None
    rows = obj.get("packageList") if isinstance(obj, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "packageCode" in row for row in rows):
        return None
    return rows


def is_topup(entry: Entry) -> bool:
    """Whether an entry is a top-up."""
    return str(entry["packageCode"]).startswith("TOPUP_")


def _sold(entry: Entry) -> Package:
    return Package(
        package_id=str(entry["packageCode"]), title=str(entry.get("name") or entry["packageCode"]),
        price=Decimal(str(entry.get("price") or 0)) / UNITS, data_bytes=int(entry.get("volume") or 0),
        days=int(entry.get("duration") or 0), kind="topup" if is_topup(entry) else "sim",
        family=str(entry.get("locationCode") or entry.get("location") or ""), entry=entry,
    )  # fmt: skip


class EsimAccessCatalogue:
    """The catalogue of one sandbox, generated or recorded."""

    def __init__(self, world: World) -> None:
        pages = recorded_pages(world.config.catalogues, "esim_access", _read_page)
        if pages is None:
            plans = provider_plans("esim_access", world.config.seed, world.config.plans_per_provider)
            entries = [_entry(plan) for plan in plans]
        else:
            entries = [entry for page, _ in pages for entry in page]
        packages = [_sold(entry) for entry in entries]
        self.shelf = Shelf(entries, packages)
        self.by_slug = {str(p.wire["slug"]): p for p in packages if p.kind == "sim" and p.wire.get("slug")}
        self._closing = world.closing

    def find(self, code: str) -> Package | None:
        """A package by its code or its slug."""
        return self.shelf.packages.get(code) or self.by_slug.get(code)

    def answer(self, ask: Ask, body: dict[str, Any], base: Package | None) -> Response:
        """The list; `base` is the plan whose top-ups are wanted, where one was named."""
        query = tuple(str(body.get(name) or "") for name in ("locationCode", "type", "packageCode", "slug", "dataType"))
        key = (*query, base.package_id if base else "")
        if ask.fault("endless_pages"):
            return endless(_HEAD, dumps(self.shelf.entries[0]), self._closing)
        if is_bent(ask):
            return raw(_HEAD + dumps(bend(ask, self._chosen(query, base), KNOBS))[1:] + b"}}")
        return raw(self.shelf.bytes_for(key, lambda: _HEAD + dumps(self._chosen(query, base))[1:] + b"}}"))

    def _chosen(self, query: tuple[str, ...], base: Package | None) -> list[Entry]:
        location, kind, code, slug, data_type = query
        topups = kind == "TOPUP"
        rows = [entry for entry in self.shelf.entries if is_topup(entry) == topups]
        if topups and base is not None:
            return [entry for entry in rows if _sold(entry).family == base.family]
        if topups and (code or slug):
            return []
        return [
            entry
            for entry in rows
            if _located(entry, location)
            and (not code or entry["packageCode"] == code)
            and (not slug or entry.get("slug") == slug)
            and (not data_type or str(entry.get("dataType", 1)) == data_type)
        ]

    def locations(self) -> list[Entry]:
        """All single and regional locations on offer."""
        table, found = countries(), {}
        for entry in self.shelf.entries:
            code = str(entry.get("locationCode") or entry.get("location") or "")
            members = str(entry.get("location") or "").split(",")
            names = [{"code": iso, "name": table[iso].name if iso in table else iso} for iso in members]
            single = len(members) == 1
            found[code] = {
                "code": code, "name": names[0]["name"] if single else str(entry.get("name", "")).split(" (")[0],
                "type": 1 if single else 2, "subLocationList": None if single else names,
            }  # fmt: skip
        return list(found.values())


def _located(entry: Entry, wanted: str) -> bool:
    if not wanted:
        return True
    code = str(entry.get("locationCode") or entry.get("location") or "")
    if wanted == "!GL":
        return code.startswith("GL")
    if wanted == "!RG":
        return "," in str(entry.get("location")) and not code.startswith("GL")
    return code == wanted
