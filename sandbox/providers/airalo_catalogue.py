"""Airalo's `GET /packages`: country or region → operators → packages, paged by country, with the odd shapes it has.

Amounts in MB with 1024 to the GB; page 2, 4, ... come as an object keyed by index; `per_page` is a string.
"""

from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from starlette.responses import Response

from sandbox.geography import Destination, countries
from sandbox.plans import Plan, provider_plans
from sandbox.providers.recorded import recorded_pages
from sandbox.providers.shelf import Entry, Knobs, Package, Shelf, bend, is_bent
from sandbox.providers.site import Ask
from sandbox.wire import dumps, raw, reply
from sandbox.world import World

_RATES = {
    "USD": "1", "EUR": "0.92", "GBP": "0.79", "AUD": "1.52", "CAD": "1.36", "AED": "3.67", "JPY": "156", "VND": "26300",
}  # fmt: skip
_FACTORS = {currency: Decimal(rate) for currency, rate in _RATES.items()}
_WHOLE = {"JPY", "VND"}
_CENT = Decimal("0.01")
_NET = {"model": "net_pricing", "discount_percentage": 0}


def slug(name: str) -> str:
    """A name as Airalo writes it in ids."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())


def _cents(cents: int) -> Decimal:
    return Decimal(cents).scaleb(-2)


def _in_currencies(usd: Decimal) -> dict[str, Decimal]:
    return {
        currency: (usd * factor).quantize(Decimal(1) if currency in _WHOLE else _CENT, ROUND_HALF_UP)
        for currency, factor in _FACTORS.items()
    }


def package_id(plan: Plan) -> str:
    """The id to order, such as `japan-mobile-7days-1gb`."""
    shape = plan.shape
    brand = f"{slug(plan.destination.name)}-{'connect' if shape.minutes else 'mobile'}"
    size = slug(shape.size).replace("-", "")
    voice = f"-{shape.minutes}mins-{shape.texts}sms" if shape.minutes else ""
    return f"{brand}-{shape.days}days-{size}{voice}{'-topup' if shape.kind == 'topup' else ''}"


def _amount(plan: Plan) -> int:
    if plan.shape.unlimited:
        return 66651 if plan.shape.days == 15 else 0
    return plan.shape.mb if plan.shape.mb < 1000 else plan.shape.mb // 1000 * 1024


def _package(plan: Plan) -> Entry:
    shape, net, retail = plan.shape, _cents(plan.cents), _cents(plan.retail_cents)
    days = f"{shape.days} Day{'' if shape.days == 1 else 's'}"
    voice = f"{shape.texts} SMS - {shape.minutes} Mins - " if shape.minutes else ""
    fair = "Lower speed rate of 1 Mbps after 3 GB usage per day." if shape.unlimited else None
    return {
        "id": package_id(plan), "type": shape.kind, "price": retail, "amount": _amount(plan), "day": shape.days,
        "is_unlimited": shape.unlimited, "title": f"{shape.size} - {voice}{days}", "short_info": None,
        "qr_installation": "<p>Scan the code with the device that needs data.</p>",
        "manual_installation": "<p>Enter the address and the activation code by hand.</p>",
        "is_fair_usage_policy": shape.unlimited, "fair_usage_policy": fair, "data": shape.size,
        "voice": shape.minutes or None, "text": shape.texts or None, "net_price": net,
        "prices": {"net_price": _in_currencies(net), "recommended_retail_price": _in_currencies(retail)},
    }  # fmt: skip


def _image(name: str) -> Entry:
    return {"width": 132, "height": 99, "url": f"https://cdn.example.test/images/{slug(name)}.png"}


def _operator(place: Destination, coverage: tuple[str, ...], plans: list[Plan], number: int) -> Entry:
    table = countries()
    voice = bool(plans[0].shape.minutes)
    return {
        "id": number, "style": "light", "gradient_start": "#101820", "gradient_end": "#203040",
        "type": "local" if place.kind == "country" else "global", "is_prepaid": False,
        "title": f"{place.name} {'Connect' if voice else 'Mobile'}", "esim_type": "Prepaid", "warning": None,
        "apn_type": "automatic", "apn_value": "internet", "is_roaming": True,
        "info": ["Data, calls and texts." if voice else "Data-only eSIM."], "image": _image(f"{place.name} operator"),
        "plan_type": "data-voice-text" if voice else "data", "activation_policy": "first-usage",
        "is_kyc_verify": False, "rechargeability": not voice, "other_info": None,
        "coverages": [
            {"name": iso, "code": iso, "networks": [
                {"name": f"{table[iso].name} Telecom", "types": ["5G"]},
                {"name": f"{table[iso].name} Cell", "types": ["LTE"]},
            ]}
            for iso in coverage
        ],
        "install_window_days": 1825, "topup_grace_window_days": 180,
        "apn": {"ios": {"apn_type": "automatic", "apn_value": "internet"},
                "android": {"apn_type": "manual", "apn_value": "internet"}},
        "packages": [_package(plan) for plan in plans],
        "countries": [
            {"country_code": iso, "title": table[iso].name, "image": _image(table[iso].name)} for iso in coverage
        ],
    }  # fmt: skip


def _place(place: Destination, plans: list[Plan], number: int) -> Entry:
    groups = [[p for p in plans if not p.shape.minutes], [p for p in plans if p.shape.minutes]]
    lowest = min(plans, key=lambda plan: plan.cents)
    return {
        "slug": "world" if place.kind == "global" else slug(place.name),
        "country_code": place.code if place.kind == "country" else "",
        "title": place.name,
        "image": _image(place.name),
        "min_price": {
            "net_price": _in_currencies(_cents(lowest.cents)),
            "recommended_retail_price": _in_currencies(_cents(min(plan.retail_cents for plan in plans))),
        },
        "operators": [
            _operator(place, group[0].coverage, group, 10 * number + which)
            for which, group in enumerate(groups) if group
        ],
    }  # fmt: skip


def packages_of(entries: list[Entry]) -> Iterator[list[Entry]]:
    """The package lists inside country entries; odd recorded shapes are passed over."""
    for entry in entries:
        for operator in entry.get("operators") or []:
            plans = operator.get("packages")
            if isinstance(plans, list):
                yield plans


def _set_price(plan: Entry, change: Any) -> None:
    for key in ("price", "net_price"):
        if plan.get(key) is not None:
            plan[key] = change(Decimal(str(plan[key])))
    for prices in (plan.get("prices") or {}).values():
        for currency in prices:
            prices[currency] = change(Decimal(str(prices[currency])))


def _set_currency(plan: Entry, currency: str) -> None:
    for kind, prices in (plan.get("prices") or {}).items():
        plan["prices"][kind] = {currency: next(iter(prices.values()), None)}
    plan["price"], plan["net_price"] = None, None


KNOBS = Knobs(
    lists=packages_of,
    package_id=lambda plan: str(plan["id"]),
    name="title",
    set_price=_set_price,
    set_currency=_set_currency,
    breaks=("amount", "day", "price"),
)


def _read_page(payload: Any) -> list[Entry] | None:
    data = payload.get("data") if isinstance(payload, dict) else None
    if isinstance(data, dict):
        data = list(data.values())
    if not isinstance(data, list) or not all(isinstance(entry, dict) and "operators" in entry for entry in data):
        return None
    return data


def _sold(plan: Entry, operator: str, discount: Decimal) -> Package:
    price = Decimal(str(plan.get("price") or 0))
    net = plan.get("net_price")
    cost = Decimal(str(net)) if net is not None else (price * (100 - discount) / 100).quantize(_CENT, ROUND_HALF_UP)
    size = None if plan.get("is_unlimited") else int(plan.get("amount") or 0) * 1024 * 1024
    return Package(
        package_id=str(plan["id"]), title=f"{operator}-{plan.get('title', '')}", price=cost, data_bytes=size,
        days=int(plan.get("day") or 0), kind=str(plan.get("type") or "sim"), retail=price, family=operator, entry=plan,
    )  # fmt: skip


class AiraloCatalogue:
    """The catalogue of one sandbox, generated or recorded."""

    def __init__(self, world: World) -> None:
        self.pricing: dict[str, Any] = dict(_NET)
        self.base = f"{world.config.base_url}/airalo/v2"
        pages = recorded_pages(world.config.catalogues, "airalo", _read_page)
        if pages is None:
            entries, recorded = _generated(world), None
        else:
            recorded = [entries for entries, _ in pages]
            entries = [entry for page in recorded for entry in page]
            pricings = [payload["pricing"] for _, payload in pages if isinstance(payload.get("pricing"), dict)]
            self.pricing = pricings[-1] if pricings else self.pricing
        discount = Decimal(str(self.pricing.get("discount_percentage") or 0))
        packages = [
            _sold(plan, str(operator.get("title", "")), discount)
            for entry in entries
            for operator in entry["operators"]
            for plan in operator.get("packages") or []
        ]
        self.shelf = Shelf(entries, packages, recorded)
        self.topups: dict[str, list[Package]] = {}
        for package in packages:
            if package.kind == "topup":
                self.topups.setdefault(package.family, []).append(package)

    @property
    def discount(self) -> Decimal | None:
        """The discount in per cent of a discount_pricing account, None under net pricing."""
        return (
            Decimal(str(self.pricing["discount_percentage"])) if self.pricing["model"] == "discount_pricing" else None
        )

    def answer(self, ask: Ask) -> Response:
        """One page of the catalogue."""
        query = {name: ask.query(name) for name in ("limit", "page", "filter[type]", "filter[country]", "include")}
        for name in ("limit", "page"):
            if query[name] is not None and not str(query[name]).isdigit():
                problem = {name: f"The {name} must be an integer."}
                return reply({"data": problem, "meta": {"message": "the parameter is invalid"}}, 422)
        if is_bent(ask):
            return raw(self._page(ask, query))
        return raw(self.shelf.bytes_for(tuple(query.values()), lambda: self._page(ask, query)))

    def _page(self, ask: Ask, query: dict[str, str | None]) -> bytes:
        page = max(1, int(query["page"] or 1))
        limit = int(query["limit"]) if query["limit"] else None
        entries, last, first_index = self._slice(page, limit, query)
        total = len(self._wanted(self.shelf.entries, query))
        if ask.fault("endless_pages"):
            last = max(last, page + 1)
            entries = entries or self._wanted(self.shelf.entries, query)[: limit or 25]
        entries = bend(ask, self._with_topups(entries, query), KNOBS)
        keyed = page % 2 == 0 and self.shelf.pages is None
        data: Any = {str(first_index + n): entry for n, entry in enumerate(entries)} if keyed else entries
        size = f"&limit={limit}" if limit else ""
        address = f"{self.base}/packages?page="
        return dumps({
            "pricing": self.pricing,
            "data": data,
            "links": {
                "first": f"{address}1{size}", "last": f"{address}{last}{size}",
                "prev": f"{address}{page - 1}{size}" if page > 1 else None,
                "next": f"{address}{page + 1}{size}" if page < last else None,
            },
            "meta": {
                "message": "success", "current_page": page, "from": first_index + 1 if entries else None,
                "last_page": last, "path": f"{self.base}/packages", "per_page": str(limit or max(total, 1)),
                "to": first_index + len(entries) if entries else None, "total": total,
            },
        })  # fmt: skip

    def _slice(self, page: int, limit: int | None, query: dict[str, str | None]) -> tuple[list[Entry], int, int]:
        if limit is None:
            whole = self._wanted(self.shelf.entries, query)
            return (whole if page == 1 else []), 1, 0
        if self.shelf.pages is not None:
            found = self.shelf.pages[page - 1] if page <= len(self.shelf.pages) else []
            before = sum(len(entries) for entries in self.shelf.pages[: page - 1])
            return self._wanted(found, query), len(self.shelf.pages), before
        whole = self._wanted(self.shelf.entries, query)
        return whole[(page - 1) * limit : page * limit], max(1, -(-len(whole) // limit)), (page - 1) * limit

    def _wanted(self, entries: list[Entry], query: dict[str, str | None]) -> list[Entry]:
        kind, country = query["filter[type]"], query["filter[country]"]
        if kind is None and country is None:
            return entries
        local = {"local": True, "global": False}.get(kind or "")
        return [
            entry
            for entry in entries
            if (local is None or bool(entry.get("country_code")) == local)
            and (country is None or entry.get("country_code") == country)
        ]

    def _with_topups(self, entries: list[Entry], query: dict[str, str | None]) -> list[Entry]:
        if "topup" in (query["include"] or "").split(","):
            return entries
        return [
            {**entry, "operators": [
                {**operator, "packages": [p for p in operator.get("packages") or [] if p.get("type") != "topup"]}
                for operator in entry["operators"]
            ]}
            for entry in entries
        ]  # fmt: skip


def _generated(world: World) -> list[Entry]:
    by_place: dict[str, list[Plan]] = {}
    for plan in provider_plans("airalo", world.config.seed, world.config.plans_per_provider):
        by_place.setdefault(plan.destination.code, []).append(plan)
    return [_place(plans[0].destination, plans, number) for number, plans in enumerate(by_place.values(), start=11)]
