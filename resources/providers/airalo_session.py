"""Talking to Airalo: the shared bearer token, reads with one fresh token on 401, and posts that spend, sent once.

Tokens are shared through the token store (three a minute may be minted) and at hand before anything that spends is
sent. Where such a token turns out to be refused, a fresh one is waited for briefly, or the post is not sent again.
"""

import copy
import re
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta

import httpx

from esim.errors import MalformedReply, ProviderAuthFailed, ProviderError, ProviderRejected, ProviderUnavailable
from esim.ports import Capabilities, Clock, Limiter, TokenStore
from esim.purchase import ErrorType, Rejected, Unknown
from resources.providers.airalo_catalogue import SLUG
from resources.providers.base import (
    ONCE,
    PREPARE,
    READ,
    SEND_WITHIN,
    Patience,
    ProviderHttp,
    Reply,
    raise_for_read,
    token_key,
)
from resources.providers.outcomes import not_bought
from resources.providers.payload import Row, loose_text, mapping, said
from resources.settings import Endpoint

TOKEN_LIFE = timedelta(hours=23)  # the text says 24 hours, the sample answer 366 days: the shorter one counts
REFUSAL_LIFE = timedelta(seconds=5)  # so that workers queueing for a token do not each wait through the same failure
# A read of one order that is not ours or not there is answered 401 with these words, with a good token.
_FOREIGN = "This action is unauthorized."
_ONE_ORDER = re.compile(r"orders/\d+")


class AiraloSession:
    """An authenticated line to Airalo."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        capabilities: Capabilities,
        limiter: Limiter,
        tokens: TokenStore,
        clock: Clock,
        timeout_seconds: float,
        transport: httpx.BaseTransport | None,
    ) -> None:
        self._credentials = endpoint.credentials
        self._account = token_key(SLUG, endpoint.url, endpoint.credentials.get("client_id", ""))
        self._tokens = tokens
        self._clock = clock
        self._minting = threading.Lock()
        self._refused: tuple[datetime, ProviderError] | None = None
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
    ) -> Row:
        """Read one document.

        Raises:
            ProviderError: no answer, refused, or not a JSON object.
        """

        def send(token: str) -> Reply:
            return self._http.read(call, lambda: self._request("GET", path, token, params=params), patience=patience)

        token = self._token(patience)
        reply = send(token)
        if _is_foreign(path, reply):
            raise ProviderRejected(f"{SLUG} {call}: no such order of ours")
        if reply.status == httpx.codes.UNAUTHORIZED:
            self._tokens.discard(self._account, token)
            reply = send(self._token(patience))
        raise_for_read(SLUG, call, reply, message_of)
        return mapping(reply.json(), f"{SLUG} {call}")

    def spend(self, call: str, path: str, body: Mapping[str, object]) -> Reply | Rejected | Unknown:
        """Send a post that has an effect, once; a refused token is the one case in which it is sent again.

        401 means the request ended at the door: Airalo checks the token before it looks at an order, so nothing was
        bought and a second sending with a fresh token cannot buy twice. Nothing is sent after ten seconds.
        """
        begun = self._clock()
        for _ in range(2):
            try:
                token = self._token(ONCE)
            except ProviderError as error:
                return not_bought(error)  # no token, or only a refused one: nothing was done
            if self._clock() - begun > SEND_WITHIN:
                return Rejected(ErrorType.PROVIDER_TIMEOUT, f"{SLUG} {call}: a token came too late; not sent")
            reply = self._send(call, path, body, token)
            if not _is_refused(reply):
                return reply
            self._tokens.discard(self._account, token)
        return Rejected(ErrorType.AUTH_FAILED, f"{SLUG} {call}: a fresh token was refused; check the credentials")

    def _send(self, call: str, path: str, body: Mapping[str, object], token: str) -> Reply | Rejected | Unknown:
        return self._http.send_once(call, self._request("POST", path, token, json_body=dict(body)))

    def ready(self) -> None:
        """Make sure that there is a token.

        Raises:
            ProviderError: none is to be had.
        """
        self._token(PREPARE)

    def _token(self, patience: Patience) -> str:
        if not self._minting.acquire(timeout=patience.slot_seconds):
            raise ProviderUnavailable(f"{SLUG} token: another worker has been waiting for one for long")
        try:
            now = self._clock()
            if token := self._tokens.get(self._account, now):
                return token
            if self._refused is not None and now - self._refused[0] < REFUSAL_LIFE:
                raise copy.copy(self._refused[1])
            try:
                return self._mint(patience)
            except ProviderError as error:
                self._refused = (self._clock(), error)
                raise
        finally:
            self._minting.release()

    def _mint(self, patience: Patience) -> str:
        form = {**self._credentials, "grant_type": "client_credentials"}
        reply = self._http.read("token", lambda: self._http.request("POST", "token", form=form), patience=patience)
        if reply.status >= httpx.codes.BAD_REQUEST:
            raise ProviderAuthFailed(f"{SLUG} token: HTTP {reply.status} {said(message_of(reply))}".rstrip())
        data = mapping(mapping(reply.json(), f"{SLUG} token").get("data"), f"{SLUG} token data")
        token, seconds = loose_text(data, "access_token"), data.get("expires_in")
        if not token or isinstance(seconds, bool) or not isinstance(seconds, int) or seconds <= 0:
            raise MalformedReply(f"{SLUG} token: no token with a lifetime in the answer")
        life = min(TOKEN_LIFE, timedelta(seconds=min(seconds, 10**8)))
        self._tokens.put(self._account, token, self._clock() + life)
        return token

    def _request(
        self,
        method: str,
        path: str,
        token: str,
        *,
        params: Mapping[str, str | int] | None = None,
        json_body: object = None,
    ) -> httpx.Request:
        headers = {"Authorization": f"Bearer {token}"}
        return self._http.request(method, path, params=params, headers=headers, json_body=json_body)


def _is_refused(reply: Reply | Rejected | Unknown) -> bool:
    return isinstance(reply, Reply) and reply.status == httpx.codes.UNAUTHORIZED


def _is_foreign(path: str, reply: Reply) -> bool:
    return _is_refused(reply) and _ONE_ORDER.fullmatch(path) is not None and message_of(reply) == _FOREIGN


def message_of(reply: Reply) -> str:
    """Return the text of an error answer, whichever of the five shapes it has; empty where there is none."""
    try:
        body = reply.json()
    except MalformedReply:
        return ""
    if not isinstance(body, dict):
        return ""
    meta, data = body.get("meta"), body.get("data")
    fields = "; ".join(f"{k}: {v}" for k, v in data.items()) if isinstance(data, dict) else ""
    return (
        loose_text(body, "reason")
        or fields
        or (loose_text(meta, "message") if isinstance(meta, dict) else "")
        or loose_text(body, "message")
    )
