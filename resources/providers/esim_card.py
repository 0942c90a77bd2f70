"""The eSIMCard adapter (reseller API; quirks with dates in `docs/providers/esim_card.md`).

There is no reference of ours, no idempotency and no cancellation, so one purchase is open at a time per account:
`prepare` reads the price again and writes down the balance and the newest bundles and SIMs, `purchase` asks for the
asynchronous variant because it answers with a handle, and `resolve` compares the account after two minutes. Where that
does not settle it, a person must look. Refusals may come with HTTP 200 and `status: false`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import httpx

from esim.catalogue import CataloguePage, OfferKind, ProviderOffer, check_offer
from esim.errors import InvalidInput, MalformedReply, ProviderError, ProviderRejected, WebhookRejected
from esim.money import Cost
from esim.ports import Capabilities, Clock, Limiter, RateLimit, Serialise, TokenStore
from esim.purchase import (
    CancelOutcome,
    CancelRefused,
    ErrorType,
    EsimProfile,
    EsimRef,
    Evidence,
    OrderFacts,
    Outcome,
    Pending,
    Prepared,
    ProviderEvent,
    ProviderPurchase,
    PurchaseRequest,
    Rejected,
    Unknown,
    UsageReading,
)
from resources.providers.base import PREPARE, path_part, settled
from resources.providers.esim_card_catalogue import CURRENCY, SLUG, parse_offer, price_of, tells_no_country
from resources.providers.esim_card_orders import (
    FAILED,
    POLL_SECONDS,
    Absent,
    Before,
    Found,
    Unclear,
    before_from,
    bytes_of,
    compare,
    evidence_of,
    expiry_of,
    id_of,
    identity,
    order_of,
    paid_between,
    profile_of,
    sim_of,
    sim_outcome,
    unclear_message,
)
from resources.providers.esim_card_session import EsimCardSession
from resources.providers.outcomes import not_bought, other_orders, still_unknown, too_dear, with_facts
from resources.providers.paging import walk, walk_statement
from resources.providers.payload import (
    Row,
    amount,
    catalogue_page,
    loose_text,
    mapping,
    moment,
    trusted,
)
from resources.settings import Endpoint

MOST_PAGES = 500
MOST_SIM_PAGES = 20_000  # of fifteen SIMs
MOST_DETAILS = 200


class EsimCard:
    """A client of eSIMCard."""

    slug = SLUG
    capabilities = Capabilities(
        async_orders=True,
        resolves_for_certain=False,
        lists_purchases=True,
        settle_seconds=180.0,  # two minutes after a lost reply, which may take 30 s and leave up to 20 s late
        serialise=Serialise.ACCOUNT,
        rate_limits=(RateLimit("*", 4, 1.0),),  # none is published, integrators meet 429: a modest pace of our own
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
        self._session = EsimCardSession(
            endpoint,
            capabilities=self.capabilities,
            limiter=limiter,
            tokens=tokens,
            clock=clock,
            timeout_seconds=timeout_seconds,
            transport=transport,
        )

    def close(self) -> None:
        """Give connections back."""
        self._session.close()

    def catalogue(self) -> Iterator[CataloguePage]:
        """Stream the data-only packages, 100 a page; plans with calls are not asked for.

        A regional plan listed without its countries is completed from its detail, for the first 200 of them.

        Raises:
            ProviderError: a page failed, is malformed or empty, repeats the one before, or the pages never end.
        """
        seen: set[str] = set()
        details = MOST_DETAILS

        def read(number: int) -> tuple[CataloguePage, bool]:
            nonlocal details
            rows, pages = self._session.packages(number)
            bare = [place for place, row in enumerate(rows) if tells_no_country(row)][:details]
            details -= len(bare)
            whole = [
                {**row, **self._session.countries_of(id_of(row))} if place in bare else row
                for place, row in enumerate(rows)
            ]
            page = catalogue_page(SLUG, whole, parse_offer, id_key="id", seen=seen, page=number, pages=pages)
            return page, number < pages

        yield from walk(f"{SLUG} packages", read, most_pages=MOST_PAGES, may_be_empty=False)

    def current_cost(self, provider_package_id: str, hints: Mapping[str, str]) -> Cost:
        """Read what one unit costs right now.

        Raises:
            ProviderError: not to be read; `ProviderRejected` when the package is gone.
        """
        return trusted(price_of, self._session.detail(provider_package_id))

    def prepare(self, request: PurchaseRequest) -> Prepared | Rejected:
        """Read the price and the account: what a lost answer will be told from."""
        try:
            detail = self._session.detail(request.provider_package_id, PREPARE)
            cost = trusted(price_of, detail)
            trouble = too_dear(SLUG, cost, request) or self._no_top_up(request)
            if trouble is not None:
                return trouble
            account = self._session.account(PREPARE)
        except ProviderError as error:
            return not_bought(error)
        if account.balance < cost.amount:
            message = f"{SLUG}: the balance of {account.balance} {CURRENCY} does not pay {cost}"
            return Rejected(ErrorType.INSUFFICIENT_BALANCE, message)
        return Prepared(evidence_of(account, cost.amount, loose_text(detail, "name")))

    def purchase(self, request: PurchaseRequest, evidence: Evidence) -> Outcome:
        """Buy one package: for a new eSIM by the asynchronous call, for an eSIM that exists by its ICCID."""
        before = before_from(evidence)
        if before is None:
            return Rejected(ErrorType.PROVIDER_API_ERROR, f"{SLUG}: no account was written down before; not sent")
        body = {"package_type_id": request.provider_package_id}
        if request.top_up_of is None:
            answer = self._session.spend("package/purchase/async", body)
        else:
            answer = self._session.spend("package/purchase", {**body, "iccid": request.top_up_of.iccid})
        if isinstance(answer, Rejected):
            return self._confirmed(answer, before)
        if isinstance(answer, Unknown):
            return answer
        return self._bought(answer, before, request)

    def resolve(self, request: PurchaseRequest, evidence: Evidence, now: datetime) -> Outcome:
        """Compare the account with the one before, once the settle time is over."""
        before = before_from(evidence)
        if before is None:
            return Rejected(ErrorType.NOT_BOUGHT, f"{SLUG}: no account was written down, so nothing was sent")
        if not settled(self.capabilities, request.left_at, now):
            return Unknown(ErrorType.UNKNOWN, f"{SLUG}: too early to tell {request.reference} from the account")
        try:
            # An account shows a top-up by its bundle alone, which the orders of others do not name.
            others = other_orders(evidence) if request.top_up_of is None else {}
            verdict = compare(before, self._session.account(), others)
        except ProviderError as error:
            return still_unknown(error)
        if isinstance(verdict, Absent):
            return Rejected(ErrorType.NOT_BOUGHT, f"{SLUG}: nothing new and nothing paid after the settle time")
        if isinstance(verdict, Unclear):
            return Unknown(ErrorType.UNKNOWN, unclear_message(request, verdict.why))
        return self._identified(verdict, before, request)

    def order_status(self, provider_order_id: str, request: PurchaseRequest) -> Outcome:
        """Read the SIM (or, for a top-up, the order) of an accepted purchase."""
        order_id, sim_id = order_of(provider_order_id), sim_of(provider_order_id)
        number = identity(request, order_id, sim_id)
        try:
            if request.top_up_of is not None and order_id not in {"", request.reference}:
                return self._top_up_status(number, request)
            sim = self._session.sim(sim_id)
        except ProviderRejected:
            return Pending(number, POLL_SECONDS)  # bought, but not to be seen yet
        except ProviderError as error:
            return still_unknown(error)
        facts = OrderFacts(ordered_at=moment(sim.get("created_at")))
        return with_facts(sim_outcome(sim, number, request, None), facts)

    def cancel(self, esim: EsimRef) -> CancelOutcome:
        """Say that eSIMCard takes nothing back through its API."""
        return CancelRefused(f"{SLUG} has no cancellation; ask its support through the portal")

    def esim_details(self, esim: EsimRef) -> EsimProfile:
        """Read the activation data again.

        Raises:
            ProviderError: not to be read, or there are none (yet).
        """
        profile = profile_of(self._session.sim(esim.provider_esim_id)) if esim.provider_esim_id else None
        if profile is None:
            raise ProviderRejected(f"{SLUG}: this eSIM has no activation data, or its id is not known")
        return profile

    def usage(self, esim: EsimRef) -> UsageReading:
        """Read the data used: allowed less remaining; both None on unlimited plans.

        Raises:
            ProviderError: not to be read.
        """
        body = self._session.read("usage", f"my-sim/{path_part(esim.provider_esim_id or esim.iccid)}/usage")
        data = mapping(body.get("data"), "usage")
        allowed = bytes_of(data.get("initial_data_quantity"), loose_text(data, "initial_data_unit"))
        remaining = bytes_of(data.get("rem_data_quantity"), loose_text(data, "rem_data_unit"))
        record = self._session.sim_record(esim.provider_esim_id) if esim.provider_esim_id else {}
        sim = record.get("sim")
        return UsageReading(
            used_bytes=None if allowed is None or remaining is None else max(0, allowed - remaining),
            total_bytes=allowed,
            measured_at=None,
            expires_at=expiry_of(record),
            status=(loose_text(sim, "status") if isinstance(sim, dict) else "") or "unknown",
        )

    def top_ups(self, esim: EsimRef) -> Sequence[ProviderOffer]:
        """Return the eSIM's own package again, when eSIMCard says that it can be bought onto it; there is no list.

        Raises:
            ProviderError: not to be read.
        """
        if not esim.provider_package_id or not self._session.takes_top_up(esim.iccid, esim.provider_package_id):
            return ()
        offer = trusted(parse_offer, self._session.detail(esim.provider_package_id), OfferKind.TOP_UP)
        try:
            check_offer(offer)
        except InvalidInput as error:
            raise MalformedReply(f"{SLUG} package/detail: {error}") from error
        return (replace(offer, provider_package_id=esim.provider_package_id),)

    def balance(self) -> Cost:
        """Read our balance.

        Raises:
            ProviderError: not to be read.
        """
        return Cost(trusted(amount, self._session.read("balance", "balance"), "balance"), CURRENCY)

    def purchases_since(self, since: datetime) -> Iterator[ProviderPurchase]:
        """List the SIMs made since; top-ups are in no list that names their eSIM, so the balance must tell of them.

        Raises:
            ProviderError: not to be read whole.
        """
        lines = walk_statement(f"{SLUG} my-esims", self._session.sims_from_newest(since), most_pages=MOST_SIM_PAGES)
        return (line for line in lines if line.bought_at >= since)

    def verify_webhook(self, headers: Mapping[str, str], body: bytes) -> None:
        """Refuse: eSIMCard sends no webhooks.

        Raises:
            WebhookRejected: always.
        """
        raise WebhookRejected(f"{SLUG} sends no webhooks")

    def parse_webhook(self, body: bytes) -> Sequence[ProviderEvent]:
        """Refuse: eSIMCard sends no webhooks.

        Raises:
            WebhookRejected: always.
        """
        raise WebhookRejected(f"{SLUG} sends no webhooks")

    def _no_top_up(self, request: PurchaseRequest) -> Rejected | None:
        esim = request.top_up_of
        if esim is None or (esim.iccid and self._session.takes_top_up(esim.iccid, request.provider_package_id)):
            return None
        return Rejected(ErrorType.INVALID_PRODUCT, f"{SLUG}: this package cannot be bought onto that eSIM")

    def _confirmed(self, refusal: Rejected, before: Before) -> Rejected | Unknown:
        """Return a refusal when the balance agrees: what `status: false` proves about the money is unconfirmed."""
        if refusal.error_type in {ErrorType.AUTH_FAILED, ErrorType.NETWORK_ERROR, ErrorType.RATE_LIMITED}:
            return refusal
        try:
            balance = self.balance().amount
        except ProviderError as error:
            return Unknown(refusal.error_type, f"{refusal.message}; the balance cannot be read: {error}")
        if paid_between(before.balance, balance) == 0:
            return refusal
        return Unknown(refusal.error_type, f"{refusal.message}; but the balance changed")

    def _bought(self, data: Row, before: Before, request: PurchaseRequest) -> Outcome:
        """Return the outcome of an accepted purchase: at once, by a handle, or without any id."""
        sim = data.get("sim") if isinstance(data.get("sim"), dict) else {}
        package = data.get("package") if isinstance(data.get("package"), dict) else {}
        record: dict[str, Any] = dict(sim or {})
        sim_id = id_of(record) or id_of(data, "sim_id")
        if request.top_up_of is not None:
            sim_id = sim_id or request.top_up_of.provider_esim_id
        if not sim_id:
            return Unknown(ErrorType.UNKNOWN, f"{SLUG} order: bought, but without an id; looked for in the account")
        number = identity(request, id_of(data, "order_id") or id_of(package or {}), sim_id)
        if not record:
            return Pending(number, POLL_SECONDS, before.cost)
        return sim_outcome(record, number, request, before.cost)

    def _identified(self, found: Found, before: Before, request: PurchaseRequest) -> Outcome:
        """Return the outcome of a purchase that the account shows."""
        bundle_id = id_of(found.bundle)
        if request.top_up_of is not None:
            number = identity(request, bundle_id, request.top_up_of.provider_esim_id)
            return sim_outcome({}, number, request, before.cost)
        if found.sim is None:
            return Unknown(ErrorType.UNKNOWN, f"{SLUG}: bundle {bundle_id} is ours, its SIM does not show yet")
        return sim_outcome(found.sim, identity(request, bundle_id, id_of(found.sim)), request, before.cost)

    def _top_up_status(self, number: str, request: PurchaseRequest) -> Outcome:
        rows = self._session.order(order_of(number))
        if any(loose_text(row, "status").casefold() in FAILED for row in rows):
            return Unknown(
                ErrorType.PROVIDER_API_ERROR, f"{SLUG}: top-up {order_of(number)} failed; a person must look"
            )
        return sim_outcome({}, number, request, None) if rows else Pending(number, POLL_SECONDS)
