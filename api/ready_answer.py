"""An answer in bytes, ready for the wire: plain and compressed body, strong entity tags, and the ASGI messages.

Messages are built once and sent many times; servers do not change them.
"""

import gzip
from hashlib import blake2b
from typing import Any

Headers = list[tuple[bytes, bytes]]
Message = dict[str, Any]

MAX_AGE_SECONDS = 300
COMPRESS_FROM_BYTES = 1024


class Variant:
    """One encoding of an answer, with its 200 and 304 messages per set of extra headers (a browser's origin)."""

    __slots__ = ("_body", "_not_modified", "_ok", "_started", "etag")

    def __init__(self, etag: str, body: bytes, encoding: bytes | None) -> None:
        self.etag = etag.encode()
        shared: Headers = [
            (b"etag", self.etag),
            (b"cache-control", b"public, max-age=%d" % MAX_AGE_SECONDS),
            (b"vary", b"Origin, Accept-Encoding"),
        ]
        self._ok = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *shared]
        if encoding:
            self._ok.append((b"content-encoding", encoding))
        self._not_modified = shared
        self._body: Message = {"type": "http.response.body", "body": body}
        self._started: dict[tuple[int, bytes | None], Message] = {}

    def start(self, status: int, origin: bytes | None, extra: Headers) -> Message:
        """Return the first message; `extra` must be the same for the same `origin`, which the caller has vetted."""
        message = self._started.get((status, origin))
        if message is None:
            headers = self.headers(status) + extra
            message = self._started[status, origin] = {
                "type": "http.response.start",
                "status": status,
                "headers": headers,
            }
        return message

    def headers(self, status: int) -> Headers:
        """Return this variant's own headers for a 200 or a 304."""
        return self._ok if status == 200 else self._not_modified

    @property
    def body(self) -> Message:
        """The second message of a 200."""
        return self._body


class ReadyAnswer:
    """A JSON answer of one catalogue version."""

    __slots__ = ("compressed", "plain", "size")

    def __init__(self, version: int, body: bytes) -> None:
        digest = blake2b(body, digest_size=8).hexdigest()
        self.plain = Variant(f'"{version}-{digest}"', body, None)
        self.size = len(body)
        self.compressed = self.plain
        if len(body) >= COMPRESS_FROM_BYTES:
            packed = gzip.compress(body, compresslevel=6, mtime=0)
            self.compressed = Variant(f'"{version}-{digest}-gz"', packed, b"gzip")
            self.size += len(packed)


def matches(if_none_match: bytes, etag: bytes) -> bool:
    """Return whether an `If-None-Match` header names `etag` (RFC 9110, weak comparison; `*` names any)."""
    if if_none_match == etag:
        return True
    return any(tag.strip().removeprefix(b"W/") in {etag, b"*"} for tag in if_none_match.split(b","))


def accepts_gzip(accept_encoding: bytes) -> bool:
    """Return whether an `Accept-Encoding` header allows gzip (`q=0` refuses it)."""
    for part in accept_encoding.lower().split(b","):
        coding, _, weight = part.partition(b";")
        if coding.strip() == b"gzip":
            return weight.replace(b" ", b"").rstrip(b"0") not in {b"q=", b"q=0."}
    return False
