"""Talking to eSIM Go: the key on every request, reads that are tried again, and requests with an effect, sent once."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import httpx

from esim.errors import MalformedReply
from esim.ports import Capabilities, Clock, Limiter
from esim.purchase import EsimRef, Rejected, Unknown
from resources.providers.base import READ, Patience, ProviderHttp, Reply, path_part, raise_for_read
from resources.providers.esim_go_catalogue import SLUG
from resources.providers.esim_go_orders import message_of
from resources.providers.payload import Row, loose_text, mapping
from resources.settings import Endpoint

CURRENCY_LIFE = timedelta(hours=1)


class EsimGoSession:
    """An authenticated line to eSIM Go."""

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
        self._key = endpoint.credentials["api_key"]
        self._clock = clock
        self._known_currency: tuple[datetime, str] | None = None
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

    def get(
        self, call: str, path: str, params: Mapping[str, str | int] | None = None, *, patience: Patience = READ
    ) -> Any:
        """Read one document.

        Raises:
            ProviderError: no answer, refused, or not JSON.
        """
        reply = self._http.read(call, lambda: self._request("GET", path, params=params), patience=patience)
        raise_for_read(SLUG, call, reply, message_of)
        return reply.json()

    def dry_run(self, body: Mapping[str, object], patience: Patience) -> Reply:
        """Let eSIM Go check and price an order without buying; harmless, so it is tried again.

        Raises:
            ProviderUnavailable: no answer, or throttled.
        """
        return self._http.read(
            "validate", lambda: self._request("POST", "orders", json_body=dict(body)), patience=patience
        )

    def spend(
        self,
        call: str,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        json_body: object = None,
    ) -> Reply | Rejected | Unknown:
        """Send a request with an effect, exactly once."""
        return self._http.send_once(call, self._request(method, path, params=params, json_body=json_body))

    def organisation(self) -> Row:
        """Read our account, flat or wrapped; it holds the key and people's addresses, so nothing of it may be shown.

        Raises:
            ProviderError: not to be read, or without a currency.
        """
        answer = mapping(self.get("organisation", "organisation"), f"{SLUG} organisation")
        wrapped = answer.get("organisations")
        organisation = wrapped[0] if isinstance(wrapped, list) and wrapped else answer
        if not isinstance(organisation, dict) or not loose_text(organisation, "currency"):
            raise MalformedReply(f"{SLUG} organisation: no currency in the answer")
        return organisation

    def currency(self) -> str:
        """Return the currency of every price and of the balance, read once an hour.

        Raises:
            ProviderError: not to be read.
        """
        if self._known_currency is None or self._clock() - self._known_currency[0] > CURRENCY_LIFE:
            self._known_currency = (self._clock(), loose_text(self.organisation(), "currency").upper())
        return self._known_currency[1]

    def bundle(self, name: str) -> Row:
        """Read one bundle of the catalogue.

        Raises:
            ProviderError: not to be read; `ProviderRejected` when there is none of this name.
        """
        return mapping(self.get("bundle", f"catalogue/bundle/{path_part(name)}"), f"{SLUG} bundle")

    def bundles_of(self, esim: EsimRef) -> Row:
        """Read the bundles on an eSIM with their assignments.

        Raises:
            ProviderError: not to be read.
        """
        params: dict[str, str | int] = {"includeUsed": "true", "limit": 15}
        return mapping(self.get("usage", f"esims/{path_part(esim.iccid)}/bundles", params), f"{SLUG} usage")

    def _request(
        self, method: str, path: str, *, params: Mapping[str, str | int] | None = None, json_body: object = None
    ) -> httpx.Request:
        return self._http.request(method, path, params=params, headers={"X-API-Key": self._key}, json_body=json_body)
