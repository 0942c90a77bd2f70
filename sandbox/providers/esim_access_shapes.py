"""eSIM Access envelopes, eSIMs and events as they go over the wire."""

from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.responses import Response

from sandbox.providers.ledger import Bundle, Order, Sim
from sandbox.providers.shelf import Package
from sandbox.wire import reply

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
