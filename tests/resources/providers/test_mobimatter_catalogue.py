"""MobiMatter's plans and usage figures in our own terms."""

from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esim.catalogue import Allowance, OfferKind, check_offer
from esim.errors import InvalidInput
from resources.providers.mobimatter_catalogue import parse_offer
from resources.providers.mobimatter_usage import reading_of
from tests.resources.providers.mobimatter_wire import ADDON, PRODUCT, product
from tests.resources.providers.odd_json import anything_json


@pytest.mark.parametrize(
    ("packages", "used", "total"),
    [
        ([], None, None),
        ([{"totalAllowanceMb": None, "usedMb": 12}], 12_000_000, None),
        ([{"totalAllowanceMb": 1024, "usedMb": 0}, {"totalAllowanceMb": 500, "usedMb": 100}], 100_000_000, None),
    ],
)
def test_usage_over_several_plans(packages: list[dict[str, Any]], used: int | None, total: int | None) -> None:
    reading = reading_of({"esim": None, "packages": packages})
    assert reading.used_bytes == used
    assert reading.total_bytes == (total if len(packages) < 2 else (1 << 30) + 500_000_000)


@pytest.mark.parametrize(
    ("title", "limit", "details", "allowance", "size"),
    [
        ("Chile 20 GB", "20", {}, Allowance.TOTAL, 20000),
        ("Brazil 42 GB Unlimited Calls", "42", {"PLAN_VOICE_LIMIT": "10000"}, Allowance.TOTAL, 42000),
        ("Happy Tourist, unlimited calls", "50", {}, Allowance.TOTAL, 50000),
        ("USA Unlimited Data and Calls", "0", {}, Allowance.UNLIMITED, None),
        ("Europe Unlimited Basic 10 Days", "80", {}, Allowance.UNLIMITED, None),
        ("Europe Unlimited Basic 10 Days", "80", {"UNLIMITED": "0"}, Allowance.TOTAL, 80000),
        ("Europe Basic", "80", {"UNLIMITED": "1"}, Allowance.UNLIMITED, None),
        ("Peru 1 GB/day", "1", {}, Allowance.DAILY, 1000),
        ("Peru 1 GB daily", "1", {}, Allowance.DAILY, 1000),
        ("Half", "0.5", {}, Allowance.TOTAL, 500),
        ("Tourist", "", {"PLAN_DETAILS": '{"items": ["Unlimited data at full speed"]}'}, Allowance.UNLIMITED, None),
        ("Tourist", "5", {"PLAN_DETAILS": '{"items": ["Unlimited data to chat"]}'}, Allowance.TOTAL, 5000),
    ],
)
def test_allowances_are_read(
    title: str, limit: str, details: dict[str, str], allowance: Allowance, size: int | None
) -> None:
    offer = parse_offer(product(PRODUCT, {"PLAN_TITLE": title, "PLAN_DATA_LIMIT": limit, **details}))
    check_offer(offer)
    assert (offer.allowance, offer.data_mb) == (allowance, size)


@pytest.mark.parametrize(
    ("limit", "unit", "size"),
    [("60", "GB", 60000), ("500", "MB", 500), ("512", "MB", 500), ("15360", "mb", 15000), ("5000", "MB", 5000)],
)
def test_sizes_of_either_base_become_the_label(limit: str, unit: str, size: int) -> None:
    offer = parse_offer(product(PRODUCT, {"PLAN_DATA_LIMIT": limit, "PLAN_DATA_UNIT": unit}))
    assert offer.data_mb == size


def test_speed_and_terms_are_read() -> None:
    details = {"UNLIMITED": "1", "SPEED": "1Mbps", "SPEED_LONG": "Speed is capped at 1 Mbps", "PLAN_VALIDITY": "4320"}
    offer = parse_offer(product(PRODUCT, details))
    assert (offer.throttle_kbps, offer.validity_days) == (1000, 180)
    newer = parse_offer(product(PRODUCT, {"PLAN_VALIDITY": "", "VALIDITY_IN_DAYS": "30"}))
    assert newer.validity_days == 30


def test_codes_that_are_no_country_stay_visible() -> None:
    offer = parse_offer(product(PRODUCT, countries=["US-HI", "XK", "QQ", 7, None]))
    assert offer.coverage.countries == ("XK",)
    assert offer.coverage.unmapped == ("QQ", "US-HI")


def test_add_ons_are_top_ups() -> None:
    offer = parse_offer(product(ADDON, productCategory="esim_addon"))
    assert offer.kind is OfferKind.TOP_UP
    assert offer.order_hints == {"product_category": "esim_addon", "product_family_id": "77"}


@given(st.decimals("0.01", "2000", places=4))
def test_prices_are_exact(price: Decimal) -> None:
    assert parse_offer(product(PRODUCT, wholesalePrice=price)).cost.amount == price


@given(st.integers(24, 9600))
def test_a_plan_is_never_sold_for_longer_than_its_hours(hours: int) -> None:
    days = parse_offer(product(PRODUCT, {"PLAN_VALIDITY": str(hours)})).validity_days
    assert days * 24 <= hours < (days + 1) * 24


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from(sorted(product(PRODUCT))), anything_json(), max_size=3),
    st.dictionaries(
        st.sampled_from(["PLAN_DATA_LIMIT", "PLAN_VALIDITY", "PLAN_DATA_UNIT", "PLAN_VOICE_LIMIT", "PLAN_DETAILS"]),
        anything_json(),
        max_size=3,
    ),
)
def test_no_field_whatever_it_holds_crashes_the_parser(changes: dict[str, Any], details: dict[str, Any]) -> None:
    with suppress(InvalidInput):
        check_offer(parse_offer(product(PRODUCT, details, **changes)))
