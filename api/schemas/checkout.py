"""The JSON of a checkout."""

from datetime import datetime
from typing import Annotated

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from api.schemas.shared import Asked, CurrencyCode

MAX_UNITS = 30
MAX_PRICE_MINOR = 100_000_000


def _email(value: str) -> str:
    try:
        # No look-up in DNS: a slow name server must not hold up a sale. `.test` is what sandboxes use.
        return validate_email(value, check_deliverability=False, test_environment=True).normalized
    except EmailNotValidError as error:
        raise ValueError(f"is not an e-mail address: {error}") from None


Email = Annotated[str, StringConstraints(strip_whitespace=True, max_length=254), AfterValidator(_email)]
# No control characters: the database cannot hold a NUL, and no id of ours has any.
PackageId = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f]+$")
]
Phone = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^\+?[0-9][0-9 ()./-]{4,28}$")]


class CheckoutItem(Asked):
    """One line of a basket."""

    package_id: PackageId
    quantity: Annotated[int, Field(ge=1, le=MAX_UNITS, strict=True)] = 1
    expected_price_minor: Annotated[int, Field(ge=0, le=MAX_PRICE_MINOR, strict=True)] | None = Field(
        None, description="The unit price the customer was shown; if it is not the price any more, nothing is ordered."
    )


class CheckoutRequest(Asked):
    """A basket and who buys it. Prices are never taken from here."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "items": [{"package_id": "jp-5gb-30d", "quantity": 1, "expected_price_minor": 899}],
                    "email": "traveller@example.com",
                    "currency": "USD",
                }
            ]
        },
    )

    items: Annotated[list[CheckoutItem], Field(min_length=1, max_length=MAX_UNITS)]
    email: Email
    phone: Phone | None = None
    currency: CurrencyCode = "USD"
    success_url: Annotated[str, StringConstraints(max_length=2000)] | None = Field(
        None, description="Where to send the customer after paying; on a configured origin. Default: our order page."
    )
    cancel_url: Annotated[str, StringConstraints(max_length=2000)] | None = Field(
        None, description="Where to send the customer who gives up; on a configured origin. Default: our start page."
    )

    @model_validator(mode="after")
    def _few_enough(self) -> "CheckoutRequest":
        units = sum(item.quantity for item in self.items)
        if units > MAX_UNITS:
            raise ValueError(f"items: {units} eSIMs in one order; at most {MAX_UNITS} are possible")
        return self


class Checkout(BaseModel):
    """An order that waits for its payment."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "order_id": "0193a1c2-5b7e-7c11-9d0e-2f6f0a1b2c3d",
                    "display_id": "OID001",
                    "order_token": "AZOhwlt-fBGdDi9vChssPQ.2b1c…",
                    "checkout_url": "https://checkout.stripe.com/c/pay/cs_test_…",
                    "amount_minor": 899,
                    "currency": "USD",
                    "expires_at": "2026-11-21T07:00:00Z",
                }
            ]
        }
    )

    order_id: str
    display_id: str
    order_token: str = Field(description="Opens this order and nothing else; treat it like a password.")
    checkout_url: str = Field(description="Send the customer here to pay.")
    amount_minor: int
    currency: str
    expires_at: datetime
