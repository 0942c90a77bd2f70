"""eSIMCard packages in our own terms: a row of `packages` -> `ProviderOffer`.

Sizes are a number and a unit, where 0.9313 GB is a decimal gigabyte told in binary ones; the flag `unlimited` decides.
Coverage repeats a country per network and is missing in some replies: then the countries listed, then the country in
the plan's name are taken; a plan whose countries cannot be told (not even by its detail) is rejected.
Plans with calls or messages are rejected: they are bought by another call that asks for the buyer's address.
"""

import re
from collections.abc import Iterator
from decimal import Decimal

from esim.catalogue import Allowance, OfferKind, ProviderOffer, nominal_mb
from esim.errors import InvalidOffer
from esim.geography import Coverage, coverage_from
from esim.money import Cost
from resources.providers.esim_card_countries import code_in_flag_address, country_code
from resources.providers.payload import Row, amount, glimpse, loose_text, names, text, whole

SLUG = "esim_card"
CURRENCY = "USD"
DATA_ONLY = "DATA-ONLY"
_DAYS = {"DAY": 1, "WEEK": 7, "MONTH": 30, "YEAR": 365}
_PLACES = ("coverage", "countries", "romaing_countries")
_BINARY_GIGABYTE = Decimal(1 << 30) / 10**9
_UNLIMITED = re.compile(r"^\s*unlimited(?:\s+plus)?\s+(?:esim\s+)?data\b", re.IGNORECASE)
_PLACE = re.compile(r"\b(?:in|for)\s+(?!\d)(.+)$", re.IGNORECASE)
_AND = re.compile(r"\s*(?:&|,|/|\band\b)\s*", re.IGNORECASE)


def parse_offer(row: Row, kind: OfferKind = OfferKind.PLAN) -> ProviderOffer:
    """Return the offer in one package.

    Raises:
        InvalidOffer: it has calls or messages, or a field it needs is absent or is not what the contract says.
    """
    _refuse_voice(row)
    name = text(row, "name")
    unlimited = _is_unlimited(row, name)
    return ProviderOffer(
        provider=SLUG,
        provider_package_id=text(row, "id"),
        name=name,
        kind=kind,
        coverage=_coverage(row, name),
        allowance=Allowance.UNLIMITED if unlimited else Allowance.TOTAL,
        data_mb=None if unlimited else _size(row),
        validity_days=_validity(row),
        cost=price_of(row),
        networks=names(place.get("network_name") for place in _rows(row, "coverage")),
        raw_data=f"{glimpse(row.get('data_quantity'))} {loose_text(row, 'data_unit')[:10]}".strip(),
    )


def price_of(row: Row) -> Cost:
    """Return what the balance is charged for one unit.

    Raises:
        InvalidOffer: there is no price, or it is not in US dollars.
    """
    currency = text(row, "currency") or CURRENCY
    if currency != CURRENCY:
        raise InvalidOffer(f"the price is in {glimpse(currency)}, the contract says {CURRENCY}", field="currency")
    return Cost(amount(row, "price"), CURRENCY)


def nominal_size(quantity: Decimal, unit: str) -> int:
    """Return the megabytes on the label for a quantity of `GB` or `MB`.

    Raises:
        InvalidOffer: another unit.
    """
    if unit == "MB":
        return nominal_mb(quantity, megabytes_per_gigabyte=1024)
    if unit != "GB":
        raise InvalidOffer(f"data unit {glimpse(unit)} is neither GB nor MB", field="data_unit")
    if quantity * 10 != (quantity * 10).to_integral_value():
        decimal_gigabytes = (quantity * _BINARY_GIGABYTE).quantize(Decimal("0.1"))
        if decimal_gigabytes and abs(quantity * _BINARY_GIGABYTE / decimal_gigabytes - 1) < Decimal("0.0005"):
            return int(decimal_gigabytes * 1000)
    return nominal_mb(quantity * 1000, megabytes_per_gigabyte=1000)


def country_in_name(name: str) -> list[str]:
    """Return the codes of the countries a plan's name ends in (`... in Spain`, `eSIM, 1GB, 7 Days, Honduras`)."""
    place = _PLACE.search(name[:300])
    if place:
        whole_place = place[1]
        inner = _PLACE.search(whole_place)  # "for 7 Days for Congo"
        return _codes(inner[1] if inner else whole_place)
    parts = [code for part in name[:300].split(",") if (code := country_code(part))]
    return parts if len(parts) == 1 else []


def tells_no_country(row: object) -> bool:
    """Return whether a row of the list is a data plan whose countries only its detail can tell."""
    if not isinstance(row, dict) or loose_text(row, "package_type") not in {"", DATA_ONLY}:
        return False
    listed = any(row.get(key) for key in _PLACES)
    return not listed and not country_in_name(loose_text(row, "name"))


def _codes(place: str) -> list[str]:
    code = country_code(place) or country_code(place.split(",", maxsplit=1)[0])
    if code:
        return [code]
    parts = [country_code(part) for part in _AND.split(place) if part]
    return [part for part in parts if part] if all(parts) else []


def _refuse_voice(row: Row) -> None:
    kind = text(row, "package_type") or DATA_ONLY
    quantities = [amount(row, key) for key in ("voice_quantity", "sms_quantity") if row.get(key) is not None]
    if kind != DATA_ONLY or any(quantities):
        raise InvalidOffer(
            f"package type {glimpse(kind)} with calls or messages: buying it takes the buyer's address, not supported",
            field="package_type",
        )


def _is_unlimited(row: Row, name: str) -> bool:
    flag = row.get("unlimited")
    if isinstance(flag, bool):
        return flag
    if flag is not None:
        raise InvalidOffer(f"unlimited is {glimpse(flag)}, not true or false", field="unlimited")
    quantity = amount(row, "data_quantity")
    return quantity == -1 or (quantity == 0 and bool(_UNLIMITED.match(name)))


def _size(row: Row) -> int:
    return nominal_size(amount(row, "data_quantity"), text(row, "data_unit").upper())


def _validity(row: Row) -> int:
    unit = (text(row, "package_validity_unit") or "DAY").upper().removesuffix("S")
    if unit not in _DAYS:
        raise InvalidOffer(f"validity unit {glimpse(unit)} is not known", field="package_validity_unit")
    return whole(row, "package_validity") * _DAYS[unit]


def _coverage(row: Row, name: str) -> Coverage:
    for key in _PLACES:
        codes = list(_places(row, key))
        if codes:
            return coverage_from(codes)
    codes = country_in_name(name)
    if not codes:
        raise InvalidOffer("its countries are neither listed nor in its name", field="coverage")
    return coverage_from(codes)


def _places(row: Row, key: str) -> Iterator[str]:
    """Yield a code for each place of a list, or its name where it has no code that can be told."""
    places = row.get(key)
    for place in places if isinstance(places, list) else []:
        if isinstance(place, str):
            yield country_code(place) or place[:60]
        elif isinstance(place, dict):
            if code := loose_text(place, "iso") or loose_text(place, "code"):
                yield code[:20]
                continue
            name = loose_text(place, "country_name") or loose_text(place, "name")
            yield code_in_flag_address(loose_text(place, "image_url")) or country_code(name) or name[:60]


def _rows(row: Row, key: str) -> list[Row]:
    rows = row.get(key)
    return [entry for entry in rows if isinstance(entry, dict)] if isinstance(rows, list) else []
