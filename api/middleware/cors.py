"""Which browsers' pages may call the API: those of the configured origins, compared exactly."""

from collections.abc import Iterable

Headers = list[tuple[bytes, bytes]]

_ALLOWED = b"Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID"
_EXPOSED = b"ETag, Retry-After, X-Request-ID"
_METHODS = b"GET, HEAD, POST, OPTIONS"
_MAX_AGE = b"7200"


class Cors:
    """The CORS headers for an origin; none for an origin that is not configured."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._known = {origin.rstrip("/").encode() for origin in origins}

    def allows(self, origin: bytes | None) -> bool:
        """Return whether pages of `origin` may read our answers."""
        return origin in self._known

    def headers(self, origin: bytes | None) -> Headers:
        """Return what an ordinary answer carries."""
        if origin is None or origin not in self._known:
            return []
        return [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED)]

    def preflight(self, origin: bytes | None) -> Headers:
        """Return what the answer to a preflight request carries."""
        if origin is None or origin not in self._known:
            return [(b"vary", b"Origin")]
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", _ALLOWED),
            (b"access-control-max-age", _MAX_AGE),
            (b"vary", b"Origin"),
        ]
