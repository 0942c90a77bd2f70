"""The hot path: answers catalogue queries from ready bytes, before the framework sees them.

A hit is two dictionary look-ups (the client's bucket, the answer) and two messages to the server. Everything else,
and whoever has used up the rate limit, goes on to the routes, which fill the ready answers.
"""

from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from api.metrics import Metrics
from api.middleware.cors import Cors
from api.middleware.headers import CATALOGUE_HEADERS
from api.rate_limit import TokenBuckets, client_of
from api.ready_answer import Headers, Message, ReadyAnswer, accepts_gzip, matches
from api.snapshot import Shelf

CATALOGUE_PATHS = ("/v1/packages", "/v1/destinations")
_EMPTY: Message = {"type": "http.response.body", "body": b""}


class HotCatalogue:
    """ASGI middleware in front of everything else, the framework's own error handling included."""

    def __init__(
        self,
        app: ASGIApp,
        shelf: Shelf,
        buckets: TokenBuckets,
        cors: Cors,
        metrics: Metrics,
    ) -> None:
        self._app = app
        self._shelf = shelf
        self._buckets = buckets
        self._cors = cors
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer at once or pass on."""
        if scope["type"] == "http" and scope["method"] in {"GET", "HEAD"}:
            answer = self._shelf.current.ready.get(scope["path"], scope["query_string"])
            if answer is not None:
                client = scope["client"]
                if self._buckets.take(client_of(client[0]) if client else ""):
                    await self._answer(answer, scope, send)
                    return
                # The limit is used up: the slow path counts again and says so with a problem document.
        await self._app(scope, receive, send)

    async def _answer(self, answer: ReadyAnswer, scope: Scope, send: Send) -> None:
        asked = _wanted(scope["headers"])
        origin = asked.get(b"origin")
        if not self._cors.allows(origin):
            origin = None
        coding = asked.get(b"accept-encoding")
        variant = answer.compressed if coding is not None and accepts_gzip(coding) else answer.plain
        if_none_match = asked.get(b"if-none-match")
        self._metrics.ready_answers += 1
        if if_none_match is not None and matches(if_none_match, variant.etag):
            await send(variant.start(304, origin, self._cors.headers(origin)))
            await send(_EMPTY)
            return
        await send(variant.start(200, origin, self._extra(origin)))
        await send(variant.body if scope["method"] == "GET" else _EMPTY)

    def _extra(self, origin: bytes | None) -> Headers:
        return CATALOGUE_HEADERS + self._cors.headers(origin) if origin else CATALOGUE_HEADERS


_OF_INTEREST = frozenset({b"origin", b"accept-encoding", b"if-none-match"})


def _wanted(headers: list[tuple[bytes, bytes]]) -> Mapping[bytes, bytes]:
    return {name: value for name, value in headers if name in _OF_INTEREST}
