"""What Airalo's answers about orders, eSIMs and events mean: wire documents to outcomes, profiles and events, no HTTP.

Only what the contract lists as a refusal is `Rejected`. Code 53, server errors and everything unlisted stay `Unknown`.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import httpx

from esim.errors import InvalidInput, MalformedReply, WebhookRejected
from esim.money import Cost
from esim.purchase import (
    ErrorType,
    EsimProfile,
    EventKind,
    OrderFacts,
    Outcome,
    Pending,
    ProviderEvent,
    ProviderPurchase,
    Provisioned,
    PurchaseRequest,
    Rejected,
    SaleState,
    Unknown,
    UsageReading,
)
from resources.providers.airalo_catalogue import SLUG
from resources.providers.airalo_session import message_of
from resources.providers.base import Reply
from resources.providers.payload import (
    Row,
    decode,
    loose_text,
    mapping,
    moment,
    profile_from_lpa,
    said,
    smdp_host,
    text,
    trusted,
    whole,
)

MEBIBYTE = 1 << 20
POLL_SECONDS = 5.0
SIGNATURE_HEADER = "airalo-signature"

_REFUSALS: Mapping[int, ErrorType] = {
    11: ErrorType.INSUFFICIENT_BALANCE,
    13: ErrorType.PROVIDER_API_ERROR,  # operator maintenance: later it may work
    14: ErrorType.PROVIDER_API_ERROR,  # bad checksum
    23: ErrorType.INVALID_PRODUCT,  # top-up disabled by the operator
    33: ErrorType.OUT_OF_STOCK,
    34: ErrorType.INVALID_PRODUCT,  # "invalid or out of stock": gone from the catalogue either way
    43: ErrorType.PROVIDER_API_ERROR,  # bad request
    73: ErrorType.INVALID_PRODUCT,  # the eSIM was recycled
    89: ErrorType.AUTH_FAILED,  # our address is not on the allow-list
}


_SALE_STATES: Mapping[str, SaleState] = {
    "completed": SaleState.SOLD,
    "failed": SaleState.FAILED,
    "refunded": SaleState.GIVEN_BACK,
    "partially_refunded": SaleState.SOLD,
}


def refusal_of(call: str, reply: Reply) -> Rejected | Unknown | None:
    """Return what a refused post means, None when it was not refused."""
    if reply.status < httpx.codes.BAD_REQUEST:
        return None
    words = f"{SLUG} {call}: HTTP {reply.status} {said(message_of(reply))}".rstrip()
    if reply.status == httpx.codes.FORBIDDEN:
        return Rejected(ErrorType.AUTH_FAILED, words)
    try:
        body = reply.json()
    except MalformedReply:
        return Unknown(ErrorType.PROVIDER_API_ERROR, words)
    kind = _kind_of_refusal(body) if isinstance(body, dict) else None
    return Unknown(ErrorType.PROVIDER_API_ERROR, words) if kind is None else Rejected(kind, words)


def _kind_of_refusal(body: Row) -> ErrorType | None:
    code = body.get("code")
    if isinstance(code, int | str) and str(code).isdecimal():
        return _REFUSALS.get(int(code))
    fields = body.get("data")
    if not isinstance(fields, dict) or not fields:
        return None
    if "package_id" in fields or "iccid" in fields:
        return ErrorType.INVALID_PRODUCT
    if "quantity" in fields and "not available" in str(fields["quantity"]):
        return ErrorType.OUT_OF_STOCK
    return ErrorType.PROVIDER_API_ERROR  # "the parameter is invalid": validated before anything is done


def bought(order: object, request: PurchaseRequest) -> Outcome:
    """Return what an order document proves: delivered, to be looked at again by its id, or failed.

    An order without readable eSIMs but with an id is `Pending`: it exists, so it must not be bought elsewhere.
    """
    if not isinstance(order, dict):
        return Unknown(ErrorType.PROVIDER_API_ERROR, f"{SLUG} order: the answer holds no order")
    status, order_id = _status(order), str(order.get("id") or "")
    if status == "failed":
        return Rejected(ErrorType.PROVIDER_API_ERROR, f"{SLUG}: order {order_id} failed at the provider")
    if status == "refunded":
        return Rejected(ErrorType.NOT_BOUGHT, f"{SLUG}: order {order_id} was refunded")
    if status == "partially_refunded":
        return Unknown(ErrorType.UNKNOWN, f"{SLUG}: order {order_id} of one unit is partially refunded; look at it")
    if not order_id.isdecimal():
        return Unknown(ErrorType.PROVIDER_API_ERROR, f"{SLUG} order: an answer without an order id")
    cost = cost_of(order)
    profiles = [profile for sim in _list(order.get("sims")) if (profile := profile_of(sim))]
    if profiles and request.top_up_of is None:
        return Provisioned(profiles[0], order_id, cost)
    return Pending(order_id, POLL_SECONDS, cost)


def facts_of(order: object) -> OrderFacts:
    """Return what an order document says of itself: our reference is its description."""
    if not isinstance(order, dict):
        return OrderFacts()
    packages = frozenset({loose_text(order, "package_id")} - {""})
    return OrderFacts(loose_text(order, "description"), packages, moment(order.get("created_at")))


def likeliest(orders: Sequence[Row], request: PurchaseRequest) -> Row:
    """Return the order to go by where several have our reference: one that lives, before unclear and failed ones."""

    def rank(order: Row) -> tuple[int, str]:
        outcome = bought(order, request)
        return (2 if isinstance(outcome, Rejected) else int(isinstance(outcome, Unknown))), str(order.get("id"))

    return min(orders, key=rank)


def listed_purchase(row: object) -> ProviderPurchase:
    """Return one line of the order list; `price` there is the retail price, so a cost is told by other fields or not.

    Raises:
        MalformedReply: it has no id, no time or no quantity.
    """
    order = mapping(row, f"{SLUG} order")
    order_id, bought_at = str(order.get("id") or ""), moment(order.get("created_at"))
    if not order_id.isdecimal() or bought_at is None:
        raise MalformedReply(f"{SLUG} orders: an order without an id or a time")
    sims = [sim for sim in _list(order.get("sims")) if isinstance(sim, dict)]
    state = _SALE_STATES.get(_status(order), SaleState.SOLD if sims else SaleState.OPEN)
    return ProviderPurchase(
        order_id,
        bought_at,
        state,
        reference=loose_text(order, "description"),
        package_id=loose_text(order, "package_id"),
        package_name=loose_text(order, "package"),
        quantity=trusted(whole, order, "quantity"),
        cost=cost_of(order),
        iccids=tuple(iccid for sim in sims if (iccid := loose_text(sim, "iccid"))),
    )


def _status(order: Row) -> str:
    status = order.get("status")
    return loose_text(status, "slug").lower() if isinstance(status, dict) else ""


def cost_of(order: Row) -> Cost | None:
    """Return what the provider charged for the one unit, None where the answer does not tell."""
    for key in ("total_amount_paid", "unit_paid_price", "net_price"):
        value = order.get(key)
        if isinstance(value, int | str | Decimal) and not isinstance(value, bool):
            try:
                return Cost.parse(value, loose_text(order, "currency") or "USD")
            except InvalidInput:
                continue
    return None


def profile_of(sim: object) -> EsimProfile | None:
    """Return the activation data of one eSIM; `lpa` is the SM-DP+ host, `qrcode` the whole activation string."""
    if not isinstance(sim, dict):
        return None
    try:
        iccid, code = text(sim, "iccid"), text(sim, "confirmation_code")
    except InvalidInput:
        return None
    host, matching_id = smdp_host(loose_text(sim, "lpa")), loose_text(sim, "matching_id")
    if not (host and matching_id) or host.startswith("LPA:"):
        whole_string = profile_from_lpa(sim.get("qrcode"), iccid=iccid)
        host = whole_string.smdp_address if whole_string else ""
        matching_id = whole_string.activation_code if whole_string else ""
    if not (iccid.isdecimal() and host and matching_id):
        return None
    return EsimProfile(
        iccid=iccid,
        smdp_address=host,
        activation_code=matching_id,
        provider_esim_id=str(sim.get("id") or ""),
        confirmation_code=code,
        apn=loose_text(sim, "apn_value") if sim.get("apn_type") == "manual" else "",
    )


def reading_of(data: Row, now: datetime) -> UsageReading:
    """Return a usage answer in bytes (its MB are 1024 x 1024 bytes); figures of unlimited plans mean nothing.

    Raises:
        MalformedReply: the figures are no numbers.
    """
    unlimited = data.get("is_unlimited") is True
    total = None if unlimited else trusted(whole, data, "total") * MEBIBYTE
    used = None if total is None else max(0, total - trusted(whole, data, "remaining") * MEBIBYTE)
    return UsageReading(
        used_bytes=used,
        total_bytes=total,
        measured_at=now,
        expires_at=moment(data.get("expired_at")),
        status=loose_text(data, "status").lower() or "unknown",
    )


def verify_signature(headers: Mapping[str, str], body: bytes, secret: str) -> None:
    """Check the hex HMAC-SHA512 over the raw bytes; a body serialised again would not do.

    Raises:
        WebhookRejected: the header is absent or wrong.
    """
    sent = headers.get(SIGNATURE_HEADER, "").strip().lower()
    good = hmac.new(secret.encode(), body, hashlib.sha512).hexdigest()
    if not sent or not hmac.compare_digest(sent.encode(), good.encode()):
        raise WebhookRejected(f"{SLUG}: the webhook's signature is missing or wrong")


def events_of(body: bytes, today: datetime) -> Sequence[ProviderEvent]:
    """Return what a verified webhook tells.

    Raises:
        WebhookRejected: it is not a JSON object.
    """
    try:
        document = decode(body)
    except (ValueError, RecursionError) as error:
        raise WebhookRejected(f"{SLUG}: the webhook is not JSON") from error
    if not isinstance(document, dict):
        raise WebhookRejected(f"{SLUG}: the webhook is not a JSON object")
    # Alerts have no id of their own and may say the same words again after a top-up: one a day counts.
    alert_id = f"{hashlib.sha256(body).hexdigest()[:32]}-{today:%Y%m%d}"
    return (_event(document, alert_id),)


def _event(document: dict[str, Any], alert_id: str) -> ProviderEvent:
    order = document["data"] if isinstance(document.get("data"), dict) else document
    request_id = loose_text(order, "request_id") or loose_text(document, "request_id")
    order_id, reference = str(order.get("id") or ""), loose_text(order, "description")
    if order.get("sims"):
        event_id = request_id or f"order-{order_id}"
        return ProviderEvent(event_id, EventKind.ORDER_READY, reference=reference, provider_order_id=order_id)
    if document.get("reason"):
        return ProviderEvent(
            request_id or alert_id,
            EventKind.ORDER_FAILED,
            reference=reference,
            provider_order_id=order_id,
            message=said(document["reason"]),
        )
    if document.get("iccid") and document.get("level"):
        level = str(document["level"])
        kind = EventKind.EXPIRY if "day" in level else EventKind.USAGE
        return ProviderEvent(alert_id, kind, iccid=str(document["iccid"]), message=said(f"level {level}"))
    if "remaining" in document:
        return ProviderEvent(alert_id, EventKind.BALANCE_LOW, message=said(document.get("message")))
    return ProviderEvent(alert_id, EventKind.OTHER, reference=reference, provider_order_id=order_id)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
