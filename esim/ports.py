"""The seams: what the business asks of the outside world; adapters live in `resources`, fakes in `esim.fakes`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from esim.catalogue import CataloguePage, ProviderOffer
from esim.disputes import DisputeMovement
from esim.money import Cost, Money
from esim.purchase import (
    CancelOutcome,
    EsimProfile,
    EsimRef,
    Evidence,
    Outcome,
    Prepared,
    ProviderEvent,
    ProviderPurchase,
    PurchaseRequest,
    Rejected,
    UsageReading,
)

Clock = Callable[[], datetime]


class Serialise(StrEnum):
    """How many purchases may be open at a provider at once, so that a lost answer can be told from another's order."""

    NONE = "none"
    PACKAGE = "package"  # one open purchase per provider and plan
    ACCOUNT = "account"  # one open purchase per provider


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A published limit: `calls` per `per_seconds` for calls named `name`; `*` counts every call."""

    name: str
    calls: int
    per_seconds: float


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider can do, declared by its adapter from the contract; code asks this, never the provider's name.

    `settle_seconds` is how long after sending an order may still turn up in look-ups: only then is it proven absent.
    `resolves_for_certain` is False where a lost answer may end in a person's hands. `lists_purchases` says that
    `purchases_since` has a statement to read; elsewhere only the balance can be compared.
    """

    idempotent_reference: bool = False
    reference_lookup: bool = False
    price_guard: bool = False
    reserve_complete: bool = False
    cancel: bool = False
    usage: bool = True
    top_up: bool = True
    async_orders: bool = False
    signed_webhooks: bool = False
    resolves_for_certain: bool = True
    lists_purchases: bool = False
    max_quantity: int = 1
    settle_seconds: float = 60.0
    serialise: Serialise = Serialise.NONE
    rate_limits: tuple[RateLimit, ...] = ()


class Provider(Protocol):
    """One eSIM provider. Reads raise `esim.errors.ProviderError`; purchases return outcomes and never raise."""

    @property
    def slug(self) -> str:
        """The provider's name in every table and setting."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What this provider can do."""
        ...

    def catalogue(self) -> Iterator[CataloguePage]:
        """Stream the whole catalogue page by page.

        Raises:
            ProviderError: a page failed, is malformed, or the pages never end; the catalogue is then incomplete.
        """
        ...

    def current_cost(self, provider_package_id: str, hints: Mapping[str, str]) -> Cost:
        """Read what one unit costs right now.

        Raises:
            ProviderError: not to be read; `ProviderRejected` when the plan is gone.
        """
        ...

    def prepare(self, request: PurchaseRequest) -> Prepared | Rejected:
        """Do what must precede a purchase and buys nothing: dry run, price read against the ceiling, reservation."""
        ...

    def purchase(self, request: PurchaseRequest, evidence: Evidence) -> Outcome:
        """Buy one unit (or top-up). Called at most once per attempt, after `evidence` is committed."""
        ...

    def resolve(self, request: PurchaseRequest, evidence: Evidence, now: datetime) -> Outcome:
        """Find out what became of a purchase whose answer was lost, by our reference or the contract's own way.

        `Unknown` means: not known yet, ask again; `Rejected(NOT_BOUGHT)` is given only after the settle time. Where
        purchases are serialised, `OTHER_ORDERS` in `evidence` are other purchases': none of them is this one.
        """
        ...

    def order_status(self, provider_order_id: str, request: PurchaseRequest) -> Outcome:
        """Read an accepted order: `Provisioned`, still `Pending`, `Rejected` when it failed unpaid, else `Unknown`."""
        ...

    def cancel(self, esim: EsimRef) -> CancelOutcome:
        """Give an unused eSIM or reservation back where the contract allows it."""
        ...

    def esim_details(self, esim: EsimRef) -> EsimProfile:
        """Read the activation data again."""
        ...

    def usage(self, esim: EsimRef) -> UsageReading:
        """Read how much data is used."""
        ...

    def top_ups(self, esim: EsimRef) -> Sequence[ProviderOffer]:
        """List the top-ups that fit this eSIM."""
        ...

    def balance(self) -> Cost:
        """Read our balance at the provider."""
        ...

    def purchases_since(self, since: datetime) -> Iterator[ProviderPurchase]:
        """List every purchase the provider says we made at or after `since`, each once, in any order.

        Raises:
            ProviderError: not to be read whole: what was yielded until then is no statement.
            UnsupportedCapability: the contract has no such list (`Capabilities.lists_purchases`).
        """
        ...

    def verify_webhook(self, headers: Mapping[str, str], body: bytes) -> None:
        """Check that a webhook is the provider's; `headers` have lower-case names.

        Raises:
            WebhookRejected: unsigned, wrongly signed or stale, where the contract has signatures.
        """
        ...

    def parse_webhook(self, body: bytes) -> Sequence[ProviderEvent]:
        """Read a verified webhook body.

        Raises:
            WebhookRejected: it is not what the contract says.
        """
        ...

    def close(self) -> None:
        """Give connections back."""
        ...


class Limiter(Protocol):
    """A rate limiter shared by every process."""

    def acquire(self, key: str, limit: RateLimit, *, patience_seconds: float) -> bool:
        """Wait for a slot for at most `patience_seconds`; return whether one was given."""
        ...


class TokenStore(Protocol):
    """Access tokens shared by every process, so that token endpoints with tight limits are rarely called."""

    def get(self, provider: str, now: datetime) -> str | None:
        """Return a token that is still good, if there is one."""
        ...

    def put(self, provider: str, token: str, expires_at: datetime) -> None:
        """Keep a fresh token."""
        ...

    def discard(self, provider: str, token: str) -> None:
        """Forget this token (it was refused), unless another process replaced it already."""
        ...


@dataclass(frozen=True, slots=True)
class CheckoutLine:
    """One line of the payment page."""

    name: str
    unit: Money
    quantity: int
    description: str = ""


@dataclass(frozen=True, slots=True)
class CheckoutRequest:
    """A payment page to open; `order_id` is client reference and metadata, and with `attempt` the idempotency key."""

    order_id: str
    display_id: str
    lines: tuple[CheckoutLine, ...]
    email: str = field(repr=False)
    success_url: str
    cancel_url: str
    expires_at: datetime
    attempt: int = 1  # counted up only after an answer that it failed


@dataclass(frozen=True, slots=True)
class CheckoutSession:
    """A payment page as the payment service keeps it."""

    session_id: str
    url: str | None
    status: str  # open, complete, expired
    payment_status: str  # unpaid, paid, no_payment_required
    payment_intent: str | None
    amount: Money
    order_id: str
    created_at: datetime
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PaymentEvent:
    """A verified payment event. `order_id` is empty where the event does not carry it; `raw` is the decoded object."""

    event_id: str
    type: str
    created_at: datetime
    order_id: str
    session_id: str
    payment_intent: str
    amount: Money | None
    payment_status: str
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Refund:
    """A refund at the payment service."""

    refund_id: str
    amount: Money
    status: str  # pending, succeeded, failed, requires_action, canceled
    payment_intent: str
    key: str = ""  # ours, under which it was asked for; empty for one made by hand


@dataclass(frozen=True, slots=True)
class Charge:
    """Money the payment service took for us. `order_id` is empty where it was not taken for an order."""

    charge_id: str
    payment_intent: str
    amount: Money
    order_id: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ListedRefund:
    """A refund as a list of the payment service shows it, with its time."""

    refund: Refund
    created_at: datetime


class PaymentGateway(Protocol):
    """The payment service. Raises `PaymentUnavailable` or `PaymentRejected`."""

    def create_checkout(self, request: CheckoutRequest) -> CheckoutSession:
        """Open a payment page; the same order id and attempt return the same session.

        Raises:
            PaymentServiceFault: it answered with a fault of its own; nobody has seen a page of this attempt.
        """
        ...

    def verify_webhook(self, body: bytes, signature: str | None, now: datetime) -> PaymentEvent:
        """Authenticate raw bytes (tolerance 300 s) and read the event.

        Raises:
            WebhookRejected: no, wrong or stale signature, or not an event.
        """
        ...

    def session(self, session_id: str) -> CheckoutSession:
        """Read one session."""
        ...

    def sessions_since(self, since: datetime) -> Iterator[CheckoutSession]:
        """List sessions created at or after `since`, newest first."""
        ...

    def events_since(self, since: datetime, types: Sequence[str]) -> Iterator[PaymentEvent]:
        """List events created at or after `since`."""
        ...

    def charges_since(self, since: datetime) -> Iterator[Charge]:
        """List the payments taken at or after `since`, newest first; attempts that failed are left out."""
        ...

    def refunds_since(self, since: datetime) -> Iterator[ListedRefund]:
        """List refunds made at or after `since`, newest first, whoever made them."""
        ...

    def dispute_movements_since(self, since: datetime) -> Iterator[DisputeMovement]:
        """List what disputes moved at or after `since`, newest first."""
        ...

    def expire(self, session_id: str) -> None:
        """Close a payment page that is still open."""
        ...

    def fee(self, payment_intent: str) -> Money | None:
        """Return what the payment service kept of a payment, once it is known."""
        ...

    def refund_made(self, payment_intent: str, key: str) -> Refund | None:
        """Return the refund of a payment that was made under a key, however long ago; None when there is none."""
        ...

    def refunds_of(self, payment_intent: str) -> Sequence[Refund]:
        """Return every refund of a payment as it stands now, whoever made it."""
        ...

    def refund(self, payment_intent: str, amount: Money, *, key: str, reason: str, faults: int = 0) -> Refund:
        """Pay back; the same `key` never pays back twice, unless asked after another count of `faults`."""
        ...


@dataclass(frozen=True, slots=True)
class InlineImage:
    """A picture inside a mail, referred to as `cid:<content_id>`."""

    content_id: str
    filename: str
    content: bytes = field(repr=False)
    content_type: str = "image/png"


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail ready to go."""

    to: str = field(repr=False)
    subject: str
    html: str = field(repr=False)
    text: str = field(repr=False)
    images: tuple[InlineImage, ...] = ()


class Mailer(Protocol):
    """Hands mails over."""

    def send(self, mail: Mail, *, key: str) -> str:
        """Hand one mail over and return the carrier's id; the same `key` is delivered once where the carrier can.

        Raises:
            NoticeError: not handed over; try again later.
        """
        ...


class ChatNotifier(Protocol):
    """Posts short notes for operations; never personal data."""

    def post(self, text: str, *, key: str) -> None:
        """Post one note.

        Raises:
            NoticeError: not handed over; try again later.
        """
        ...
