"""What several parts of API version 1 say in JSON: money, currencies, problems, health."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints


def _upper(value: Any) -> Any:
    return value.strip().upper() if isinstance(value, str) else value


CurrencyCode = Annotated[
    str,
    BeforeValidator(_upper),
    StringConstraints(pattern=r"^[A-Z]{3}$"),
    Field(description="ISO 4217 code of a currency we sell in.", examples=["USD", "EUR"]),
]


class Asked(BaseModel):
    """What comes in: unknown members are refused, because a misspelt one that is ignored misleads."""

    model_config = ConfigDict(extra="forbid")


class Price(BaseModel):
    """An amount in minor units: 499 with USD is $4.99."""

    amount_minor: int
    currency: str


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
