"""The one way adapters talk HTTP: reads are retried, purchases are sent once and always end in an outcome.

request -> limiter (shared by every process) -> httpx -> `Reply`. `ProviderHttp.read` retries idempotent calls within a
`Patience` and raises `ProviderError`. `ProviderHttp.send_once` is for purchases: it never retries and, once
sent, never raises; what httpx reports decides whether the request can have arrived (`_NEVER_SENT` against the rest).
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any
from urllib.parse import quote

import httpx
import stamina

from esim.errors import (
    MalformedReply,
    ProviderAuthFailed,
    ProviderError,
    ProviderRejected,
    ProviderThrottled,
    ProviderUnavailable,
)
from esim.ports import Capabilities, Limiter, RateLimit
from esim.purchase import ErrorType, Rejected, Unknown
from resources.providers.payload import decode, said
from resources.tls import tls_context

MAX_REPLY_BYTES = 64 * 1024 * 1024
MAX_PURCHASE_BYTES = 1024 * 1024  # one order with its eSIM; QR pictures inside included
READ_WAIT_FIRST_SECONDS = 1.0
READ_WAIT_MOST_SECONDS = 10.0
PURCHASE_PATIENCE_SECONDS = 5.0
NO_SLOT_WAIT_SECONDS = 2.0
# Servers close idle connections, after 5 s at the earliest. A purchase that leaves on one in that very moment is lost
# without a clear answer, and its customer waits for the settle time: a fresh connection is cheaper.
KEEP_ALIVE_SECONDS = 4.0
SEND_WITHIN = timedelta(seconds=10)  # of being asked: what is cleared to be sent is not cleared for ever
MOST_CONNECTIONS = 256  # as many as a drain may have workers: none waits for another one's purchase


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a read may take: its tries, and seconds for each slot, each whole answer, each wait when throttled."""

    attempts: int
    slot_seconds: float
    answer_seconds: float
    throttle_seconds: float


READ = Patience(attempts=4, slot_seconds=120.0, answer_seconds=60.0, throttle_seconds=10.0)
CATALOGUE = Patience(attempts=4, slot_seconds=120.0, answer_seconds=300.0, throttle_seconds=60.0)
# A customer waits: the next offer is better than the full backoff.
PREPARE = Patience(attempts=2, slot_seconds=5.0, answer_seconds=30.0, throttle_seconds=2.0)
ONCE = Patience(attempts=1, slot_seconds=5.0, answer_seconds=30.0, throttle_seconds=0.0)

# httpx raises these before a byte of the request is on the wire; every other transport error may come after it.
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.ProxyError)

# httpx logs whole addresses, and some of them hold an ICCID.
logging.getLogger("httpx").addFilter(lambda record: record.levelno > logging.INFO)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: HTTP status, headers (lower-case names) and the raw body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Decode the body with exact decimals.

        Raises:
            MalformedReply: it is not JSON (HTML, half a document, empty).
        """
        try:
            return decode(self.body)
        except (ValueError, RecursionError) as error:
            raise MalformedReply(f"HTTP {self.status} with a body that is not JSON ({_glimpse(self.body)})") from error

    @property
    def retry_after(self) -> float | None:
        """The seconds the provider asks to wait, where it says so as a number."""
        value = self.headers.get("retry-after", "")
        return float(value) if value.isascii() and value.replace(".", "", 1).isdigit() else None


class ProviderHttp:
    """An HTTP client for one provider: base address, signing, limits, timeouts and retries of reads."""

    def __init__(
        self,
        slug: str,
        base_url: str,
        *,
        capabilities: Capabilities,
        limiter: Limiter,
        timeout_seconds: float,
        transport: httpx.BaseTransport | None = None,
        throttled: Callable[[Reply], bool] | None = None,
        timer: Callable[[], float] = monotonic,
    ) -> None:
        self.slug = slug
        self._timer = timer
        self._timeout_seconds = timeout_seconds
        self._limits = capabilities.rate_limits
        self._limiter = limiter
        self._throttled = throttled or (lambda reply: reply.status == httpx.codes.TOO_MANY_REQUESTS)
        self._client = httpx.Client(
            verify=tls_context(),
            base_url=base_url.rstrip("/") + "/",
            timeout=httpx.Timeout(timeout_seconds, connect=min(5.0, timeout_seconds)),
            limits=httpx.Limits(
                max_connections=MOST_CONNECTIONS,
                max_keepalive_connections=MOST_CONNECTIONS,
                keepalive_expiry=KEEP_ALIVE_SECONDS,
            ),
            transport=transport,
            follow_redirects=False,
            headers={"Accept": "application/json", "User-Agent": "NumnaRoad"},
        )

    def close(self) -> None:
        """Give connections back."""
        self._client.close()

    def read(
        self,
        call: str,
        build: Callable[[], httpx.Request],
        *,
        patience: Patience = READ,
        busy: Callable[[Reply], bool] | None = None,
    ) -> Reply:
        """Send an idempotent request and return any answer below 500 that is no throttling.

        `build` makes a fresh request for each try, so that signatures and tokens are fresh too. `busy` recognises
        answers below 500 that say "try again" in the provider's own way.

        Raises:
            ProviderThrottled: 429 on the last try, or no slot within our own limits.
            ProviderUnavailable: no whole answer in time, or 5xx, on every try.
            MalformedReply: the answer is larger than 64 MiB.
        """
        for attempt in stamina.retry_context(
            on=lambda error: next_try(error, patience),
            attempts=patience.attempts,
            wait_initial=READ_WAIT_FIRST_SECONDS,
            wait_max=READ_WAIT_MOST_SECONDS,
            wait_jitter=0,
            wait_exp_base=2,
            timeout=None,
        ):
            with attempt:
                return self._read_once(call, build(), patience, busy)
        raise AssertionError("unreachable: the last try raises")

    def _read_once(
        self, call: str, request: httpx.Request, patience: Patience, busy: Callable[[Reply], bool] | None
    ) -> Reply:
        if not self._acquire(call, patience.slot_seconds):
            message = f"{self.slug}: no free slot within the rate limit for {call}"
            raise _NoSlot(message, wait_seconds=NO_SLOT_WAIT_SECONDS)
        try:
            reply = self._exchange(request, MAX_REPLY_BYTES, max(patience.answer_seconds, self._timeout_seconds))
        except httpx.HTTPError as error:
            raise ProviderUnavailable(f"{self.slug} {call}: {type(error).__name__}") from error
        if reply.status == httpx.codes.TOO_MANY_REQUESTS or self._throttled(reply):
            raise ProviderThrottled(f"{self.slug} {call}: HTTP {reply.status}", wait_seconds=reply.retry_after)
        if reply.status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise ProviderUnavailable(f"{self.slug} {call}: HTTP {reply.status}")
        if busy is not None and busy(reply):
            raise ProviderUnavailable(f"{self.slug} {call}: busy, says the answer itself")
        return reply

    def send_once(self, call: str, request: httpx.Request) -> Reply | Rejected | Unknown:
        """Send a purchase exactly once and return the answer, or what is known without one.

        Raises nothing once it may be sent; a limiter that cannot be asked raises before.

        5xx answers and oversized ones are `Unknown`; throttling, decided before any work, is `Rejected`.
        """
        if not self._acquire(call, PURCHASE_PATIENCE_SECONDS):
            message = f"{self.slug}: own rate limit for {call} is used up; not sent"
            return Rejected(ErrorType.RATE_LIMITED, message, NO_SLOT_WAIT_SECONDS)
        try:
            reply = self._exchange(request, MAX_PURCHASE_BYTES, self._timeout_seconds)
        except _NEVER_SENT as error:
            return Rejected(ErrorType.NETWORK_ERROR, f"{self.slug} {call}: {type(error).__name__}; never sent")
        except httpx.TimeoutException as error:
            return Unknown(ErrorType.PROVIDER_TIMEOUT, f"{self.slug} {call}: {type(error).__name__}; may have arrived")
        except (httpx.HTTPError, ProviderError) as error:
            return Unknown(ErrorType.NETWORK_ERROR, f"{self.slug} {call}: {type(error).__name__}; may have arrived")
        if self._throttled(reply):
            return Rejected(ErrorType.RATE_LIMITED, f"{self.slug} {call}: throttled", reply.retry_after)
        if reply.status >= httpx.codes.INTERNAL_SERVER_ERROR:
            return Unknown(ErrorType.PROVIDER_API_ERROR, f"{self.slug} {call}: HTTP {reply.status}; may have been done")
        return reply

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        json_body: object = None,
        content: bytes | None = None,
        form: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> httpx.Request:
        """Build a request relative to the base address; exactly one of the body arguments at most."""
        extra: dict[str, Any] = {}
        if timeout_seconds is not None:
            extra["timeout"] = httpx.Timeout(timeout_seconds, connect=min(5.0, timeout_seconds))
        return self._client.build_request(
            method,
            path.lstrip("/"),
            params=dict(params) if params else None,
            headers=dict(headers or {}),
            json=json_body,
            content=content,
            data=dict(form) if form else None,
            **extra,
        )

    def _acquire(self, call: str, patience: float) -> bool:
        return all(
            self._limiter.acquire(f"{self.slug}:{limit.name}", limit, patience_seconds=patience)
            for limit in self._limits
            if limit.name in {"*", call}
        )

    def _exchange(self, request: httpx.Request, most_bytes: int, most_seconds: float) -> Reply:
        """Send and read the whole answer; httpx's own time-out only bounds the wait for each piece of it."""
        deadline = self._timer() + most_seconds
        response = self._client.send(request, stream=True)
        try:
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > most_bytes:
                    raise MalformedReply(f"{self.slug}: an answer of more than {most_bytes >> 20} MiB")
                if self._timer() > deadline:
                    raise httpx.ReadTimeout(f"no whole answer in {most_seconds:.0f} s", request=request)
        finally:
            response.close()
        return Reply(response.status_code, {k.lower(): v for k, v in response.headers.items()}, bytes(body))


class _NoSlot(ProviderThrottled):
    """Our own limit is used up; the wait for a slot was the patience, so there is no other try."""


def next_try(error: Exception, patience: Patience) -> bool | float:
    """Return whether a failed read is tried again, or the seconds after which the provider lets us."""
    if not isinstance(error, ProviderUnavailable) or isinstance(error, _NoSlot):
        return False
    if isinstance(error, ProviderThrottled) and error.wait_seconds is not None:
        return min(error.wait_seconds, patience.throttle_seconds)
    return True


class Unlimited:
    """A limiter that never waits: for tests and for reads that nobody limits."""

    def acquire(self, key: str, limit: RateLimit, *, patience_seconds: float) -> bool:
        """Give a slot at once."""
        return True


def raise_for_read(slug: str, call: str, reply: Reply, message: Callable[[Reply], object] = lambda _: "") -> None:
    """Turn a refused read into the right error; answers below 400 pass, and `message` never reads them.

    Raises:
        ProviderAuthFailed: 401 or 403.
        ProviderRejected: any other 4xx.
    """
    if reply.status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        raise ProviderAuthFailed(f"{slug} {call}: HTTP {reply.status}; check this provider's keys and IP allow-list")
    if reply.status >= httpx.codes.BAD_REQUEST:
        raise ProviderRejected(f"{slug} {call}: HTTP {reply.status} {said(message(reply))}".rstrip())


def token_key(slug: str, url: str, account: str) -> str:
    """Return the name a token is stored under: another address or account never sees it, nor can the name be undone."""
    return f"{slug}:{hashlib.sha256(f'{url} {account}'.encode()).hexdigest()[:16]}"


def path_part(value: str) -> str:
    """Return an id, whoever typed it, fit to be one part of a path.

    Raises:
        ProviderRejected: no id can be that: in a path it would name something else.
    """
    if value in {"", ".", ".."}:
        raise ProviderRejected(f"{value!r} is no id")
    return quote(value, safe="")


def settled(capabilities: Capabilities, sent_at: datetime, now: datetime) -> bool:
    """Return whether an order sent at `sent_at` would be visible by now, so that its absence proves something."""
    return now - sent_at > timedelta(seconds=capabilities.settle_seconds)


def _glimpse(body: bytes) -> str:
    kind = "HTML" if body.lstrip()[:1] == b"<" else "no JSON"
    return f"{kind}, {len(body)} bytes"
