"""The one way adapters talk HTTP: reads are retried, purchases are sent once and always end in an outcome.

request -> limiter (shared by every process) -> httpx -> `Reply`. `ProviderHttp.read` retries idempotent calls with
exponential backoff and raises `ProviderError`. `ProviderHttp.send_once` is for purchases: it never retries and never
raises; what httpx reports decides whether the request can have arrived (`_NEVER_SENT` against everything else).
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import stamina

from esim.errors import MalformedReply, ProviderAuthFailed, ProviderError, ProviderRejected, ProviderUnavailable
from esim.ports import Capabilities, Limiter, RateLimit
from esim.purchase import ErrorType, Rejected, Unknown

MAX_REPLY_BYTES = 64 * 1024 * 1024
READ_ATTEMPTS = 4  # the first try and three retries
READ_WAIT_FIRST_SECONDS = 1.0
READ_WAIT_MOST_SECONDS = 10.0
PURCHASE_PATIENCE_SECONDS = 5.0
READ_PATIENCE_SECONDS = 120.0

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
            return json.loads(self.body, parse_float=Decimal)
        except (ValueError, RecursionError) as error:
            raise MalformedReply(f"HTTP {self.status} with a body that is not JSON ({_glimpse(self.body)})") from error

    @property
    def retry_after(self) -> float | None:
        """The seconds the provider asks to wait, where it says so as a number."""
        value = self.headers.get("retry-after", "")
        return float(value) if value.replace(".", "", 1).isdigit() else None


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
    ) -> None:
        self.slug = slug
        self._limits = capabilities.rate_limits
        self._limiter = limiter
        self._throttled = throttled or (lambda reply: reply.status == httpx.codes.TOO_MANY_REQUESTS)
        self._client = httpx.Client(
            base_url=base_url.rstrip("/") + "/",
            timeout=httpx.Timeout(timeout_seconds, connect=min(5.0, timeout_seconds)),
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=64, keepalive_expiry=60),
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
        attempts: int = READ_ATTEMPTS,
        busy: Callable[[Reply], bool] | None = None,
    ) -> Reply:
        """Send an idempotent request, at most `attempts` times, and return any answer below 500 that is no throttling.

        `build` makes a fresh request for each try, so that signatures and tokens are fresh too. `busy` recognises
        answers below 500 that say "try again" in the provider's own way.

        Raises:
            ProviderUnavailable: no answer, 5xx or throttled on every try.
            MalformedReply: the answer is larger than 64 MiB.
        """
        for attempt in stamina.retry_context(
            on=ProviderUnavailable,
            attempts=attempts,
            wait_initial=READ_WAIT_FIRST_SECONDS,
            wait_max=READ_WAIT_MOST_SECONDS,
            wait_jitter=0,
            wait_exp_base=2,
            timeout=None,
        ):
            with attempt:
                return self._read_once(call, build(), busy)
        raise AssertionError("unreachable: the last try raises")

    def _read_once(self, call: str, request: httpx.Request, busy: Callable[[Reply], bool] | None) -> Reply:
        if not self._acquire(call, READ_PATIENCE_SECONDS):
            raise ProviderUnavailable(f"{self.slug}: no free slot within the rate limit for {call}")
        try:
            reply = self._exchange(request)
        except httpx.HTTPError as error:
            raise ProviderUnavailable(f"{self.slug} {call}: {type(error).__name__}") from error
        if reply.status >= httpx.codes.INTERNAL_SERVER_ERROR or self._throttled(reply):
            raise ProviderUnavailable(f"{self.slug} {call}: HTTP {reply.status}")
        if busy is not None and busy(reply):
            raise ProviderUnavailable(f"{self.slug} {call}: busy, says the answer itself")
        return reply

    def send_once(self, call: str, request: httpx.Request) -> Reply | Rejected | Unknown:
        """Send a purchase exactly once and return the answer, or what is known without one. Never raises.

        5xx answers and oversized ones are `Unknown`; throttling, decided before any work, is `Rejected`.
        """
        if not self._acquire(call, PURCHASE_PATIENCE_SECONDS):
            return Rejected(ErrorType.RATE_LIMITED, f"{self.slug}: own rate limit for {call} is used up; not sent", 2.0)
        try:
            reply = self._exchange(request)
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

    def _exchange(self, request: httpx.Request) -> Reply:
        response = self._client.send(request, stream=True)
        try:
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MAX_REPLY_BYTES:
                    raise MalformedReply(f"{self.slug}: an answer of more than {MAX_REPLY_BYTES >> 20} MiB")
        finally:
            response.close()
        return Reply(response.status_code, {k.lower(): v for k, v in response.headers.items()}, bytes(body))


class Unlimited:
    """A limiter that never waits: for tests and for reads that nobody limits."""

    def acquire(self, key: str, limit: RateLimit, *, patience_seconds: float) -> bool:
        """Give a slot at once."""
        return True


def raise_for_read(slug: str, call: str, reply: Reply, message: str = "") -> None:
    """Turn a refused read into the right error; answers below 400 pass.

    Raises:
        ProviderAuthFailed: 401 or 403.
        ProviderRejected: any other 4xx.
    """
    if reply.status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        raise ProviderAuthFailed(f"{slug} {call}: HTTP {reply.status}; check this provider's keys and IP allow-list")
    if reply.status >= httpx.codes.BAD_REQUEST:
        raise ProviderRejected(f"{slug} {call}: HTTP {reply.status} {message}".rstrip())


def settled(capabilities: Capabilities, sent_at: datetime, now: datetime) -> bool:
    """Return whether an order sent at `sent_at` would be visible by now, so that its absence proves something."""
    return now - sent_at > timedelta(seconds=capabilities.settle_seconds)


def _glimpse(body: bytes) -> str:
    kind = "HTML" if body.lstrip()[:1] == b"<" else "no JSON"
    return f"{kind}, {len(body)} bytes"
