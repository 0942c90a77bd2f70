"""The Airalo adapter (Partner API v2, developers.partners.airalo.com; quirks with dates in `docs/providers/airalo.md`).

Orders are synchronous and nothing is idempotent: a post sent twice buys twice. Our reference travels as `description`,
by which a lost order is found again. There is no price guard, so the price is read again just before buying. Refunds
are requests that people review.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from esim.catalogue import CataloguePage, OfferKind, ProviderOffer
from esim.errors import MalformedReply, ProviderError, ProviderRejected
from esim.money import Cost
from esim.ports import Capabilities, Clock, Limiter, RateLimit, TokenStore
from esim.purchase import (
    CancelOutcome,
    CancelRefused,
    CancelUnknown,
    ErrorType,
    EsimProfile,
    EsimRef,
    Evidence,
    Outcome,
    Pending,
    Prepared,
    ProviderEvent,
    ProviderPurchase,
    Provisioned,
    PurchaseRequest,
    Rejected,
    Unknown,
    UsageReading,
)
from resources.providers.airalo_catalogue import SLUG, pricing_of, read_page
from resources.providers.airalo_orders import (
    bought,
    events_of,
    facts_of,
    likeliest,
    listed_purchase,
    profile_of,
    reading_of,
    refusal_of,
    verify_signature,
)
from resources.providers.airalo_prices import AiraloPrices
from resources.providers.airalo_session import AiraloSession
from resources.providers.base import CATALOGUE, PREPARE, READ, Patience, Reply, path_part, settled
from resources.providers.outcomes import not_bought, still_unknown, too_dear, with_facts
from resources.providers.paging import walk, walk_statement
from resources.providers.payload import Row, amount, listing, loose_text, mapping, trusted, whole
from resources.settings import Endpoint

ENTRIES_PER_PAGE = 50  # countries and regions; some 210 in all, each with its operators and packages
MOST_PAGES = 300
ORDERS_PER_PAGE = 100
MOST_ORDER_PAGES = 2000
TOP_UP_LIST_LIFE = timedelta(hours=1)


class Airalo:
    """A client of Airalo."""

    slug = SLUG
    capabilities = Capabilities(
        reference_lookup=True,
        async_orders=True,
        signed_webhooks=True,
        lists_purchases=True,
        max_quantity=50,
        # How fast an order shows in the list is not published: 30 s for a request under way, 90 s to appear.
        settle_seconds=120.0,
        rate_limits=(
            RateLimit("token", 3, 60.0),
            RateLimit("packages", 80, 60.0),
            RateLimit("usage", 5, 1.0),
            RateLimit("refund", 5, 60.0),
        ),
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
        self._secret = endpoint.credentials["client_secret"]
        self._clock = clock
        self._session = AiraloSession(
            endpoint,
            capabilities=self.capabilities,
            limiter=limiter,
            tokens=tokens,
            clock=clock,
            timeout_seconds=timeout_seconds,
            transport=transport,
        )
        self._prices = AiraloPrices(self._read_list, clock)
        self._top_ups: tuple[datetime, dict[str, ProviderOffer]] | None = None

    def close(self) -> None:
        """Give connections back."""
        self._session.close()

    def catalogue(self) -> Iterator[CataloguePage]:
        """Stream every package and top-up, some fifty countries a page.

        Raises:
            ProviderError: a page failed or is malformed, or the pages repeat or never end.
        """
        return self._walk({"include": "topup"})

    def _walk(self, filters: Mapping[str, str], patience: Patience = CATALOGUE) -> Iterator[CataloguePage]:
        seen: set[str] = set()

        def read(number: int) -> tuple[CataloguePage, bool]:
            params: dict[str, str | int] = {**filters, "limit": ENTRIES_PER_PAGE, "page": number}
            page = read_page(self._session.get("packages", "packages", params, patience=patience), seen, number)
            return CataloguePage(page.offers, page.rejects, number, page.pages), page.has_more

        return walk(f"{SLUG} packages", read, most_pages=MOST_PAGES)

    def _read_list(self, params: Mapping[str, str | int], patience: Patience) -> Row:
        return self._session.get("packages", "packages", params, patience=patience)

    def current_cost(self, provider_package_id: str, hints: Mapping[str, str]) -> Cost:
        """Read what one unit costs right now, from a list that is some seconds old at most.

        Raises:
            ProviderError: not to be read; `ProviderRejected` when the plan left the list (sold out or withdrawn).
        """
        return self._prices.cost(provider_package_id, hints, READ)

    def prepare(self, request: PurchaseRequest) -> Prepared | Rejected:
        """Fetch a token and read the price again; for a top-up, note which packages the eSIM has already."""
        cost: Cost | None
        try:
            self._session.ready()
            if request.top_up_of is None:
                cost = self._prices.cost(request.provider_package_id, request.hints, PREPARE)
                known: list[str] = []
            else:
                cost = self._fitting_top_ups(request.top_up_of, PREPARE).get(request.provider_package_id)
                known = list(self._packages_of(request.top_up_of, PREPARE))
        except ProviderError as error:
            return not_bought(error)
        if cost is None:
            return Rejected(ErrorType.INVALID_PRODUCT, f"{SLUG}: {request.provider_package_id} does not fit this eSIM")
        return too_dear(SLUG, cost, request) or Prepared({"known_packages": list(known)})

    def purchase(self, request: PurchaseRequest, evidence: Evidence) -> Outcome:
        """Order one eSIM, or one top-up, with our reference as its description."""
        body: dict[str, object] = {"package_id": request.provider_package_id, "description": request.reference}
        if request.top_up_of is None:
            reply = self._session.spend("order", "orders", {**body, "quantity": 1, "type": "sim"})
        else:
            reply = self._session.spend("topup", "orders/topups", {**body, "iccid": request.top_up_of.iccid})
        if isinstance(reply, Rejected | Unknown):
            return reply
        refused = refusal_of("order", reply)
        return refused or self._delivered(_order_in(reply), request)

    def _delivered(self, order: object, request: PurchaseRequest) -> Outcome:
        outcome = bought(order, request)
        if not isinstance(outcome, Pending) or request.top_up_of is None:
            return outcome
        try:  # a top-up's answer holds no eSIM: it is the one we know
            return Provisioned(self.esim_details(request.top_up_of), outcome.provider_order_id, outcome.cost)
        except ProviderError:
            return outcome

    def resolve(self, request: PurchaseRequest, evidence: Evidence, now: datetime) -> Outcome:
        """Look for an order whose description is our reference; for a top-up, also for a new package on the eSIM."""
        try:
            rows = self._orders_of(request.reference)
            if not rows and request.top_up_of is not None:
                return self._resolve_top_up(request, request.top_up_of, evidence, now)
        except ProviderError as error:
            return still_unknown(error)
        if rows:
            return self._delivered(likeliest(rows, request), request)
        return self._absent(request, now)

    def _orders_of(self, reference: str) -> list[dict[str, Any]]:
        # The filter is LIKE %reference%: only an exact description is ours.
        params: dict[str, str | int] = {"filter[description]": reference, "include": "sims,status", "limit": 50}
        rows = listing(self._session.get("orders", "orders", params).get("data"), f"{SLUG} orders")
        return [row for row in rows if isinstance(row, dict) and row.get("description") == reference]

    def _resolve_top_up(self, request: PurchaseRequest, esim: EsimRef, evidence: Evidence, now: datetime) -> Outcome:
        """Whether the order list shows top-ups is not documented, so the eSIM's own packages are compared too."""
        known = evidence.get("known_packages")
        new = [
            package_id
            for row_id, package_id in self._packages_of(esim).items()
            if isinstance(known, list) and row_id not in known
        ]
        if request.provider_package_id in new:
            return Provisioned(self.esim_details(esim), request.reference)
        return self._absent(request, now)

    def _absent(self, request: PurchaseRequest, now: datetime) -> Outcome:
        if settled(self.capabilities, request.left_at, now):
            return Rejected(ErrorType.NOT_BOUGHT, f"{SLUG}: {request.reference} is in no order after the settle time")
        return Unknown(ErrorType.UNKNOWN, f"{SLUG}: {request.reference} is not listed yet; too early to be sure")

    def order_status(self, provider_order_id: str, request: PurchaseRequest) -> Outcome:
        """Read an order by its number; an asynchronous request id cannot be read, its description can."""
        try:
            if provider_order_id.isdecimal():
                path, params = f"orders/{path_part(provider_order_id)}", {"include": "sims,status"}
                order = self._session.get("orders", path, params).get("data")
                return with_facts(self._delivered(order, request), facts_of(order))
            rows = self._orders_of(request.reference)
        except ProviderError as error:
            return still_unknown(error)
        if not rows:
            return Pending(provider_order_id)
        order = likeliest(rows, request)
        return with_facts(self._delivered(order, request), facts_of(order))

    def cancel(self, esim: EsimRef) -> CancelOutcome:
        """File a refund request: Airalo has no cancellation, people review requests and may pay credit back."""
        body = {"iccids": [esim.iccid], "reason": "OTHERS", "notes": "Not delivered to a traveller and not installed."}
        reply = self._session.spend("refund", "refund", body)
        if not isinstance(reply, Reply):
            return CancelUnknown(reply.message)
        refused = refusal_of("refund", reply)
        if isinstance(refused, Rejected):
            return CancelRefused(refused.message)
        if isinstance(refused, Unknown):
            return CancelUnknown(refused.message)
        return CancelUnknown(f"{SLUG}: a refund is requested and under review; the order's status will tell")

    def esim_details(self, esim: EsimRef) -> EsimProfile:
        """Read the activation data again.

        Raises:
            ProviderError: not to be read.
        """
        answer = self._session.get("sim", f"sims/{path_part(esim.iccid)}")
        profile = profile_of(answer.get("data"))
        if profile is None:
            raise MalformedReply(f"{SLUG} sim: no activation data in the answer")
        return profile

    def usage(self, esim: EsimRef) -> UsageReading:
        """Read the data used; Airalo refreshes it every twenty minutes.

        Raises:
            ProviderError: not to be read.
        """
        answer = self._session.get("usage", f"sims/{path_part(esim.iccid)}/usage")
        return reading_of(mapping(answer.get("data"), f"{SLUG} usage"), self._clock())

    def top_ups(self, esim: EsimRef) -> Sequence[ProviderOffer]:
        """List the top-ups that fit this eSIM, at today's cost; what they cover comes from the catalogue.

        Raises:
            ProviderError: not to be read.
        """
        costs = self._fitting_top_ups(esim)
        known = self._known_top_ups(costs)
        return [replace(known[key], cost=cost) for key, cost in costs.items() if key in known]

    def _known_top_ups(self, wanted: Mapping[str, Cost]) -> Mapping[str, ProviderOffer]:
        read_at, offers = self._top_ups or (None, {})
        fresh = read_at is not None and self._clock() - read_at < TOP_UP_LIST_LIFE
        if wanted and not (fresh and wanted.keys() <= offers.keys()):
            every = (offer for page in self.catalogue() for offer in page.offers)
            offers = {offer.provider_package_id: offer for offer in every if offer.kind is OfferKind.TOP_UP}
            self._top_ups = (self._clock(), offers)
        return offers

    def _fitting_top_ups(self, esim: EsimRef, patience: Patience = READ) -> dict[str, Cost]:
        answer = self._session.get("topups", f"sims/{path_part(esim.iccid)}/topups", patience=patience)
        pricing = pricing_of(answer)
        rows = [row for row in listing(answer.get("data"), f"{SLUG} topups") if isinstance(row, dict)]
        return {loose_text(row, "id"): trusted(pricing.cost, row) for row in rows}

    def _packages_of(self, esim: EsimRef, patience: Patience = READ) -> dict[str, str]:
        path = f"sims/{path_part(esim.iccid)}/packages"
        rows = self._session.get("history", path, patience=patience).get("data")
        found: dict[str, str] = {}
        for row in listing(rows, f"{SLUG} history"):
            package = row.get("package") if isinstance(row, dict) else None
            if isinstance(package, dict):
                found[str(row.get("id"))] = loose_text(package, "id")
        return found

    def balance(self) -> Cost:
        """Read our credit.

        Raises:
            ProviderError: not to be read, or there is no account.
        """
        data = mapping(self._session.get("balance", "balance").get("data"), f"{SLUG} balance")
        balances = data.get("balances")
        if not isinstance(balances, dict):
            raise ProviderRejected(f"{SLUG} balance: there is no credit account")
        available = mapping(balances.get("availableBalance"), f"{SLUG} availableBalance")
        return Cost(trusted(amount, available, "amount"), loose_text(available, "currency"))

    def purchases_since(self, since: datetime) -> Iterator[ProviderPurchase]:
        """List the orders made since, by whole days of the provider's zone; whether top-ups are listed is not known.

        Raises:
            ProviderError: not to be read whole.
        """
        day = timedelta(days=1)
        days = f"{since.astimezone(UTC) - day:%Y-%m-%d} - {self._clock().astimezone(UTC) + day:%Y-%m-%d}"

        def read(number: int) -> tuple[list[ProviderPurchase], bool]:
            params: dict[str, str | int] = {"filter[created_at]": days, "include": "sims,status"}
            answer = self._session.get("orders", "orders", {**params, "limit": ORDERS_PER_PAGE, "page": number})
            meta = mapping(answer.get("meta"), f"{SLUG} orders meta")
            rows = [listed_purchase(row) for row in listing(answer.get("data"), f"{SLUG} orders")]
            return rows, number < trusted(whole, meta, "last_page")

        lines = walk_statement(f"{SLUG} orders", read, most_pages=MOST_ORDER_PAGES)
        return (line for line in lines if line.bought_at >= since)

    def verify_webhook(self, headers: Mapping[str, str], body: bytes) -> None:
        """Check the HMAC-SHA512 of the raw body, keyed with the client secret.

        Raises:
            WebhookRejected: it is missing or wrong.
        """
        verify_signature(headers, body, self._secret)

    def parse_webhook(self, body: bytes) -> Sequence[ProviderEvent]:
        """Read one event.

        Raises:
            WebhookRejected: it is not an event of Airalo.
        """
        return events_of(body, self._clock())


def _order_in(reply: Reply) -> object:
    try:
        document = reply.json()
    except MalformedReply:
        return None
    return document.get("data") if isinstance(document, dict) else None
