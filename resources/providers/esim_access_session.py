"""Calls to eSIM Access: signed, enveloped; reads raise `ProviderError`, purchases are sent once and return.

`read` and the listings built on it may be repeated; `spend` never is.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import httpx

from esim.errors import MalformedReply
from esim.ports import Capabilities, Clock, Limiter
from esim.purchase import ErrorType, Rejected, Unknown
from resources.providers.base import CATALOGUE, READ, Patience, ProviderHttp, Reply, raise_for_read
from resources.providers.esim_access_catalogue import SLUG
from resources.providers.esim_access_wire import (
    Envelope,
    busy,
    encode,
    error_of,
    open_envelope,
    refusal_of,
    signed_headers,
)
from resources.providers.payload import Row, listing, mapping
from resources.settings import Endpoint

CATALOGUE_TIMEOUT_SECONDS = 180.0
PAGE_SIZE = 500
MOST_PAGES = 200


class EsimAccessSession:
    """Signs, sends and unwraps."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        capabilities: Capabilities,
        limiter: Limiter,
        clock: Clock,
        timeout_seconds: float,
        transport: httpx.BaseTransport | None,
    ) -> None:
        self._access_code = endpoint.credentials.get("client_id", "")
        self._secret = endpoint.credentials.get("client_secret", "")
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._http = ProviderHttp(
            SLUG,
            endpoint.url,
            capabilities=capabilities,
            limiter=limiter,
            timeout_seconds=timeout_seconds,
            transport=transport,
        )

    def close(self) -> None:
        """Give connections back."""
        self._http.close()

    def read(
        self,
        call: str,
        path: str,
        body: Mapping[str, object],
        *,
        patience: Patience = READ,
        timeout_seconds: float | None = None,
    ) -> Any:
        """Return the payload of a call that may be repeated.

        Raises:
            ProviderError: no answer, no envelope, or refused (`esim_access_wire.Refused` with its code).
        """
        reply = self._http.read(call, lambda: self._request(path, body, timeout_seconds), patience=patience, busy=busy)
        try:
            envelope = open_envelope(reply)
        except MalformedReply as error:
            raise_for_read(SLUG, call, reply)
            raise MalformedReply(f"{SLUG} {call}: {error}") from error
        if not envelope.success:
            raise error_of(call, envelope)
        return envelope.payload

    def packages(self, wanted: Mapping[str, object]) -> Sequence[Any]:
        """Return the rows of `package/list`, which is one reply however long it is.

        Raises:
            ProviderError: not to be read.
        """
        path, seconds = "package/list", CATALOGUE_TIMEOUT_SECONDS
        payload = self.read("catalogue", path, wanted, patience=CATALOGUE, timeout_seconds=seconds)
        return listing(mapping(payload, "obj").get("packageList"), "packageList")

    def esims(self, wanted: Mapping[str, object]) -> list[Row]:
        """Return every eSIM that `esim/query` lists for `wanted`, over all pages.

        Raises:
            ProviderError: a page is not to be read, or the pages do not add up to the total.
        """
        found: list[Row] = []
        for page in range(1, MOST_PAGES + 1):
            body = {**wanted, "pager": {"pageNum": page, "pageSize": PAGE_SIZE}}
            payload = mapping(self.read("status", "esim/query", body), "obj")
            rows = listing(payload.get("esimList"), "esimList")
            found += [mapping(row, "an eSIM") for row in rows]
            total = mapping(payload.get("pager") or {}, "pager").get("total")
            complete = not isinstance(total, int) or len(found) >= total
            if not rows and not complete:
                raise MalformedReply(f"{SLUG} query: {len(found)} eSIMs of {total} listed")
            if not rows or (len(rows) < PAGE_SIZE and complete):
                return found
        raise MalformedReply(f"{SLUG} query: more than {MOST_PAGES} pages")

    def send(self, call: str, path: str, body: Mapping[str, object]) -> Envelope | Rejected | Unknown:
        """Send a call once and return its envelope, or what is known without one. Never raises."""
        answer = self._http.send_once(call, self._request(path, body, None))
        return _opened(call, answer) if isinstance(answer, Reply) else answer

    def spend(self, call: str, path: str, body: Mapping[str, object]) -> Row | Rejected | Unknown:
        """Send a purchase once; return the payload of a success, else what the answer proves. Never raises."""
        envelope = self.send(call, path, body)
        if not isinstance(envelope, Envelope):
            return envelope
        if not envelope.success:
            return refusal_of(call, envelope)
        if not isinstance(envelope.payload, dict):
            return Unknown(ErrorType.PROVIDER_API_ERROR, f"{SLUG} {call}: success without a payload")
        return envelope.payload

    def _request(self, path: str, body: Mapping[str, object], timeout_seconds: float | None) -> httpx.Request:
        content = encode(body)
        headers = signed_headers(
            self._access_code,
            self._secret,
            request_id=str(uuid4()),
            timestamp=str(int(self._clock().timestamp() * 1000)),
            body=content,
        )
        seconds = max(timeout_seconds, self._timeout_seconds) if timeout_seconds else None
        return self._http.request(
            "POST", f"api/v1/open/{path}", headers=headers, content=content, timeout_seconds=seconds
        )


def _opened(call: str, reply: Reply) -> Envelope | Rejected | Unknown:
    """Return the envelope in an answer to a call sent once; without one, only a refused sign-in proves anything."""
    try:
        return open_envelope(reply)
    except MalformedReply as error:
        trouble = Unknown(ErrorType.PROVIDER_API_ERROR, f"{SLUG} {call}: {error}")
    if reply.status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        return Rejected(ErrorType.AUTH_FAILED, f"{SLUG} {call}: HTTP {reply.status}; check its keys and IP list")
    return trouble
