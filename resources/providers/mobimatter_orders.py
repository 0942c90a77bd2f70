"""What MobiMatter's orders amount to: outcomes by state, activation data, signed webhooks; no HTTP.

An order costs money only once it is `Completed` (or `Processing`); `Created` is a hold that anybody may let expire.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from esim.errors import InvalidInput, WebhookRejected
from esim.money import Cost
from esim.purchase import (
    ErrorType,
    EsimProfile,
    EventKind,
    OrderFacts,
    Outcome,
    Pending,
    ProviderEvent,
    Provisioned,
    PurchaseRequest,
    Rejected,
    Unknown,
)
from resources.providers.mobimatter_catalogue import SLUG, Details, details_of, price_of
from resources.providers.payload import Row, decode, loose_text, moment, profile_from_lpa, smdp_host, text

POLL_SECONDS = 5.0
CREATED, COMPLETED, PROCESSING, EXPIRED = "Created", "Completed", "Processing", "Expired"
RELEASED = frozenset({"Cancelled", EXPIRED})  # the hold is back in the wallet

# What an HTTP status says about create and complete (429 is no throttling here, 455 is no standard status).
REFUSALS: Mapping[int, ErrorType] = {
    400: ErrorType.INVALID_PRODUCT,
    401: ErrorType.AUTH_FAILED,
    402: ErrorType.INSUFFICIENT_BALANCE,
    403: ErrorType.AUTH_FAILED,
    404: ErrorType.INVALID_PRODUCT,
    429: ErrorType.OUT_OF_STOCK,
    455: ErrorType.PROVIDER_API_ERROR,
}
# Statuses of `complete` that refuse while the order still stands; after others the platform may still be at work.
REFUSES_OUTRIGHT = frozenset({400, 402, 429})


def state_of(order: Row) -> str:
    """Return the order's state, an open set."""
    return loose_text(order, "orderState")


def line_of(order: Row) -> Row:
    """Return the order's only line."""
    line = order.get("orderLineItem")
    return line if isinstance(line, dict) else {}


def cost_of(order: Row) -> Cost | None:
    """Return what the wallet is charged for an order, None where it does not say."""
    try:
        return price_of({**line_of(order), "currencyCode": order.get("currencyCode")})
    except InvalidInput:
        return None


def outcome_of(order: Row, request: PurchaseRequest) -> Outcome:
    """Return what an order amounts to whose completion was asked for."""
    state, order_id, cost = state_of(order), order_id_of(order), cost_of(order)
    if state in RELEASED:
        return Rejected(ErrorType.NOT_BOUGHT, f"{SLUG}: order {order_id} is {state}, the hold is released")
    if state not in {COMPLETED, PROCESSING} or not order_id:
        return Unknown(ErrorType.UNKNOWN, f"{SLUG}: order {order_id} is {state or 'without a state'}")
    profile = profile_of(order, request) if state == COMPLETED else None
    if profile is None:
        return Pending(order_id, POLL_SECONDS, cost)
    return Provisioned(profile, order_id, cost)


def facts_of(order: Row) -> OrderFacts:
    """Return what an order says of itself: our reference is its label."""
    products = frozenset({loose_text(line_of(order), "productId")} - {""})
    return OrderFacts(loose_text(order, "label"), products, moment(order.get("created")))


def order_id_of(order: Row) -> str:
    """Return the order's id, empty where it has none."""
    return loose_text(order, "orderId")


def profile_of(order: Row, request: PurchaseRequest | None = None) -> EsimProfile | None:
    """Return the activation data of a completed order, None while there are none.

    A top-up brings no activation data: its profile only says which eSIM it went to.
    """
    line = line_of(order)
    try:
        details = details_of(line, "lineItemDetails")
    except InvalidInput:
        return None
    if request is not None and request.top_up_of is not None:
        esim = request.top_up_of
        return EsimProfile(esim.iccid or details.get("ICCID", ""), "", "", esim.provider_esim_id)
    address, code, iccid = _activation(details)
    if not (address and iccid):
        return None
    return EsimProfile(
        iccid=iccid,
        smdp_address=address,
        activation_code=code,
        provider_esim_id=order_id_of(order),
        confirmation_code=details.get("CONF_CODE", ""),
        apn=details.get("ACCESS_POINT_NAME", ""),
    )


def _activation(details: Details) -> tuple[str, str, str]:
    """Return SM-DP+ address, matching id and ICCID, from the LPA text or from its two parts."""
    iccid = details.get("ICCID", "")
    profile = profile_from_lpa(details.get("LOCAL_PROFILE_ASSISTANT"), iccid=iccid)
    if profile is not None:
        return profile.smdp_address, profile.activation_code, iccid
    return smdp_host(details.get("SMDP_ADDRESS", "")), details.get("ACTIVATION_CODE", ""), iccid


def rechargeable(order: Row) -> bool:
    """Return whether an eSIM takes top-ups; where the order does not say, it may."""
    try:
        return details_of(line_of(order), "lineItemDetails").get("RECHARGABLE", "True").lower() != "false"
    except InvalidInput:
        return True


def family_of(order: Row) -> str:
    """Return the family that an eSIM's top-ups belong to (a number in the catalogue, a text in orders)."""
    try:
        return text(line_of(order), "productFamilyId")
    except InvalidInput:
        return ""


def verify_signature(body: bytes, public_key: str, merchant_id: str) -> None:
    """Check the RSA signature (SHA-256, PKCS#1 v1.5) over `orderId.merchantId.providerName`.

    The activation data are not signed, so a verified event is a hint to read the order.

    Raises:
        WebhookRejected: no key is set, the body is no event, it is another merchant's, or the signature is wrong.
    """
    event = _event(body)
    order = event["eventData"]
    if loose_text(order, "merchantId").lower() != merchant_id.lower():
        raise WebhookRejected(f"{SLUG}: the webhook is about another merchant's order")
    provider = loose_text(line_of(order), "providerName")
    signed = f"{order_id_of(order)}.{loose_text(order, 'merchantId')}.{provider}".encode()
    try:
        signature = base64.b64decode(loose_text(event, "signature"), validate=True)
        _key(public_key).verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
    except (binascii.Error, ValueError, InvalidSignature) as error:
        raise WebhookRejected(f"{SLUG}: the webhook's signature is wrong") from error


def event_of(body: bytes) -> ProviderEvent:
    """Return the event in a webhook body.

    Raises:
        WebhookRejected: it is not an event of MobiMatter.
    """
    event = _event(body)
    order = event["eventData"]
    state = state_of(order)
    kind = EventKind.ORDER_READY if state == COMPLETED else EventKind.OTHER
    return ProviderEvent(
        event_id=f"{loose_text(event, 'eventType')}:{order_id_of(order)}:{state}",
        kind=EventKind.ORDER_FAILED if state in {*RELEASED, "Failed"} else kind,
        reference=loose_text(order, "label"),
        provider_order_id=order_id_of(order),
        message=f"{loose_text(event, 'eventType')} {state}".strip(),
    )


def _event(body: bytes) -> dict[str, Any]:
    try:
        event = decode(body)
    except (ValueError, RecursionError) as error:
        raise WebhookRejected(f"{SLUG}: the webhook is not JSON") from error
    order = event.get("eventData") if isinstance(event, dict) else None
    if not isinstance(order, dict) or not order_id_of(order):
        raise WebhookRejected(f"{SLUG}: the webhook carries no order")
    return dict(event)


def _key(pem: str) -> rsa.RSAPublicKey:
    if not pem:
        raise WebhookRejected(f"{SLUG}: set MOBIMATTER_WEBHOOK_PUBLIC_KEY to the key on MobiMatter's webhook page")
    try:
        key = serialization.load_pem_public_key(pem.replace("\\n", "\n").encode())
    except ValueError as error:
        raise WebhookRejected(f"{SLUG}: MOBIMATTER_WEBHOOK_PUBLIC_KEY is no PEM public key") from error
    if not isinstance(key, rsa.RSAPublicKey):
        raise WebhookRejected(f"{SLUG}: MOBIMATTER_WEBHOOK_PUBLIC_KEY is no RSA key")
    return key
