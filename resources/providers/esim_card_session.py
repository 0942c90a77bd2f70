"""Calls to eSIMCard: a shared login, envelopes that may refuse with HTTP 200, lists read from both ends.

A token is kept for 50 minutes and shared by every process; a read whose token is refused logs in once more, a purchase
never does. Reads raise `ProviderError`; `spend` sends once and returns.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx

from esim.errors import MalformedReply, ProviderAuthFailed, ProviderError, ProviderRejected, ProviderThrottled
from esim.ports import Capabilities, Clock, Limiter, TokenStore
from esim.purchase import ErrorType, ProviderPurchase, Rejected, Unknown
from resources.providers.base import (
    CATALOGUE,
    ONCE,
    PREPARE,
    READ,
    SEND_WITHIN,
    Patience,
    ProviderHttp,
    Reply,
    path_part,
    raise_for_read,
    token_key,
)
from resources.providers.esim_card_catalogue import DATA_ONLY, SLUG
from resources.providers.esim_card_orders import Account, Shelf, id_of, listed_purchase, profile_of, refusal_type
from resources.providers.outcomes import not_bought
from resources.providers.payload import Row, amount, listing, loose_text, mapping, said, trusted, whole
from resources.settings import Endpoint

PAGE_SIZE = 100
TOKEN_MINUTES = 50  # the real lifetime is not documented; integrators keep tokens for 50 minutes to 23 hours
_TRUE = frozenset({"true", "1", "success"})
_FALSE = frozenset({"false", "0"})


class EsimCardSession:
    """Logs in, sends and unwraps."""

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
        self._account = token_key(SLUG, endpoint.url, endpoint.credentials.get("email", ""))
        self._tokens = tokens
        self._clock = clock
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
        *,
        params: Mapping[str, str | int] | None = None,
        ask: Mapping[str, str] | None = None,
        patience: Patience = READ,
    ) -> Row:
        """Return the body of a call that may be repeated; `ask` is the body of a question sent by POST.

        Raises:
            ProviderError: no answer, no envelope, or refused.
        """
        reply = self._authorised(call, path, params, ask, patience)
        try:
            body = mapping(reply.json(), "the answer")
        except MalformedReply as error:
            raise_for_read(SLUG, call, reply)
            raise MalformedReply(f"{SLUG} {call}: {error}") from error
        raise_for_read(SLUG, call, reply, lambda _: body.get("message"))
        if _says(body, wanted=False):
            raise ProviderRejected(f"{SLUG} {call}: {said(body.get('message'))}")
        if not _says(body, wanted=True):
            raise MalformedReply(f"{SLUG} {call}: an answer without a status ({said(body.get('message'))})")
        return body

    def account(self, patience: Patience = READ) -> Account:
        """Return the newest bundles and SIMs and, last of all, the balance.

        Raises:
            ProviderError: one of them is not to be read.
        """
        bundles, sims = self._shelf("my-bundles", patience), self._shelf("my-esims", patience)
        body = self.read("balance", "balance", patience=patience)
        return Account(trusted(amount, body, "balance"), bundles, sims)

    def packages(self, page: int) -> tuple[Sequence[Any], int]:
        """Return one page of the data-only packages, and how many pages there are.

        Raises:
            ProviderError: not to be read, or another page than the one asked for.
        """
        params: dict[str, str | int] = {"package_type": DATA_ONLY, "page": page, "per_page": PAGE_SIZE}
        body = self.read("catalogue", "packages", params=params, patience=CATALOGUE)
        rows, meta = listing(body.get("data"), "packages"), mapping(body.get("meta"), "the meta of packages")
        if trusted(whole, meta, "currentPage") != page:
            raise MalformedReply(f"{SLUG} packages: asked for page {page}, got {meta['currentPage']!r:.20}")
        return rows, trusted(whole, meta, "lastPage")

    def detail(self, package_id: str, patience: Patience = READ) -> Row:
        """Return a package with its price as it is now.

        Raises:
            ProviderError: not to be read; `ProviderRejected` when the package is gone.
        """
        path = f"package/detail/{path_part(package_id)}"
        found = mapping(self.read("catalogue", path, patience=patience).get("data"), "package/detail")
        if id_of(found).lower() != package_id.lower():
            raise MalformedReply(f"{SLUG} package/detail: the answer is about another package")
        return found

    def countries_of(self, package_id: str) -> Row:
        """Return the lists of countries in a package's detail, asked once; none where it cannot be read.

        Raises:
            ProviderError: still throttled after waiting, which says nothing about this package.
        """
        try:
            found = self.detail(package_id, ONCE)
        except ProviderThrottled:
            found = self.detail(package_id, CATALOGUE)
        except ProviderError:
            return {}
        return {key: found[key] for key in ("countries", "romaing_countries") if isinstance(found.get(key), list)}

    def takes_top_up(self, iccid: str, package_id: str) -> bool:
        """Return whether a package can be bought onto an eSIM that exists.

        Raises:
            ProviderError: not to be read.
        """
        ask = {"iccid": iccid, "package_type_id": package_id}
        verdict = self.read("topup", "can-topup-esim", ask=ask, patience=PREPARE)
        return mapping(verdict.get("data"), "can-topup-esim").get("topup_available") is True

    def sim_record(self, sim_id: str) -> Row:
        """Return a SIM with the packages on it.

        Raises:
            ProviderError: not to be read.
        """
        return mapping(self.read("status", f"my-esims/{path_part(sim_id)}").get("data"), "my-esims")

    def sim(self, sim_id: str) -> Row:
        """Return a SIM with its activation data: some replies about one SIM lack them, either end of the list has them.

        Raises:
            ProviderError: not to be read.
        """
        sim = mapping(self.sim_record(sim_id).get("sim"), "sim")
        if profile_of(sim) is not None:
            return sim
        shelf = self._shelf("my-esims", READ)
        return next((row for row in (*shelf.first, *shelf.last) if id_of(row) == sim_id), sim)

    def sims_from_newest(self, since: datetime) -> Callable[[int], tuple[list[ProviderPurchase], bool]]:
        """Return a reader of the list of SIMs, from its newest end to a page that is older than `since` as a whole.

        Which end is newest is not documented: the times on the first and the last page tell.
        """
        ends: list[tuple[bool, int]] = []

        def page(number: int) -> tuple[list[ProviderPurchase], int]:
            rows, meta = self._list_page("my-esims", number, READ)
            return [listed_purchase(row) for row in rows], trusted(whole, meta, "lastPage")

        def read(number: int) -> tuple[list[ProviderPurchase], bool]:
            if not ends:
                first, pages = page(1)
                last = page(pages)[0] if pages > 1 else first
                ends.append((_newest(first) >= _newest(last), pages))
            from_start, pages = ends[0]
            lines, _ = page(number if from_start else pages + 1 - number)
            return lines, number < pages and _newest(lines) >= since

        return read

    def order(self, order_id: str) -> list[Row]:
        """Return what eSIMCard says about one of its order numbers.

        Raises:
            ProviderError: not to be read.
        """
        body = self.read("status", f"order/{path_part(order_id)}")
        return [mapping(row, "an order") for row in listing(body.get("data"), "order")]

    def spend(self, path: str, body: Mapping[str, str]) -> Row | Rejected | Unknown:
        """Send a purchase once; return the `data` of a success, else what the answer proves. Never raises."""
        begun = self._clock()
        token = self._token_to_buy()
        if isinstance(token, Rejected):
            return token
        if self._clock() - begun > SEND_WITHIN:
            return Rejected(ErrorType.PROVIDER_TIMEOUT, f"{SLUG} order: a token came too late; not sent")
        answer = self._http.send_once("order", self._http.request("POST", path, headers=_bearer(token), json_body=body))
        if not isinstance(answer, Reply):
            return answer
        if answer.status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            self._discard(token)
            return Rejected(ErrorType.AUTH_FAILED, f"{SLUG} order: HTTP {answer.status}; check its login and IP list")
        if answer.status == httpx.codes.GONE:
            return Rejected(ErrorType.PROVIDER_API_ERROR, f"{SLUG} order: HTTP 410; check ESIM_CARD_API_URL")
        return _purchase_of(answer)

    def _authorised(
        self,
        call: str,
        path: str,
        params: Mapping[str, str | int] | None,
        ask: Mapping[str, str] | None,
        patience: Patience,
    ) -> Reply:
        method = "GET" if ask is None else "POST"
        for last in (False, True):
            token = self._token(patience)
            build = partial(self._http.request, method, path, params=params, headers=_bearer(token), json_body=ask)
            reply = self._http.read(call, build, patience=patience)
            if reply.status != httpx.codes.UNAUTHORIZED or last or self._credentials.get("api_key"):
                return reply
            self._discard(token)
        raise AssertionError("unreachable: the last round returns")

    def _token(self, patience: Patience) -> str:
        if key := self._credentials.get("api_key"):
            return key
        return self._tokens.get(self._account, self._clock()) or self._login(patience)

    def _token_to_buy(self) -> str | Rejected:
        """Return a token, or the refusal when there is none: then nothing was sent."""
        try:
            return self._token(ONCE)
        except ProviderError as error:
            return not_bought(error)

    def _login(self, patience: Patience) -> str:
        login = {name: self._credentials.get(name, "") for name in ("email", "password")}
        reply = self._http.read(
            "login", lambda: self._http.request("POST", "login", json_body=login), patience=patience
        )
        raise_for_read(SLUG, "login", reply)
        body = mapping(reply.json(), "the answer to login")
        token = loose_text(body, "access_token")
        if not _says(body, wanted=True) or not token:
            raise ProviderAuthFailed(f"{SLUG} login: refused; check ESIM_CARD_EMAIL and ESIM_CARD_PASSWORD")
        self._tokens.put(self._account, token, self._clock() + timedelta(minutes=TOKEN_MINUTES))
        return token

    def _discard(self, token: str) -> None:
        if not self._credentials.get("api_key"):
            self._tokens.discard(self._account, token)

    def _shelf(self, path: str, patience: Patience) -> Shelf:
        first, meta = self._list_page(path, 1, patience)
        pages = trusted(whole, meta, "lastPage")
        last = first if pages <= 1 else self._list_page(path, pages, patience)[0]
        return Shelf(trusted(whole, meta, "total"), first, last)

    def _list_page(self, path: str, page: int, patience: Patience) -> tuple[tuple[Row, ...], Row]:
        body = self.read("status", path, params={"page": page}, patience=patience)
        rows = tuple(mapping(row, f"an entry of {path}") for row in listing(body.get("data"), path))
        return rows, mapping(body.get("meta"), f"the meta of {path}")


def _purchase_of(answer: Reply) -> Row | Rejected | Unknown:
    """Return what a purchase's answer says; anything that is no clear yes or no is `Unknown`."""
    try:
        body: Any = answer.json()
    except MalformedReply as error:
        return Unknown(ErrorType.PROVIDER_API_ERROR, f"{SLUG} order: {error}")
    if not isinstance(body, dict):
        return Unknown(ErrorType.PROVIDER_API_ERROR, f"{SLUG} order: the answer is no object")
    message = said(body.get("message"))
    if _says(body, wanted=False):
        return Rejected(refusal_type(message), f"{SLUG} order: {message}")
    if answer.status >= httpx.codes.BAD_REQUEST:
        return _refused(answer.status, body, message)
    if not _says(body, wanted=True) or not isinstance(body.get("data"), dict):
        return Unknown(ErrorType.PROVIDER_API_ERROR, f"{SLUG} order: neither yes nor no ({message})")
    data: Row = body["data"]
    return data


def _refused(status: int, body: Row, message: str) -> Rejected | Unknown:
    """Return what a 4xx answer without a status field says: a framework's refusal names a message."""
    words = f"{SLUG} order: HTTP {status} {message}"
    if not message:
        return Unknown(ErrorType.PROVIDER_API_ERROR, words)
    if status in {httpx.codes.NOT_FOUND, httpx.codes.UNPROCESSABLE_ENTITY} or "errors" in body:
        return Rejected(ErrorType.INVALID_PRODUCT, words)
    return Rejected(refusal_type(message), words)


def _says(body: Row, *, wanted: bool) -> bool:
    """Return whether `status` says yes (`wanted`) or no; any other word says neither."""
    return str(body.get("status")).lower() in (_TRUE if wanted else _FALSE)


def _newest(lines: Sequence[ProviderPurchase]) -> datetime:
    return max((line.bought_at for line in lines), default=datetime.min.replace(tzinfo=UTC))


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
