"""Airalo's catalogue wire: country or region -> operator -> package, read into offers without any HTTP.

Sizes count 1024 MB to the GB. Under `net_pricing` the wholesale price is `net_price`; under `discount_pricing` it is
`price x (1 - discount)`, exactly. `is_unlimited` alone says what is unlimited: `amount` is 0 or a cap there.
"""

from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, NotRequired, TypedDict

from esim.catalogue import Allowance, CataloguePage, OfferKind, ProviderOffer, RejectedPlan, nominal_mb
from esim.errors import InvalidOffer, MalformedReply
from esim.geography import Coverage, coverage_from
from esim.money import Cost
from resources.providers.payload import (
    Row,
    amount,
    catalogue_page,
    daily_mb,
    loose_text,
    mapping,
    names,
    speed_kbps,
    whole,
)
from resources.providers.payload import text as text_of

SLUG = "airalo"
CURRENCY = "USD"
_KINDS = {"sim": OfferKind.PLAN, "topup": OfferKind.TOP_UP}


class WirePackage(TypedDict):
    """One package as it is sent; other keys come and go."""

    id: str
    type: str
    price: Decimal  # retail, USD
    net_price: NotRequired[Decimal | None]  # absent or null under discount pricing
    amount: int  # MB
    day: int
    is_unlimited: bool
    fair_usage_policy: NotRequired[str | None]
    data: str
    voice: NotRequired[int | None]
    text: NotRequired[int | None]
    title: NotRequired[str]


@dataclass(frozen=True, slots=True)
class Pricing:
    """How this account pays: net prices, or a percentage off the retail price."""

    discount_percent: Decimal | None  # None: net pricing

    def cost(self, package: Row) -> Cost:
        """Return the wholesale cost of a package.

        Raises:
            InvalidOffer: the price it rests on is not there.
        """
        if self.discount_percent is not None:
            return Cost.parse(amount(package, "price") * (100 - self.discount_percent) / 100, CURRENCY)
        if package.get("net_price") is not None:
            return Cost.parse(amount(package, "net_price"), CURRENCY)
        prices = _object(_object(package.get("prices")).get("net_price"))
        if prices.get(CURRENCY) is None:
            raise InvalidOffer("no net price, although the account has net pricing", field="net_price")
        return Cost.parse(amount(prices, CURRENCY), CURRENCY)


@dataclass(frozen=True, slots=True)
class Place:
    """What the packages of one operator have in common."""

    title: str
    coverage: Coverage
    networks: tuple[str, ...]
    rechargeable: bool | None
    hints: dict[str, str]


@dataclass(frozen=True, slots=True)
class WirePage:
    """One page of the list: its offers and rejects, and where the list goes on."""

    offers: tuple[ProviderOffer, ...]
    rejects: tuple[RejectedPlan, ...]
    pages: int | None
    has_more: bool


def pricing_of(document: Row) -> Pricing:
    """Return the pricing model of an answer; without one it is net pricing (the 2025 form of the API).

    Raises:
        MalformedReply: an unknown model, or a discount that is no percentage.
    """
    block = _object(document.get("pricing"))
    model = block.get("model", "net_pricing")
    if model == "net_pricing":
        return Pricing(None)
    try:
        percent = amount(block, "discount_percentage")
    except InvalidOffer as error:
        raise MalformedReply(f"{SLUG} packages: {error}") from error
    if model != "discount_pricing" or not 0 <= percent < 100:
        raise MalformedReply(f"{SLUG} packages: pricing model {str(model)[:40]!r} with {percent} % off is not known")
    return Pricing(percent)


def read_page(document: object, seen: set[str], page: int) -> WirePage:
    """Return what one answer of `GET /packages` holds.

    Raises:
        MalformedReply: it is no list of packages, or not the page that was asked for.
    """
    answer = mapping(document, f"{SLUG} packages")
    pricing = pricing_of(answer)
    entries = answer.get("data")
    if isinstance(entries, dict):  # page 2 and later may be an object keyed by index
        entries = list(entries.values())
    if not isinstance(entries, list):
        raise MalformedReply(f"{SLUG} packages: no list of countries in the answer")
    offers: list[ProviderOffer] = []
    rejects: list[RejectedPlan] = []
    for entry in entries:
        for part in _entry_pages(entry, pricing, seen):
            offers += part.offers
            rejects += part.rejects
    meta = _object(answer.get("meta"))
    if str(meta.get("current_page", page)) != str(page):
        raise MalformedReply(f"{SLUG} packages: asked for page {page}, got page {meta.get('current_page')!r:.20}")
    last = meta.get("last_page")
    pages = last if isinstance(last, int) else None
    has_more = page < pages if pages is not None else bool(_object(answer.get("links")).get("next"))
    return WirePage(tuple(offers), tuple(rejects), pages, has_more)


def _entry_pages(entry: object, pricing: Pricing, seen: set[str]) -> list[CataloguePage]:
    operators = entry.get("operators") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(operators, list):
        return [catalogue_page(SLUG, [entry], _refuse("no operators in it"), id_key="slug", seen=seen)]
    parts: list[CataloguePage] = []
    for operator in operators:
        packages = operator.get("packages") if isinstance(operator, dict) else None
        if not isinstance(operator, dict) or not isinstance(packages, list):
            parts.append(catalogue_page(SLUG, [operator], _refuse("no packages in it"), id_key="id", seen=seen))
            continue
        parse = partial(parse_offer, place=place_of(entry, operator), pricing=pricing)
        parts.append(catalogue_page(SLUG, packages, parse, id_key="id", seen=seen))
    return parts


def _refuse(reason: str) -> Any:
    def parse(_row: Row) -> ProviderOffer:
        raise InvalidOffer(reason)

    return parse


def place_of(entry: Row, operator: Row) -> Place:
    """Return what one operator's packages share: coverage from its networks, else its countries, else the entry."""
    coverages = [area for area in _list(operator.get("coverages")) if isinstance(area, dict)]
    countries = [loose_text(c, "country_code") for c in _list(operator.get("countries")) if isinstance(c, dict)]
    own = loose_text(entry, "country_code")
    coverage = coverage_from([loose_text(area, "code") or loose_text(area, "name") for area in coverages])
    if not coverage.countries:
        coverage = _joined(coverage, coverage_from(countries))
    if not coverage.countries:
        coverage = _joined(coverage, coverage_from([own]))
    networks = [_object(n).get("name") for area in coverages for n in _list(area.get("networks"))]
    recharge = operator.get("rechargeability")
    return Place(
        title=loose_text(operator, "title"),
        coverage=coverage,
        networks=names(networks),
        rechargeable=recharge if isinstance(recharge, bool) else None,
        hints={"filter[country]": own.upper()} if own else {"filter[type]": "global"},
    )


def parse_offer(package: Row, *, place: Place, pricing: Pricing) -> ProviderOffer:
    """Return the offer in one package.

    Raises:
        InvalidOffer: a field it needs is absent or is not what the contract says.
    """
    kind = _KINDS.get(loose_text(package, "type"))
    if kind is None:
        raise InvalidOffer(f"type {str(package.get('type'))[:40]!r} is neither sim nor topup", field="type")
    unlimited = package.get("is_unlimited") in (True, "1", "true")
    policy = loose_text(package, "fair_usage_policy")
    cost = pricing.cost(package)
    retail = Cost.parse(amount(package, "price"), CURRENCY) if package.get("price") is not None else None
    if retail is not None and retail.amount <= 0:
        raise InvalidOffer(f"retail price {retail} is zero or negative", field="price")
    return ProviderOffer(
        provider=SLUG,
        provider_package_id=text_of(package, "id"),
        name=_name(package, place.title),
        kind=kind,
        coverage=place.coverage,
        allowance=Allowance.UNLIMITED if unlimited else Allowance.TOTAL,
        data_mb=None if unlimited else nominal_mb(amount(package, "amount"), megabytes_per_gigabyte=1024),
        daily_mb=daily_mb(policy) if unlimited else None,
        throttle_kbps=speed_kbps(policy),
        validity_days=whole(package, "day"),
        cost=cost,
        voice_minutes=_count(package, "voice"),
        sms=_count(package, "text"),
        networks=place.networks,
        min_retail=retail,  # the partner FAQ calls `price` the minimum selling price: see docs/providers/airalo.md
        recommended_retail=retail,
        raw_data=f"{str(package.get('amount'))[:20]} MB ({loose_text(package, 'data')[:40]})",
        supports_top_up=place.rechargeable,
        order_hints=place.hints if kind is OfferKind.PLAN else {**place.hints, "include": "topup"},
    )


def _name(package: Row, operator: str) -> str:
    title = loose_text(package, "title") or text_of(package, "id")
    return title if not operator or operator.lower() in title.lower() else f"{operator} - {title}"


def _count(package: Row, key: str) -> int:
    number = 0 if package.get(key) in (None, "") else whole(package, key)
    if number < 0:
        raise InvalidOffer(f"{key} {number} is negative", field=key)
    return number


def _joined(first: Coverage, second: Coverage) -> Coverage:
    return Coverage(second.countries, tuple(sorted({*first.unmapped, *second.unmapped})))


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
