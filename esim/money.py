"""Money as customers pay it and costs as providers quote it; the repository's only rounding.

`Money` is an integer count of a currency's minor unit. `Cost` is an exact decimal amount as quoted (wholesale prices
have parts of a cent). They never add to each other: `esim.pricing` goes from one to the other with a named rounding.
Whole-table arithmetic uses integer micro-units (10^-6 of the major unit), so that tables and rows agree to the digit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor

from esim.errors import InvalidMoney

MICROS = 1_000_000

# Decimal places that are not 2 (ISO 4217). Source: ISO 4217 list one (2026).
EXPONENTS: Mapping[str, int] = {
    **dict.fromkeys(
        (
            "BIF",
            "CLP",
            "DJF",
            "GNF",
            "ISK",
            "JPY",
            "KMF",
            "KRW",
            "PYG",
            "RWF",
            "UGX",
            "VND",
            "VUV",
            "XAF",
            "XOF",
            "XPF",
        ),
        0,
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}


class Rounding(StrEnum):
    """How a fraction of a unit becomes a whole one."""

    UP = "up"  # never below the exact amount: prices
    HALF_UP = "half_up"  # nearest: bookings
    DOWN = "down"


@lru_cache(maxsize=256)
def exponent(currency: str) -> int:
    """Return how many decimal places `currency` has (ISO 4217): 2 for USD, 0 for JPY, 3 for KWD.

    Raises:
        InvalidMoney: `currency` is not a three-letter upper-case code.
    """
    if not (len(currency) == 3 and currency.isascii() and currency.isalpha() and currency.isupper()):
        raise InvalidMoney(f"currency {currency!r} is not an ISO 4217 code such as USD", field="currency")
    return EXPONENTS.get(currency, 2)


def round_fraction(value: Fraction, rounding: Rounding) -> int:
    """Return the integer nearest to `value` under `rounding`."""
    if rounding is Rounding.UP:
        return ceil(value)
    if rounding is Rounding.DOWN:
        return floor(value)
    return floor(value + Fraction(1, 2))


@dataclass(frozen=True, slots=True, order=False)
class Money:
    """An amount a customer pays: `minor` units of `currency` (USD 19.99 is `Money(1999, "USD")`)."""

    minor: int
    currency: str

    def __post_init__(self) -> None:
        if type(self.minor) is not int:
            raise InvalidMoney(f"money takes whole minor units, got {self.minor!r}", field="minor")
        exponent(self.currency)

    def __add__(self, other: "Money") -> "Money":
        self._same_currency(other)
        return Money(self.minor + other.minor, self.currency)

    def __sub__(self, other: "Money") -> "Money":
        self._same_currency(other)
        return Money(self.minor - other.minor, self.currency)

    def __neg__(self) -> "Money":
        return Money(-self.minor, self.currency)

    def __mul__(self, times: int) -> "Money":
        if type(times) is not int:
            raise InvalidMoney(f"money is multiplied by whole numbers only, got {times!r}")
        return Money(self.minor * times, self.currency)

    def __lt__(self, other: "Money") -> bool:
        self._same_currency(other)
        return self.minor < other.minor

    def __le__(self, other: "Money") -> bool:
        self._same_currency(other)
        return self.minor <= other.minor

    def __str__(self) -> str:
        places = exponent(self.currency)
        return f"{Decimal(self.minor).scaleb(-places):.{places}f} {self.currency}"

    def _same_currency(self, other: "Money") -> None:
        if self.currency != other.currency:
            raise InvalidMoney(f"{self} and {other} have different currencies; convert one first")

    @property
    def micros(self) -> int:
        """The amount in micro-units of the major unit (USD 0.01 is 10,000)."""
        return self.minor * MICROS // int(10 ** exponent(self.currency))


@dataclass(frozen=True, slots=True)
class Cost:
    """A wholesale amount exactly as quoted, in major units of `currency`."""

    amount: Decimal
    currency: str

    def __post_init__(self) -> None:
        if not isinstance(self.amount, Decimal) or not self.amount.is_finite():
            raise InvalidMoney(f"a cost takes a finite Decimal, got {self.amount!r}", field="amount")
        exponent(self.currency)

    @classmethod
    def parse(cls, amount: Decimal | int | str, currency: str) -> "Cost":
        """Return the cost written as `amount` (Decimal, int or decimal text; never a float).

        Raises:
            InvalidMoney: `amount` is a float, not a number, or not finite.
        """
        if isinstance(amount, bool) or not isinstance(amount, Decimal | int | str):
            raise InvalidMoney(f"cost {amount!r} is not an exact number; parse JSON with Decimal", field="amount")
        try:
            return cls(Decimal(amount), currency)
        except InvalidOperation as error:
            raise InvalidMoney(f"cost {amount!r} is not a number", field="amount") from error

    @property
    def micros(self) -> int:
        """The amount in micro-units of the major unit, rounded half up."""
        micros = self.amount * MICROS
        whole = int(micros)
        # Nearly every quote has six places at most, and rounding costs more than looking.
        return whole if whole == micros else int(micros.quantize(Decimal(1), rounding=ROUND_HALF_UP))

    def __str__(self) -> str:
        return f"{self.amount.normalize():f} {self.currency}"


def money_from_micros(micros: int, currency: str, rounding: Rounding) -> Money:
    """Return `micros` (10^-6 major units of `currency`) as money, rounded to minor units by `rounding`."""
    return Money(round_fraction(Fraction(micros * 10 ** exponent(currency), MICROS), rounding), currency)
