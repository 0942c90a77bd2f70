"""The eSIM Go adapter (API v2.5, docs.esim-go.com; quirks with dates in `docs/providers/esim_go.md`).

There is no client reference and nothing is idempotent. `prepare` is a dry run that also notes which orders of the
bundle exist; a lost order is the new one of that bundle, which is why one purchase of a bundle runs at a time. A 503
means "being worked on", and a 200 may carry a failed order.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from esim.catalogue import CataloguePage, OfferKind, ProviderOffer
from esim.errors import MalformedReply, ProviderError, ProviderRejected
from esim.money import Cost
from esim.ports import Capabilities, Clock, Limiter, RateLimit, Serialise, TokenStore
from esim.purchase import (
    Cancelled,
    CancelOutcome,
    CancelRefused,
    CancelUnknown,
    ErrorType,
    EsimProfile,
    EsimRef,
    Evidence,
    Json,
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
from resources.providers.base import CATALOGUE, ONCE, PREPARE, READ, Patience, Reply, path_part, settled
from resources.providers.esim_go_catalogue import SLUG, cost_of, coverage_of, read_page
from resources.providers.esim_go_orders import (
    assignments_of,
    events_of,
    facts_of,
    iccids_of,
    is_candidate,
    is_failed,
    is_only_order,
    listed_purchase,
    order_body,
    orders_in,
    outcome_of,
    paid,
    profile_of,
    reading_of,
    refusal_of,
    sent_at,
    verify_signature,
)
from resources.providers.esim_go_session import EsimGoSession
from resources.providers.outcomes import not_bought, other_orders, still_unknown, too_dear, with_facts
from resources.providers.paging import walk, walk_statement
from resources.providers.payload import amount, loose_text, mapping, moment, trusted
from resources.settings import Endpoint

BUNDLES_PER_PAGE = 500
MOST_PAGES = 200
ORDERS_PER_PAGE = 1000
MOST_ORDER_PAGES = 20
MOST_STATEMENT_PAGES = 1000
WINDOW_BEFORE = timedelta(minutes=10)
MOST_TOP_UPS = 40  # each needs a question of its own
_UNUSED = frozenset({"processing", "queued"})


class EsimGo:
    """A client of eSIM Go."""

    slug = SLUG
    capabilities = Capabilities(
        cancel=True,
        async_orders=True,
        signed_webhooks=True,
        lists_purchases=True,
        max_quantity=5,  # more is answered in the background
        # How fast an order shows in the list is not published: 30 s for a request under way, the rest to appear.
        settle_seconds=180.0,
        serialise=Serialise.PACKAGE,
        # Published: 3 s between orders; 10 calls a second per address, of which some count more than once.
        rate_limits=(RateLimit("order", 1, 3.0), RateLimit("*", 8, 1.0)),
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
        self._key = endpoint.credentials["api_key"]
        self._clock = clock
        self._session = EsimGoSession(
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
        """Stream every bundle we may order, 500 a page.

        Raises:
            ProviderError: a page failed or is malformed, or the pages repeat or never end.
        """
        return self._walk({})

    def _walk(self, filters: Mapping[str, str]) -> Iterator[CataloguePage]:
        currency, seen = self._session.currency(), set[str]()

        def read(number: int) -> tuple[CataloguePage, bool | None]:
            params: dict[str, str | int] = {**filters, "page": number, "perPage": BUNDLES_PER_PAGE}
            document = self._session.get("catalogue", "catalogue", params, patience=CATALOGUE)
            page = read_page(document, currency, seen, number)
            return page, None if page.pages is None else number < page.pages

        yield from walk(f"{SLUG} catalogue", read, most_pages=MOST_PAGES)

    def current_cost(self, provider_package_id: str, hints: Mapping[str, str]) -> Cost:
        """Read what one unit costs right now.

        Raises:
            ProviderError: not to be read; `ProviderRejected` when the bundle is gone.
        """
        return trusted(cost_of, self._session.bundle(provider_package_id), self._session.currency())

    def prepare(self, request: PurchaseRequest) -> Prepared | Rejected:
        """Let eSIM Go check and price the order without buying, then note the orders of this bundle that exist."""
        try:
            reply = self._session.dry_run(order_body(request, "validate"), PREPARE)
            refused = refusal_of("validate", reply, dry_run=True)
            answer = mapping({} if refused else reply.json(), f"{SLUG} validate")
            # The list is searched by their clock, so the window is set by it; ours may be wrong.
            since = (sent_at(reply) or self._clock()) - WINDOW_BEFORE
            known = [] if refused else self._candidates(request, since, frozenset(), PREPARE)
        except ProviderError as error:
            return not_bought(error)
        if isinstance(refused, Rejected):
            return refused
        cost = paid(answer)
        if answer.get("valid") is not True or cost is None:
            return Rejected(ErrorType.INVALID_PRODUCT, f"{SLUG}: the dry run did not find the order valid and priced")
        evidence: dict[str, Json] = {
            "since": since.isoformat(),
            "known_orders": [loose_text(row, "orderReference") for row in known],
        }
        return too_dear(SLUG, cost, request) or Prepared(evidence)

    def purchase(self, request: PurchaseRequest, evidence: Evidence) -> Outcome:
        """Order one bundle onto a new eSIM, or onto the one to be topped up."""
        reply = self._session.spend("order", "POST", "orders", json_body=order_body(request, "transaction"))
        if isinstance(reply, Rejected | Unknown):
            return reply
        refused = refusal_of("order", reply)
        return refused or self._delivered(_document(reply), request)

    def _delivered(self, order: object, request: PurchaseRequest) -> Outcome:
        outcome = outcome_of(order, request)
        if not isinstance(outcome, Pending):
            return outcome
        try:  # the order is there; its eSIM may be told elsewhere
            profile = self._assigned(outcome.provider_order_id, request)
        except ProviderError:
            return outcome
        return Provisioned(profile, outcome.provider_order_id, outcome.cost) if profile else outcome

    def _assigned(self, order_reference: str, request: PurchaseRequest) -> EsimProfile | None:
        params = {"reference": order_reference}
        answer = self._session.get("assignments", "esims/assignments", params, patience=ONCE)
        profiles = [profile_of(row) for row in (answer if isinstance(answer, list) else [answer])]
        wanted = request.top_up_of
        return next((p for p in profiles if p and (wanted is None or p.iccid == wanted.iccid)), None)

    def resolve(self, request: PurchaseRequest, evidence: Evidence, now: datetime) -> Outcome:
        """Look for the one order of our bundle that was not there when we prepared and that no other purchase is.

        Several are for a person.
        """
        since = moment(evidence.get("since")) or request.started_at - timedelta(minutes=1)
        noted = evidence.get("known_orders")
        known = frozenset(str(reference) for reference in noted) if isinstance(noted, list) else frozenset()
        known |= other_orders(evidence).keys()
        try:
            rows = self._candidates(request, since, known, READ)
        except ProviderError as error:
            return still_unknown(error)
        alive = [row for row in rows if not is_failed(row)]
        if len(alive) > 1:
            words = (
                f"{SLUG}: {len(alive)} new orders of {request.provider_package_id}; a person must tell which is ours"
            )
            return Unknown(ErrorType.UNKNOWN, words)
        if alive:
            return self._found(alive[0], request)
        if settled(self.capabilities, request.left_at, now):
            return Rejected(ErrorType.NOT_BOUGHT, f"{SLUG}: no new order of this bundle after the settle time")
        return Unknown(ErrorType.UNKNOWN, f"{SLUG}: no new order of this bundle yet; too early to be sure")

    def _found(self, order: dict[str, Any], request: PurchaseRequest) -> Outcome:
        """Return what the one new order amounts to; that of a new eSIM must be the only one its eSIM ever had.

        A top-up of somebody's eSIM made in the portal lists like our order, and would hand that eSIM to our customer.
        """
        outcome = self._delivered(order, request)
        if request.top_up_of is not None or not isinstance(outcome, Provisioned | Pending):
            return outcome
        told = {outcome.profile.iccid} if isinstance(outcome, Provisioned) else set[str]()
        iccids, reference = told | iccids_of(order), outcome.provider_order_id
        try:
            new = [is_only_order(self._session.bundles_of(EsimRef(iccid=iccid)), reference) for iccid in sorted(iccids)]
        except ProviderError as error:
            return still_unknown(error)
        if new and all(new):
            return outcome
        words = f"{SLUG}: order {reference} shows no eSIM that it alone was for; if that lasts, a person must look"
        return Unknown(ErrorType.UNKNOWN, words)

    def _candidates(
        self, request: PurchaseRequest, since: datetime, known: frozenset[str], patience: Patience
    ) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for page in range(1, MOST_ORDER_PAGES + 1):
            rows, pages = orders_in(self._session.get("orders", "orders", _order_page(since, page), patience=patience))
            found |= {loose_text(row, "orderReference"): row for row in rows if is_candidate(row, request, known)}
            if page >= pages:
                return list(found.values())
        raise MalformedReply(f"{SLUG} orders: more than {MOST_ORDER_PAGES} pages since {since:%H:%M}")

    def order_status(self, provider_order_id: str, request: PurchaseRequest) -> Outcome:
        """Read an accepted order."""
        try:
            order = self._session.get("orders", f"orders/{path_part(provider_order_id)}")
            return with_facts(self._delivered(order, request), facts_of(order))
        except ProviderError as error:
            return still_unknown(error)

    def cancel(self, esim: EsimRef) -> CancelOutcome:
        """Revoke an unused bundle: it returns to our inventory, whence it can be applied again for 12 months."""
        try:
            rows = [
                row
                for row in assignments_of(self._session.bundles_of(esim), esim)
                if not esim.provider_package_id or row["bundle"] == esim.provider_package_id
            ]
        except ProviderError as error:
            return CancelUnknown(str(error))
        if len(rows) != 1:
            return CancelRefused(f"{SLUG}: {len(rows)} bundles where one was expected; revoke it in the portal")
        state = loose_text(rows[0], "bundleState").lower()
        if state not in _UNUSED:
            return CancelRefused(
                f"{SLUG}: the bundle is {state or 'in an unknown state'}, only unused ones are revoked"
            )
        bundle, assignment = path_part(rows[0]["bundle"]), path_part(str(rows[0].get("id")))
        path = f"esims/{path_part(esim.iccid)}/bundles/{bundle}/assignments/{assignment}"
        reply = self._session.spend("cancel", "DELETE", path, params={"type": "transaction"})
        if not isinstance(reply, Reply):
            return CancelUnknown(reply.message)
        refused = refusal_of("cancel", reply)
        if refused is None:
            return Cancelled(refunded="balance" in _status(reply))
        return CancelRefused(refused.message) if isinstance(refused, Rejected) else CancelUnknown(refused.message)

    def esim_details(self, esim: EsimRef) -> EsimProfile:
        """Read the activation data again.

        Raises:
            ProviderError: not to be read.
        """
        profile = profile_of(self._session.get("esim", f"esims/{path_part(esim.iccid)}"))
        if profile is None:
            raise MalformedReply(f"{SLUG} esim: no activation data in the answer")
        return profile

    def usage(self, esim: EsimRef) -> UsageReading:
        """Read the data used of our bundle, else of the latest one.

        Raises:
            ProviderError: not to be read, or there is no bundle on the eSIM.
        """
        assignments = assignments_of(self._session.bundles_of(esim), esim)
        if not assignments:
            raise ProviderRejected(f"{SLUG} usage: there is no bundle on this eSIM")
        return replace(reading_of(assignments[0]), measured_at=self._clock())

    def top_ups(self, esim: EsimRef) -> Sequence[ProviderOffer]:
        """List bundles for the same countries that fit this eSIM; eSIM Go is asked about each, forty at most.

        Raises:
            ProviderError: not to be read.
        """
        name = esim.provider_package_id
        if not name:
            rows = assignments_of(self._session.bundles_of(esim), esim)
            name = rows[0]["bundle"] if rows else ""
        base = self._session.bundle(name)
        coverage = trusted(coverage_of, base)
        areas = base.get("countries")
        isos = [loose_text(area, "iso") for area in areas if isinstance(area, dict)] if isinstance(areas, list) else []
        offers = [o for page in self._walk({"countries": ",".join(isos)}) for o in page.offers]
        alike = sorted((o for o in offers if o.coverage.countries == coverage.countries), key=lambda o: o.cost.amount)
        fitting = [o for o in alike[:MOST_TOP_UPS] if self._fits(esim, o.provider_package_id)]
        return [replace(offer, kind=OfferKind.TOP_UP) for offer in fitting]

    def _fits(self, esim: EsimRef, bundle: str) -> bool:
        answer = self._session.get("compatible", f"esims/{path_part(esim.iccid)}/compatible/{path_part(bundle)}")
        return isinstance(answer, dict) and answer.get("compatible") is True

    def balance(self) -> Cost:
        """Read our balance, test credit included.

        Raises:
            ProviderError: not to be read.
        """
        organisation = self._session.organisation()
        return Cost(trusted(amount, organisation, "balance"), loose_text(organisation, "currency"))

    def purchases_since(self, since: datetime) -> Iterator[ProviderPurchase]:
        """List the orders made since, top-ups included, with what each cost.

        Raises:
            ProviderError: not to be read whole.
        """

        def read(number: int) -> tuple[list[ProviderPurchase], bool]:
            document = self._session.get("orders", "orders", _order_page(since, number))
            rows, pages = orders_in(document)
            lines = [line for row in rows if (line := listed_purchase(row)) is not None]
            more = number < pages if isinstance(document, dict) else len(rows) >= ORDERS_PER_PAGE
            return lines, more

        lines = walk_statement(f"{SLUG} orders", read, most_pages=MOST_STATEMENT_PAGES, may_be_empty=True)
        return (line for line in lines if line.bought_at >= since)

    def verify_webhook(self, headers: Mapping[str, str], body: bytes) -> None:
        """Check the signature of a callback (version 3).

        Raises:
            WebhookRejected: it is missing or wrong.
        """
        verify_signature(headers, body, self._key)

    def parse_webhook(self, body: bytes) -> Sequence[ProviderEvent]:
        """Read one callback.

        Raises:
            WebhookRejected: it is not a callback of eSIM Go.
        """
        return events_of(body)


def _order_page(since: datetime, page: int) -> dict[str, str | int]:
    return {
        "includeIccids": "true",
        "createdAt": f"gte:{since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "limit": ORDERS_PER_PAGE,
        "page": page,
    }


def _document(reply: Reply) -> object:
    try:
        return reply.json()
    except MalformedReply:
        return None


def _status(reply: Reply) -> str:
    document = _document(reply)
    return loose_text(document, "status").lower() if isinstance(document, dict) else ""
