"""eSIM Access's plans in our own terms."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esim.catalogue import Allowance, OfferKind, check_offer
from esim.errors import InvalidInput
from resources.providers.esim_access_catalogue import nominal_size, parse_offer
from tests.resources.providers.esim_access_wire import GIB, plan
from tests.resources.providers.odd_json import anything_json


@pytest.mark.parametrize(
    ("changes", "allowance", "data_mb", "daily_mb", "throttle"),
    [
        ({}, Allowance.TOTAL, 3000, None, None),
        ({"dataType": 2, "fupPolicy": "1 Mbps"}, Allowance.DAILY, 3000, None, 1000),
        ({"dataType": 2, "fupPolicy": "128 Kbps"}, Allowance.DAILY, 3000, None, 128),
        ({"dataType": 2, "fupPolicy": "FUP384Kbps"}, Allowance.DAILY, 3000, None, 384),
        ({"dataType": 2, "fupPolicy": "slow"}, Allowance.DAILY, 3000, None, None),
        ({"dataType": 3, "fupPolicy": "1 Mbps"}, Allowance.DAILY, 3000, None, None),
        ({"dataType": 4, "volume": 10 * GIB, "fupPolicy": "384 Kbps"}, Allowance.UNLIMITED, None, 10000, 384),
        ({"dataType": 4, "volume": None}, Allowance.UNLIMITED, None, None, None),
        ({"dataType": None}, Allowance.TOTAL, 3000, None, None),
    ],
)
def test_allowances_are_read(
    changes: dict[str, Any], allowance: Allowance, data_mb: int | None, daily_mb: int | None, throttle: int | None
) -> None:
    offer = parse_offer(plan("P1", **changes))
    check_offer(offer)
    assert (offer.allowance, offer.data_mb, offer.daily_mb, offer.throttle_kbps) == (
        allowance,
        data_mb,
        daily_mb,
        throttle,
    )


def test_codes_that_are_no_country_stay_visible() -> None:
    offer = parse_offer(plan("P1", location="GB,GB-SCT,XK,TRNC,WS-S, es"))
    assert offer.coverage.countries == ("ES", "GB", "XK")
    assert offer.coverage.unmapped == ("TRNC", "WS-S")


def test_networks_and_top_ups_are_read() -> None:
    offer = parse_offer(plan("TOPUP_P1", supportTopUpType=3))
    assert offer.kind is OfferKind.TOP_UP
    assert offer.networks == ("MEO", "NOS")
    assert offer.supports_top_up is True
    assert parse_offer(plan("P1", supportTopUpType=1)).supports_top_up is False
    assert parse_offer(plan("P1", supportTopUpType=None)).supports_top_up is None


@pytest.mark.parametrize(
    ("volume", "size"),
    [
        (3221225472, 3000),
        (536870912, 500),
        (104857600, 100),
        (107374182, 100),
        (322122547, 300),
        (524288000, 500),
        (1_000_000_000, 1000),
        (1610612736, 1500),
    ],
)
def test_bytes_become_the_size_on_the_label(volume: int, size: int) -> None:
    assert nominal_size(volume) == size


@given(st.integers(1, 400))
def test_any_round_number_of_binary_gigabytes_is_as_many_on_the_label(gigabytes: int) -> None:
    assert nominal_size(gigabytes * GIB) == gigabytes * 1000


@given(st.integers(1, 25_000_000))
def test_prices_are_exact_to_the_hundredth_of_a_cent(price: int) -> None:
    cost = parse_offer(plan("P1", price=price)).cost
    assert cost.amount * 10_000 == price
    assert cost.micros == price * 100


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(plan("P1"))), anything_json(), max_size=4))
def test_no_field_whatever_it_holds_crashes_the_parser(changes: dict[str, Any]) -> None:
    with suppress(InvalidInput):
        check_offer(parse_offer(plan("P1", **changes)))
