"""eSIM Access plans in our own terms: a row of `package/list` -> `ProviderOffer`.

Sizes are bytes in binary multiples (3 GB is 3221225472), prices are integers in 1/10000 USD. `dataType` 1 is a total,
2 and 3 are day passes (throttled or cut off after the day's data), 4 is a day without limit; day passes are sold as
one day each, because what several days (`periodNum`) cost is not confirmed. Rows of several years lack fields.
"""

from decimal import Decimal

from esim.catalogue import Allowance, OfferKind, ProviderOffer, nominal_mb
from esim.errors import InvalidOffer
from esim.geography import Coverage, coverage_from
from esim.money import Cost
from resources.providers.payload import Row, amount, glimpse, loose_text, names, speed_kbps, text, whole

SLUG = "esim_access"
CURRENCY = "USD"
PRICE_UNITS = 10_000
TOP_UP_PREFIX = "TOPUP_"
_GIGABYTE = 1 << 30
_MEGABYTE = 1 << 20
_ALLOWANCES = {1: Allowance.TOTAL, 2: Allowance.DAILY, 3: Allowance.DAILY, 4: Allowance.UNLIMITED}
_TOP_UP_TYPES = {1: False, 2: True, 3: True}


def parse_offer(row: Row, kind: OfferKind = OfferKind.PLAN) -> ProviderOffer:
    """Return the offer in one row of `packageList`.

    Raises:
        InvalidOffer: a field it needs is absent or is not what the contract says.
    """
    code = text(row, "packageCode")
    data_type = whole(row, "dataType") if row.get("dataType") is not None else 1
    if data_type not in _ALLOWANCES:
        raise InvalidOffer(f"dataType {data_type} is none of 1, 2, 3, 4", field="dataType")
    allowance = _ALLOWANCES[data_type]
    volume = whole(row, "volume") if allowance is not Allowance.UNLIMITED or row.get("volume") else 0
    size = nominal_size(volume)
    unlimited = allowance is Allowance.UNLIMITED
    return ProviderOffer(
        provider=SLUG,
        provider_package_id=code,
        name=text(row, "name") or text(row, "description"),
        kind=OfferKind.TOP_UP if code.startswith(TOP_UP_PREFIX) else kind,
        coverage=_coverage(row),
        allowance=allowance,
        data_mb=None if unlimited else size,
        daily_mb=size or None if unlimited else None,
        throttle_kbps=None if data_type in {1, 3} else speed_kbps(loose_text(row, "fupPolicy")),
        validity_days=_days(row),
        cost=price_of(row),
        networks=_networks(row),
        recommended_retail=_retail(row),
        raw_data=f"{volume} bytes",
        supports_top_up=_top_up(row),
        order_hints={} if data_type == 1 else {"period_num": "1"},
    )


def price_of(row: Row) -> Cost:
    """Return what the balance is charged for one unit of the plan.

    Raises:
        InvalidOffer: the price is absent, not whole, or not in US dollars.
    """
    currency = text(row, "currencyCode") or CURRENCY
    if currency != CURRENCY:
        raise InvalidOffer(f"the price is in {glimpse(currency)}, the contract says {CURRENCY}", field="currencyCode")
    return Cost(Decimal(whole(row, "price")) / PRICE_UNITS, CURRENCY)


def nominal_size(volume: int) -> int:
    """Return the megabytes on the label for a volume in bytes, which is mostly a round number of binary gigabytes."""
    gigabytes = (Decimal(volume) / _GIGABYTE).quantize(Decimal("0.01"))
    if abs(gigabytes * _GIGABYTE - volume) < 1:
        return int(gigabytes * 1000)
    if volume % _MEGABYTE == 0:
        return nominal_mb(volume // _MEGABYTE, megabytes_per_gigabyte=1024)
    return nominal_mb(Decimal(volume) / 1_000_000, megabytes_per_gigabyte=1000)


def _days(row: Row) -> int:
    unit = (text(row, "durationUnit") or "DAY").upper()
    if unit not in {"DAY", "DAYS"}:
        raise InvalidOffer(f"duration in {glimpse(unit)}, the contract says DAY", field="durationUnit")
    return whole(row, "duration")


def _retail(row: Row) -> Cost | None:
    if row.get("retailPrice") is None:
        return None
    return Cost(amount(row, "retailPrice") / PRICE_UNITS, CURRENCY)


def _coverage(row: Row) -> Coverage:
    codes = [code for code in text(row, "location").split(",") if code.strip()]
    return coverage_from(codes or (text(place, "locationCode") for place in _places(row)))


def _networks(row: Row) -> tuple[str, ...]:
    return names(
        operator.get("operatorName")
        for place in _places(row)
        for operator in place.get("operatorList") or ()
        if isinstance(operator, dict)
    )


def _places(row: Row) -> list[Row]:
    places = row.get("locationNetworkList")
    if not isinstance(places, list):
        return []
    return [place for place in places if isinstance(place, dict) and isinstance(place.get("operatorList"), list | None)]


def _top_up(row: Row) -> bool | None:
    value = row.get("supportTopUpType")
    return _TOP_UP_TYPES.get(value) if isinstance(value, int) else None
