"""MobiMatter products in our own terms: an entry of `GET products` -> `ProviderOffer`.

Everything about a plan is text in `productDetails`, under names that may end in a blank; validity is in hours. There is
no type for unlimited or daily plans: the `UNLIMITED` flag decides where it is there, else title and details do. Plans
that need papers (`esim_delayed`), replacements, physical SIMs and hidden products are rejected with that reason.
"""

import re
from collections.abc import Mapping
from decimal import Decimal

from esim.catalogue import Allowance, OfferKind, ProviderOffer, nominal_mb
from esim.errors import InvalidOffer
from esim.geography import Coverage, coverage_from
from esim.money import Cost
from resources.providers.payload import Row, amount, daily_mb, decode, glimpse, speed_kbps, text

SLUG = "mobimatter"
CURRENCY = "USD"
_KINDS = {"esim_realtime": OfferKind.PLAN, "esim_addon": OfferKind.TOP_UP}
_REASONS = {
    "esim_delayed": "sold only after the buyer's papers were checked (KYC), which takes up to a day",
    "esim_replacement": "a replacement of an eSIM that exists, not a plan",
    "physical_sim": "a physical SIM card",
}
# "Unlimited" about data: not followed by what else can be without limit.
_UNLIMITED = re.compile(
    r"\bunlimited\b(?!\s*(?:(?!data\b)[\w&+,-]+\s+){0,2}(?:calls?|calling|talk|text|texts|sms|minutes|mins|voice))",
    re.IGNORECASE,
)
_UNLIMITED_DATA = re.compile(r"\bunlimited\s+(?:\w+\s+)?data\b", re.IGNORECASE)
_SIZE = re.compile(r"\d\s*(?:GB|MB)\b", re.IGNORECASE)
_DAILY = re.compile(r"(?:\b(?:daily|per\s+day)\b|/\s*day\b)", re.IGNORECASE)

Details = Mapping[str, str]


def parse_offer(row: Row) -> ProviderOffer:
    """Return the offer in one product.

    Raises:
        InvalidOffer: it is no plan or top-up, is hidden, or a field it needs is absent or unreadable.
    """
    kind = _kind(row)
    details = details_of(row)
    if details.get("EXTERNALLY_SHOWN") == "0":
        raise InvalidOffer("MobiMatter does not show this product to buyers", field="EXTERNALLY_SHOWN")
    title = details.get("PLAN_TITLE", "")
    size = _size(details)
    allowance = _allowance(details, title, size)
    unlimited = allowance is Allowance.UNLIMITED
    return ProviderOffer(
        provider=SLUG,
        provider_package_id=text(row, "productId") or text(row, "uniqueId"),
        name=title,
        kind=kind,
        coverage=_coverage(row),
        allowance=allowance,
        data_mb=None if unlimited else size,
        daily_mb=daily_mb(title) if unlimited else None,
        throttle_kbps=None if allowance is Allowance.TOTAL else _throttle(details),
        validity_days=_days(details),
        cost=price_of(row),
        voice_minutes=_voice_minutes(details),
        recommended_retail=_retail(row),
        raw_data=f"{details.get('PLAN_DATA_LIMIT', '')[:20]} {details.get('PLAN_DATA_UNIT', '')[:10]}".strip(),
        supports_top_up={"1": True, "0": False}.get(details.get("TOPUP", "")),
        order_hints={
            "product_category": text(row, "productCategory"),
            "product_family_id": text(row, "productFamilyId"),
        },
    )


def price_of(row: Row) -> Cost:
    """Return what the wallet is charged for one unit.

    Raises:
        InvalidOffer: there is no wholesale price, or it is not in US dollars.
    """
    currency = text(row, "currencyCode") or CURRENCY
    if currency != CURRENCY:
        raise InvalidOffer(f"the price is in {glimpse(currency)}, the contract says {CURRENCY}", field="currencyCode")
    return Cost(amount(row, "wholesalePrice"), CURRENCY)


def details_of(row: Row, key: str = "productDetails") -> Details:
    """Return the name and value pairs of a product or order line; names and values lose outer blanks.

    Raises:
        InvalidOffer: the list is not there, or an entry is no pair of texts.
    """
    entries = row.get(key)
    if not isinstance(entries, list):
        raise InvalidOffer(f"{key} is {glimpse(entries)}, not a list", field=key)
    found: dict[str, str] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            raise InvalidOffer(f"{key} holds {glimpse(entry)}, not a name and a value", field=key)
        value = entry.get("value")
        if type(value) is str or type(value) is int:
            found.setdefault(text(entry, "name"), str(value).strip())
    return found


def _kind(row: Row) -> OfferKind:
    category = text(row, "productCategory")
    if category not in _KINDS:
        reason = _REASONS.get(category, "a kind of product that is not known here")
        raise InvalidOffer(f"category {glimpse(category)}: {reason}", field="productCategory")
    return _KINDS[category]


def _coverage(row: Row) -> Coverage:
    countries = row.get("countries")
    if not isinstance(countries, list):
        raise InvalidOffer(f"countries is {glimpse(countries)}, not a list", field="countries")
    return coverage_from(code for code in countries if isinstance(code, str))


def _size(details: Details) -> int:
    """Return the nominal megabytes, 0 where no limit is given."""
    if not details.get("PLAN_DATA_LIMIT"):
        return 0
    limit = amount(details, "PLAN_DATA_LIMIT")
    unit = details.get("PLAN_DATA_UNIT", "").upper()
    if unit == "GB":
        return nominal_mb(limit * 1000, megabytes_per_gigabyte=1000)
    if unit == "MB":
        return nominal_mb(limit, megabytes_per_gigabyte=1024)
    raise InvalidOffer(f"data unit {glimpse(unit)} is neither GB nor MB", field="PLAN_DATA_UNIT")


def _allowance(details: Details, title: str, size: int) -> Allowance:
    if _is_unlimited(details, title, size):
        return Allowance.UNLIMITED
    if size == 0 and details.get("HAS_DATA") != "1":
        raise InvalidOffer("no data in it: a voice or credit product", field="PLAN_DATA_LIMIT")
    return Allowance.DAILY if _DAILY.search(title[:300]) else Allowance.TOTAL


def _is_unlimited(details: Details, title: str, size: int) -> bool:
    flag = details.get("UNLIMITED")
    if flag in {"0", "1"}:
        return flag == "1"
    if _SIZE.search(title[:300]):
        return False
    if _UNLIMITED.search(title[:300]):
        return True
    return size == 0 and details.get("HAS_DATA") != "0" and bool(_UNLIMITED_DATA.search(_plan_words(details)))


def _plan_words(details: Details) -> str:
    """Return the prose of a plan: PLAN_DETAILS is JSON inside a text, with parts that may be null."""
    raw = details.get("PLAN_DETAILS", "")[:20_000]
    try:
        parts = decode(raw.encode())
    except (ValueError, RecursionError):
        return raw
    if not isinstance(parts, dict):
        return raw
    items = parts.get("items")
    words = [parts.get("heading"), parts.get("description"), *(items if isinstance(items, list) else [])]
    return "\n".join(word for word in words if isinstance(word, str))


def _throttle(details: Details) -> int | None:
    return speed_kbps(details.get("SPEED_LONG", "")) or speed_kbps(details.get("SPEED", ""))


def _days(details: Details) -> int:
    """Return whole days: a plan is never sold for longer than its hours."""
    if not details.get("PLAN_VALIDITY"):
        return int(amount(details, "VALIDITY_IN_DAYS"))
    hours = amount(details, "PLAN_VALIDITY")
    if hours < 24:
        raise InvalidOffer(f"validity of {hours} hours is less than a day", field="PLAN_VALIDITY")
    return int(hours // 24)


def _voice_minutes(details: Details) -> int:
    limit = details.get("PLAN_VOICE_LIMIT", "")
    return int(Decimal(limit)) if limit.isascii() and limit.isdigit() and len(limit) <= 6 else 0


def _retail(row: Row) -> Cost | None:
    return Cost(amount(row, "retailPrice"), CURRENCY) if row.get("retailPrice") is not None else None
