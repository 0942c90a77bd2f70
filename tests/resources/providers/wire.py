"""The provider's side of the wire in contract tests: a `Wire` answers as one provider does, a `Stage` disturbs it.

Adapter -> httpx -> `Stage` (counts, disturbs) -> `Wire.answer` (a small provider that remembers what it sold).
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

import httpx

from esim.fakes import MemoryTokenStore
from esim.ports import Limiter, Provider, TokenStore
from esim.purchase import ErrorType, EsimRef, EventKind, PurchaseRequest, SaleState
from resources.providers.base import Unlimited
from resources.settings import Endpoint

NOW = datetime(2026, 11, 20, 9, 15, tzinfo=UTC)
BASE_URL = "https://provider.test/api"

Answer = Callable[[httpx.Request], httpx.Response]
Matcher = Callable[[httpx.Request], bool]
HTML = b"<!doctype html><html><body><h1>We will be right back</h1></body></html>"


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def reply(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """Return a JSON answer (Decimals as numbers), or one with these very bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body, default=_number).encode()
    kind = "text/html" if content.startswith(b"<") else "application/json"
    return httpx.Response(status, content=content, headers={"Content-Type": kind, **(headers or {})})


def says(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an answerer that always gives this answer."""
    return lambda _request: reply(body, status, headers)


def fails(error: type[httpx.TransportError]) -> Answer:
    """Return an answerer that gives no answer but the error httpx would report."""

    def act(request: httpx.Request) -> httpx.Response:
        raise error("as if on the line", request=request)

    return act


def anything(_request: httpx.Request) -> bool:
    """Match every request."""
    return True


def _number(value: object) -> object:
    if isinstance(value, Decimal):
        return int(value) if value == int(value) else float(value)
    raise TypeError(type(value).__name__)


@dataclass(frozen=True)
class Refusal:
    """An answer that proves nothing was bought, and what the adapter must make of it.

    It is given to the request that spends, and before that to those that `on` matches (a dry run, say).
    """

    answer: Answer
    error_type: ErrorType
    on: Matcher | None = None


@dataclass(frozen=True)
class Hook:
    """One genuine webhook as it arrives: headers with lower-case names, raw body, and the kind it must be read as."""

    headers: Mapping[str, str]
    body: bytes
    kind: EventKind


@dataclass(frozen=True)
class Sale:
    """One order of ours in the provider's statement."""

    number: int
    at: datetime
    state: SaleState = SaleState.SOLD

    @property
    def iccid(self) -> str:
        """The eSIM it brought."""
        return f"89000000000000{self.number:05d}"


class Wire(ABC):
    """One provider as the contract describes it, small but with a memory; one instance per test.

    What differs between the five is said here; the cases themselves are in `provider_contract`.
    """

    slug: ClassVar[str]
    factory: ClassVar[Callable[..., Provider]]
    credentials: ClassVar[Mapping[str, str]]
    secrets: ClassVar[tuple[str, ...]]  # credentials, tokens, ICCIDs, matching ids: never in a repr or a log line
    request: PurchaseRequest  # for a plan that `answer` sells
    top_up_request: PurchaseRequest | None = None
    esim: EsimRef  # an eSIM that `answer` knows
    usage: ClassVar[tuple[int | None, int | None]]  # used and total bytes of that eSIM
    cancel_outcome: ClassVar[type]  # what `cancel(esim)` must return
    told_states: ClassVar[frozenset[SaleState]] = frozenset()  # ends that the statement tells, beside sold
    absent_outcome: ClassVar[ErrorType | None] = ErrorType.NOT_BOUGHT  # None: stays Unknown after the settle time

    def __init__(self) -> None:
        self.clock = Clock()
        self.sold: list[str] = []  # one entry per unit that cost money

    @abstractmethod
    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer any request the adapter may send, as the provider would on a good day."""

    @abstractmethod
    def spends(self, request: httpx.Request) -> bool:
        """Whether this very request makes the provider charge us for a new eSIM."""

    @abstractmethod
    def is_catalogue(self, request: httpx.Request) -> bool:
        """Whether this request reads a page of the catalogue."""

    @abstractmethod
    def plans(self, page: Any) -> list[dict[str, Any]]:
        """Return the plans inside a decoded catalogue page, the very objects, to be changed in place."""

    @abstractmethod
    def spoilt(self) -> Mapping[str, Callable[[dict[str, Any]], None]]:
        """Return what makes one plan unsellable; at least negative_price, zero_price, huge_name, no_size, no_id."""

    def endless(self, request: httpx.Request, serial: int) -> httpx.Response | None:
        """Return page `serial` of a catalogue that never ends, or None where the catalogue has no pages."""
        return None

    def throttled(self) -> httpx.Response:
        """Answer as the provider does when there were too many calls."""
        return reply({"message": "Too Many Attempts."}, 429, {"Retry-After": "3"})

    def unauthorised(self) -> httpx.Response:
        """Answer as the provider does to credentials it does not know."""
        return reply({"message": "Unauthorized"}, 401)

    def refusals(self) -> Mapping[str, Refusal]:
        """Return the clear refusals of a purchase by name."""
        return {}

    def unclear(self) -> Mapping[str, Answer]:
        """Return this provider's own answers to a purchase that prove nothing either way."""
        return {}

    def accepted(self) -> Mapping[str, Answer]:
        """Return answers to a purchase that mean: paid for, comes later."""
        return {}

    def delivered(self) -> Mapping[str, Answer]:
        """Return answers to a purchase in odd but valid types that must count as delivered."""
        return {}

    def status_answers(self) -> Mapping[str, tuple[Answer, type]]:
        """Return answers to `order_status("an order", request)` by name, with the outcome class each must give."""
        return {}

    def hooks(self) -> tuple[Hook, ...]:
        """Return genuine webhooks."""
        return ()

    def statement(self, request: httpx.Request, sales: Sequence[Sale]) -> httpx.Response:
        """Answer a request for our purchases as the provider does that made these sales, two a page, newest first."""
        raise AssertionError(f"{self.slug} has no statement")

    def is_statement(self, request: httpx.Request) -> bool:
        """Whether this request reads a page of our purchases."""
        return False

    def unreadable_sales(self) -> Sequence[Callable[[dict[str, Any]], None]]:
        """Return what makes a statement unreadable, done to a decoded page."""
        return ()

    def other_sales(self) -> None:
        """Let somebody else's orders appear in whatever list a look-up reads."""
        return

    def build(
        self,
        transport: httpx.BaseTransport | None,
        *,
        limiter: Limiter | None = None,
        tokens: TokenStore | None = None,
        url: str = BASE_URL,
        timeout_seconds: float = 30.0,
    ) -> Provider:
        """Return the adapter, talking to `transport` (or really to `url` when there is none)."""
        return self.factory(
            Endpoint(url, live=False, credentials=dict(self.credentials)),
            limiter=limiter or Unlimited(),
            tokens=tokens or MemoryTokenStore(),
            clock=self.clock,
            timeout_seconds=timeout_seconds,
            transport=transport,
        )


class Stage(httpx.BaseTransport):
    """Carries requests to a wire, counts them, and acts up where a test says so."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._rules: list[_Rule] = []
        self.requests: list[httpx.Request] = []

    def when(self, matches: Matcher, act: Answer, *, times: int | None = None) -> None:
        """Answer matching requests by `act` (which may raise), `times` at most."""
        self._rules.append(_Rule(matches, act, times))

    def forget(self) -> None:
        """Answer as the wire does again."""
        self._rules.clear()

    def lose_answer(self, matches: Matcher, error: type[httpx.TransportError] = httpx.ReadTimeout) -> None:
        """Let the first matching request reach the provider, but not its answer come back."""

        def act(request: httpx.Request) -> httpx.Response:
            self._wire.answer(request)
            raise error("as if on the line", request=request)

        self.when(matches, act, times=1)

    def sent(self, matches: Matcher = anything) -> int:
        """Return how many matching requests the adapter sent."""
        return sum(matches(request) for request in self.requests)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        for rule in self._rules:
            if rule.matches(request) and rule.take():
                return rule.act(request)
        return self._wire.answer(request)


@dataclass
class _Rule:
    matches: Matcher
    act: Answer
    left: int | None

    def take(self) -> bool:
        if self.left is None:
            return True
        self.left -= 1
        return self.left >= 0
