"""The JSON of the catalogue: queries are checked here, answers are described here.

The answers themselves are made by `api.snapshot` as bytes; a test holds them to these models.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from api.schemas.shared import Asked, CurrencyCode, Price

MAX_PAGE = 1000
DEFAULT_PAGE = 200


def _destination(value: str) -> str:
    return value.upper() if len(value) == 2 else value.lower()


DestinationCode = Annotated[
    str,
    StringConstraints(strip_whitespace=True, pattern=r"^[A-Za-z]{2}$|^[A-Za-z][A-Za-z-]{2,39}$"),
    AfterValidator(_destination),
]
Days = Annotated[int, Field(ge=1, le=400)]


class DestinationQuery(Asked):
    """What destinations to list."""

    q: Annotated[str, StringConstraints(strip_whitespace=True, max_length=80)] | None = Field(
        None, description="Part of a name, or a code; case and accents do not matter.", examples=["jap"]
    )
    currency: CurrencyCode = "USD"


class PackageQuery(Asked):
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


class PriceQuery(Asked):
    """In which currency to show a price."""

    currency: CurrencyCode = "USD"


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
        description="No package of this destination with at least the data, days, minutes, SMS and countries costs "
        "as little."
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
