"""In-memory implementations of the ports, typed and shipped: for tests, the demo and trying things out.

They keep what they were given in plain lists that can be looked at, and do what they are told to do next. What a fake
was not told to do, it does well: a purchase delivers, a mail is taken, a payment page opens.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

from esim.catalogue import CataloguePage, OfferKind, ProviderOffer
from esim.disputes import DisputeMovement
from esim.errors import NoticeError, PaymentRejected, ProviderError, ProviderRejected, WebhookRejected
from esim.money import Cost, Money
from esim.ports import (
    Capabilities,
    Charge,
    CheckoutRequest,
    CheckoutSession,
    ListedRefund,
    Mail,
    PaymentEvent,
    RateLimit,
    Refund,
)
from esim.purchase import (
    Cancelled,
    CancelOutcome,
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
    UsageReading,
)

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class FakeProvider:
    """A provider in memory whose next outcomes can be written down beforehand.

    `script` holds what the next purchases end in; an empty script delivers. `sold` counts what cost money: a scripted
    `Unknown` sells only when `sells_unknown` is set, and `resolve` then finds it.
    """

    def __init__(
        self,
        slug: str = "fake",
        offers: Sequence[ProviderOffer] = (),
        *,
        capabilities: Capabilities | None = None,
    ) -> None:
        self.slug = slug
        self.capabilities = capabilities or Capabilities(reference_lookup=True, cancel=True)
        self.offers = list(offers)
        self.prepared: deque[Prepared | Rejected] = deque()
        self.script: deque[Outcome] = deque()
        self.resolutions: deque[Outcome] = deque()
        self.statuses: deque[Outcome] = deque()
        self.cancellations: deque[CancelOutcome] = deque()
        self.requests: list[PurchaseRequest] = []
        self.cancelled: list[EsimRef] = []
        self.sold: dict[str, EsimProfile] = {}
        self.sells_unknown = False
        self.statement: list[ProviderPurchase] = []
        self.down: ProviderError | None = None
        self.wallet = Cost.parse("1000", "USD")
        self._numbers = count(1)

    def will(self, *outcomes: Outcome) -> None:
        """Write down what the next purchases end in."""
        self.script.extend(outcomes)

    def catalogue(self) -> Iterator[CataloguePage]:
        """Stream the offers as one page."""
        self._up()
        yield CataloguePage(tuple(self.offers), pages=1)

    def current_cost(self, provider_package_id: str, hints: Mapping[str, str]) -> Cost:
        """Return the cost of an offer."""
        self._up()
        for offer in self.offers:
            if offer.provider_package_id == provider_package_id:
                return offer.cost
        raise ProviderRejected(f"{self.slug}: no plan {provider_package_id}")

    def prepare(self, request: PurchaseRequest) -> Prepared | Rejected:
        """Return what was written down, else `Prepared`."""
        if self.prepared:
            return self.prepared.popleft()
        if self.down is not None:
            return Rejected(ErrorType.NETWORK_ERROR, f"{self.slug} is down; nothing was sent")
        return Prepared({"prepared_for": request.reference})

    def purchase(self, request: PurchaseRequest, evidence: Evidence) -> Outcome:
        """End as written down, else deliver; remembers what was sold under our reference."""
        self.requests.append(request)
        outcome = self.script.popleft() if self.script else self._deliver(request)
        if isinstance(outcome, Provisioned):
            self.sold[request.reference] = outcome.profile
        elif isinstance(outcome, Pending) or (self.sells_unknown and not isinstance(outcome, Rejected)):
            self.sold[request.reference] = self._profile(request)
        return outcome

    def resolve(self, request: PurchaseRequest, evidence: Evidence, now: datetime) -> Outcome:
        """Return what was written down, else what became of our reference."""
        if self.resolutions:
            return self.resolutions.popleft()
        return self._found(request) or Rejected(ErrorType.NOT_BOUGHT, f"{self.slug}: not bought")

    def order_status(self, provider_order_id: str, request: PurchaseRequest) -> Outcome:
        """Return what was written down, else the delivery, else still `Pending`."""
        if self.statuses:
            return self.statuses.popleft()
        return self._found(request) or Pending(provider_order_id)

    def cancel(self, esim: EsimRef) -> CancelOutcome:
        """Return what was written down, else take the eSIM back."""
        self.cancelled.append(esim)
        return self.cancellations.popleft() if self.cancellations else Cancelled(refunded=True)

    def esim_details(self, esim: EsimRef) -> EsimProfile:
        """Return the profile of an eSIM that was sold."""
        self._up()
        for profile in self.sold.values():
            if profile.iccid == esim.iccid:
                return profile
        raise ProviderRejected(f"{self.slug}: no such eSIM")

    def usage(self, esim: EsimRef) -> UsageReading:
        """Return an untouched gigabyte."""
        self._up()
        return UsageReading(0, 10**9, measured_at=EPOCH, expires_at=None, status="active")

    def top_ups(self, esim: EsimRef) -> Sequence[ProviderOffer]:
        """Return the top-ups among the offers."""
        self._up()
        return [offer for offer in self.offers if offer.kind is OfferKind.TOP_UP]

    def balance(self) -> Cost:
        """Return the wallet."""
        self._up()
        return self.wallet

    def purchases_since(self, since: datetime) -> Iterator[ProviderPurchase]:
        """Yield what was written down in `statement`."""
        self._up()
        yield from (line for line in self.statement if line.bought_at >= since)

    def verify_webhook(self, headers: Mapping[str, str], body: bytes) -> None:
        """Accept what carries `x-fake-signature: good`.

        Raises:
            WebhookRejected: it does not.
        """
        if headers.get("x-fake-signature") != "good":
            raise WebhookRejected(f"{self.slug}: the signature is missing or wrong")

    def parse_webhook(self, body: bytes) -> Sequence[ProviderEvent]:
        """Return no event: a fake calls nobody back."""
        return ()

    def close(self) -> None:
        """Give nothing back: there are no connections."""

    def _up(self) -> None:
        if self.down is not None:
            raise self.down

    def _deliver(self, request: PurchaseRequest) -> Provisioned:
        return Provisioned(self._profile(request), f"{self.slug}-{request.reference}", request.expected_cost)

    def _profile(self, request: PurchaseRequest) -> EsimProfile:
        if request.top_up_of is not None:
            return EsimProfile(request.top_up_of.iccid, "rsp.fake.test", "TOP-UP")
        number = next(self._numbers)
        return EsimProfile(f"89880000{number:011d}", "rsp.fake.test", f"FAKE-{number}", f"{self.slug}-esim-{number}")

    def _found(self, request: PurchaseRequest) -> Provisioned | None:
        profile = self.sold.get(request.reference)
        return Provisioned(profile, f"{self.slug}-{request.reference}", request.expected_cost) if profile else None


class FakeMailer:
    """A mailer that keeps mails by key; the same key is delivered once. `failing` makes it refuse."""

    def __init__(self) -> None:
        self.sent: dict[str, Mail] = {}
        self.failing = False

    def send(self, mail: Mail, *, key: str) -> str:
        """Keep one mail.

        Raises:
            NoticeError: it was told to fail.
        """
        if self.failing:
            raise NoticeError("the mail was not handed over")
        self.sent.setdefault(key, mail)
        return f"mail-{list(self.sent).index(key) + 1}"

    def to(self, address: str) -> list[Mail]:
        """Return the mails to one address, oldest first."""
        return [mail for mail in self.sent.values() if mail.to == address]


class FakeNotifier:
    """A chat channel that keeps notes by key. `failing` makes it refuse."""

    def __init__(self) -> None:
        self.posted: dict[str, str] = {}
        self.failing = False

    def post(self, text: str, *, key: str) -> None:
        """Keep one note.

        Raises:
            NoticeError: it was told to fail.
        """
        if self.failing:
            raise NoticeError("the note was not handed over")
        self.posted.setdefault(key, text)


class FakePaymentGateway:
    """A payment service in memory: sessions by order, refunds by key, events as they are told."""

    def __init__(self, clock: Callable[[], datetime] = lambda: EPOCH) -> None:
        self.sessions: dict[str, CheckoutSession] = {}
        self.refunds: dict[str, Refund] = {}
        self.events: list[PaymentEvent] = []
        self.fees: dict[str, Money] = {}
        self.dispute_movements: list[DisputeMovement] = []
        self._clock = clock

    def create_checkout(self, request: CheckoutRequest) -> CheckoutSession:
        """Open a payment page; the same order gets the same one."""
        for session in self.sessions.values():
            if session.order_id == request.order_id:
                return session
        amount = Money(0, request.lines[0].unit.currency)
        for line in request.lines:
            amount = amount + line.unit * line.quantity
        session_id = f"cs_fake_{len(self.sessions) + 1}"
        session = CheckoutSession(
            session_id=session_id,
            url=f"https://pay.test/{session_id}",
            status="open",
            payment_status="unpaid",
            payment_intent=None,
            amount=amount,
            order_id=request.order_id,
            created_at=self._clock(),
            expires_at=request.expires_at,
        )
        self.sessions[session_id] = session
        return session

    def pay(self, session_id: str) -> PaymentEvent:
        """Pay a page, as a customer would, and return the event that tells of it."""
        intent = f"pi_{session_id}"
        paid = replace(self.session(session_id), status="complete", payment_status="paid", payment_intent=intent)
        self.sessions[session_id] = paid
        event = PaymentEvent(
            event_id=f"evt_{len(self.events) + 1}",
            type="checkout.session.completed",
            created_at=self._clock(),
            order_id=paid.order_id,
            session_id=session_id,
            payment_intent=intent,
            amount=paid.amount,
            payment_status="paid",
        )
        self.events.append(event)
        return event

    def verify_webhook(self, body: bytes, signature: str | None, now: datetime) -> PaymentEvent:
        """Return the event whose id the body is, when the signature is `good`.

        Raises:
            WebhookRejected: it is not, or there is no such event.
        """
        found = [event for event in self.events if event.event_id.encode() == body]
        if signature != "good" or not found or now - found[0].created_at > timedelta(seconds=300):
            raise WebhookRejected("the payment event is not authentic")
        return found[0]

    def session(self, session_id: str) -> CheckoutSession:
        """Return one page.

        Raises:
            PaymentRejected: there is none.
        """
        try:
            return self.sessions[session_id]
        except KeyError:
            raise PaymentRejected(f"there is no session {session_id}") from None

    def sessions_since(self, since: datetime) -> Iterator[CheckoutSession]:
        """Return pages opened at or after `since`, newest first."""
        return iter([session for session in reversed(self.sessions.values()) if session.created_at >= since])

    def events_since(self, since: datetime, types: Sequence[str]) -> Iterator[PaymentEvent]:
        """Return events of some types at or after `since`."""
        return iter([event for event in self.events if event.created_at >= since and event.type in types])

    def charges_since(self, since: datetime) -> Iterator[Charge]:
        """Return a charge for every paid page opened at or after `since`."""
        for session in self.sessions_since(since):
            if session.payment_intent is not None:
                charge_id = f"ch_{session.payment_intent}"
                yield Charge(charge_id, session.payment_intent, session.amount, session.order_id, session.created_at)

    def refunds_since(self, since: datetime) -> Iterator[ListedRefund]:
        """Return every refund, as of now."""
        now = self._clock()
        return iter([ListedRefund(refund, now) for refund in self.refunds.values() if now >= since])

    def dispute_movements_since(self, since: datetime) -> Iterator[DisputeMovement]:
        """Return what disputes moved at or after `since`."""
        return iter([moved for moved in self.dispute_movements if moved.made_at >= since])

    def expire(self, session_id: str) -> None:
        """Close a page that is still open."""
        session = self.session(session_id)
        if session.status == "open":
            self.sessions[session_id] = replace(session, status="expired", url=None)

    def fee(self, payment_intent: str) -> Money | None:
        """Return what was said to be kept of a payment."""
        return self.fees.get(payment_intent)

    def refund_made(self, payment_intent: str, key: str) -> Refund | None:
        """Return the refund made under a key."""
        return self.refunds.get(key)

    def refunds_of(self, payment_intent: str) -> Sequence[Refund]:
        """Return every refund of a payment."""
        return [refund for refund in self.refunds.values() if refund.payment_intent == payment_intent]

    def refund(self, payment_intent: str, amount: Money, *, key: str, reason: str, faults: int = 0) -> Refund:
        """Pay back, once per key."""
        refund = Refund(f"re_fake_{len(self.refunds) + 1}", amount, "succeeded", payment_intent, key)
        return self.refunds.setdefault(key, refund)


class MemoryTokenStore:
    """Access tokens in a dictionary: a `TokenStore` for one process."""

    def __init__(self) -> None:
        self._tokens: dict[str, tuple[str, datetime]] = {}

    def get(self, provider: str, now: datetime) -> str | None:
        """Return a token that is still good, if there is one."""
        token, expires_at = self._tokens.get(provider, ("", now))
        return token if expires_at > now else None

    def put(self, provider: str, token: str, expires_at: datetime) -> None:
        """Keep a fresh token."""
        self._tokens[provider] = (token, expires_at)

    def discard(self, provider: str, token: str) -> None:
        """Forget this token, unless it was replaced already."""
        if self._tokens.get(provider, ("",))[0] == token:
            del self._tokens[provider]


class MemoryLimiter:
    """A limiter that gives as many slots as it was told to, and remembers who asked."""

    def __init__(self, slots: int | None = None) -> None:
        self.asked: list[str] = []
        self._left = slots

    def acquire(self, key: str, limit: RateLimit, *, patience_seconds: float) -> bool:
        """Give a slot while there are any."""
        self.asked.append(key)
        if self._left is None:
            return True
        self._left -= 1
        return self._left >= 0
