"""MobiMatter `GET products`: one list; sizes as text with a unit, validity in hours, details as name and value.

Oddities it keeps: a detail name that ends in a blank, no unlimited flag on half of the unlimited plans, a provider that
is called "3", `US-HI` among the countries, "America" beside "Americas".
"""

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from starlette.responses import Response

from sandbox.geography import ZONES, countries
from sandbox.plans import Plan, provider_plans
from sandbox.providers.ledger import uuid_text
from sandbox.providers.recorded import recorded_pages
from sandbox.providers.shelf import Entry, Knobs, Package, Shelf, bend, endless, is_bent
from sandbox.providers.site import Ask
from sandbox.wire import dumps, raw, reply
from sandbox.world import World

MERCHANT = "00000000-0000-4000-8000-000000000001"
_CATEGORIES = {"esim_realtime": 1, "esim_delayed": 2, "esim_addon": 4}
_HEAD = b'{"statusCode":200,"result":'


def _category(plan: Plan) -> str:
    if plan.shape.kind == "topup":
        return "esim_addon"
    return "esim_delayed" if plan.destination.code == "TR" and plan.shape.mb == 20000 else "esim_realtime"


def _title(plan: Plan) -> str:
    shape, name = plan.shape, plan.destination.name
    if shape.unlimited:
        return f"{name} Unlimited {shape.days} Days"
    size = f"{shape.size}/day {shape.days} days" if shape.daily else shape.size
    start = "TopUp " if shape.kind == "topup" else ""
    end = " + calls" if shape.minutes else " (KYC)" if _category(plan) == "esim_delayed" else ""
    return f"{start}{name} {size}{end}"


def _details(plan: Plan) -> list[Entry]:
    shape = plan.shape
    heading = "Unlimited data" if shape.unlimited else "Daily data" if shape.daily else "Tourist eSIM"
    items = dumps({"heading": heading, "description": None, "items": ["Validity starts when the eSIM is installed"]})
    values = {"PLAN_TITLE": _title(plan)}
    if shape.unlimited:
        values |= {"PLAN_DATA_LIMIT": "80", "PLAN_DATA_UNIT": "GB", "SPEED": "1Mbps"} if shape.days >= 10 else {}
        values |= {"UNLIMITED": "1"} if shape.days % 2 else {}
    else:
        whole = shape.mb >= 1000
        size, unit = (str(shape.mb // 1000), "GB") if whole else (str(shape.mb), "MB")
        values |= {"PLAN_DATA_LIMIT": size, "PLAN_DATA_UNIT": unit}
    values |= {
        "PLAN_VALIDITY": str(shape.days * 24), "PLAN_DETAILS ": items.decode(), "TAGS": "[]", "EXTERNALLY_SHOWN": "1",
        "FIVEG": "1", "TOPUP": "0" if shape.kind == "topup" or shape.daily else "1", "HOTSPOT": "1", "HAS_DATA": "1",
        "HAS_CALLS": "1" if shape.minutes else "0", "HAS_SMS": "1" if shape.texts else "0",
        "ACTIVATION_POLICY": "Starts on installation",
    }  # fmt: skip
    if shape.minutes:
        values["PLAN_VOICE_LIMIT"] = str(shape.minutes)
    return [{"name": name, "value": value} for name, value in values.items()]


def _regions(plan: Plan) -> list[str]:
    if plan.destination.kind == "country":
        return []
    zone = plan.destination.zone
    return ["America", "Americas"] if zone == "North America" else [zone]


def _entry(plan: Plan) -> Entry:
    place, category = plan.destination, _category(plan)
    product = uuid_text("mobimatter", plan.key)
    network = ZONES.index(place.zone) + 1 if place.zone in ZONES else 9
    isos = [*plan.coverage, *(["US-HI"] if place.code in {"north-america", "global"} else [])]
    provider = "3" if place.zone == "Oceania" else f"{place.zone} Net"
    return {
        "merchantId": MERCHANT, "uniqueId": product, "productId": product, "rank": plan.cents,
        "productCategoryId": _CATEGORIES[category], "productCategory": category, "productFamilyId": 100 + place.rank,
        "productFamilyName": f"{place.code.upper()}_{place.kind.upper()}", "networkListId": network,
        "providerId": 30 + network, "providerName": provider,
        "providerLogo": "https://cdn.example.com/assets/provider.png",
        "retailPrice": Decimal(plan.retail_cents).scaleb(-2), "wholesalePrice": Decimal(plan.cents).scaleb(-2),
        "currencyCode": "USD", "created": "2025-03-29T18:58:06.893Z", "updated": "2026-11-02T05:14:28.4377038Z",
        "regions": _regions(plan), "countries": isos, "displayAttributes": [], "productDetails": _details(plan),
    }  # fmt: skip


def _flat(entries: list[Entry]) -> Iterator[list[Entry]]:
    yield entries


def _set_price(entry: Entry, change: Callable[[Decimal], Decimal]) -> None:
    entry["wholesalePrice"] = change(Decimal(str(entry["wholesalePrice"])))
    entry["updated"] = "2026-12-01T00:00:00.0000001Z"


def _set_currency(entry: Entry, currency: str) -> None:
    entry["currencyCode"] = currency


KNOBS = Knobs(
    lists=_flat,
    package_id=lambda entry: str(entry["productId"]),
    name="productFamilyName",
    set_price=_set_price,
    set_currency=_set_currency,
    breaks=("productDetails", "wholesalePrice"),
)


def _read_page(payload: Any) -> list[Entry] | None:
    rows = payload.get("result") if isinstance(payload, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "productDetails" in row for row in rows):
        return None
    return rows


def details_of(entry: Entry) -> dict[str, str]:
    """Details as a map, names without their blanks."""
    return {str(row["name"]).strip(): str(row["value"]) for row in entry.get("productDetails") or []}


def _sold(entry: Entry) -> Package:
    details = details_of(entry)
    limit, unit = details.get("PLAN_DATA_LIMIT", ""), details.get("PLAN_DATA_UNIT", "GB")
    unlimited = "unlimited" in details.get("PLAN_TITLE", "").lower() or details.get("UNLIMITED") == "1"
    size = None if unlimited or not limit else int(Decimal(limit) * (1024 if unit == "GB" else 1)) * 1024 * 1024
    hours = details.get("PLAN_VALIDITY", "0")
    return Package(
        package_id=str(entry["productId"]), title=details.get("PLAN_TITLE", ""), data_bytes=size,
        price=Decimal(str(entry.get("wholesalePrice") or entry.get("retailPrice") or 0)),
        days=int(Decimal(hours)) // 24 if hours.replace(".", "", 1).isdigit() else 0,
        kind="topup" if entry.get("productCategory") == "esim_addon" else "sim",
        retail=Decimal(str(entry.get("retailPrice") or 0)), family=str(entry.get("productFamilyId")), entry=entry,
    )  # fmt: skip


class MobimatterCatalogue:
    """The products of one sandbox, generated or recorded."""

    def __init__(self, world: World) -> None:
        pages = recorded_pages(world.config.catalogues, "mobimatter", _read_page)
        if pages is None:
            plans = provider_plans("mobimatter", world.config.seed, world.config.plans_per_provider)
            entries = [_entry(plan) for plan in plans]
        else:
            entries = [entry for page, _ in pages for entry in page]
        packages = [_sold(entry) for entry in entries]
        self.shelf = Shelf(entries, packages)
        self._by_id = {package.package_id.lower(): package for package in packages}
        self._closing = world.closing

    def find(self, product_id: str) -> Package | None:
        """A product by its id in any case."""
        return self._by_id.get(product_id.lower())

    def answer(self, ask: Ask) -> Response:
        """The products that pass the filters."""
        names = ("productId", "country", "region", "provider", "category", "familyId")
        query = tuple(ask.query(name) for name in names)
        if query[5] is not None and not query[5].isdigit():
            return reply({"statusCode": 400, "message": "familyId must be an integer"}, 400)
        if ask.fault("endless_pages"):
            return endless(_HEAD + b"[", dumps(self.shelf.entries[0]), self._closing)
        if is_bent(ask):
            return raw(_HEAD + dumps(bend(ask, self._chosen(query), KNOBS)) + b"}")
        return raw(self.shelf.bytes_for(query, lambda: _HEAD + dumps(self._chosen(query)) + b"}"))

    def _chosen(self, query: tuple[str | None, ...]) -> list[Entry]:
        product, country, region, provider, category, family = query
        if product is not None:
            found = self.find(product)
            return [] if found is None else [found.wire]
        return [
            entry
            for entry in self.shelf.entries
            if (country is None or country in (entry.get("countries") or []))
            and (region is None or region in (entry.get("regions") or []))
            and (provider is None or provider in {str(entry.get("providerId")), entry.get("providerName")})
            and (category is None or entry.get("productCategory") == category)
            and (family is None or str(entry.get("productFamilyId")) == family)
        ]

    @staticmethod
    def networks(entry: Entry) -> list[Entry]:
        """The networks of a product."""
        table = countries()
        return [
            {
                "networkId": 500 + number, "brand": f"{table[iso].name} Telecom", "tadig": f"{table[iso].iso3}01",
                "is4G": True, "is5G": True, "countryCode": iso,
            }
            for number, iso in enumerate(entry.get("countries") or []) if iso in table
        ]  # fmt: skip
