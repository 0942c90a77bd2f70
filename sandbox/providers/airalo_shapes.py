"""Airalo's orders and eSIMs as they go over the wire: numbers when bought, text when listed."""

from datetime import datetime, timedelta
from typing import Any

from sandbox.providers.airalo_catalogue import AiraloCatalogue
from sandbox.providers.ledger import Bundle, Order, Sim
from sandbox.providers.shelf import Package

MB = 1024 * 1024
STATUSES = {
    "delivered": ("Completed", "completed"),
    "failed": ("Failed", "failed"),
    "refunded": ("Refunded", "refunded"),
    "partially_refunded": ("Partially refunded", "partially_refunded"),
}
_GUIDES = {"en": "https://www.airalo.com/help/getting-started-with-airalo"}
_USER = {
    "id": 120, "created_at": "2026-02-20 08:41:57", "name": "Sandbox Partner", "email": "ops@partner.test",
    "mobile": None, "address": None, "state": None, "city": None, "postal_code": None, "country_id": None,
    "company": "Sandbox Partner Ltd",
}  # fmt: skip


def when(stamp: str) -> str:
    """A moment in Airalo's form, without a zone."""
    return datetime.fromisoformat(stamp).strftime("%Y-%m-%d %H:%M:%S")


def bought_sim(sim: Sim) -> dict[str, Any]:
    """One eSIM in the answer to a purchase."""
    apn = {"apn_type": "automatic", "apn_value": "internet"}
    return {
        **listed_sim(sim),
        "apn": {"ios": apn, "android": {**apn, "apn_type": "manual"}},
        "msisdn": None,
        "direct_apple_installation_url": f"https://esimsetup.apple.com/esim_qrcode_provisioning?carddata={sim.lpa}",
    }


def listed_sim(sim: Sim) -> dict[str, Any]:
    """One eSIM in a list: fewer fields."""
    return {
        "id": int(sim.sim_id), "created_at": when(sim.created_at), "iccid": sim.iccid, "lpa": sim.host, "imsis": None,
        "matching_id": sim.matching_id, "qrcode": sim.lpa,
        "qrcode_url": f"https://www.airalo.test/qr?id={sim.sim_id}&signature=sample", "airalo_code": None,
        "apn_type": "manual", "apn_value": "internet", "is_roaming": True, "confirmation_code": None,
    }  # fmt: skip


def bought(order: Order, package: Package, sims: list[Sim], catalogue: AiraloCatalogue) -> dict[str, Any]:
    """`data` of the answer to a purchase."""
    plan = package.wire
    data: dict[str, Any] = {
        "id": order.number, "code": order.extra["code"], "currency": order.currency, "package_id": order.package_id,
        "quantity": order.quantity if order.quantity == 1 else str(order.quantity), "type": order.kind,
        "description": order.reference, "esim_type": "Prepaid", "validity": package.days, "package": order.title,
        "data": plan.get("data"), "price": package.retail, "pricing_model": catalogue.pricing["model"],
        "created_at": when(order.created_at), "manual_installation": "<p>html</p>",
        "qrcode_installation": "<p>html</p>", "installation_guides": _GUIDES, "text": plan.get("text"),
        "voice": plan.get("voice"), "brand_settings_name": None,
    }  # fmt: skip
    if catalogue.discount is None:
        data["net_price"] = order.unit_cost
    else:
        data |= {
            "discount_percentage": catalogue.discount, "discount_amount": package.retail - order.unit_cost,
            "unit_paid_price": order.unit_cost, "total_amount_paid": order.unit_cost * order.quantity,
        }  # fmt: skip
    if order.kind == "topup":
        return data | {"manual_installation": "", "qrcode_installation": ""}
    return data | {"sims": [bought_sim(sim) for sim in sims]}


def listed(order: Order, package: Package | None, sims: list[Sim], include: set[str]) -> dict[str, Any]:
    """One order in a list or on its own."""
    plan = package.wire if package else {}
    name, slug = STATUSES[order.extra.get("status", order.state)]
    data: dict[str, Any] = {
        "id": order.number, "created_at": when(order.created_at), "code": order.extra["code"],
        "description": order.reference, "type": order.kind, "package_id": order.package_id, "quantity": order.quantity,
        "package": order.title, "esim_type": "Prepaid", "validity": str(package.days) if package else "0",
        "price": f"{package.retail:.2f}" if package else "0.00", "data": plan.get("data"), "currency": order.currency,
        "manual_installation": "<p>html</p>", "qrcode_installation": "<p>html</p>", "installation_guides": _GUIDES,
    }  # fmt: skip
    if "sims" in include:
        data["sims"] = [listed_sim(sim) for sim in sims]
    if "user" in include:
        data["user"] = _USER
    if "status" in include:
        data["status"] = {"name": name, "slug": slug}
    return data


def detailed(sim: Sim, order: Order, package: Package | None, include: set[str]) -> dict[str, Any]:
    """One eSIM on its own."""
    parts = {part.removeprefix("order.") for part in include}
    simable = listed(order, package, [], parts) if "order" in include else None
    if simable is not None and "share" in include:
        simable["sharing"] = {"link": f"https://esims.cloud/sandbox/{sim.sim_id}", "access_code": sim.sim_id[-4:]}
    return {
        **bought_sim(sim), "voucher_code": None, "order": None, "brand_settings_name": None,
        "recycled": sim.state == "cancelled", "recycled_at": None, "simable": simable,
    }  # fmt: skip


def _ends(bundle: Bundle) -> datetime | None:
    if bundle.started_at is None:
        return None
    return datetime.fromisoformat(bundle.started_at) + timedelta(days=bundle.days)


_USAGE_STATUS = {"new": "NOT_ACTIVE", "active": "ACTIVE", "used_up": "FINISHED", "expired": "EXPIRED"}


def usage(sim: Sim) -> dict[str, Any]:
    """`data` of the usage answer: MB, zero where it must be ignored."""
    zero = {"remaining_voice": 0, "remaining_text": 0, "total_voice": 0, "total_text": 0}
    if sim.state == "cancelled":
        gone = {"remaining": 0, "total": 0, "expired_at": None, "is_unlimited": None, "status": "RECYCLED"}
        return gone | zero
    bundle = next((b for b in sim.bundles if b.state in {"active", "new"}), sim.bundles[-1])
    total = (bundle.data_bytes or 0) // MB
    ends = _ends(bundle)
    return {
        "remaining": max(0, total - bundle.used_bytes // MB), "total": total,
        "expired_at": ends.strftime("%Y-%m-%d %H:%M:%S") if ends else None, "is_unlimited": bundle.data_bytes is None,
        "status": _USAGE_STATUS.get(bundle.state, "UNKNOWN"), **zero,
    }  # fmt: skip


def history(number: int, bundle: Bundle, package: Package | None) -> dict[str, Any]:
    """One package in an eSIM's history."""
    ends = _ends(bundle)
    plan = package.wire if package else {}
    shown = ("id", "type", "price", "net_price", "amount", "day", "is_unlimited", "title", "data", "short_info")
    total = (bundle.data_bytes or 0) // MB
    return {
        "id": number, "status": _USAGE_STATUS.get(bundle.state, "UNKNOWN"),
        "remaining": max(0, total - bundle.used_bytes // MB), "activated_at": bundle.started_at,
        "expired_at": ends.isoformat() if ends else None,
        "finished_at": ends.isoformat() if ends and bundle.state == "used_up" else None,
        "package": {key: plan.get(key) for key in shown},
    }  # fmt: skip
