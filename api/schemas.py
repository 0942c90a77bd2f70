"""The JSON of API version 1: what comes in is checked here, what goes out is described here.

Unknown members and parameters are refused: a misspelt filter that is silently ignored shows the wrong plans.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

MAX_UNITS = 30
MAX_PAGE = 1000
DEFAULT_PAGE = 200


def _upper(value: Any) -> Any:
    return value.strip().upper() if isinstance(value, str) else value


def _destination(value: str) -> str:
    return value.upper() if len(value) == 2 else value.lower()


def _email(value: str) -> str:
    try:
        # No look-up in DNS: a slow name server must not hold up a sale. `.test` is what sandboxes use.
        return validate_email(value, check_deliverability=False, test_environment=True).normalized
    except EmailNotValidError as error:
        raise ValueError(f"is not an e-mail address: {error}") from None


CurrencyCode = Annotated[
    str,
    BeforeValidator(_upper),
    StringConstraints(pattern=r"^[A-Z]{3}$"),
    Field(description="ISO 4217 code of a currency we sell in.", examples=["USD", "EUR"]),
]
DestinationCode = Annotated[
    str,
    StringConstraints(strip_whitespace=True, pattern=r"^[A-Za-z]{2}$|^[A-Za-z][A-Za-z-]{2,39}$"),
    AfterValidator(_destination),
]
Email = Annotated[str, StringConstraints(strip_whitespace=True, max_length=254), AfterValidator(_email)]
Phone = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^\+?[0-9][0-9 ()./-]{4,28}$")]
Days = Annotated[int, Field(ge=1, le=400)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DestinationQuery(_Asked):
    """What destinations to list."""

    q: Annotated[str, StringConstraints(strip_whitespace=True, max_length=80)] | None = Field(
        None, description="Part of a name, or a code; case and accents do not matter.", examples=["jap"]
    )
    currency: CurrencyCode = "USD"


class PackageQuery(_Asked):
    """What packages to list, and in which order."""

    destination: DestinationCode | None = Field(
        None, description="ISO 3166-1 alpha-2 code, region slug, or `global`.", examples=["JP", "europe"]
    )
    min_data_mb: Annotated[int, Field(ge=0, le=100_000_000)] | None = Field(
        None, description="At least this much data over the whole term; unlimited plans always qualify."
    )
    unlimited: bool | None = Field(None, description="Only unlimited plans (true) or only limited ones (false).")
    min_days: Days | None = None
    max_days: Days | None = None
    max_price_minor: Annotated[int, Field(ge=0, le=100_000_000)] | None = Field(
        None, description="Highest price in minor units of `currency`."
    )
    currency: CurrencyCode = "USD"
    sort: Literal["price", "data", "days", "value"] = Field(
        "price",
        description="`price`: cheapest first; `data`: most data first; `days`: longest first; `value`: lowest price "
        "per MB first, where an unlimited plan counts as 2000 MB a day.",
    )
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = DEFAULT_PAGE
    cursor: Annotated[str, StringConstraints(max_length=400)] | None = Field(
        None, description="`next_cursor` of the page before, asked with the same filters and order."
    )

    @model_validator(mode="after")
    def _days_in_order(self) -> "PackageQuery":
        if self.min_days is not None and self.max_days is not None and self.min_days > self.max_days:
            raise ValueError("min_days: is larger than max_days")
        return self


class PriceQuery(_Asked):
    """In which currency to show a price."""

    currency: CurrencyCode = "USD"


class Price(BaseModel):
    """An amount in minor units: 499 with USD is $4.99."""

    amount_minor: int
    currency: str


class DestinationRef(BaseModel):
    """Where a plan is for."""

    code: str
    name: str
    type: Literal["country", "region", "global"]


class Package(BaseModel):
    """A plan on sale."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "jp-5gb-30d",
                    "name": "Japan 5 GB, 30 days",
                    "destination": {"code": "JP", "name": "Japan", "type": "country"},
                    "coverage": ["JP"],
                    "data_mb": 5000,
                    "unlimited": False,
                    "validity_days": 30,
                    "networks": ["NTT Docomo"],
                    "top_up": True,
                    "price": {"amount_minor": 899, "currency": "USD"},
                    "best_price": True,
                    "updated_at": "2026-11-21T06:00:00Z",
                }
            ]
        }
    )

    id: str
    name: str
    destination: DestinationRef
    coverage: list[str] = Field(description="ISO 3166-1 alpha-2 codes.")
    data_mb: int | None = Field(description="Data of the whole term in MB (1 GB is 1000 MB); null when unlimited.")
    unlimited: bool
    validity_days: int
    networks: list[str]
    top_up: bool = Field(description="Whether data can be added later.")
    price: Price
    best_price: bool = Field(
        description="No package of this destination with at least the data, days and countries costs as little."
    )
    updated_at: datetime


class PackagePage(BaseModel):
    """One page of packages."""

    packages: list[Package]
    next_cursor: str | None = Field(description="Ask for the next page with it; null on the last page.")


class Destination(DestinationRef):
    """A place to travel to, with what its plans start at."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "code": "JP",
                    "name": "Japan",
                    "type": "country",
                    "from_price": {"amount_minor": 199, "currency": "USD"},
                    "package_count": 125,
                }
            ]
        }
    )

    from_price: Price
    package_count: int


class DestinationList(BaseModel):
    """Every destination that matches, by name."""

    destinations: list[Destination]


class CheckoutItem(_Asked):
    """One line of a basket."""

    package_id: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]
    quantity: Annotated[int, Field(ge=1, le=MAX_UNITS, strict=True)] = 1
    expected_price_minor: Annotated[int, Field(ge=0, strict=True)] | None = Field(
        None, description="The unit price the customer was shown; if it is not the price any more, nothing is ordered."
    )


class CheckoutRequest(_Asked):
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


class OrderItem(BaseModel):
    """What was bought, as it was sold."""

    package_id: str
    name: str
    quantity: int
    unit_price: Price


class Esim(BaseModel):
    """One eSIM of an order; activation data is there once it is delivered."""

    n: int
    status: Literal["unpaid", "preparing", "delivered", "failed", "refunded", "cancelled", "attention"]
    package_id: str
    name: str
    iccid: str | None = None
    lpa: str | None = Field(None, description="The activation string a QR code carries (SGP.22).")
    smdp_address: str | None = None
    activation_code: str | None = None
    confirmation_code: str | None = None
    apn: str | None = None
    qr_url: str | None = None
    install_url: str | None = Field(None, description="Opens the installation on the phone itself.")


class OrderEvent(BaseModel):
    """One step in the life of an order or of one of its eSIMs."""

    id: int
    at: datetime
    esim: int | None = Field(description="Which eSIM it is about; null for the whole order.")
    status: str
    message: str


class Order(BaseModel):
    """An order as its customer sees it."""

    order_id: str
    display_id: str
    status: Literal["pending", "paid", "processing", "completed", "failed", "refunded", "cancelled", "attention"]
    payment_status: str
    amount_minor: int
    refunded_minor: int
    currency: str
    created_at: datetime
    paid_at: datetime | None
    items: list[OrderItem]
    esims: list[Esim]
    events: list[OrderEvent]


class ProblemField(BaseModel):
    """What is wrong with one field."""

    field: str
    message: str


class Problem(BaseModel):
    """An RFC 9457 problem document. Some kinds carry further members."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="What kind of problem it is; the address explains it.")
    title: str
    status: int
    detail: str
    instance: str
    errors: list[ProblemField] = Field(description="The fields at fault, if there are any.")


class Health(BaseModel):
    """Whether this process is alive."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """Whether this process can serve."""

    status: Literal["ok"]
    database: Literal["ok"]
    catalogue_version: int
    catalogue_checked_seconds_ago: float
    packages: int
