"""eSIM Go's `GET /catalogue`: flat bundles in pages; data in MB with 1000 to the GB, -1 when unlimited."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import cache
from typing import Any

from starlette.responses import Response

from sandbox.geography import countries
from sandbox.plans import Plan, provider_plans
from sandbox.providers.recorded import recorded_pages
from sandbox.providers.shelf import Entry, Knobs, Package, Shelf, bend, is_bent
from sandbox.providers.site import Ask
from sandbox.wire import dumps, raw, reply
from sandbox.world import World

_MOST_PER_PAGE = 1000


def bundle_name(plan: Plan) -> str:
    """The item to order, such as `esim_1GB_7D_JP_V2`."""
    place = plan.destination
    code = place.code if place.kind == "country" else f"R{place.code.replace('-', '').upper()}"
    size = "UL" if plan.shape.unlimited else plan.shape.size.replace(" ", "")
    return f"esim_{size}_{plan.shape.days}D_{code}_V2"


def _groups(plan: Plan) -> list[str]:
    if plan.shape.unlimited:
        return ["Standard Unlimited Lite"]
    return ["Standard Long Duration" if plan.shape.days > 30 else "Standard Fixed"]


@cache
def _country(iso: str) -> Entry:
    country = countries()[iso]
    return {"name": country.name, "region": country.zone, "iso": iso}


def _bundle(plan: Plan) -> Entry:
    place, shape = plan.destination, plan.shape
    single = place.kind == "country"
    size = "Unlimited Lite" if shape.unlimited else shape.size.replace(" ", "")
    return {
        "name": bundle_name(plan),
        "description": f"eSIM, {size}, {shape.days} Day{'' if shape.days == 1 else 's'}, {place.name}, V2",
        "groups": _groups(plan),
        "countries": [
            _country(place.code) if single else {"name": place.name, "region": place.zone, "iso": place.name}
        ],
        "dataAmount": -1 if shape.unlimited else shape.mb, "duration": shape.days, "speed": ["2G", "3G", "4G", "5G"],
        "autostart": True, "unlimited": shape.unlimited,
        "roamingEnabled": [] if single else [_country(iso) for iso in plan.coverage],
        "price": Decimal(plan.cents).scaleb(-2), "billingType": "FixedCost",
    }  # fmt: skip


def _set_price(bundle: Entry, change: Callable[[Decimal], Decimal]) -> None:
    bundle["price"] = change(Decimal(str(bundle["price"])))


def _set_currency(bundle: Entry, currency: str) -> None:
    bundle["currency"] = currency


def _flat(entries: list[Entry]) -> Iterator[list[Entry]]:
    yield entries


KNOBS = Knobs(
    lists=_flat,
    package_id=lambda bundle: str(bundle["name"]),
    name="description",
    set_price=_set_price,
    set_currency=_set_currency,
    breaks=("dataAmount", "duration", "price"),
)


def _read_page(payload: Any) -> list[Entry] | None:
    rows = payload.get("bundles") if isinstance(payload, dict) else payload
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "dataAmount" in row for row in rows):
        return None
    return rows


def _sold(bundle: Entry) -> Package:
    unlimited = bool(bundle.get("unlimited"))
    return Package(
        package_id=str(bundle["name"]), title=str(bundle.get("description") or bundle["name"]),
        price=Decimal(str(bundle.get("price") or 0)), days=int(bundle.get("duration") or 0),
        data_bytes=None if unlimited else int(bundle.get("dataAmount") or 0) * 1_000_000, entry=bundle,
    )  # fmt: skip


class EsimGoCatalogue:
    """The catalogue of one sandbox, generated or recorded."""

    def __init__(self, world: World) -> None:
        pages = recorded_pages(world.config.catalogues, "esim_go", _read_page)
        recorded = None if pages is None else [entries for entries, _ in pages]
        if recorded is None:
            plans = provider_plans("esim_go", world.config.seed, world.config.plans_per_provider)
            entries = [_bundle(plan) for plan in plans]
        else:
            entries = [entry for page in recorded for entry in page]
        self.shelf = Shelf(entries, map(_sold, entries), recorded)

    def answer(self, ask: Ask) -> Response:
        """One page of the catalogue."""
        filters = ("description", "group", "countries", "region", "direction", "orderBy")
        query = tuple(ask.query(name) for name in ("page", "perPage", *filters))
        if any(value is not None and not value.isdigit() for value in query[:2]):
            return reply({"message": "page and perPage must be integers"}, 400)
        if is_bent(ask) or ask.world.faults.active("esim_go", "catalogue", "bare_array"):
            return raw(self._page(ask, query))
        return raw(self.shelf.bytes_for(query, lambda: self._page(ask, query)))

    def _page(self, ask: Ask, query: tuple[str | None, ...]) -> bytes:
        page, size = max(1, int(query[0] or 1)), min(max(1, int(query[1] or 50)), _MOST_PER_PAGE)
        rows = self._filtered(query[2:])
        if self.shelf.pages is not None:
            count = len(self.shelf.pages)
            part = self.shelf.pages[page - 1] if page <= count else []
        else:
            count = -(-len(rows) // size)
            part = rows[(page - 1) * size : page * size]
        if ask.fault("endless_pages"):
            part, count = part or rows[:size], count + page
        part = bend(ask, part, KNOBS)
        if ask.fault("bare_array"):
            return dumps(part)
        return dumps({"bundles": part, "pageCount": count, "pageSize": size, "rows": len(rows)})

    def _filtered(self, filters: tuple[str | None, ...]) -> list[Entry]:
        description, group, isos, region, direction, order_by = filters
        if not any(filters):
            return self.shelf.entries
        wanted = set((isos or "").upper().split(",")) - {""}
        rows = [
            row
            for row in self.shelf.entries
            if (description is None or description.strip("*").lower() in str(row.get("description")).lower())
            and (group is None or group in (row.get("groups") or []))
            and (not wanted or any(country.get("iso") in wanted for country in row.get("countries") or []))
            and (region is None or any(country.get("region") == region for country in row.get("countries") or []))
        ]
        key = {"bundleName": "name"}.get(order_by or "", order_by or "")
        if key in {"name", "dataAmount", "duration"}:
            rows.sort(key=lambda row: row[key])
        return rows[::-1] if direction == "desc" else rows
