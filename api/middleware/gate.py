"""What every request that is not answered from ready bytes passes: identity, limits, headers, logs, and a last catch.

request id -> CORS preflight -> rate limit -> the app -> security headers on whatever it answers. An exception that no
handler knew becomes a problem document with the request id; its trace goes to the log and to Sentry, never out.
"""

import re
import sys
import time
from secrets import token_hex

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import INTERNAL, TOO_MANY_REQUESTS, Problem, problem_response
from api.metrics import Metrics
from api.middleware.cors import Cors, Headers
from api.rate_limit import TokenBuckets, client_of

UNLIMITED_PREFIXES = ("/webhooks/", "/static/", "/healthz", "/readyz", "/metrics")
_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")
_UNROUTED = "(none)"

log = structlog.get_logger("api")


class Gate:
    """ASGI middleware around routing."""

    def __init__(self, app: ASGIApp, *, buckets: TokenBuckets, cors: Cors, metrics: Metrics, headers: Headers) -> None:
        self._app = app
        self._buckets = buckets
        self._cors = cors
        self._metrics = metrics
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = dict(scope["headers"])
        visit = _Visit(scope, asked, send, cors=self._cors, metrics=self._metrics, headers=self._headers)
        try:
            if scope["method"] == "OPTIONS" and b"access-control-request-method" in asked:
                await visit.preflight()
            elif not self._within_limit(scope):
                await self._refuse(visit, receive)
            else:
                await self._app(visit.scope, receive, visit.send)
        except Exception as error:  # noqa: BLE001 - the last catch: whatever it is must become a clean answer
            await self._caught(visit, receive, error)
        finally:
            visit.finish()

    def _within_limit(self, scope: Scope) -> bool:
        return scope["path"].startswith(UNLIMITED_PREFIXES) or self._buckets.take(_client(scope))

    async def _refuse(self, visit: "_Visit", receive: Receive) -> None:
        wait = self._buckets.retry_after(_client(visit.scope))
        problem = Problem(TOO_MANY_REQUESTS, f"Slow down: try again in {wait} s.", headers={"Retry-After": str(wait)})
        await problem_response(Request(visit.scope), problem)(visit.scope, receive, visit.send)

    async def _caught(self, visit: "_Visit", receive: Receive, error: Exception) -> None:
        log.exception("request failed", route=visit.route, method=visit.scope["method"])
        _report(error)
        if visit.status:
            raise error  # half an answer is out: the server must break the connection, not pretend it is whole
        problem = Problem(INTERNAL, "The request was not carried out. Quote the request id when you ask about it.")
        await problem_response(Request(visit.scope), problem)(visit.scope, receive, visit.send)


class _Visit:
    """One request on its way through: its id, what is added to its answer, what is noted at its end."""

    def __init__(
        self, scope: Scope, asked: dict[bytes, bytes], send: Send, *, cors: Cors, metrics: Metrics, headers: Headers
    ) -> None:
        given = asked.get(b"x-request-id", b"")
        self.request_id = given.decode() if _SANE_REQUEST_ID.fullmatch(given) else token_hex(8)
        self._send, self._cors, self._metrics, self._headers = send, cors, metrics, headers
        self._origin = asked.get(b"origin")
        self._head = scope["method"] == "HEAD" and not scope["path"].startswith("/webhooks/")
        self.scope = {**scope, "method": "GET"} if self._head else scope
        self.scope["state"] = {**scope.get("state", {}), "request_id": self.request_id}
        self.status = 0
        self._complete = False
        self._began = time.perf_counter()
        structlog.contextvars.bind_contextvars(request_id=self.request_id)

    async def send(self, message: Message) -> None:
        """Pass a message on with our headers; a HEAD request gets no body."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own: Headers = list(message.get("headers", ()))
            named = {name for name, _ in own}
            own += [header for header in self._headers if header[0] not in named]
            own += [(b"x-request-id", self.request_id.encode()), *self._cors.headers(self._origin)]
            if b"vary" not in named:
                own.append((b"vary", b"Origin"))
            message = {**message, "headers": own}
        elif self._head:
            # Complete before its body begins: to an event stream that is the customer leaving, so it ends at once.
            if self._complete:
                return
            self._complete = True
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def preflight(self) -> None:
        """Answer a browser that asks whether it may ask."""
        self.status = 204
        headers = self._cors.preflight(self._origin)
        await self._send({"type": "http.response.start", "status": 204, "headers": headers})
        await self._send({"type": "http.response.body", "body": b""})

    @property
    def route(self) -> str:
        """The route's template, which has a bounded number of values and no ids."""
        return getattr(self.scope.get("route"), "path", _UNROUTED)

    def finish(self) -> None:
        """Count and log the request."""
        seconds = time.perf_counter() - self._began
        method = self.scope["method"] if self.scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(method, self.route, str(self.status)).inc()
        self._metrics.seconds.labels(self.route).observe(seconds)
        log.info("request", method=method, route=self.route, status=self.status, ms=round(seconds * 1000, 1))
        structlog.contextvars.unbind_contextvars("request_id")


_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})


def _client(scope: Scope) -> str:
    return client_of(scope["client"][0]) if scope.get("client") else ""


def _report(error: Exception) -> None:
    sentry = sys.modules.get("sentry_sdk")  # imported only where a DSN is set
    if sentry is not None and sentry.is_initialized():
        sentry.capture_exception(error)
