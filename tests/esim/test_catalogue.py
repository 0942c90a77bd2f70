"""Nominal sizes, package ids and what makes an offer unsellable."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esim.catalogue import (
    MAX_DATA_MB,
    Allowance,
    OfferKind,
    ProviderOffer,
    check_offer,
    nominal_mb,
    package_key,
    size_label,
)
from esim.errors import InvalidOffer
from esim.geography import COUNTRIES, Coverage
from esim.money import Cost

OFFER = ProviderOffer(
    provider="acme",
    provider_package_id="jp-1",
    name="Japan 5 GB",
    kind=OfferKind.PLAN,
    coverage=Coverage(("JP",)),
    allowance=Allowance.TOTAL,
    data_mb=5000,
    validity_days=30,
    cost=Cost(Decimal("6.4"), "USD"),
)
EUROPE = Coverage(("DE", "ES", "FR", "IT"))

sizes = st.integers(min_value=10, max_value=MAX_DATA_MB)
coverages = st.frozensets(st.sampled_from(sorted(COUNTRIES)), min_size=1, max_size=60).map(
    lambda codes: Coverage(tuple(sorted(codes)))
)
offers = st.builds(
    replace,
    st.just(OFFER),
    kind=st.sampled_from(OfferKind),
    coverage=coverages,
    data_mb=sizes,
    validity_days=st.integers(1, 365),
    allowance=st.sampled_from([Allowance.TOTAL, Allowance.DAILY]),
    throttle_kbps=st.sampled_from([None, 128, 512]),
    voice_minutes=st.sampled_from([0, 30]),
    sms=st.sampled_from([0, 20]),
)


@given(st.integers(1, 1000))
def test_gigabytes_of_either_base_have_the_same_label(gigabytes: int) -> None:
    binary = nominal_mb(gigabytes * 1024, megabytes_per_gigabyte=1024)
    assert binary == nominal_mb(gigabytes * 1000, megabytes_per_gigabyte=1000) == gigabytes * 1000
    assert size_label(binary) == f"{gigabytes}gb"


@given(st.integers(1, 100).map(lambda n: n * 2 - 1))
def test_half_gigabytes_of_either_base_have_the_same_label(halves: int) -> None:
    assert nominal_mb(halves * 512, megabytes_per_gigabyte=1024) == halves * 500


@pytest.mark.parametrize(
    ("amount", "base", "expected"), [(500, 1024, 500), (100, 1024, 100), (250, 1000, 250), (3072, 1000, 3072)]
)
def test_other_figures_stay_as_they_are(amount: int, base: int, expected: int) -> None:
    assert nominal_mb(amount, megabytes_per_gigabyte=base) == expected


@given(st.integers(0, 10**7), st.sampled_from([1000, 1024]))
def test_a_nominal_size_never_exceeds_the_figure_nor_falls_far_below(amount: int, base: int) -> None:
    nominal = nominal_mb(amount, megabytes_per_gigabyte=base)
    assert amount * 1000 // 1024 <= nominal <= amount


@pytest.mark.parametrize(
    ("mb", "label"), [(500, "500mb"), (1000, "1gb"), (1500, "1.5gb"), (20000, "20gb"), (100000, "100gb")]
)
def test_sizes_read_as_on_the_label(mb: int, label: str) -> None:
    assert size_label(mb) == label


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({}, "jp-5gb-30d"),
        ({"kind": OfferKind.TOP_UP}, "jp-5gb-30d-topup"),
        ({"allowance": Allowance.DAILY, "data_mb": 1000, "throttle_kbps": 128}, "jp-1gb-daily-128k-30d"),
        ({"allowance": Allowance.UNLIMITED, "data_mb": None}, "jp-unl-30d"),
        (
            {"allowance": Allowance.UNLIMITED, "data_mb": None, "daily_mb": 1000, "throttle_kbps": 512},
            "jp-unl-1gb-512k-30d",
        ),
        ({"voice_minutes": 60, "sms": 20}, "jp-5gb-30d-60min-20sms"),
    ],
)
def test_package_ids_can_be_read(changes: dict[str, Any], key: str) -> None:
    assert package_key(replace(OFFER, **changes)) == key


def test_regional_package_ids_tell_country_lists_apart() -> None:
    one, other = replace(OFFER, coverage=EUROPE), replace(OFFER, coverage=Coverage(("DE", "ES", "FR", "PT")))
    assert package_key(one).startswith("europe-4-5gb-30d-")
    assert package_key(one) != package_key(other)


@given(offers, st.sampled_from(["acme", "other"]), st.text(max_size=10), st.decimals("0.01", "400", places=4))
def test_the_same_product_has_one_id_whoever_sells_it(
    offer: ProviderOffer, provider: str, name: str, amount: Decimal
) -> None:
    same = replace(offer, provider=provider, name=name, provider_package_id=name, cost=Cost(amount, "EUR"), stock=3)
    assert package_key(same) == package_key(offer)


@given(offers, offers)
def test_different_products_have_different_ids(one: ProviderOffer, other: ProviderOffer) -> None:
    def product(offer: ProviderOffer) -> tuple[object, ...]:
        return (
            offer.coverage.countries,
            offer.kind,
            offer.data_mb,
            offer.validity_days,
            offer.allowance,
            offer.throttle_kbps,
            offer.voice_minutes,
            offer.sms,
        )

    assert (package_key(one) == package_key(other)) == (product(one) == product(other))


@given(offers)
def test_package_ids_fit_in_an_address(offer: ProviderOffer) -> None:
    key = package_key(offer)
    assert key == key.lower()
    assert len(key) <= 80
    assert all(part.isascii() and part.replace(".", "").isalnum() for part in key.split("-"))


@given(offers)
def test_sane_offers_pass(offer: ProviderOffer) -> None:
    check_offer(offer)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"provider_package_id": ""}, "provider_package_id"),
        ({"name": "  "}, "provider_package_id"),
        ({"name": "x" * 301}, "name"),
        ({"provider_package_id": "x" * 301}, "name"),
        ({"coverage": Coverage((), ("GB-SCT",))}, "coverage"),
        ({"coverage": Coverage(())}, "coverage"),
        ({"validity_days": 0}, "validity_days"),
        ({"validity_days": 401}, "validity_days"),
        ({"data_mb": None}, "data_mb"),
        ({"data_mb": 9}, "data_mb"),
        ({"data_mb": 1_000_001}, "data_mb"),
        ({"data_mb": -1}, "data_mb"),
        ({"cost": Cost(Decimal(0), "USD")}, "cost"),
        ({"cost": Cost(Decimal("-2.1"), "USD")}, "cost"),
        ({"cost": Cost(Decimal("0.0000001"), "USD")}, "cost"),
        ({"cost": Cost(Decimal(21000), "USD")}, "cost"),
    ],
)
def test_figures_that_cannot_be_right_are_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidOffer) as refused:
        check_offer(replace(OFFER, **changes))
    assert refused.value.field == field


def test_an_unlimited_plan_needs_no_size() -> None:
    check_offer(replace(OFFER, allowance=Allowance.UNLIMITED, data_mb=None))


def test_weak_currencies_may_have_large_figures() -> None:
    check_offer(replace(OFFER, cost=Cost(Decimal(160_000), "VND")))


def test_an_offer_knows_its_identity_and_place() -> None:
    assert OFFER.offer_id == "acme:jp-1"
    assert OFFER.destination.code == "JP"
    assert replace(OFFER, coverage=EUROPE).destination.code == "europe"
    assert not OFFER.unlimited
