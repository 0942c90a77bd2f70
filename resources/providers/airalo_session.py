"""Talking to Airalo: the shared bearer token, reads with one fresh token on 401, and posts that spend, sent once.

Tokens are minted before anything that spends is sent (three a minute at most, shared through the token store), so a
purchase never waits for one in the middle.
"""

import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TypeVar
from urllib.parse import quote

import httpx

from esim.errors import MalformedReply, ProviderAuthFailed, ProviderError, ProviderRejected
from esim.ports import Capabilities, Clock, Limiter, TokenStore
from esim.purchase import ErrorType, Rejected, Unknown
from resources.providers.airalo_catalogue import SLUG
from resources.providers.base import READ_ATTEMPTS, ProviderHttp, Reply, raise_for_read
from resources.providers.outcomes import PREPARE_ATTEMPTS, not_bought
from resources.providers.payload import Row, loose_text, mapping, said
from resources.settings import Endpoint

TOKEN_LIFE = timedelta(hours=23)  # the text says 24 hours, the sample answer 366 days: the shorter one counts
REFUSAL_LIFE = timedelta(seconds=5)  # so that workers queueing for a token do not each wait through the same failure
_FOREIGN = "This action is unauthorized."  # 401 for an order that is not ours or not there, with a good token

T = TypeVar("T")


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
        self, call: str, path: str, params: Mapping[str, str | int] | None = None, *, attempts: int = READ_ATTEMPTS
    ) -> Row:
        """Read one document.

        Raises:
            ProviderError: no answer, refused, or not a JSON object.
        """
        reply = self._authorised(
            lambda token: self._http.read(
                call, lambda: self._request("GET", path, token, params=params), attempts=attempts
            ),
            attempts,
        )
        if reply.status >= httpx.codes.BAD_REQUEST:
            message = said(message_of(reply))
            if message.startswith(_FOREIGN):
                raise ProviderRejected(f"{SLUG} {call}: no such order of ours")
            raise_for_read(SLUG, call, reply, message)
        return mapping(reply.json(), f"{SLUG} {call}")

    def spend(self, call: str, path: str, body: Mapping[str, object]) -> Reply | Rejected | Unknown:
        """Send a post that has an effect, once; a refused token is the one case in which it is sent again.

        401 means the request ended at the door: Airalo checks the token before it looks at an order, so nothing was
        bought and a second sending with a fresh token cannot buy twice.
        """
        try:
            reply = self._authorised(lambda token: self._send(call, path, body, token), PREPARE_ATTEMPTS)
        except ProviderError as error:
            return not_bought(error)  # no token: nothing was sent
        if isinstance(reply, Reply) and reply.status == httpx.codes.UNAUTHORIZED:
            return Rejected(ErrorType.AUTH_FAILED, f"{SLUG} {call}: a fresh token was refused; check the credentials")
        return reply

    def _send(self, call: str, path: str, body: Mapping[str, object], token: str) -> Reply | Rejected | Unknown:
        return self._http.send_once(call, self._request("POST", path, token, json_body=dict(body)))

    def ready(self) -> None:
        """Make sure that there is a token.

        Raises:
            ProviderError: none is to be had.
        """
        self._token(PREPARE_ATTEMPTS)

    def _authorised(self, send: Callable[[str], T], attempts: int) -> T:
        token = self._token(attempts)
        answer = send(token)
        if not isinstance(answer, Reply) or answer.status != httpx.codes.UNAUTHORIZED or message_of(answer) == _FOREIGN:
            return answer
        self._tokens.discard(SLUG, token)
        return send(self._token(attempts))

    def _token(self, attempts: int) -> str:
        with self._minting:
            now = self._clock()
            if token := self._tokens.get(SLUG, now):
                return token
            if self._refused is not None and now - self._refused[0] < REFUSAL_LIFE:
                raise type(self._refused[1])(str(self._refused[1]))
            try:
                return self._mint(attempts)
            except ProviderError as error:
                self._refused = (self._clock(), error)
                raise

    def _mint(self, attempts: int) -> str:
        form = {**self._credentials, "grant_type": "client_credentials"}
        reply = self._http.read("token", lambda: self._http.request("POST", "token", form=form), attempts=attempts)
        if reply.status >= httpx.codes.BAD_REQUEST:
            raise ProviderAuthFailed(f"{SLUG} token: HTTP {reply.status} {said(message_of(reply))}".rstrip())
        data = mapping(mapping(reply.json(), f"{SLUG} token").get("data"), f"{SLUG} token data")
        token, seconds = loose_text(data, "access_token"), data.get("expires_in")
        if not token or isinstance(seconds, bool) or not isinstance(seconds, int) or seconds <= 0:
            raise MalformedReply(f"{SLUG} token: no token with a lifetime in the answer")
        self._tokens.put(SLUG, token, self._clock() + min(TOKEN_LIFE, timedelta(seconds=min(seconds, 10**8))))
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


def path_part(value: str) -> str:
    """Return an id fit for a path."""
    return quote(value, safe="")


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
