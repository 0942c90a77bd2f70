"""What eSIM Access's records of orders and eSIMs amount to: outcomes, profiles, events; no HTTP.

`esim/query` rows -> the rows with our `transactionId` -> `Provisioned`, `Pending` or `Unknown`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from esim.errors import MalformedReply, WebhookRejected
from esim.purchase import (
    ErrorType,
    EsimProfile,
    EsimRef,
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
)
from resources.providers.esim_access_catalogue import CURRENCY, PRICE_UNITS, SLUG
from resources.providers.payload import Row, decode, loose_text, moment, profile_from_lpa

POLL_SECONDS = 3.0
WINDOW_BEFORE = timedelta(minutes=10)
WINDOW_AFTER = timedelta(minutes=30)
_PREPARING = frozenset({"CREATE", "PAYING", "PAID", "GETTING_RESOURCE"})
_ENDED = frozenset({"CANCEL", "CANCELLED", "SUSPENDED", "REVOKE", "REVOKED"})
_RETURNED = frozenset({"CANCEL", "CANCELLED"})  # a suspended or revoked one stays paid
_EVENTS = {
    "ESIM_STATUS": EventKind.ESIM_STATUS,
    "SMDP_EVENT": EventKind.ESIM_STATUS,
    "DATA_USAGE": EventKind.USAGE,
    "VALIDITY_USAGE": EventKind.EXPIRY,
    "CHECK_HEALTH": EventKind.HEALTH_CHECK,
}


def order_body(request: PurchaseRequest, price: int) -> dict[str, object]:
    """Return the body of the order call: one eSIM, guarded by `price` in 1/10000 USD."""
    line: dict[str, object] = {"packageCode": request.provider_package_id, "count": 1, "price": price}
    if "period_num" in request.hints:
        line["periodNum"] = int(request.hints["period_num"])
    return {"transactionId": request.reference, "amount": price, "packageInfoList": [line]}


def top_up_body(request: PurchaseRequest, esim: EsimRef, price: int) -> dict[str, object]:
    """Return the body of the top-up call for an eSIM we know by its `esimTranNo`."""
    body: dict[str, object] = {
        "esimTranNo": esim.provider_esim_id,
        "packageCode": request.provider_package_id,
        "transactionId": request.reference,
        "amount": price,
    }
    if "period_num" in request.hints:
        body["periodNum"] = int(request.hints["period_num"])
    return body


def price_units(request: PurchaseRequest) -> int | Rejected:
    """Return the expected price in 1/10000 USD, or a refusal when it cannot be said so."""
    units = request.expected_cost.amount * PRICE_UNITS
    if request.expected_cost.currency != CURRENCY or units != units.to_integral_value():
        return Rejected(
            ErrorType.PRICE_CHANGED, f"{SLUG}: {request.expected_cost} is no price of eSIM Access; not sent"
        )
    return int(units)


def window(started_at: datetime) -> dict[str, object]:
    """Return the times between which an order sent at `started_at` was made, with room for clocks that differ."""
    return between(started_at - WINDOW_BEFORE, started_at + WINDOW_AFTER)


def between(start: datetime, end: datetime) -> dict[str, object]:
    """Return the filter of `esim/query` for a time window."""
    return {
        "startTime": f"{start.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "endTime": f"{end.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }


def listed_purchases(esims: Sequence[Row]) -> list[ProviderPurchase]:
    """Return the orders behind the eSIMs of a window: `esim/query` lists eSIMs, and tells no cost.

    Raises:
        MalformedReply: an eSIM twice, without an order, or without the time it was made.
    """
    if len({loose_text(esim, "esimTranNo") for esim in esims}) < len(esims):
        raise MalformedReply(f"{SLUG} query: an eSIM is listed twice, so another one is missing")
    orders: dict[str, list[Row]] = {}
    for esim in esims:
        orders.setdefault(loose_text(esim, "orderNo"), []).append(esim)
    if "" in orders:
        raise MalformedReply(f"{SLUG} query: an eSIM without an order number")
    return [_purchase(order_no, rows) for order_no, rows in orders.items()]


def _purchase(order_no: str, esims: Sequence[Row]) -> ProviderPurchase:
    plans = esims[0].get("packageList")
    plan = plans[0] if isinstance(plans, list) and plans and isinstance(plans[0], dict) else {}
    bought_at = moment(plan.get("createTime"))
    if bought_at is None:
        raise MalformedReply(f"{SLUG} query: order {order_no} has no time")
    statuses = {loose_text(esim, "esimStatus").upper() for esim in esims}
    waiting = SaleState.OPEN if statuses <= _PREPARING else SaleState.SOLD
    return ProviderPurchase(
        order_no,
        bought_at,
        SaleState.GIVEN_BACK if statuses <= _RETURNED else waiting,
        reference=loose_text(esims[0], "transactionId"),
        package_id=loose_text(plan, "packageCode"),
        package_name=loose_text(plan, "packageName"),
        quantity=len(esims),
        iccids=tuple(iccid for esim in esims if (iccid := loose_text(esim, "iccid"))),
    )


def is_ours(esim: Row, reference: str) -> bool:
    """Return whether an eSIM, or a plan on it, was bought under our reference."""
    plans = esim.get("packageList")
    records = [esim, *(plan for plan in plans if isinstance(plan, dict))] if isinstance(plans, list) else [esim]
    return any(record.get("transactionId") == reference for record in records)


def accepted(order_no: str, request: PurchaseRequest) -> Pending:
    """Return the outcome of an order that is paid and not delivered yet; the guard makes the cost certain."""
    return Pending(order_no, POLL_SECONDS, request.expected_cost)


def outcome_of(esims: Sequence[Row], request: PurchaseRequest) -> Outcome:
    """Return what the eSIMs of our order amount to."""
    if len(esims) != 1:
        message = f"{SLUG}: {len(esims)} eSIMs for one unit ({request.reference}); a person must look"
        return Unknown(ErrorType.PROVIDER_API_ERROR, message)
    esim = esims[0]
    order_no, status = loose_text(esim, "orderNo"), loose_text(esim, "esimStatus").upper()
    if status in _ENDED:
        # What becomes of the money then is not documented: neither another purchase nor a delivery is safe.
        return Unknown(ErrorType.PROVIDER_API_ERROR, f"{SLUG}: order {order_no} is {status}; a person must look")
    profile = profile_of(esim)
    if profile is not None and status not in _PREPARING:  # the states are an open set
        return Provisioned(profile, order_no, request.expected_cost)
    return accepted(order_no, request)


def facts_of(esims: Sequence[Row]) -> OrderFacts:
    """Return what the eSIMs of an order say of it: our reference, and its plan by code and by slug."""
    esim = esims[0] if esims else {}
    plans = esim.get("packageList")
    plan = plans[0] if isinstance(plans, list) and plans and isinstance(plans[0], dict) else {}
    packages = frozenset({loose_text(plan, "packageCode"), loose_text(plan, "slug")} - {""})
    return OrderFacts(loose_text(esim, "transactionId"), packages, moment(plan.get("createTime")))


def topped_up(request: PurchaseRequest, answer: Row) -> Provisioned:
    """Return the outcome of a top-up: the eSIM stays the same, so its activation data are not told again."""
    esim = request.top_up_of or EsimRef()
    profile = EsimProfile(esim.iccid or loose_text(answer, "iccid"), "", "", esim.provider_esim_id)
    return Provisioned(profile, loose_text(answer, "topUpEsimTranNo") or request.reference, request.expected_cost)


def profile_of(esim: Row) -> EsimProfile | None:
    """Return the activation data of an eSIM, None while there are none."""
    profile = profile_from_lpa(esim.get("ac"), iccid=loose_text(esim, "iccid"))
    if profile is None:
        return None
    return EsimProfile(
        profile.iccid,
        profile.smdp_address,
        profile.activation_code,
        provider_esim_id=loose_text(esim, "esimTranNo"),
        apn=loose_text(esim, "apn"),
    )


def event_of(body: bytes) -> ProviderEvent:
    """Return the event in a webhook body.

    Raises:
        WebhookRejected: it is not an event of eSIM Access.
    """
    try:
        event = decode(body)
    except (ValueError, RecursionError) as error:
        raise WebhookRejected(f"{SLUG}: the webhook is not JSON") from error
    if not isinstance(event, dict) or not loose_text(event, "notifyType"):
        raise WebhookRejected(f"{SLUG}: the webhook has no notifyType")
    kind = loose_text(event, "notifyType")
    inside = event.get("content")
    content: Mapping[str, object] = inside if isinstance(inside, dict) else {}
    status = loose_text(content, "orderStatus") or loose_text(content, "esimStatus")
    order_no = loose_text(content, "orderNo")
    ready = kind == "ORDER_STATUS" and status == "GOT_RESOURCE"
    return ProviderEvent(
        event_id=loose_text(event, "notifyId") or f"{kind}:{order_no}:{status}",
        kind=EventKind.ORDER_READY if ready else _EVENTS.get(kind, EventKind.OTHER),
        reference=loose_text(content, "transactionId"),
        provider_order_id=order_no,
        iccid=loose_text(content, "iccid"),
        message=f"{kind} {status}".strip(),
    )
