"""eSIM Access envelopes, eSIMs and events as they go over the wire."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from starlette.responses import Response

from sandbox.providers.activity import crossed
from sandbox.providers.ledger import Bundle, Order, Sim
from sandbox.providers.shelf import Package
from sandbox.providers.site import Ask
from sandbox.wire import Refused, reply

_UNUSED_DAYS = 180
ERRORS = {
    "000001": "Server error",
    "000101": "Mandatory header missing",
    "000102": "Header format invalid",
    "000104": "Request body is not valid JSON",
    "000105": "Mandatory parameter missing",
    "000107": "Parameter length out of range",
    "101001": "Request timestamp expired",
    "101003": "Signature mismatch",
    "200002": "Not allowed in the current order status",
    "200005": "Package price mismatch",
    "200006": "Order total mismatch",
    "200007": "Account balance too low",
    "200008": "Order parameters invalid",
    "200009": "Order status does not allow this",
    "200010": "Profile is still being allocated for the order",
    "200011": "Not enough profiles available for the package",
    "310201": "esimTranNo does not exist",
    "310241": "base data plan code:[{more}] does not exist.",
    "310243": "Package does not exist",
    "310272": "orderNo does not exist",
    "310402": "Duplicate transactionId",
    "310403": "iccid does not exist in the order",
    "900001": "System busy, retry later",
}


def good(obj: Any) -> Response:
    """A success."""
    return reply({"success": True, "errorCode": "0", "errorMsg": None, "obj": obj})


def bad(code: str, more: object = "", status: int = 200) -> Response:
    """A failure, with HTTP 200 as at the provider."""
    text = ERRORS[code].format(more=more)
    return reply({"success": False, "errorCode": code, "errorMsg": text, "obj": None}, status)


def when(moment: datetime | None) -> str | None:
    """A moment as replies have it: an offset without colon."""
    return None if moment is None else f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S+0000}"


def event_time(moment: datetime) -> str:
    """A moment as webhooks have it."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


_STATUS = {
    "new": ("GOT_RESOURCE", "RELEASED"),
    "installed": ("GOT_RESOURCE", "INSTALLATION"),
    "active": ("IN_USE", "ENABLED"),
    "used_up": ("USED_UP", "ENABLED"),
    "expired": ("USED_EXPIRED", "DISABLED"),
    "cancelled": ("CANCEL", "RELEASED"),
    "revoked": ("REVOKE", "DELETED"),
    "suspended": ("SUSPENDED", "DISABLED"),
}


def statuses(sim: Sim) -> tuple[str, str]:
    """`esimStatus` and `smdpStatus`."""
    return _STATUS[sim.state]


def totals(sim: Sim) -> tuple[int, int, int]:
    """Bytes bought, days bought, bytes used."""
    live = [bundle for bundle in sim.bundles if bundle.state != "revoked"]
    return sum(b.data_bytes or 0 for b in live), sum(b.days for b in live), sum(b.used_bytes for b in live)


def started(sim: Sim) -> datetime | None:
    """When the eSIM was first used."""
    stamps = [bundle.started_at for bundle in sim.bundles if bundle.started_at]
    return datetime.fromisoformat(min(stamps)) if stamps else None


def expires(sim: Sim) -> datetime:
    """When the eSIM ends: by its term once used, before that by how long it may lie unused."""
    first = started(sim)
    if first is None:
        return datetime.fromisoformat(sim.created_at) + timedelta(days=_UNUSED_DAYS)
    return first + timedelta(days=totals(sim)[1])


def _package_row(sim: Sim, bundle: Bundle, package: Package | None, reference: str | None) -> dict[str, Any]:
    wire = package.wire if package else {}
    return {
        "packageName": bundle.title, "packageCode": bundle.package_id, "slug": wire.get("slug"),
        "duration": bundle.days, "volume": bundle.data_bytes, "locationCode": wire.get("locationCode"),
        "createTime": when(datetime.fromisoformat(bundle.bought_at)), "esimTranNo": sim.sim_id,
        "transactionId": reference,
    }  # fmt: skip


def esim_wire(sim: Sim, order: Order, rows: list[tuple[Package | None, Order]]) -> dict[str, Any]:
    """One eSIM in a query; `rows` are package and order of each of its bundles."""
    esim_status, smdp_status = statuses(sim)
    volume, days, used = totals(sim)
    first = rows[0][0].wire if rows and rows[0][0] else {}
    page = f"https://p.qrsim.example/{sim.matching_id.lower()}"
    return {
        "esimTranNo": sim.sim_id, "orderNo": order.order_id, "transactionId": order.reference,
        "imsi": f"31084{int(sim.sim_id) % 10**10:010d}", "iccid": sim.iccid, "smsStatus": 0, "msisdn": "",
        "ac": sim.lpa, "qrCodeUrl": f"{page}.png", "shortUrl": page, "smdpStatus": smdp_status, "eid": "",
        "activeType": 2, "dataType": first.get("dataType", 1), "activateTime": when(started(sim)),
        "expiredTime": when(expires(sim)), "installationTime": when(started(sim)), "totalVolume": volume,
        "totalDuration": days, "durationUnit": "DAY", "orderUsage": used, "esimStatus": esim_status, "pin": "1234",
        "puk": "12345678", "apn": "isp", "ipExport": "NL/FR", "supportTopUpType": first.get("supportTopUpType", 2),
        "fupPolicy": first.get("fupPolicy", ""),
        "packageList": [
            _package_row(sim, bundle, package, owner.reference)
            for bundle, (package, owner) in zip(sim.bundles, rows, strict=True)
        ],
    }  # fmt: skip


def activity(sim: Sim, order: Order, now: datetime, before: int, after: int) -> list[tuple[str, dict[str, Any]]]:
    """The events an eSIM's use sets off, as kind and content."""
    ids = {
        "iccid": sim.iccid, "orderNo": order.order_id, "esimTranNo": sim.sim_id, "transactionId": order.reference,
    }  # fmt: skip
    esim_status, smdp_status = statuses(sim)
    state = ids | {"esimStatus": esim_status, "smdpStatus": smdp_status}
    if sim.state == "installed":
        more = {"eid": "89049032000000000000000000000001", "timestamp": event_time(now), "seqNumber": 1}
        return [("SMDP_EVENT", state | more | {"notifyStatus": "Executed-Success"})]
    events: list[tuple[str, dict[str, Any]]] = [("ESIM_STATUS", state)] if before == 0 or after == 100 else []
    total, _, used = totals(sim)
    usage = {"totalVolume": total, "orderUsage": used, "remain": total - used, "lastUpdateTime": event_time(now)}
    for threshold in crossed(before, after, (50, 80, 90)):
        share = {50: Decimal("0.5"), 80: Decimal("0.2"), 90: Decimal("0.1")}[threshold]
        events.append(("DATA_USAGE", ids | usage | {"remainThreshold": share}))
    return events


def body_of(ask: Ask) -> dict[str, Any]:
    """The request's object."""
    body = ask.json()
    if not isinstance(body, dict):
        raise Refused(bad("000104"))
    return body


def moment(text: object) -> datetime:
    """A moment of a query; UTC where it names no zone."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        raise Refused(bad("000107")) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
