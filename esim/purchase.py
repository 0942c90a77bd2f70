"""What is asked of a provider and every way a purchase can end: the words of the purchase protocol.

A purchase ends in exactly one of `Provisioned`, `Pending`, `Rejected` (proven not bought) or `Unknown` (sent, no clear
answer). Nothing else exists: no adapter may raise out of a purchase, and nothing turns a time-out into `Rejected`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from esim.money import Cost

Json = str | int | bool | None | list["Json"] | dict[str, "Json"]
Evidence = Mapping[str, Json]
OTHER_ORDERS = "other_orders"  # in the evidence a look-up is given: order number -> "2.5 USD" or None


class ErrorType(StrEnum):
    """Why a purchase did not succeed, in the field's usual words."""

    PROVIDER_TIMEOUT = "provider_timeout"
    PROVIDER_API_ERROR = "provider_api_error"
    OUT_OF_STOCK = "out_of_stock"
    INVALID_PRODUCT = "invalid_product"
    PRICE_CHANGED = "price_changed"
    INSUFFICIENT_BALANCE = "insufficient_balance"
    AUTH_FAILED = "auth_failed"
    RATE_LIMITED = "rate_limited"
    NETWORK_ERROR = "network_error"
    PAYMENT_FAILED = "payment_failed"
    NOT_BOUGHT = "not_bought"  # looked for after an unclear answer and proven absent
    UNKNOWN = "unknown"


RETRYABLE: frozenset[ErrorType] = frozenset(
    {
        ErrorType.PROVIDER_TIMEOUT,
        ErrorType.PROVIDER_API_ERROR,
        ErrorType.OUT_OF_STOCK,
        ErrorType.INSUFFICIENT_BALANCE,
        ErrorType.RATE_LIMITED,
        ErrorType.NETWORK_ERROR,
        ErrorType.NOT_BOUGHT,
        ErrorType.PRICE_CHANGED,
    }
)


@dataclass(frozen=True, slots=True)
class EsimRef:
    """How a provider finds an eSIM it sold: its own ids and the ICCID; adapters use what their contract keys on."""

    provider_order_id: str = ""
    provider_esim_id: str = ""
    iccid: str = field(default="", repr=False)
    provider_package_id: str = ""


@dataclass(frozen=True, slots=True)
class PurchaseRequest:
    """One unit to buy. `reference` is ours, unique per attempt, `[a-z0-9]{26}`, stable over every look-up and repeat.

    `expected_cost` is what the catalogue said; `cost_ceiling` is the most this unit may cost, in the same currency.
    `top_up_of` is set when the offer is a top-up of an eSIM that exists. `sent_at` is when the purchase was cleared to
    be sent, as far as that is known.
    """

    reference: str
    provider_package_id: str
    expected_cost: Cost
    cost_ceiling: Cost
    started_at: datetime
    hints: Mapping[str, str] = field(default_factory=dict)
    top_up_of: EsimRef | None = None
    package_name: str = ""
    sent_at: datetime | None = None

    @property
    def left_at(self) -> datetime:
        """When the purchase left, which settle times count from: its intent may be much older."""
        return self.sent_at or self.started_at


@dataclass(frozen=True, slots=True)
class EsimProfile:
    """What a customer needs to install an eSIM. Everything here is personal: it never reaches a log or the lake."""

    iccid: str = field(repr=False)
    smdp_address: str = field(repr=False)
    activation_code: str = field(repr=False)  # the matching id
    provider_esim_id: str = ""
    confirmation_code: str = field(default="", repr=False)
    apn: str = ""

    @property
    def lpa(self) -> str:
        """The activation string of SGP.22, `LPA:1$<SM-DP+ address>$<matching id>`, and `$$1` where a code is needed."""
        suffix = "$$1" if self.confirmation_code else ""
        return f"LPA:1${self.smdp_address}${self.activation_code}{suffix}"


@dataclass(frozen=True, slots=True)
class Prepared:
    """The harmless part is done (dry run, price read, reservation); `evidence` is committed before the purchase."""

    evidence: Evidence = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OrderFacts:
    """What a provider's answer says of an order, as far as it does: it tells whose the order is.

    `reference` is what it was bought under; `packages` are its plan's names, any of which is right.
    """

    reference: str = ""
    packages: frozenset[str] = frozenset()
    ordered_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Provisioned:
    """Bought and delivered. `facts` are told where an order was read by its number (`order_status`)."""

    profile: EsimProfile
    provider_order_id: str
    cost: Cost | None = None
    facts: OrderFacts = field(default=OrderFacts(), compare=False)


@dataclass(frozen=True, slots=True)
class Pending:
    """Accepted and paid for at the provider; the eSIM comes later (`order_status` or a webhook)."""

    provider_order_id: str
    poll_after_seconds: float = 2.0
    cost: Cost | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """Proven not bought: never sent, or clearly refused. The next offer may be tried."""

    error_type: ErrorType
    message: str
    retry_after_seconds: float | None = None

    @property
    def retryable(self) -> bool:
        """Whether trying this offer again later can help."""
        return self.error_type in RETRYABLE


@dataclass(frozen=True, slots=True)
class Unknown:
    """Sent without a clear answer: stop, and look it up until it is found or proven absent."""

    error_type: ErrorType
    message: str


Outcome = Provisioned | Pending | Rejected | Unknown


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The provider took it back; `refunded` tells whether the cost returned to the balance."""

    refunded: bool


@dataclass(frozen=True, slots=True)
class CancelRefused:
    """The provider will not (or cannot) take it back."""

    message: str


@dataclass(frozen=True, slots=True)
class CancelUnknown:
    """No clear answer to the cancellation; ask for the order's status."""

    message: str


CancelOutcome = Cancelled | CancelRefused | CancelUnknown


@dataclass(frozen=True, slots=True)
class UsageReading:
    """Data used and allowed in bytes at a time; None where the plan is unlimited or the provider does not tell."""

    used_bytes: int | None
    total_bytes: int | None
    measured_at: datetime | None
    expires_at: datetime | None
    status: str


class SaleState(StrEnum):
    """What a provider's statement says of one purchase."""

    SOLD = "sold"  # charged, with an eSIM
    OPEN = "open"  # accepted, not delivered yet
    GIVEN_BACK = "given_back"  # cancelled, revoked or refunded after the sale
    FAILED = "failed"  # never charged


@dataclass(frozen=True, slots=True)
class ProviderPurchase:
    """One line of a provider's statement: an order it says it took from us.

    `reference` is ours where the contract carries it; `cost` is for all its units, None where the list tells none;
    a list that names no package id may tell its name.
    """

    provider_order_id: str
    bought_at: datetime
    state: SaleState
    reference: str = ""
    package_id: str = ""
    package_name: str = ""
    quantity: int = 1
    cost: Cost | None = None
    iccids: tuple[str, ...] = field(default=(), repr=False)


class EventKind(StrEnum):
    """What a provider's webhook tells."""

    ORDER_READY = "order_ready"
    ORDER_FAILED = "order_failed"
    ESIM_STATUS = "esim_status"
    USAGE = "usage"
    EXPIRY = "expiry"
    BALANCE_LOW = "balance_low"
    HEALTH_CHECK = "health_check"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class ProviderEvent:
    """One webhook event, a hint to read again: `event_id` de-duplicates, the ids say what to look at."""

    event_id: str
    kind: EventKind
    reference: str = ""
    provider_order_id: str = ""
    iccid: str = field(default="", repr=False)
    message: str = ""
