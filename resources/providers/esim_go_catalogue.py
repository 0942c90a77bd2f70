"""eSIM Go's catalogue wire: bundles, read into offers without any HTTP.

Sizes count 1000 MB to the GB. `unlimited` alone says what is unlimited; Lite, Essential and Plus differ only in group
and name, so their daily allowance and speed come from there, else three different products would be sold as one. Prices
are in the organisation's currency, which the bundle does not tell.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import NotRequired, TypedDict

from esim.catalogue import Allowance, CataloguePage, OfferKind, ProviderOffer, nominal_mb
from esim.errors import InvalidOffer, MalformedReply
from esim.geography import Coverage, coverage_from
from esim.money import Cost
from resources.providers.payload import Row, amount, catalogue_page, glimpse, loose_text, text, whole

SLUG = "esim_go"
# Tier -> MB a day at full speed, kbit/s afterwards (OpenAPI 2.4, group descriptions).
_TIERS: Mapping[str, tuple[int, int]] = {"lite": (1000, 512), "essential": (1000, 1250), "plus": (2000, 2000)}
_TIER_WORD = re.compile(r"\bunlimited (lite|essential|plus)\b", re.IGNORECASE)
_TIER_CODES: Mapping[str, str] = {"UL": "lite", "ULE": "essential", "ULP": "plus"}
_NO_REFERENCE = frozenset({"", "NA", "N/A"})  # the rate sheets' "not available"; Namibia is NA in `countries` only
_AREA_CODE = 3  # longer "iso" values are names of regions


class WireArea(TypedDict):
    """A country, or for regional bundles a region under its own name."""

    name: NotRequired[str | None]
    region: NotRequired[str | None]
    iso: str


class WireBundle(TypedDict):
    """One bundle as it is sent; other keys come and go."""

    name: str
    description: str
    groups: NotRequired[list[str] | None]
    countries: list[WireArea]
    roamingEnabled: NotRequired[list[WireArea] | None]
    dataAmount: int  # MB; -1 for unlimited
    duration: int  # days
    unlimited: bool
    price: int  # in fact a decimal number
    billingType: NotRequired[str]


def read_page(document: object, currency: str, seen: set[str], page: int) -> CataloguePage:
    """Return one answer of `GET /catalogue`, wrapped or a bare array, which does not tell how many pages there are.

    Raises:
        MalformedReply: it is no list of bundles.
    """
    rows = document.get("bundles") if isinstance(document, dict) else document
    if not isinstance(rows, list):
        raise MalformedReply(f"{SLUG} catalogue: no list of bundles in the answer")
    pages = document.get("pageCount") if isinstance(document, dict) else None
    parse = partial(parse_bundle, currency=currency)
    known = pages if isinstance(pages, int) and not isinstance(pages, bool) else None
    return catalogue_page(SLUG, rows, parse, id_key="name", seen=seen, page=page, pages=known)


def parse_bundle(row: Row, currency: str) -> ProviderOffer:
    """Return the offer in one bundle.

    Raises:
        InvalidOffer: a field it needs is absent or is not what the contract says.
    """
    name = text(row, "name")
    if name.upper() in _NO_REFERENCE:
        raise InvalidOffer(f"the bundle has no reference to order by (its name is {name!r})", field="name")
    billing = loose_text(row, "billingType") or "FixedCost"
    if billing != "FixedCost":
        raise InvalidOffer(f"billing type {glimpse(billing)} has no fixed cost", field="billingType")
    unlimited = row.get("unlimited") is True
    daily, throttle = _tier(row, name) if unlimited else (None, None)
    return ProviderOffer(
        provider=SLUG,
        provider_package_id=name,
        name=_title(row, name),
        kind=OfferKind.PLAN,
        coverage=coverage_of(row),
        allowance=Allowance.UNLIMITED if unlimited else Allowance.TOTAL,
        data_mb=None if unlimited else nominal_mb(amount(row, "dataAmount"), megabytes_per_gigabyte=1000),
        daily_mb=daily,
        throttle_kbps=throttle,
        validity_days=whole(row, "duration"),
        cost=cost_of(row, currency),
        raw_data=f"{glimpse(row.get('dataAmount'))} MB",
        supports_top_up=True,  # any bundle tops up an eSIM when it is ordered with its ICCID
    )


def cost_of(row: Row, currency: str) -> Cost:
    """Return what a bundle costs us.

    Raises:
        InvalidOffer: there is no price.
    """
    return Cost.parse(amount(row, "price"), currency)


def coverage_of(row: Row) -> Coverage:
    """Return base countries and further countries together; a region's own name is left out when it has members."""
    areas = [*_areas(row, "countries"), *_areas(row, "roamingEnabled")]
    coverage = coverage_from(areas)
    if not coverage.countries:
        return coverage
    unmapped = tuple(code for code in coverage.unmapped if len(code) <= _AREA_CODE or "-" in code)
    return Coverage(coverage.countries, unmapped)


def _areas(row: Row, key: str) -> list[str]:
    areas = row.get(key)
    if areas is None:
        return []
    if not isinstance(areas, list):
        raise InvalidOffer(f"{key} is {type(areas).__name__}, not a list", field=key)
    return [loose_text(area, "iso") if isinstance(area, dict) else str(area)[:40] for area in areas]


def _tier(row: Row, name: str) -> tuple[int | None, int | None]:
    groups = row.get("groups")
    texts = [*(groups if isinstance(groups, list) else []), loose_text(row, "description")]
    found = next((match[1].lower() for words in texts if (match := _TIER_WORD.search(str(words)[:300]))), "")
    code = next((part for part in name.upper().split("_") if part in _TIER_CODES), "")
    return _TIERS.get(found or _TIER_CODES.get(code, ""), (None, None))


def _title(row: Row, name: str) -> str:
    """Return the description without the words that every bundle has (`eSIM` in front, the version at the end)."""
    parts = [part.strip() for part in loose_text(row, "description").split(",")]
    if parts and parts[0].lower() == "esim":
        parts = parts[1:]
    if parts and re.fullmatch(r"V\d+", parts[-1]):
        parts = parts[:-1]
    return ", ".join(parts) or name
