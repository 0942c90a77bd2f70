"""Countries, regions and what becomes of codes that are no country."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esim.geography import (
    COUNTRIES,
    REGION_NAMES,
    REGION_OF,
    Coverage,
    DestinationType,
    coverage_from,
    destination_of,
)

countries = st.sampled_from(sorted(COUNTRIES))
country_sets = st.frozensets(countries, min_size=1, max_size=len(COUNTRIES))
any_codes = st.lists(st.one_of(countries, st.text(max_size=8)), max_size=30)


def test_every_iso_country_lies_in_one_region() -> None:
    assert len(COUNTRIES) == 250  # 249 of ISO 3166-1, and Kosovo
    assert set(REGION_OF.values()) <= set(REGION_NAMES)


@given(country_sets)
def test_coverage_of_iso_codes_is_those_codes_sorted(codes: frozenset[str]) -> None:
    assert coverage_from(codes) == Coverage(tuple(sorted(codes)))


@given(any_codes)
def test_coverage_neither_invents_nor_loses_a_country(codes: list[str]) -> None:
    coverage = coverage_from(codes)
    assert set(coverage.countries) <= COUNTRIES
    assert set(coverage.countries) >= {code for code in codes if code in COUNTRIES}
    assert list(coverage.countries) == sorted(set(coverage.countries))
    assert not set(coverage.unmapped) & COUNTRIES


@given(any_codes)
def test_coverage_does_not_depend_on_order_case_or_repeats(codes: list[str]) -> None:
    plain = [code for code in codes if code.isascii()]
    shuffled = [code.lower() for code in reversed(plain)] + plain
    assert coverage_from(shuffled) == coverage_from(plain)


@given(st.lists(st.text(alphabet="0123456789#/", min_size=1, max_size=6), min_size=1, max_size=5))
def test_what_cannot_be_mapped_stays_visible(codes: list[str]) -> None:
    coverage = coverage_from(codes)
    assert coverage.countries == ()
    assert set(coverage.unmapped) == set(codes)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (["na"], Coverage(("NA",))),  # Namibia, not "not available"
        (["XK", "RKS"], Coverage(("XK",))),
        (["CYP;CY"], Coverage(("CY",), ("CYP",))),
        (["USPR", "FR-GP", "GP-MG"], Coverage(("GP", "PR"))),
        (["BQ-SA", "BQ-SE"], Coverage(("BQ",))),
        (["GB", "GB-SCT"], Coverage(("GB",))),  # a part beside its whole adds nothing
        (["GB-SCT"], Coverage((), ("GB-SCT",))),  # a part alone is not its whole
        (["US-HI", "US-HI"], Coverage((), ("US-HI",))),
        (["ES", "IC", "TRNC"], Coverage(("ES",), ("TRNC",))),
        (["", " ", ";"], Coverage(())),
    ],
)
def test_the_codes_that_real_catalogues_use(codes: list[str], expected: Coverage) -> None:
    assert coverage_from(codes) == expected


@given(country_sets)
def test_a_destination_is_a_country_or_a_named_place(codes: frozenset[str]) -> None:
    covered = tuple(sorted(codes))
    destination = destination_of(covered)
    if len(covered) == 1:
        assert (destination.code, destination.type) == (covered[0], DestinationType.COUNTRY)
    else:
        assert destination.code in REGION_NAMES
        assert (destination.type is DestinationType.GLOBAL) == (destination.code == "global")


@given(st.sampled_from(sorted(set(REGION_OF.values()))))
def test_all_countries_of_a_region_are_that_region(region: str) -> None:
    members = tuple(sorted(code for code, of in REGION_OF.items() if of == region))
    assert destination_of(members).code == region


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ("FR DE IT ES", "europe"),
        ("FR DE IT TR MA", "europe"),  # four fifths
        ("CA MX US", "north-america"),
        ("JP KR AU NZ", "asia-pacific"),
        ("US BR AR JM", "americas"),
        ("FR JP US", "multi-region"),
    ],
)
def test_mixed_coverages_are_named_by_their_majority(codes: str, expected: str) -> None:
    assert destination_of(tuple(sorted(codes.split()))).code == expected


def test_fifty_countries_on_four_continents_are_global() -> None:
    europe = [code for code, region in REGION_OF.items() if region == "europe"]
    elsewhere = "JP KR TH VN SG MY ID US CA MX BR AR CL PE ZA KE MA EG TN AE"
    assert destination_of(tuple(sorted([*europe[:30], *elsewhere.split()]))).type is DestinationType.GLOBAL
