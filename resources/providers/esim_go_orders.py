"""What eSIM Go's answers about orders, eSIMs and callbacks mean: wire documents to outcomes and events, no HTTP.

Errors have no codes, so only the statuses the contract lists are refusals. An order with a reference exists: without
readable eSIMs it is `Pending`, never `Rejected`, unless its status says `failed`.
"""

import base64
import hashlib
import hmac
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from esim.errors import InvalidInput, MalformedReply, WebhookRejected
from esim.money import Cost
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
    UsageReading,
)
from resources.providers.base import Reply
from resources.providers.esim_go_catalogue import SLUG
from resources.providers.payload import Row, amount, decode, loose_text, moment, said, smdp_host, trusted, whole

POLL_SECONDS = 3.0
SIGNATURE_HEADER = "x-signature-sha256"
_BOUGHT = frozenset({"bundle"})
_TOPPED_UP = frozenset({"bundle", "topup", "apiTopup"})
_CHARGED = frozenset({*_TOPPED_UP, "autoTopup"})  # refunds and assignments of the inventory are listed too
_EVENTS: Mapping[str, EventKind] = {
    "utilisation": EventKind.USAGE,
    "firstuse": EventKind.ESIM_STATUS,
    "firstattachment": EventKind.ESIM_STATUS,
}


def order_body(request: PurchaseRequest, kind: str) -> dict[str, object]:
    """Return the body of a dry run (`validate`) or of the purchase (`transaction`), for one unit.

    `allowReassign` stays false: a top-up must land on the eSIM it was bought for.
    """
    line: dict[str, object] = {
        "type": "bundle",
        "item": request.provider_package_id,
        "quantity": 1,
        "allowReassign": False,
    }
    if request.top_up_of is not None:
        line["iccids"] = [request.top_up_of.iccid]
    return {"type": kind, "assign": True, "order": [line]}


def refusal_of(call: str, reply: Reply, *, dry_run: bool = False) -> Rejected | Unknown | None:
    """Return what a refusal means, None when there is none; whatever a dry run answers, nothing was bought."""
    if reply.status < httpx.codes.BAD_REQUEST:
        return None
    message = message_of(reply)
    words = f"{SLUG} {call}: HTTP {reply.status} {said(message)}".rstrip()
    if reply.status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        return Rejected(ErrorType.AUTH_FAILED, words)
    if reply.status == httpx.codes.BAD_REQUEST or dry_run:
        return Rejected(_kind_of(message.lower()), words)
    return Unknown(ErrorType.PROVIDER_API_ERROR, words)


def _kind_of(message: str) -> ErrorType:
    if "no payment taken" in message or ("insufficient" in message and "balance" in message):
        return ErrorType.INSUFFICIENT_BALANCE
    if "no esims available" in message or "stock" in message:
        return ErrorType.OUT_OF_STOCK
    if any(word in message for word in ("not found", "unknown bundle", "invalid bundle", "compatible")):
        return ErrorType.INVALID_PRODUCT
    return ErrorType.PROVIDER_API_ERROR


def message_of(reply: Reply) -> str:
    """Return the text of an error, which may be JSON or plain."""
    try:
        body = reply.json()
    except MalformedReply:
        plain = reply.body[:1000].decode(errors="replace")
        return "" if plain.lstrip().startswith("<") else plain
    return loose_text(body, "message") if isinstance(body, dict) else ""


def sent_at(reply: Reply) -> datetime | None:
    """Return the moment of an answer by the provider's own clock, None where it does not tell."""
    try:
        moment_sent = parsedate_to_datetime(reply.headers.get("date", ""))
    except ValueError:
        return None
    return moment_sent if moment_sent.tzinfo else moment_sent.replace(tzinfo=UTC)


def outcome_of(order: object, request: PurchaseRequest) -> Outcome:
    """Return what an order document proves."""
    if not isinstance(order, dict) or not loose_text(order, "orderReference"):
        return Unknown(ErrorType.PROVIDER_API_ERROR, f"{SLUG} order: an answer without an order reference")
    reference, status = loose_text(order, "orderReference"), loose_text(order, "status").lower()
    profiles = [profile for esim in _esims_in(order) if (profile := profile_of(esim))]
    if status == "failed":
        if profiles:
            return Unknown(ErrorType.UNKNOWN, f"{SLUG}: order {reference} is failed but has an eSIM; look at it")
        words = f"{SLUG}: order {reference} failed ({said(order.get('statusMessage'))})"
        return Rejected(ErrorType.PROVIDER_API_ERROR, words)
    cost = paid(order)
    if not profiles:
        return Pending(reference, POLL_SECONDS, cost)
    if request.top_up_of is not None and profiles[0].iccid != request.top_up_of.iccid:
        return Unknown(ErrorType.UNKNOWN, f"{SLUG}: top-up {reference} landed on another eSIM; look at it")
    return Provisioned(profiles[0], reference, cost)


def _esims_in(order: Row) -> Iterable[Any]:
    for line in _lines(order):
        esims = line.get("esims")
        yield from esims if isinstance(esims, list) else []


def _lines(order: Row) -> list[dict[str, Any]]:
    lines = order.get("order")
    return [line for line in lines if isinstance(line, dict)] if isinstance(lines, list) else []


def paid(order: Row) -> Cost | None:
    """Return what an order cost, None where the answer does not tell."""
    try:
        return Cost.parse(amount(order, "total"), loose_text(order, "currency"))
    except InvalidInput:
        return None


def profile_of(esim: object) -> EsimProfile | None:
    """Return activation data; the SM-DP+ address may have a scheme, an ICCID sent as a number is not trusted."""
    if not isinstance(esim, dict):
        return None
    iccid, host = loose_text(esim, "iccid"), smdp_host(loose_text(esim, "smdpAddress"))
    matching_id = loose_text(esim, "matchingId")
    if not (iccid.isdecimal() and host and matching_id):
        return None
    return EsimProfile(iccid, host, matching_id)


def facts_of(order: object) -> OrderFacts:
    """Return what an order document says of itself: its bundles and its time; it carries no reference of ours."""
    if not isinstance(order, dict):
        return OrderFacts()
    bundles = frozenset(loose_text(line, "item") for line in _lines(order)) - {""}
    return OrderFacts(packages=bundles, ordered_at=moment(order.get("createdDate") or order.get("createDate")))


def orders_in(document: object) -> tuple[list[dict[str, Any]], int]:
    """Return the orders of a list answer (wrapped, a bare array, or one order) and the number of pages.

    Raises:
        MalformedReply: it holds no orders.
    """
    rows = document.get("orders") if isinstance(document, dict) else document
    if isinstance(document, dict) and rows is None and "orderReference" in document:
        rows = [document]
    if not isinstance(rows, list):
        raise MalformedReply(f"{SLUG} orders: no list of orders in the answer")
    pages = document.get("pageCount") if isinstance(document, dict) else 1
    return [row for row in rows if isinstance(row, dict)], pages if isinstance(pages, int) else 1


def listed_purchase(order: Row) -> ProviderPurchase | None:
    """Return one line of the order list; None for what is no purchase (a refund, an assignment of the inventory).

    Raises:
        MalformedReply: it has no reference, no time or no quantity.
    """
    lines = [line for line in _lines(order) if line.get("type", "bundle") in _CHARGED]
    if not lines:
        return None
    reference = loose_text(order, "orderReference")
    bought_at = moment(order.get("createdDate") or order.get("createDate"))
    if not reference or bought_at is None:
        raise MalformedReply(f"{SLUG} orders: an order without a reference or a time")
    iccids = tuple(sorted(iccids_of(order)))
    done = bool(iccids) or loose_text(order, "status").lower() == "completed"
    return ProviderPurchase(
        reference,
        bought_at,
        SaleState.FAILED if is_failed(order) else SaleState.SOLD if done else SaleState.OPEN,
        package_id=loose_text(lines[0], "item"),
        quantity=sum(trusted(whole, line, "quantity") for line in lines),
        cost=paid(order),
        iccids=iccids,
    )


def is_candidate(order: Row, request: PurchaseRequest, known: Collection[str]) -> bool:
    """Return whether an order may be the one whose answer was lost: our bundle, one unit, not seen before we bought."""
    if loose_text(order, "orderReference") in known:
        return False
    kinds = _BOUGHT if request.top_up_of is None else _TOPPED_UP
    return any(
        line.get("item") == request.provider_package_id
        and str(line.get("quantity", 1)) == "1"
        and line.get("type", "bundle") in kinds
        and _fits(line, request)
        for line in _lines(order)
    )


def _fits(line: Row, request: PurchaseRequest) -> bool:
    iccids = line.get("iccids")
    return request.top_up_of is None or not isinstance(iccids, list) or request.top_up_of.iccid in iccids


def iccids_of(order: Row) -> set[str]:
    """Return the ICCIDs an order names, on its lines or with its eSIMs."""
    named = [iccid for line in _lines(order) if isinstance(iccids := line.get("iccids"), list) for iccid in iccids]
    named += [esim.get("iccid") for esim in _esims_in(order) if isinstance(esim, dict)]
    return {iccid for iccid in named if isinstance(iccid, str) and iccid}


def is_only_order(document: Row, reference: str) -> bool:
    """Return whether every bundle ever assigned to an eSIM (and one at least) came by this order."""
    sources = [loose_text(row, "assignmentReference") for row in assignments_of(document, EsimRef())]
    return bool(sources) and all(source.rpartition("-")[0] == reference for source in sources)


def is_failed(order: Row) -> bool:
    """Return whether an order says that it failed."""
    return loose_text(order, "status").lower() == "failed"


def assignments_of(document: Row, esim: EsimRef) -> list[dict[str, Any]]:
    """Return an eSIM's bundle assignments: those of our order where they can be told, else all, the latest first."""
    bundles = document.get("bundles")
    rows = [
        {**assignment, "bundle": loose_text(bundle, "name")}
        for bundle in (bundles if isinstance(bundles, list) else [])
        if isinstance(bundle, dict)
        for assignment in (bundle.get("assignments") or [])
        if isinstance(assignment, dict)
    ]
    rows.sort(key=lambda row: loose_text(row, "assignmentDateTime"), reverse=True)
    order_id = esim.provider_order_id
    ours = [row for row in rows if order_id and loose_text(row, "assignmentReference").startswith(order_id)]
    return ours or rows


def reading_of(assignment: Row) -> UsageReading:
    """Return the usage of one assignment, in bytes as sent; figures of unlimited bundles mean nothing.

    Raises:
        MalformedReply: the figures are no numbers.
    """
    total = None if assignment.get("unlimited") is True else trusted(whole, assignment, "initialQuantity")
    used = None if total is None else max(0, total - trusted(whole, assignment, "remainingQuantity"))
    status = loose_text(assignment, "bundleState").lower() or "unknown"
    return UsageReading(used, total, measured_at=None, expires_at=moment(assignment.get("endTime")), status=status)


def verify_signature(headers: Mapping[str, str], body: bytes, key: str) -> None:
    """Check the HMAC-SHA256 of the raw body, written in hex (the guide) or base64 (the reference).

    Raises:
        WebhookRejected: it is absent (callback version 2 signs nothing and is refused) or wrong.
    """
    sent = headers.get(SIGNATURE_HEADER, "").strip()
    digest = hmac.new(key.encode(), body, hashlib.sha256).digest()
    as_hex = hmac.compare_digest(sent.lower().encode(), digest.hex().encode())
    as_base64 = hmac.compare_digest(sent.encode(), base64.b64encode(digest))
    if not (as_hex or as_base64):
        raise WebhookRejected(f"{SLUG}: the callback's signature is missing or wrong; set callbacks to version 3")


def events_of(body: bytes) -> Sequence[ProviderEvent]:
    """Return what a verified callback tells.

    Raises:
        WebhookRejected: it is not a JSON object with an alert type.
    """
    try:
        document = decode(body)
    except (ValueError, RecursionError) as error:
        raise WebhookRejected(f"{SLUG}: the callback is not JSON") from error
    alert = loose_text(document, "alertType") if isinstance(document, dict) else ""
    if not alert:
        raise WebhookRejected(f"{SLUG}: the callback has no alertType")
    bundle = document.get("bundle")
    reference = loose_text(bundle, "reference") if isinstance(bundle, dict) else ""
    return (
        ProviderEvent(
            event_id=hashlib.sha256(body).hexdigest()[:40],  # callbacks have no id; equal bytes are one event
            kind=_kind_of_alert(alert.lower()),
            provider_order_id=reference.rpartition("-")[0] if reference else "",
            iccid=loose_text(document, "iccid"),  # sent as a number it lost its last digits: then it is left empty
            message=said(alert),
        ),
    )


def _kind_of_alert(alert: str) -> EventKind:
    if alert in _EVENTS:
        return _EVENTS[alert]
    if "balance" in alert:
        return EventKind.BALANCE_LOW
    return EventKind.EXPIRY if "expir" in alert else EventKind.OTHER
