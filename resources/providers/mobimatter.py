"""The MobiMatter adapter (partner API v2, docs.mobimatter.com; quirks with dates in `docs/providers/mobimatter.md`).

Two steps: create holds the price in the wallet and returns the order id, complete buys. `prepare` creates, so the id is
stored before money moves, and a lost answer of `purchase` (complete) is read by that id. HTTP 429 means out of stock,
455 that the network behind is down, and the body's own statusCode may differ: the HTTP status decides.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import httpx

from esim.catalogue import CataloguePage, ProviderOffer
from esim.errors import ProviderError, ProviderRejected, UnsupportedCapability
from esim.money import Cost
from esim.ports import Capabilities, Clock, Limiter, TokenStore
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
from resources.providers.base import CATALOGUE, ONCE, PREPARE, READ, Reply, path_part, settled
from resources.providers.mobimatter_catalogue import CURRENCY, SLUG, parse_offer
from resources.providers.mobimatter_orders import (
    COMPLETED,
    CREATED,
    EXPIRED,
    REFUSALS,
    REFUSES_OUTRIGHT,
    RELEASED,
    cost_of,
    event_of,
    facts_of,
    family_of,
    order_id_of,
    outcome_of,
    profile_of,
    rechargeable,
    state_of,
    verify_signature,
)
from resources.providers.mobimatter_session import MobiMatterSession, refusal_of, result_of, root_of
from resources.providers.mobimatter_usage import reading_of
from resources.providers.outcomes import not_bought, still_unknown, too_dear, with_facts
from resources.providers.payload import amount, catalogue_page, listing, mapping, trusted
from resources.settings import Endpoint


class MobiMatter:
    """A client of MobiMatter."""

    slug = SLUG
    capabilities = Capabilities(
        reserve_complete=True,
        cancel=True,
        async_orders=True,
        signed_webhooks=True,
        settle_seconds=120.0,  # a completion still at work at the network behind; then the hold is cancelled
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
        self._public_key = endpoint.credentials.get("webhook_public_key", "")
        self._session = MobiMatterSession(
            endpoint,
            capabilities=self.capabilities,
            limiter=limiter,
            timeout_seconds=timeout_seconds,
            transport=transport,
        )

    def close(self) -> None:
        """Give connections back."""
        self._session.close()

    def catalogue(self) -> Iterator[CataloguePage]:
        """Return every product assigned to us: one reply; a product that is not in it has been withdrawn.

        Raises:
            ProviderError: the reply failed or is malformed.
        """
        rows = listing(self._session.read("catalogue", "products", patience=CATALOGUE), "result")
        yield catalogue_page(SLUG, rows, parse_offer, id_key="productId", seen=set(), pages=1)

    def current_cost(self, provider_package_id: str, hints: Mapping[str, str]) -> Cost:
        """Read what one unit costs right now.

        Raises:
            ProviderError: not to be read; `ProviderRejected` when the product is gone.
        """
        return self._session.price(provider_package_id, READ)

    def prepare(self, request: PurchaseRequest) -> Prepared | Rejected:
        """Read the price, reserve, and check the price on the reservation; an unused hold expires by itself."""
        if request.top_up_of is not None and not root_of(request.top_up_of):
            return Rejected(
                ErrorType.INVALID_PRODUCT, f"{SLUG}: the order of the eSIM to top up is not known; not sent"
            )
        try:
            dear = too_dear(SLUG, self._session.price(request.provider_package_id, PREPARE), request)
            if dear is not None:
                return dear
            order_id = self._session.reserve(request)
            if isinstance(order_id, Rejected):
                return order_id
        except ProviderError as error:
            return not_bought(error)
        return self._checked(order_id, request)

    def purchase(self, request: PurchaseRequest, evidence: Evidence) -> Outcome:
        """Complete the reservation in `evidence`: this captures the held price."""
        order_id = evidence.get("order_id")
        if not isinstance(order_id, str) or not order_id:
            return Rejected(ErrorType.PROVIDER_API_ERROR, f"{SLUG}: there is no reservation to complete; not sent")
        answer = self._session.complete(order_id)
        if not isinstance(answer, Reply):
            return answer
        if answer.status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            return refusal_of("complete", answer)
        if answer.status in REFUSALS:
            return self._after_refusal(order_id, answer, request)
        try:
            order = result_of("complete", answer)
        except ProviderError as error:
            return still_unknown(error)
        if order_id_of(order) != order_id:
            return Unknown(ErrorType.PROVIDER_API_ERROR, f"{SLUG} complete: the answer is not about order {order_id}")
        return outcome_of(order, request)

    def resolve(self, request: PurchaseRequest, evidence: Evidence, now: datetime) -> Outcome:
        """Read the reserved order; one that still stands after the settle time is cancelled to prove it unbought."""
        order_id = evidence.get("order_id")
        if not isinstance(order_id, str) or not order_id:
            return Rejected(ErrorType.NOT_BOUGHT, f"{SLUG}: nothing was reserved, so nothing can have been completed")
        try:
            order = self._session.order(order_id)
        except ProviderError as error:
            return still_unknown(error)
        if state_of(order) != CREATED:
            return outcome_of(order, request)
        if not settled(self.capabilities, request.left_at, now):
            return Unknown(ErrorType.UNKNOWN, f"{SLUG}: order {order_id} is not completed yet; too early to be sure")
        return self._cancelled(order_id, request)

    def order_status(self, provider_order_id: str, request: PurchaseRequest) -> Outcome:
        """Read an accepted order."""
        try:
            order = self._session.order(provider_order_id)
        except ProviderError as error:
            return still_unknown(error)
        return with_facts(outcome_of(order, request), facts_of(order))

    def cancel(self, esim: EsimRef) -> CancelOutcome:
        """Release a reservation; ask for the refund of a completed order where MobiMatter grants it."""
        order_id = esim.provider_order_id or esim.provider_esim_id
        try:
            state = state_of(self._session.order(order_id))
        except ProviderError as error:
            return CancelUnknown(str(error))
        if state in RELEASED:
            return Cancelled(refunded=True)
        if state == CREATED:
            released = self._session.release(order_id)
            return Cancelled(refunded=True) if released else CancelUnknown(f"{SLUG}: {order_id} may still be held")
        if state == COMPLETED:
            return self._session.refund(order_id)
        return CancelRefused(f"{SLUG}: order {order_id} is {state} and cannot be cancelled")

    def esim_details(self, esim: EsimRef) -> EsimProfile:
        """Read the activation data again.

        Raises:
            ProviderError: not to be read, or there are none (yet).
        """
        profile = profile_of(self._session.order(root_of(esim)))
        if profile is None:
            raise ProviderRejected(f"{SLUG}: order {root_of(esim)} has no activation data yet")
        return profile

    def usage(self, esim: EsimRef) -> UsageReading:
        """Read the data used. This reaches the network operator: asked once, without retries.

        Raises:
            ProviderError: not to be read.
        """
        return reading_of(self._session.read("usage", f"provider/info/{path_part(root_of(esim))}", patience=ONCE))

    def top_ups(self, esim: EsimRef) -> Sequence[ProviderOffer]:
        """List the add-ons of the eSIM's family.

        Raises:
            ProviderError: not to be read.
        """
        order = self._session.order(root_of(esim))
        family = family_of(order)
        if not family or not rechargeable(order):
            return ()
        rows = self._session.read("catalogue", "products", params={"category": "esim_addon", "familyId": family})
        page = catalogue_page(SLUG, listing(rows, "result"), parse_offer, id_key="productId", seen=set())
        return [offer for offer in page.offers if offer.order_hints["product_category"] == "esim_addon"]

    def balance(self) -> Cost:
        """Read what is left in the wallet.

        Raises:
            ProviderError: not to be read.
        """
        wallet = mapping(self._session.read("balance", "merchant/balance"), "result")
        return Cost(trusted(amount, wallet, "balance"), CURRENCY)

    def purchases_since(self, since: datetime) -> Iterator[ProviderPurchase]:
        """Refuse: MobiMatter lists no orders; only the wallet can be compared.

        Raises:
            UnsupportedCapability: always.
        """
        raise UnsupportedCapability(f"{SLUG} has no list of orders; compare its balance")

    def verify_webhook(self, headers: Mapping[str, str], body: bytes) -> None:
        """Check the RSA signature inside the body.

        Raises:
            WebhookRejected: wrongly signed, another merchant's, or no public key is set.
        """
        verify_signature(body, self._public_key, self._session.merchant_id)

    def parse_webhook(self, body: bytes) -> Sequence[ProviderEvent]:
        """Read one event.

        Raises:
            WebhookRejected: it is not an event of MobiMatter.
        """
        return (event_of(body),)

    def _checked(self, order_id: str, request: PurchaseRequest) -> Prepared | Rejected:
        """Return the reservation as evidence when its price may be paid; else release it."""
        try:
            order = self._session.order(order_id, PREPARE)
            cost = cost_of(order)
            trouble = too_dear(SLUG, cost, request) if cost is not None else None
            if state_of(order) != CREATED or cost is None:
                trouble = Rejected(ErrorType.PROVIDER_API_ERROR, f"{SLUG}: the reservation {order_id} is not in order")
        except ProviderError as error:
            trouble = not_bought(error)
        if trouble is None:
            return Prepared({"order_id": order_id, "wholesale": str(cost.amount) if cost else ""})
        self._session.release(order_id)
        return trouble

    def _cancelled(self, order_id: str, request: PurchaseRequest) -> Outcome:
        """Cancel a reservation nobody completed; return what its state proves afterwards, or else the cancellation."""
        released = self._session.release(order_id)
        try:
            order = self._session.order(order_id)
        except ProviderError as error:
            trouble = still_unknown(error)
        else:
            return outcome_of(order, request)
        if released:
            return Rejected(ErrorType.NOT_BOUGHT, f"{SLUG}: order {order_id} was never completed and is cancelled")
        return trouble

    def _after_refusal(self, order_id: str, answer: Reply, request: PurchaseRequest) -> Outcome:
        """Confirm by the order's state that a refused completion bought nothing: the platform undoes it by itself."""
        refusal = refusal_of("complete", answer)
        try:
            order = self._session.order(order_id, PREPARE)
        except ProviderError as error:
            return Unknown(refusal.error_type, f"{refusal.message}; the order cannot be read: {error}")
        state = state_of(order)
        if state == EXPIRED:
            return Rejected(ErrorType.NOT_BOUGHT, f"{SLUG}: the reservation {order_id} had expired")
        if state in RELEASED or (state == CREATED and answer.status in REFUSES_OUTRIGHT):
            return refusal
        if state == CREATED:
            return Unknown(refusal.error_type, f"{refusal.message}; order {order_id} still stands")
        return outcome_of(order, request)
