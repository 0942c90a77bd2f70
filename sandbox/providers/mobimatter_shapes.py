"""MobiMatter's orders as they go over the wire: activation data as name and value, times without a zone."""

import base64
import struct
import zlib
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from starlette.responses import Response

from sandbox.providers.ledger import Order, Sim, uuid_text
from sandbox.providers.mobimatter_catalogue import MERCHANT, details_of
from sandbox.providers.shelf import Package
from sandbox.wire import reply

MB = 1024 * 1024
STATES = {
    "reserved": "Created",
    "delivered": "Completed",
    "processing": "Processing",
    "expired": "Expired",
    "cancelled": "Cancelled",
    "refunded": "Completed",
    "failed": "Failed",
}


def good(result: Any, status: int = 200) -> Response:
    """A success."""
    return reply({"statusCode": status, "result": result}, status)


def bad(status: int, message: str, inside: int | None = None) -> Response:
    """A failure; the body's code may differ from the HTTP status."""
    return reply({"statusCode": inside or status, "message": message}, status)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


_DOT = (
    b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    + _chunk(b"IDAT", zlib.compress(b"\x00\x00"))
    + _chunk(b"IEND", b"")
)
_QR = f"data:image/png;base64,{base64.b64encode(_DOT).decode()}"


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]


def _line_details(order: Order, sim: Sim | None) -> dict[str, str]:
    if order.state == "processing" and order.extra.get("kyc"):
        return {"KYC_URL": f"https://kyc.example.com/s/{order.number}"}
    if sim is None or order.state not in {"delivered", "refunded"}:
        return {}
    if order.kind == "topup":
        return {"ICCID": sim.iccid, "PARENT_ORDER": str(order.extra["root"]), "PARENT_IDENTIFIER": sim.iccid}
    return {
        "ICCID": sim.iccid, "SMDP_ADDRESS": sim.host, "LOCAL_PROFILE_ASSISTANT": sim.lpa,
        "ACCESS_POINT_NAME": "internet", "ACTIVATION_CODE": sim.matching_id, "QR_CODE": _QR, "PHONE_NUMBER": "",
        "CONF_CODE": "", "WALLET_AUTH_TRANSACTION_ID": uuid_text("wallet", order.order_id), "RECHARGABLE": "True",
    }  # fmt: skip


def order_wire(order: Order, package: Package | None, sim: Sim | None) -> dict[str, Any]:
    """One order."""
    product = package.wire if package else {}
    details = _line_details(order, sim)
    click = None
    if "LOCAL_PROFILE_ASSISTANT" in details:
        lpa = details["LOCAL_PROFILE_ASSISTANT"]
        click = {
            "ios": f"https://esimsetup.apple.com/esim_qrcode_provisioning?carddata={lpa}",
            "android": f"https://esimsetup.android.com/esim_qrcode_provisioning?carddata={lpa}",
        }
    updated = order.extra.get("updated")
    return {
        "orderId": order.order_id, "orderState": STATES[order.state], "merchantId": MERCHANT, "externalId": None,
        "currencyCode": order.currency, "created": _time(order.created),
        "updated": _time(datetime.fromisoformat(updated)) if updated else None,
        "orderLineItem": {
            "productId": order.package_id, "productCategory": product.get("productCategory"),
            "productFamilyName": product.get("productFamilyName"),
            "productFamilyId": str(product.get("productFamilyId")), "title": order.title,
            "provider": str(product.get("providerId")), "providerName": product.get("providerName"),
            "providerLogo": product.get("providerLogo"), "retailPrice": package.retail if package else None,
            "wholesalePrice": order.unit_cost,
            "lineItemDetails": [{"name": name, "value": value} for name, value in details.items()],
            "oneClickInstall": click,
        },
        "label": order.reference,
    }  # fmt: skip


def _zulu(stamp: str | None, days: int = 0) -> str | None:
    if stamp is None:
        return None
    return f"{datetime.fromisoformat(stamp) + timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}"


def info(sim: Sim) -> dict[str, Any]:
    """provider/info: allowance and use in MB."""
    installed = next((bundle.started_at for bundle in sim.bundles if bundle.started_at), None)
    return {
        "ussdCode": None,
        "esim": {
            "status": "Available" if sim.state == "new" else "Installed",
            "smdpCode": "created" if sim.state == "new" else "activated", "installationDate": _zulu(installed),
            "location": None, "kycStatus": None, "iccid": sim.iccid, "phoneNumber": None, "puk": "12345678",
            "isSuspended": False, "wallet": {"balanceHkd": 0},
        },
        "packages": [
            {
                "name": bundle.title, "associatedProductId": bundle.package_id,
                "activationDate": _zulu(bundle.started_at), "expirationDate": _zulu(bundle.started_at, bundle.days),
                "totalAllowanceMb": None if bundle.data_bytes is None else bundle.data_bytes // MB,
                "totalAllowanceMin": None, "usedMin": None, "usedMb": bundle.used_bytes // MB,
            }
            for bundle in sim.bundles
        ],
    }  # fmt: skip


def usage(order: Order, package: Package | None, sim: Sim) -> dict[str, Any]:
    """provider/usage: text values, no envelope."""
    bundle = next((b for b in sim.bundles if b.order_id == order.order_id), sim.bundles[0])
    details = details_of(package.wire) if package else {}
    left = None if bundle.data_bytes is None else Decimal(bundle.data_bytes - bundle.used_bytes) / MB / 1024
    start, end = _zulu(bundle.started_at), _zulu(bundle.started_at, bundle.days)
    return {
        "orderId": order.order_id, "merchantId": MERCHANT, "planName": bundle.title,
        "planData": f"{details.get('PLAN_DATA_LIMIT', '')} {details.get('PLAN_DATA_UNIT', '')}".strip() or "Unlimited",
        "validityDays": str(bundle.days), "rechargeable": True,
        "providerInfo": {
            "providerName": package.wire.get("providerName") if package else None,
            "providerLogo": package.wire.get("providerLogo") if package else None, "message": "Usage retrieved",
            "data": {
                "activationDate": start[:10] if start else None, "expirationDate": end[:10] if end else None,
                "status": "Active" if bundle.state == "active" else "Not active",
                "balance": "Unlimited" if left is None else f"{left:.1f} GB", "phone": None,
            },
        },
    }  # fmt: skip
