"""Calls to MobiMatter: reads raise `ProviderError`; what is not to be repeated is sent once and returns.

Reserving, completing, cancelling and refunding go out once; whatever comes back is said, never raised.
"""

from collections.abc import Mapping
from typing import Any

import httpx

from esim.errors import MalformedReply, ProviderError, ProviderRejected
from esim.money import Cost
from esim.ports import Capabilities, Limiter
from esim.purchase import (
    Cancelled,
    CancelOutcome,
    CancelRefused,
    CancelUnknown,
    ErrorType,
    EsimRef,
    PurchaseRequest,
    Rejected,
    Unknown,
)
from resources.providers.base import READ, Patience, ProviderHttp, Reply, path_part, raise_for_read
from resources.providers.mobimatter_catalogue import SLUG, price_of
from resources.providers.mobimatter_orders import REFUSALS, order_id_of
from resources.providers.payload import Row, listing, mapping, said, trusted
from resources.settings import Endpoint


class MobiMatterSession:
    """Sends and unwraps."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        capabilities: Capabilities,
        limiter: Limiter,
        timeout_seconds: float,
        transport: httpx.BaseTransport | None,
    ) -> None:
        self.merchant_id = endpoint.credentials.get("merchant_id", "")
        self._headers = {"api-key": endpoint.credentials.get("api_key", ""), "merchantId": self.merchant_id}
        self._http = ProviderHttp(
            SLUG,
            endpoint.url,
            capabilities=capabilities,
            limiter=limiter,
            timeout_seconds=timeout_seconds,
            transport=transport,
            throttled=_never,
        )

    def close(self) -> None:
        """Give connections back."""
        self._http.close()

    def read(
        self, call: str, path: str, *, params: Mapping[str, str | int] | None = None, patience: Patience = READ
    ) -> Any:
        """Return the `result` of a call that may be repeated, or the bare body where there is no envelope.

        Raises:
            ProviderError: no answer, refused, or no result in it.
        """
        reply = self._http.read(
            call, lambda: self._request("GET", path, params=params), patience=patience, busy=_upstream_down
        )
        raise_for_read(SLUG, call, reply, _message)
        body = _envelope(call, reply)
        if "result" in body:
            return body["result"]
        if call == "usage" and "esim" in body:
            return body
        raise MalformedReply(f"{SLUG} {call}: an answer without a result ({said(body.get('message'))})")

    def price(self, product_id: str, patience: Patience) -> Cost:
        """Return what one unit of a product costs right now.

        Raises:
            ProviderError: not to be read; `ProviderRejected` when the product is gone.
        """
        rows = listing(
            self.read("catalogue", "products", params={"productId": product_id}, patience=patience), "result"
        )
        for row in rows:
            if isinstance(row, dict) and str(row.get("productId")).lower() == product_id.lower():
                return trusted(price_of, row)
        raise ProviderRejected(f"{SLUG}: product {product_id} is not in our list any more")

    def order(self, order_id: str, patience: Patience = READ) -> Row:
        """Return an order as it is now.

        Raises:
            ProviderError: not to be read, or the answer is about another order.
        """
        order = mapping(self.read("status", f"order/{path_part(order_id)}", patience=patience), "result")
        if order_id_of(order) != order_id:
            raise MalformedReply(f"{SLUG} status: the answer is not about order {order_id}")
        return order

    def reserve(self, request: PurchaseRequest) -> str | Rejected:
        """Create an order; return its id, or why there is none. A lost answer leaves at most a hold that expires."""
        body = {"productId": request.provider_package_id, "label": request.reference}
        if category := request.hints.get("product_category"):
            body["productCategory"] = category
        if request.top_up_of is not None:
            body["addOnOrderIdentifier"] = root_of(request.top_up_of)
        answer = self._http.send_once("reserve", self._request("POST", "order", body=body))
        if isinstance(answer, Unknown):
            return Rejected(answer.error_type, f"{answer.message}; at most a hold that expires, nothing is bought")
        if isinstance(answer, Rejected):
            return answer
        if answer.status >= httpx.codes.MULTIPLE_CHOICES:
            return refusal_of("reserve", answer)
        order_id = order_id_of(result_of("reserve", answer))
        return order_id or Rejected(ErrorType.PROVIDER_API_ERROR, f"{SLUG}: a reservation without an order id")

    def complete(self, order_id: str) -> Reply | Rejected | Unknown:
        """Send the completion of a reservation: this buys. Never raises."""
        return self._http.send_once("order", self._request("PUT", "order/complete", body={"orderId": order_id}))

    def release(self, order_id: str) -> bool:
        """Cancel a reservation; return whether MobiMatter said so."""
        body = {"orderId": order_id, "reason": "not used"}
        answer = self._http.send_once("cancel", self._request("PUT", "order/cancel", body=body))
        if not isinstance(answer, Reply) or answer.status != httpx.codes.OK:
            return False
        try:
            return isinstance(_envelope("cancel", answer).get("result"), str)
        except ProviderError:
            return False

    def refund(self, order_id: str) -> CancelOutcome:
        """Ask for a completed order's price back, where MobiMatter calls it eligible."""
        try:
            verdict = mapping(self.read("cancel", f"order/{path_part(order_id)}/refund/eligibility"), "result")
        except ProviderError as error:
            return CancelUnknown(str(error))
        if verdict.get("isEligible") is not True:
            return CancelRefused(f"{SLUG}: {order_id} is not refundable: {said(verdict.get('reason'))}")
        answer = self._http.send_once("cancel", self._request("PUT", "order/refund", body={"orderId": order_id}))
        if not isinstance(answer, Reply):
            return CancelUnknown(answer.message)
        if answer.status in {httpx.codes.OK, httpx.codes.ACCEPTED}:
            return Cancelled(refunded=True)
        refused = answer.status in REFUSALS
        message = f"{SLUG} refund of {order_id}: HTTP {answer.status}"
        return CancelRefused(message) if refused else CancelUnknown(message)

    def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: Mapping[str, str] | None = None,
    ) -> httpx.Request:
        return self._http.request(method, f"api/v2/{path}", params=params, headers=self._headers, json_body=body)


def _never(_reply: Reply) -> bool:
    """Return that an answer to an order is no throttling: its 429 means out of stock."""
    return False


def _upstream_down(reply: Reply) -> bool:
    """Return whether the network behind is down, which passes."""
    return reply.status == 455


def root_of(esim: EsimRef) -> str:
    """Return the order that brought the eSIM: top-ups have orders of their own, which name no eSIM."""
    return esim.provider_esim_id or esim.provider_order_id


def _envelope(call: str, reply: Reply) -> Row:
    try:
        return mapping(reply.json(), "the answer")
    except MalformedReply as error:
        raise MalformedReply(f"{SLUG} {call}: {error}") from error


def result_of(call: str, reply: Reply) -> Row:
    """Return the object under `result` in an answer.

    Raises:
        MalformedReply: there is none.
    """
    return mapping(_envelope(call, reply).get("result"), f"the result of {call}")


def _message(reply: Reply) -> str:
    try:
        return said(mapping(reply.json(), "the answer").get("message"))
    except MalformedReply:
        return ""


def refusal_of(call: str, reply: Reply) -> Rejected:
    """Return what a refused create or complete means, by its HTTP status."""
    error_type = REFUSALS.get(reply.status, ErrorType.PROVIDER_API_ERROR)
    return Rejected(error_type, f"{SLUG} {call}: HTTP {reply.status} {_message(reply)}".rstrip())
