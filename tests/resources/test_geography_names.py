"""Every destination has a name a customer would search for."""

import pytest

from esim.geography import COUNTRIES, REGION_NAMES
from resources.geography_names import destination_name


@pytest.mark.parametrize("code", sorted(COUNTRIES | set(REGION_NAMES)))
def test_every_destination_has_a_name(code: str) -> None:
    name = destination_name(code)
    assert name != code
    assert "SAR" not in name


@pytest.mark.parametrize(("code", "name"), [("JP", "Japan"), ("HK", "Hong Kong"), ("TR", "Turkey"), ("XK", "Kosovo")])
def test_names_are_the_usual_ones(code: str, name: str) -> None:
    assert destination_name(code) == name


def test_an_unknown_code_is_its_own_name() -> None:
    assert destination_name("ZZ9") == "ZZ9"
