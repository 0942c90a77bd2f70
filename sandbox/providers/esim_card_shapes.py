"""eSIMCard's eSIMs and bundles as they go over the wire: two time forms, odd fractions of a GB, "Unlimited" as text."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from starlette.responses import Response

from sandbox.providers.ledger import Bundle, Sim
from sandbox.wire import reply

_GB = 1024**3
_STATUS = {
    "new": "Released",
    "installed": "Installed",
    "active": "Active",
    "used_up": "Completed",
    "expired": "Expired",
    "revoked": "Revoked",
    "cancelled": "Revoked",
}


def good(data: Any, **more: Any) -> Response:
    """A success."""
    return reply({"status": True, "data": data, **more})


def bad(message: str, status: int = 200) -> Response:
    """A refusal; often with HTTP 200."""
    return reply({"status": False, "message": message}, status)


def plain(stamp: str | None, days: int = 0) -> str | None:
    """A moment of a bundle: no zone."""
    if stamp is None:
        return None
    return f"{datetime.fromisoformat(stamp).astimezone(UTC) + timedelta(days=days):%Y-%m-%d %H:%M:%S}"


def _zulu(stamp: str) -> str:
    return f"{datetime.fromisoformat(stamp).astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


def quantities(bundles: list[Bundle], *, odd: bool = False) -> dict[str, Any]:
    """Bought and remaining data in GB; `odd` counts in the fractions that lists show (1 GB as 0.9313)."""
    if any(bundle.data_bytes is None for bundle in bundles):
        total: Any = "Unlimited"
        left: Any = "Unlimited"
    else:
        factor = Decimal("0.9313") if odd else Decimal(1)
        bought = sum(bundle.data_bytes or 0 for bundle in bundles)
        used = sum(bundle.used_bytes for bundle in bundles)
        total = round(Decimal(bought) / _GB * factor, 4)
        left = round(Decimal(max(0, bought - used)) / _GB * factor, 4)
    return {
        "initial_data_quantity": total, "initial_data_unit": "GB", "rem_data_quantity": left, "rem_data_unit": "GB",
    }  # fmt: skip


def sim_wire(sim: Sim) -> dict[str, Any]:
    """One eSIM."""
    return {
        "id": sim.label, "iccid": sim.iccid, "qr_code_text": sim.lpa, "smdp_address": sim.host,
        "matching_id": sim.matching_id, "number": None, "apn": "internet", "puk_code": None,
        "created_at": _zulu(sim.created_at), "last_bundle": sim.bundles[-1].title, "status": _STATUS[sim.state],
        "total_bundles": len(sim.bundles),
        "universal_link": f"https://esimsetup.apple.com/esim_qrcode_provisioning?carddata={sim.lpa}",
    }  # fmt: skip


def package_wire(sim: Sim, bundle: Bundle) -> dict[str, Any]:
    """One bundle on an eSIM."""
    return {
        "id": bundle.bundle_id, "package_type_id": bundle.package_id, "sim_id": sim.label, "package": bundle.title,
        **quantities([bundle]), "date_created": plain(bundle.bought_at), "date_activated": plain(bundle.started_at),
        "date_expiry": plain(bundle.started_at, bundle.days) or plain(bundle.bought_at, 181),
        "activated": bundle.started_at is not None, "status": _STATUS[bundle.state],
    }  # fmt: skip


def listed_bundle(bundle: Bundle) -> dict[str, Any]:
    """One purchase in `my-bundles`."""
    return {
        "id": bundle.bundle_id, "package": bundle.title, **quantities([bundle], odd=True),
        "date_created": plain(bundle.bought_at), "date_activated": plain(bundle.started_at),
        "date_expiry": plain(bundle.started_at, bundle.days), "activated": bundle.started_at is not None,
        "status": _STATUS[bundle.state],
    }  # fmt: skip


def sim_detail(sim: Sim, coverage: list[dict[str, Any]]) -> dict[str, Any]:
    """`my-esims/{id}`."""
    groups: dict[str, list[dict[str, Any]]] = {"active": [], "new": [], "used_up": [], "revoked": []}
    for bundle in sim.bundles:
        groups.setdefault("used_up" if bundle.state == "expired" else bundle.state, []).append(
            package_wire(sim, bundle)
        )
    return {
        "sim": sim_wire(sim), "in_use_packages": groups["active"], "assigned_packages": groups["new"],
        "completed_packages": groups["used_up"], "revoked_packages": groups["revoked"], "coverage": coverage,
        "overall_usage": quantities(sim.bundles),
    }  # fmt: skip
