"""Stand-ins at the edges for order tests: providers that sell, doubt or refuse as told, and carriers that remember."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from threading import Event, Lock
from time import monotonic

from sqlalchemy import Engine

from esim.catalogue import CataloguePage, ProviderOffer
from esim.errors import NoticeError, PaymentError, ProviderError
from esim.money import Cost, Money
from esim.ports import Capabilities, Mail, Refund
from esim.purchase import (
    CancelOutcome,
    CancelRefused,
    ErrorType,
    EsimProfile,
    EsimRef,
    Evidence,
    Outcome,
    Pending,
    Prepared,
    ProviderEvent,
    ProviderPurchase,
    Provisioned,
    PurchaseRequest,
    Rejected,
    Unknown,
    UsageReading,
)
from resources.db import drains
from resources.order_operations import utc_now

Step = Callable[["ScriptedProvider", PurchaseRequest], Outcome]


class ScriptedProvider:
    """A provider that does what its script says, one step a purchase, and sells when the script is over.

    `sold` is the provider's side of the truth: every eSIM really sold, by our reference.
    """

    def __init__(self, slug: str, *script: Step, capabilities: Capabilities | None = None) -> None:
        self.slug = slug
        self.capabilities = capabilities or Capabilities(reference_lookup=True, settle_seconds=0.0)
        self.script = deque(script)
        self.sold: dict[str, list[EsimProfile]] = {}
        self.asked: list[str] = []
        self.looked_up: list[str] = []
        self.refuse_to_prepare: Rejected | Exception | None = None
        self.while_preparing: Callable[[], object] = lambda: None
        self.on_resolve: Step | None = None
        self.on_status: Step | None = None
        self.statement: list[ProviderPurchase] = []  # what it says it sold to us
        self.wallet: Cost | Exception = Cost.parse("1000", "USD")
        self.wallet_reads = 0
        self.down: ProviderError | None = None
        self.takes_back: CancelOutcome = CancelRefused("not here")
        self.asked_to_take_back: list[EsimRef] = []
        self._lock = Lock()

    @property
    def purchases(self) -> int:
        """How many eSIMs this provider sold."""
        return sum(len(esims) for esims in self.sold.values())

    def sell(self, request: PurchaseRequest) -> Provisioned:
        """Sell one eSIM and answer clearly."""
        with self._lock:
            serial = self.purchases + 1
            profile = EsimProfile(f"8900{self.slug}{serial:06d}", "smdp.example.com", f"CODE-{self.slug}-{serial}")
            self.sold.setdefault(request.reference, []).append(profile)
        return Provisioned(profile, f"{self.slug}-order-{serial}", request.expected_cost)

    def prepare(self, request: PurchaseRequest) -> Prepared | Rejected:
        self.while_preparing()
        if isinstance(self.refuse_to_prepare, Exception):
            raise self.refuse_to_prepare
        return self.refuse_to_prepare or Prepared({"prepared": True})

    def purchase(self, request: PurchaseRequest, evidence: Evidence) -> Outcome:
        with self._lock:
            self.asked.append(request.reference)
            step = self.script.popleft() if self.script else None
        return step(self, request) if step else self.sell(request)

    def resolve(self, request: PurchaseRequest, evidence: Evidence, now: datetime) -> Outcome:
        self.looked_up.append(request.reference)
        if self.on_resolve is not None:
            return self.on_resolve(self, request)
        if request.reference in self.sold:
            return self.found(request)
        return Rejected(ErrorType.NOT_BOUGHT, "in no order")

    def order_status(self, provider_order_id: str, request: PurchaseRequest) -> Outcome:
        self.looked_up.append(request.reference)
        if self.on_status is not None:
            return self.on_status(self, request)
        return self.found(request) if request.reference in self.sold else self.sell(request)

    def found(self, request: PurchaseRequest) -> Provisioned:
        """Answer with what was sold under this reference."""
        profile = self.sold[request.reference][0]
        serial = profile.activation_code.rpartition("-")[2]
        return Provisioned(profile, f"{self.slug}-order-{serial}", request.expected_cost)

    def catalogue(self) -> Iterator[CataloguePage]:
        return iter(())

    def current_cost(self, provider_package_id: str, hints: Mapping[str, str]) -> Cost:
        return Cost.parse("3", "USD")

    def cancel(self, esim: EsimRef) -> CancelOutcome:
        self.asked_to_take_back.append(esim)
        return self.takes_back

    def esim_details(self, esim: EsimRef) -> EsimProfile:
        return next(profile for sold in self.sold.values() for profile in sold if profile.iccid == esim.iccid)

    def usage(self, esim: EsimRef) -> UsageReading:
        return UsageReading(0, None, None, None, "new")

    def top_ups(self, esim: EsimRef) -> Sequence[ProviderOffer]:
        return ()

    def balance(self) -> Cost:
        self.wallet_reads += 1
        if self.down is not None:
            raise self.down
        if isinstance(self.wallet, Exception):
            raise self.wallet
        return self.wallet

    def purchases_since(self, since: datetime) -> Iterator[ProviderPurchase]:
        for line in self.statement:
            if line.bought_at >= since:
                yield line
        if self.down is not None:
            raise self.down

    def verify_webhook(self, headers: Mapping[str, str], body: bytes) -> None:
        return None

    def parse_webhook(self, body: bytes) -> Sequence[ProviderEvent]:
        return ()

    def close(self) -> None:
        return None


def sells(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
    """Sell and say so."""
    return provider.sell(request)


def sells_without_answer(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
    """Sell, and lose the answer."""
    provider.sell(request)
    return Unknown(ErrorType.PROVIDER_TIMEOUT, "read timed out; may have arrived")


def never_hears(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
    """Lose the request on the way; the caller cannot know."""
    return Unknown(ErrorType.PROVIDER_TIMEOUT, "read timed out; may have arrived")


def accepts(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
    """Accept the order for later."""
    return Pending(f"{provider.slug}-async-{request.reference}", poll_after_seconds=0.05)


def breaks_after_selling(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
    """Sell, then raise what an adapter must not raise."""
    provider.sell(request)
    raise RuntimeError("a defect in the adapter")


def rejects(error_type: ErrorType, retry_after: float | None = None) -> Step:
    """Refuse clearly."""

    def step(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
        return Rejected(error_type, f"{provider.slug} refuses", retry_after)

    return step


class RememberingMailer:
    """A mailer that keeps what it was given; fails as often as told first."""

    def __init__(self, failures: int = 0) -> None:
        self.sent: list[tuple[str, Mail]] = []
        self.failures = failures

    def send(self, mail: Mail, *, key: str) -> str:
        if self.failures:
            self.failures -= 1
            raise NoticeError("the carrier is away")
        self.sent.append((key, mail))
        return f"mail-{len(self.sent)}"


class RememberingNotifier:
    """A chat channel that keeps what it was given."""

    def __init__(self) -> None:
        self.posted: list[tuple[str, str]] = []

    def post(self, text: str, *, key: str) -> None:
        self.posted.append((key, text))


class RefundingGateway:
    """A payment service that pays back, once per key, after failing as told."""

    def __init__(self, *failures: PaymentError, status: str = "succeeded") -> None:
        self.failures = deque(failures)
        self.status = status
        self.paid: dict[str, Refund] = {}
        self.by_hand: list[Refund] = []
        self.away: PaymentError | None = None
        self.calls = 0
        self.known_fee: Money | None = None

    def fee(self, payment_intent: str) -> Money | None:
        return self.known_fee

    def refund_made(self, payment_intent: str, key: str) -> Refund | None:
        return self.paid.get(key)

    def refunds_of(self, payment_intent: str) -> list[Refund]:
        if self.away is not None:
            raise self.away
        return [
            made for made in reversed([*self.paid.values(), *self.by_hand]) if made.payment_intent == payment_intent
        ]

    def pays_by_hand(self, payment_intent: str, minor: int) -> Refund:
        """Make a refund as somebody does in the dashboard; no event tells of it."""
        made = Refund(f"re_hand_{len(self.by_hand) + 1}", Money(minor, "USD"), "succeeded", payment_intent)
        self.by_hand.append(made)
        return made

    def refund(self, payment_intent: str, amount: Money, *, key: str, reason: str, faults: int = 0) -> Refund:
        self.calls += 1
        if self.failures:
            raise self.failures.popleft()
        made = Refund(f"re_{len(self.paid) + 1}", amount, self.status, payment_intent, key)
        return self.paid.setdefault(key, made)


class HandClock:
    """A clock that is set by hand; without being set it runs from a fixed start."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **delta: float) -> None:
        """Move on."""
        self.now += timedelta(**delta)


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a condition, looking every 10 ms, for a bounded time."""
    until, pause = monotonic() + seconds, Event()
    while not condition():
        assert monotonic() < until, "the condition did not come true in time"
        pause.wait(0.01)


def drains_alive(engine: Engine) -> int:
    """How many drains are registered and have not ended."""
    with engine.connect() as conn:
        return drains.room(conn, utc_now()).drains
