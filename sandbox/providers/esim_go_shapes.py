"""eSIM Go's orders and eSIMs as they go over the wire; times carry nanoseconds, some hosts a scheme."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sandbox.providers.activity import crossed
from sandbox.providers.ledger import Bundle, Order, Sim
from sandbox.providers.shelf import Package
from sandbox.wire import dumps
from sandbox.world import World

GROUPS = ["Standard Fixed", "Standard Long Duration", "Standard Unlimited Lite"]
_STATUS = {
    "delivered": "Order completed: {units} eSIMs assigned",
    "inventory": "Order completed",
    "failed": "Order processing failed",
    "processing": "Order is being processed",
}
_UNLIMITED_BYTES = 1_000_000_000


def nanoseconds(moment: datetime) -> str:
    """A moment as eSIM Go writes it in orders: UTC with nine decimals."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}019Z"


def seconds(moment: datetime) -> str:
    """A moment as callbacks have it."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def bounds(texts: list[str]) -> tuple[datetime | None, datetime | None] | None:
    """The range of `createdAt=gte:...&createdAt=lte:...`; None when a text cannot be read."""
    low = high = None
    for text in texts:
        operator, _, stamp = text.partition(":")
        try:
            moment = datetime.fromisoformat(stamp)
        except ValueError:
            return None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        if operator in {"gte", "gt"}:
            low = moment
        elif operator in {"lte", "lt"}:
            high = moment
        else:
            return None
    return low, high


def paging(page: str | None, size: str | None, *, usual: int, most: int) -> tuple[int, int]:
    """Page number and size; what cannot be read counts as not given."""
    number = int(page) if page and page.isdigit() else 1
    per_page = int(size) if size and size.isdigit() else usual
    return max(1, number), min(max(1, per_page), most)


def _smdp(sim: Sim) -> str:
    return f"http://{sim.host}" if int(sim.sim_id) % 4 == 0 else sim.host


def _esim(sim: Sim) -> dict[str, Any]:
    return {"iccid": sim.iccid, "matchingId": sim.matching_id, "smdpAddress": _smdp(sim)}


def validated(
    package: Package, quantity: int, cost: Decimal, currency: str, assign: bool, now: datetime
) -> dict[str, Any]:
    """The answer to a dry run."""
    line = {
        "type": "bundle", "item": package.package_id, "quantity": quantity, "subTotal": cost * quantity,
        "pricePerUnit": cost, "AllowReassign": False,
    }  # fmt: skip
    return {
        "order": [line], "total": cost * quantity, "valid": True, "currency": currency,
        "createdDate": nanoseconds(now), "assigned": assign,
    }  # fmt: skip


def order_wire(order: Order, sims: list[Sim], *, listed: bool = False) -> dict[str, Any]:
    """One order, as bought, read or listed."""
    line: dict[str, Any] = {
        "type": "bundle", "item": order.package_id, "quantity": order.quantity,
        "subTotal": order.unit_cost * order.quantity, "pricePerUnit": order.unit_cost,
        "AllowReassign": bool(order.extra.get("allow_reassign")),
    }  # fmt: skip
    if sims:
        line |= {"esims": [_esim(sim) for sim in sims], "iccids": [sim.iccid for sim in sims]}
    state = order.state if order.state in {"failed", "processing"} else ("delivered" if sims else "inventory")
    wire = {
        "order": [line], "total": order.unit_cost * order.quantity, "currency": order.currency,
        "status": {"failed": "failed", "processing": "processing"}.get(state, "completed"),
        "statusMessage": _STATUS[state].format(units=len(sims)), "orderReference": order.order_id,
        "createdDate": nanoseconds(order.created), "assigned": bool(order.extra["assigned"]), "sourceIP": "127.0.0.1",
    }  # fmt: skip
    return wire | {"runningBalance": Decimal(order.extra["running"])} if listed else wire


def assignment_wire(sim: Sim) -> dict[str, Any]:
    """Install data of one eSIM."""
    return {
        **_esim(sim), "profileStatus": profile_status(sim), "pin": "1234", "puk": "12345678",
        "firstInstalledDateTime": None,
        "appleInstallUrl": f"https://esimsetup.apple.com/esim_qrcode_provisioning?carddata={sim.lpa}",
    }  # fmt: skip


def profile_status(sim: Sim) -> str:
    """`Released` until it is on a phone."""
    return "Released" if sim.state == "new" else "Installed"


def esim_wire(sim: Sim) -> dict[str, Any]:
    """One eSIM on its own; the installation time is in epoch milliseconds."""
    started = next((b.started_at for b in sim.bundles if b.started_at), None)
    installed = int(datetime.fromisoformat(started).timestamp() * 1000) if started else None
    return {
        **_esim(sim), "pin": "1234", "puk": "12345678", "profileStatus": profile_status(sim),
        "firstInstalledDateTime": installed, "customerRef": sim.label,
        "state": "Deactivated" if sim.state == "revoked" else "Active",
        "appleInstallUrl": f"https://esimsetup.apple.com/esim_qrcode_provisioning?carddata={sim.lpa}",
    }  # fmt: skip


def listed_esim(sim: Sim) -> dict[str, Any]:
    """One eSIM in a list."""
    moment = seconds(datetime.fromisoformat(sim.created_at))
    return {
        "iccid": sim.iccid, "customerRef": sim.label, "lastAction": "Bundle Applied", "actionDate": moment,
        "physical": False, "assignedDate": moment,
    }  # fmt: skip


_BUNDLE_STATE = {"new": "queued", "active": "active", "used_up": "depleted", "expired": "expired", "revoked": "revoked"}


def bundle_wire(bundle: Bundle) -> dict[str, Any]:
    """One assignment; quantities in decimal bytes."""
    total = bundle.data_bytes if bundle.data_bytes is not None else _UNLIMITED_BYTES
    return {
        "id": bundle.bundle_id, "callTypeGroup": "data", "initialQuantity": total,
        "remainingQuantity": max(0, total - bundle.used_bytes),
        "assignmentDateTime": nanoseconds(datetime.fromisoformat(bundle.bought_at)),
        "assignmentReference": f"{bundle.order_id}-0", "bundleState": _BUNDLE_STATE[bundle.state],
        "unlimited": bundle.data_bytes is None,
    }  # fmt: skip


def bundles_wire(sim: Sim) -> list[dict[str, Any]]:
    """The bundles of an eSIM, by name."""
    names = dict.fromkeys(bundle.package_id for bundle in sim.bundles)
    return [
        {
            "name": name,
            "description": next(b.title for b in sim.bundles if b.package_id == name),
            "assignments": [bundle_wire(b) for b in sim.bundles if b.package_id == name],
        }
        for name in names
    ]


def callback_bundle(bundle: Bundle) -> dict[str, Any]:
    """A bundle in a callback."""
    start = datetime.fromisoformat(bundle.started_at or bundle.bought_at)
    wire = bundle_wire(bundle)
    return {
        "id": bundle.bundle_id, "reference": wire["assignmentReference"], "name": bundle.package_id,
        "description": bundle.title, "initialQuantity": wire["initialQuantity"],
        "remainingQuantity": wire["remainingQuantity"], "startTime": seconds(start),
        "endTime": seconds(start + timedelta(days=bundle.days)), "unlimited": wire["unlimited"],
    }  # fmt: skip


class Callbacks:
    """Callbacks V3: signed with the API key, in hex and in base64 by turns, because the documents say both."""

    def __init__(self, world: World, key: str) -> None:
        self._world = world
        self._key = key.encode()
        self._sent = 0

    def used(self, sim: Sim, bundle: Bundle, before: int, after: int) -> None:
        """Tell of first use and of 1, 50, 80 and 100 per cent used."""
        if before == 0 and bundle.state == "active":
            self._send({"alertType": "FirstAttachment", "iccid": sim.iccid})
            self._send({"alertType": "FirstUse", "iccid": sim.iccid, "bundle": callback_bundle(bundle)})
        for _ in crossed(before, after, (1, 50, 80, 100)):
            self._send({"alertType": "Utilisation", "iccid": sim.iccid, "bundle": callback_bundle(bundle)})

    def _send(self, body: dict[str, Any]) -> None:
        content = dumps(body)
        digest = hmac.new(self._key, content, hashlib.sha256)
        self._sent += 1
        signature = digest.hexdigest() if self._sent % 2 else base64.b64encode(digest.digest()).decode()
        url = f"{self._world.config.api_url}/webhooks/providers/esim_go"
        headers = {"content-type": "application/json", "x-signature-sha256": signature}
        self._world.courier.send("esim_go", url, content, headers)


def organisation(balance: Decimal, api_url: str) -> dict[str, Any]:
    """The account; the real answer carries the key and people's addresses as well."""
    return {
        "name": "Sandbox Partner Ltd", "apiKey": "REDACTED", "taxLiable": "Yes", "addr1": "1 Test Street", "addr2": "",
        "city": "Testville", "country": "United Kingdom", "postcode": "TE1 1ST",
        "callbackUrl": f"{api_url}/webhooks/providers/esim_go", "notes": "", "groups": GROUPS, "currency": "USD",
        "balance": balance, "testCredit": 0, "testCreditExpiry": None, "businessType": "Reseller",
        "website": "https://partner.test", "productDescription": "Travel eSIM", "users": [],
    }  # fmt: skip
