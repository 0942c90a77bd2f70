"""The eSIM Access adapter (API v1, docs.esimaccess.com; quirks with dates in `docs/providers/esim_access.md`).

Orders are always asynchronous: accepted with an order number, delivered by `esim/query` within about 30 s. Our
reference travels as `transactionId` and the expected price as a guard, so a changed price is refused before any charge.
A lost answer is looked up, never repeated: `resolve` lists a time window and matches `transactionId`. ICCIDs are reused
over the years, so every call about an eSIM goes by `esimTranNo`. Webhooks are unsigned: hints to read again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import httpx

from esim.catalogue import CataloguePage, OfferKind, ProviderOffer
from esim.errors import MalformedReply, ProviderError, ProviderRejected
from esim.money import Cost
from esim.ports import Capabilities, Clock, Limiter, RateLimit, TokenStore
from esim.purchase import (
    Cancelled,
    CancelOutcome,
    CancelRefused,
    CancelUnknown,
    ErrorType,
    EsimProfile,
    EsimRef,
    Evidence,
    Outcome,
    Prepared,
    ProviderEvent,
    ProviderPurchase,
    PurchaseRequest,
    Rejected,
    Unknown,
    UsageReading,
)
from resources.providers.base import settled
from resources.providers.esim_access_catalogue import (
    CURRENCY,
    PRICE_UNITS,
    SLUG,
    TOP_UP_PREFIX,
    parse_offer,
    price_of,
)
from resources.providers.esim_access_orders import (
    accepted,
    between,
    event_of,
    facts_of,
    is_ours,
    listed_purchases,
    order_body,
    outcome_of,
    price_units,
    profile_of,
    top_up_body,
    topped_up,
    window,
)
from resources.providers.esim_access_session import EsimAccessSession
from resources.providers.esim_access_wire import DUPLICATE, NOT_IN_THIS_STATE, PENDING, Envelope, Refused, refusal_of
from resources.providers.outcomes import still_unknown, too_dear, with_facts
from resources.providers.payload import (
    Row,
    amount,
    catalogue_page,
    listing,
    loose_text,
    mapping,
    moment,
    trusted,
    whole,
)
from resources.settings import Endpoint

STATEMENT_STEP = timedelta(days=1)  # so that a long statement is not held in memory
CONTROL_AGE = timedelta(days=30)  # orders that are as old are still known by their references
IMPOSSIBLE_PRICE = 1  # USD 0.0001: below every plan, so the price guard refuses it
PROVES_NEW = frozenset(
    {
        ErrorType.PRICE_CHANGED,
        ErrorType.OUT_OF_STOCK,
        ErrorType.INVALID_PRODUCT,
        ErrorType.INSUFFICIENT_BALANCE,
    }
)


class EsimAccess:
    """A client of eSIM Access."""

    slug = SLUG
    capabilities = Capabilities(
        idempotent_reference=True,
        reference_lookup=True,
        price_guard=True,
        cancel=True,
        async_orders=True,
        lists_purchases=True,
        settle_seconds=300.0,  # ten times the documented allocation time: see `_probed`
        rate_limits=(RateLimit("*", 8, 1.0),),
    )

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        limiter: Limiter,
        tokens: TokenStore,
        clock: Clock,
        timeout_seconds: float,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._clock = clock
        self._session = EsimAccessSession(
            endpoint,
            capabilities=self.capabilities,
            limiter=limiter,
            clock=clock,
            timeout_seconds=timeout_seconds,
            transport=transport,
        )

    def close(self) -> None:
        """Give connections back."""
        self._session.close()

    def catalogue(self) -> Iterator[CataloguePage]:
        """Return every base plan: one reply of several megabytes; top-ups are listed per eSIM by `top_ups`.

        Raises:
            ProviderError: the reply failed or is malformed.
        """
        rows = self._session.packages({"type": "BASE"})
        yield catalogue_page(SLUG, rows, parse_offer, id_key="packageCode", seen=set(), pages=1)

    def current_cost(self, provider_package_id: str, hints: Mapping[str, str]) -> Cost:
        """Read what one unit costs right now.

        Raises:
            ProviderError: not to be read; `ProviderRejected` when the plan is gone.
        """
        kind = "TOPUP" if provider_package_id.startswith(TOP_UP_PREFIX) else "BASE"
        for row in self._session.packages({"type": kind, "packageCode": provider_package_id}):
            if isinstance(row, dict) and row.get("packageCode") == provider_package_id:
                return trusted(price_of, row)
        raise ProviderRejected(f"{SLUG} package/list: no plan {provider_package_id} any more")

    def prepare(self, request: PurchaseRequest) -> Prepared | Rejected:
        """Check the price that will be sent as a guard; the order call itself refuses any other price."""
        price = self._guard(request)
        return price if isinstance(price, Rejected) else Prepared({"price": price})

    def purchase(self, request: PurchaseRequest, evidence: Evidence) -> Outcome:
        """Order one eSIM or buy one top-up, guarded by the expected price."""
        price = self._guard(request)
        if isinstance(price, Rejected):
            return price
        if request.top_up_of is not None:
            return self._top_up(request, request.top_up_of, price)
        answer = self._session.spend("order", "esim/order", order_body(request, price))
        if isinstance(answer, Rejected | Unknown):
            return answer
        order_no = loose_text(answer, "orderNo")
        if not order_no:
            return Unknown(ErrorType.PROVIDER_API_ERROR, f"{SLUG} order: accepted without an order number")
        return accepted(order_no, request)

    def resolve(self, request: PurchaseRequest, evidence: Evidence, now: datetime) -> Outcome:
        """Look for our `transactionId`: in the orders of the time window, or among the plans of the topped-up eSIM.

        The order is never repeated as it was, although the contract calls that safe: `resolve` may run when nobody
        wants the eSIM any more. Since the window lists eSIMs, not orders still waiting for one, absence is also asked
        for by an order under the same reference that cannot be bought (`_probed`).
        """
        esim = request.top_up_of
        wanted = window(request.started_at) if esim is None else {"esimTranNo": esim.provider_esim_id}
        try:
            ours = [row for row in self._session.esims(wanted) if is_ours(row, request.reference)]
        except ProviderError as error:
            return still_unknown(error)
        if ours:
            return outcome_of(ours, request) if esim is None else topped_up(request, ours[0])
        if not settled(self.capabilities, request.left_at, now):
            return Unknown(ErrorType.UNKNOWN, f"{SLUG}: {request.reference} is not listed yet; too early to be sure")
        absent = Rejected(ErrorType.NOT_BOUGHT, f"{SLUG}: {request.reference} is in no order after the settle time")
        return absent if esim is not None else self._probed(request, absent, now)

    def order_status(self, provider_order_id: str, request: PurchaseRequest) -> Outcome:
        """Read an accepted order; it is delivered when its profile has an activation string."""
        if request.top_up_of is not None:
            return self.resolve(request, {}, request.left_at)
        try:
            esims = self._session.esims({"orderNo": provider_order_id})
        except Refused as error:
            return accepted(provider_order_id, request) if error.code == PENDING else still_unknown(error)
        except ProviderError as error:
            return still_unknown(error)
        if not esims:
            return accepted(provider_order_id, request)
        return with_facts(outcome_of(esims, request), facts_of(esims))

    def cancel(self, esim: EsimRef) -> CancelOutcome:
        """Give an eSIM back that nobody installed; its price returns to the balance."""
        try:
            number = esim.provider_esim_id or loose_text(self._record(esim), "esimTranNo")
        except ProviderError as error:
            return CancelUnknown(str(error))
        answer = self._session.send("cancel", "esim/cancel", {"esimTranNo": number})
        if not isinstance(answer, Envelope):
            return CancelUnknown(answer.message)
        if answer.success:
            return Cancelled(refunded=True)
        words = f"{SLUG} cancel: {answer.code} {answer.message}"
        refused = answer.code in NOT_IN_THIS_STATE or isinstance(refusal_of("cancel", answer), Rejected)
        return CancelRefused(words) if refused else CancelUnknown(words)

    def esim_details(self, esim: EsimRef) -> EsimProfile:
        """Read the activation data again.

        Raises:
            ProviderError: not to be read, or there are none (yet).
        """
        profile = profile_of(self._record(esim))
        if profile is None:
            raise ProviderRejected(f"{SLUG} query: the eSIM has no activation data yet")
        return profile

    def usage(self, esim: EsimRef) -> UsageReading:
        """Read the data used, which eSIM Access refreshes every two to three hours; total is None without a limit.

        Raises:
            ProviderError: not to be read.
        """
        record = self._record(esim)
        number = loose_text(record, "esimTranNo")
        payload = mapping(self._session.read("usage", "esim/usage/query", {"esimTranNoList": [number]}), "obj")
        readings = listing(payload.get("esimUsageList"), "esimUsageList")
        reading = next((r for r in readings if isinstance(r, dict) and r.get("esimTranNo") == number), None)
        if reading is None:
            raise MalformedReply(f"{SLUG} usage: the answer is about another eSIM")
        return UsageReading(
            used_bytes=trusted(whole, reading, "dataUsage"),
            total_bytes=None if record.get("dataType") == 4 else trusted(whole, reading, "totalData"),
            measured_at=moment(reading.get("lastUpdateTime")),
            expires_at=moment(record.get("expiredTime")),
            status=loose_text(record, "esimStatus") or "unknown",
        )

    def top_ups(self, esim: EsimRef) -> Sequence[ProviderOffer]:
        """List the top-ups that fit this eSIM.

        Raises:
            ProviderError: not to be read.
        """
        wanted = {"iccid": esim.iccid} if esim.iccid else {"packageCode": esim.provider_package_id}
        rows = self._session.packages({"type": "TOPUP", **wanted})
        parse = partial(parse_offer, kind=OfferKind.TOP_UP)
        return catalogue_page(SLUG, rows, parse, id_key="packageCode", seen=set()).offers

    def balance(self) -> Cost:
        """Read our balance.

        Raises:
            ProviderError: not to be read.
        """
        payload = mapping(self._session.read("balance", "balance/query", {}), "obj")
        return Cost(trusted(amount, payload, "balance") / PRICE_UNITS, CURRENCY)

    def purchases_since(self, since: datetime) -> Iterator[ProviderPurchase]:
        """List the orders behind every eSIM made since, day by day; one that still waits for its eSIM is not listed.

        It ends before now by the settle time, so that nothing moves on the list while its pages are read.

        Raises:
            ProviderError: not to be read whole.
        """
        known: set[str] = set()  # an order at midnight is in two windows
        start, end = since, self._clock() - timedelta(seconds=self.capabilities.settle_seconds)
        while start < end:
            stop = min(start + STATEMENT_STEP, end)
            lines = listed_purchases(self._session.esims(between(start, stop)))
            yield from (line for line in lines if line.bought_at >= since and line.provider_order_id not in known)
            known = {line.provider_order_id for line in lines}
            start = stop

    def verify_webhook(self, headers: Mapping[str, str], body: bytes) -> None:
        """Accept any sender: eSIM Access signs nothing, so an event is only a hint to read the order again.

        The published sender addresses (3.1.131.226, 54.254.74.88, 18.136.190.97, 18.136.60.197, 18.136.19.137) are
        checked where addresses are known: in front of the API.
        """

    def parse_webhook(self, body: bytes) -> Sequence[ProviderEvent]:
        """Read one event.

        Raises:
            WebhookRejected: it is not an event of eSIM Access.
        """
        return (event_of(body),)

    def _guard(self, request: PurchaseRequest) -> int | Rejected:
        return too_dear(SLUG, request.expected_cost, request) or price_units(request)

    def _probed(self, request: PurchaseRequest, absent: Rejected, now: datetime) -> Outcome:
        """Order under our reference at a price that no plan has: a known reference is answered, a new one refused.

        That the reference is looked at before all else is not confirmed. So a refusal proves something only where the
        same order under a reference that is surely known is answered as known.
        """
        answer = self._session.spend("order", "esim/order", order_body(request, IMPOSSIBLE_PRICE))
        if isinstance(answer, Rejected):
            if answer.error_type not in PROVES_NEW:
                return Unknown(answer.error_type, answer.message)
            try:
                known = self._known_reference(request, now)
            except ProviderError as error:
                return still_unknown(error)
            if known is not None and self._answers_as_known(replace(request, reference=known)):
                return absent
            return Unknown(
                ErrorType.UNKNOWN, f"{SLUG}: not listed, and its repeat was refused, which may prove nothing"
            )
        if isinstance(answer, Unknown):
            return answer
        order_no = loose_text(answer, "orderNo")
        return (
            accepted(order_no, request) if order_no else Unknown(ErrorType.UNKNOWN, f"{SLUG}: an order without number")
        )

    def _known_reference(self, request: PurchaseRequest, now: datetime) -> str | None:
        """Return the reference of our latest other order that has its eSIM, of a month; None where there is none."""
        for wanted in (window(request.started_at), between(now - CONTROL_AGE, now)):
            names = [loose_text(row, "transactionId") for row in self._session.esims(wanted)]
            if others := [name for name in names if name and name != request.reference]:
                return others[-1]
        return None

    def _answers_as_known(self, request: PurchaseRequest) -> bool:
        answer = self._session.send("order", "esim/order", order_body(request, IMPOSSIBLE_PRICE))
        if not isinstance(answer, Envelope):
            return False
        payload = answer.payload if isinstance(answer.payload, dict) else {}
        return bool(loose_text(payload, "orderNo")) if answer.success else answer.code == DUPLICATE

    def _top_up(self, request: PurchaseRequest, esim: EsimRef, price: int) -> Outcome:
        if not esim.provider_esim_id:
            return Rejected(ErrorType.INVALID_PRODUCT, f"{SLUG} topup: the eSIM's esimTranNo is not known; not sent")
        answer = self._session.spend("topup", "esim/topup", top_up_body(request, esim, price))
        return answer if isinstance(answer, Rejected | Unknown) else topped_up(request, answer)

    def _record(self, esim: EsimRef) -> Row:
        """Return the record of one eSIM, by `esimTranNo` where we have it."""
        if esim.provider_esim_id:
            found = self._session.esims({"esimTranNo": esim.provider_esim_id})
        elif esim.provider_order_id:
            found = self._session.esims({"orderNo": esim.provider_order_id})
        else:
            found = self._session.esims({"iccid": esim.iccid})
        if len(found) != 1:
            raise ProviderRejected(f"{SLUG} query: {len(found)} eSIMs where one was expected")
        return found[0]
