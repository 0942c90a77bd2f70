"""eSIMCard's plans in our own terms, and the country names they are told by."""

from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from esim.catalogue import Allowance, check_offer
from esim.errors import InvalidInput
from resources.providers.esim_card_catalogue import country_in_name, nominal_size, parse_offer
from tests.resources.providers.esim_card_wire import PACKAGE, package
from tests.resources.providers.odd_json import anything_json


@pytest.mark.parametrize(
    ("quantity", "unit", "size"),
    [
        ("1", "GB", 1000),
        ("0.9313", "GB", 1000),
        ("4.6566", "GB", 5000),
        ("46.5661", "GB", 50000),
        ("0.4657", "GB", 500),
        ("0.25", "GB", 250),
        ("1.5", "GB", 1500),
        ("500", "MB", 500),
        ("512", "MB", 500),
        ("3072", "MB", 3000),
    ],
)
def test_sizes_of_either_base_become_the_label(quantity: str, unit: str, size: int) -> None:
    assert nominal_size(Decimal(quantity), unit) == size


@given(st.integers(1, 500))
def test_decimal_gigabytes_told_in_binary_ones_are_recognised(gigabytes: int) -> None:
    told = (Decimal(gigabytes) * 10**9 / (1 << 30)).quantize(Decimal("0.0001"))
    assume(told * 10 != (told * 10).to_integral_value())  # 401.4 GB may be the label itself
    assert nominal_size(told, "GB") == gigabytes * 1000


@pytest.mark.parametrize(
    ("changes", "allowance", "data_mb"),
    [
        ({}, Allowance.TOTAL, 3000),
        ({"unlimited": True, "data_quantity": 0}, Allowance.UNLIMITED, None),
        ({"unlimited": None, "data_quantity": -1}, Allowance.UNLIMITED, None),
        (
            {"unlimited": None, "data_quantity": 0, "name": "Unlimited Plus eSIM Data for 3 Days"},
            Allowance.UNLIMITED,
            None,
        ),
        ({"unlimited": False, "name": "Unlimited Talk, Text 10gb"}, Allowance.TOTAL, 3000),
        ({"unlimited": None, "name": "Unlimited Talk, Text 10gb"}, Allowance.TOTAL, 3000),
    ],
)
def test_allowances_are_read(changes: dict[str, Any], allowance: Allowance, data_mb: int | None) -> None:
    offer = parse_offer(package(PACKAGE, **changes))
    check_offer(offer)
    assert (offer.allowance, offer.data_mb) == (allowance, data_mb)


@pytest.mark.parametrize(
    ("number", "unit", "days"), [(7, "Day", 7), (2, "weeks", 14), (1, "MONTH", 30), (1, "year", 365), (3, None, 3)]
)
def test_terms_become_days(number: int, unit: str | None, days: int) -> None:
    offer = parse_offer(package(PACKAGE, package_validity=number, package_validity_unit=unit))
    assert offer.validity_days == days


def test_a_country_counts_once_whatever_its_networks() -> None:
    offer = parse_offer(package(PACKAGE))
    assert offer.coverage.countries == ("PT",)
    assert offer.networks == ("MEO", "NOS")


@pytest.mark.parametrize(
    ("changes", "countries", "unmapped"),
    [
        ({"coverage": [{"country_name": "Kosovo"}, {"code": "pt"}]}, ("PT", "XK"), ()),
        ({"coverage": [], "countries": ["Spain", "Atlantis"]}, ("ES",), ("ATLANTIS",)),
        ({"coverage": None, "countries": [{"name": "x", "image_url": "https://flagcdn.com/w80/bf.png"}]}, ("BF",), ()),
        ({"coverage": [], "romaing_countries": [{"id": 9, "name": "Cote d\u2019Ivoire"}]}, ("CI",), ()),
        ({"coverage": []}, ("PT",), ()),
    ],
)
def test_countries_are_taken_from_where_they_are(
    changes: dict[str, Any], countries: tuple[str, ...], unmapped: tuple[str, ...]
) -> None:
    coverage = parse_offer(package(PACKAGE, **changes)).coverage
    assert (coverage.countries, coverage.unmapped) == (countries, unmapped)


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("1GB eSIM Data For 7 Days in Spain", ["ES"]),
        ("1GB eSIM Data for 3 Days for Afghanistan", ["AF"]),
        ("eSIM, 1GB, 7 Days, Honduras, Unthrottled", ["HN"]),
        ("5GB eSIM Data For 30 Days in Bosnia Herzegovina", ["BA"]),
        ("5GB for 30 Days for DR Congo", ["CD"]),
        ("5GB for 30 Days for Congo", ["CG"]),
        ("3GB for 7 Days for Vatican City State", ["VA"]),
        ("3GB in Macau", ["MO"]),
        ("3GB in Antigua and Barbuda", ["AG"]),
        ("3GB in USA & Canada", ["US", "CA"]),
        ("1GB for 7 Days for Saint Lucia", ["LC"]),
        ("1GB for 7 Days for United States Virgin Islands", ["VI"]),
        ("1GB for 7 Days for Aland Islands", ["AX"]),
        ("1GB eSIM Data For 7 Days Global", []),
        ("10GB eSIM Data for 7 Days for Global Max", []),
        ("eSIM, 500MB, 3 Days, Europe", []),
        ("1GB in Netherlands Antilles", []),
        ("1GB in Spain & Atlantis", []),
        ("eSIMCard 1GB North America", []),
        ("", []),
    ],
)
def test_the_country_in_a_name_is_found_or_not_guessed(name: str, codes: list[str]) -> None:
    assert country_in_name(name) == codes


@given(st.decimals("0.01", "2000", places=2))
def test_prices_are_exact(price: Decimal) -> None:
    assert parse_offer(package(PACKAGE, price=str(price))).cost.amount == price


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*sorted(package(PACKAGE)), "countries"]), anything_json(), max_size=4))
def test_no_field_whatever_it_holds_crashes_the_parser(changes: dict[str, Any]) -> None:
    with suppress(InvalidInput):
        check_offer(parse_offer(package(PACKAGE, **changes)))
