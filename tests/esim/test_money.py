"""Money and costs: exact, never floats, rounded only where a rounding is named."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esim.errors import InvalidMoney
from esim.money import MICROS, Cost, Money, Rounding, exponent, money_from_micros, round_fraction

CURRENCIES = st.sampled_from(("USD", "EUR", "JPY", "KWD"))
MINOR = st.integers(-(10**15), 10**15)


@pytest.mark.parametrize(("currency", "places"), [("USD", 2), ("EUR", 2), ("JPY", 0), ("VND", 0), ("KWD", 3)])
def test_currencies_have_their_iso_exponent(currency: str, places: int) -> None:
    assert exponent(currency) == places


@pytest.mark.parametrize("currency", ["usd", "US", "DOLLAR", "", "U1D", "ÄÖÜ"])
def test_what_is_no_currency_code_is_refused(currency: str) -> None:
    with pytest.raises(InvalidMoney, match="ISO 4217"):
        Money(1, currency)
    with pytest.raises(InvalidMoney):
        Cost(Decimal(1), currency)


@pytest.mark.parametrize("minor", [1.0, 19.99, Decimal(1), "1", True, None])
def test_money_takes_whole_minor_units_only(minor: object) -> None:
    with pytest.raises(InvalidMoney, match="whole minor units"):
        Money(minor, "USD")  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("amount", [1.5, True, None, "abc", "", "1,50", Decimal("NaN"), Decimal("Infinity"), "NaN"])
def test_a_cost_is_an_exact_finite_number(amount: object) -> None:
    with pytest.raises(InvalidMoney):
        Cost.parse(amount, "USD")  # type: ignore[arg-type]  # that is the point


@given(a=MINOR, b=MINOR, times=st.integers(-1000, 1000), currency=CURRENCIES)
def test_money_adds_up_like_integers(a: int, b: int, times: int, currency: str) -> None:
    left, right = Money(a, currency), Money(b, currency)
    assert (left + right).minor == a + b
    assert (left - right).minor == a - b
    assert (-left).minor == -a
    assert (left * times).minor == a * times
    assert (left < right) is (a < b)
    assert (left <= right) is (a <= b)


@pytest.mark.parametrize("operation", ["__add__", "__sub__", "__lt__", "__le__"])
def test_currencies_do_not_mix(operation: str) -> None:
    with pytest.raises(InvalidMoney, match="different currencies"):
        getattr(Money(1, "USD"), operation)(Money(1, "EUR"))


@pytest.mark.parametrize("times", [1.5, True, "2"])
def test_money_is_multiplied_by_whole_numbers_only(times: object) -> None:
    with pytest.raises(InvalidMoney):
        Money(1, "USD") * times  # type: ignore[operator]  # that is the point


@given(minor=MINOR, currency=CURRENCIES)
def test_money_survives_the_way_through_micros(minor: int, currency: str) -> None:
    money = Money(minor, currency)
    for rounding in Rounding:
        assert money_from_micros(money.micros, currency, rounding) == money


@given(amount=st.decimals(min_value=-(10**9), max_value=10**9, places=9))
def test_a_costs_micros_are_the_nearest(amount: Decimal) -> None:
    micros = Cost(amount, "USD").micros
    assert abs(Fraction(amount) * MICROS - micros) <= Fraction(1, 2)


@given(value=st.fractions())
def test_roundings_bracket_the_value(value: Fraction) -> None:
    down, half, up = (round_fraction(value, way) for way in (Rounding.DOWN, Rounding.HALF_UP, Rounding.UP))
    assert down <= value <= up
    assert up - down <= 1
    assert abs(value - half) <= Fraction(1, 2)
    assert down <= half <= up


@pytest.mark.parametrize(
    ("money", "text"),
    [
        (Money(1999, "USD"), "19.99 USD"),
        (Money(5, "USD"), "0.05 USD"),
        (Money(-1999, "USD"), "-19.99 USD"),
        (Money(500, "JPY"), "500 JPY"),
        (Money(1234, "KWD"), "1.234 KWD"),
    ],
)
def test_money_reads_as_people_write_it(money: Money, text: str) -> None:
    assert str(money) == text


@pytest.mark.parametrize(("amount", "text"), [("4.50", "4.5 USD"), ("100", "100 USD"), ("0.0031", "0.0031 USD")])
def test_a_cost_reads_as_quoted(amount: str, text: str) -> None:
    assert str(Cost.parse(amount, "USD")) == text
