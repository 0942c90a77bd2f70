"""eSIM Go's inventory: bundles bought without an eSIM, applied later, returned by revoking, refunded to the balance."""

from collections import deque
from datetime import timedelta
from typing import Any

from starlette.responses import Response

from sandbox.providers.ledger import Bundle, Ledger, Order, Sim, uuid_text
from sandbox.providers.shelf import Shelf
from sandbox.providers.site import Ask
from sandbox.wire import reply


def _told(message: str, status: int) -> Response:
    return reply({"message": message}, status)


class EsimGoStock:
    """What lies in the inventory, by bundle name, oldest first."""

    def __init__(self, ledger: Ledger, shelf: Shelf) -> None:
        self._ledger = ledger
        self._shelf = shelf
        self._waiting: dict[str, deque[str]] = {}
        self._applied: dict[str, list[str]] = {}
        ledger.world.on_reset(self._clear)
        ledger.world.keep("esim_go.stock", self._dump, self._load)

    def _clear(self) -> None:
        self._waiting, self._applied = {}, {}

    def _dump(self) -> dict[str, Any]:
        return {"waiting": {name: list(ids) for name, ids in self._waiting.items()}, "applied": self._applied}

    def _load(self, data: dict[str, Any]) -> None:
        self._waiting = {name: deque(ids) for name, ids in data["waiting"].items()}
        self._applied = data["applied"]

    def put(self, order: Order) -> None:
        """Add an order's unassigned units."""
        self._waiting.setdefault(order.package_id, deque()).append(order.order_id)

    def applied(self, reference: str) -> list[Sim]:
        """The eSIMs of one apply call."""
        return [self._ledger.sims[sim_id] for sim_id in self._applied.get(reference, [])]

    def _next(self, name: str) -> Order | None:
        waiting = self._waiting.get(name)
        while waiting:
            order = self._ledger.orders[waiting[0]]
            if self._ledger.unassigned(order):
                return order
            waiting.popleft()
        return None

    async def inventory(self, _ask: Ask) -> Response:
        """GET /inventory."""
        rows = []
        for name, order_ids in self._waiting.items():
            orders = [self._ledger.orders[order_id] for order_id in dict.fromkeys(order_ids)]
            available = [self._available(order) for order in orders if self._ledger.unassigned(order)]
            if available:
                rows.append(self._row(name, available))
        return reply({"bundles": rows})

    def _available(self, order: Order) -> dict[str, Any]:
        expiry = (order.created + timedelta(days=365)).date().isoformat()
        left = self._ledger.unassigned(order)
        return {"id": order.number, "total": order.quantity, "remaining": left, "expiry": expiry}

    def _row(self, name: str, available: list[dict[str, Any]]) -> dict[str, Any]:
        bundle = self._shelf.packages[name].wire
        return {
            "name": name, "desc": bundle.get("description"), "useDms": False, "available": available,
            "countries": [country.get("name") for country in bundle.get("countries") or []],
            "data": bundle.get("dataAmount"), "duration": bundle.get("duration"), "durationUnit": "day",
            "autostart": bundle.get("autostart"), "unlimited": bundle.get("unlimited"), "speed": bundle.get("speed"),
            "allowances": [],
        }  # fmt: skip

    async def apply(self, ask: Ask) -> Response:
        """POST /esims/apply: from the inventory onto a new or a given eSIM."""
        body = ask.json() if isinstance(ask.json(), dict) else {}
        many = body.get("bundles") or [body]
        reference = uuid_text("apply", self._ledger.number())
        rows = []
        for entry in many:
            for _ in range(int(entry.get("repeat") or 1)):
                sim = self._apply_one(str(entry.get("name") or ""), entry.get("iccid"))
                if sim is None:
                    return _told("access denied", 403)
                self._applied.setdefault(reference, []).append(sim.sim_id)
                rows.append({"iccid": sim.iccid, "status": "Successfully Applied Bundle", "bundle": entry["name"]})
        return reply({"esims": rows, "applyReference": reference})

    def _apply_one(self, name: str, iccid: object) -> Sim | None:
        order = self._next(name)
        if order is None:
            return None
        package = self._shelf.packages[name]
        if not iccid:
            return self._ledger.issue(order, package, count=1)[0]
        sim = self._ledger.sim_of_iccid(str(iccid))
        if sim is not None:
            self._ledger.extend(order, package, sim)
        return sim

    async def revoke(self, ask: Ask) -> Response:
        """DELETE a bundle from an eSIM: back to the inventory, or to the balance with an offer; lost once started."""
        sim = self._ledger.sim_of_iccid(ask.path("iccid"))
        wanted = ask.request.path_params.get("assignment")
        named = (
            [] if sim is None else [b for b in sim.bundles if b.package_id == ask.path("name") and b.state != "revoked"]
        )
        found = [b for b in named if wanted is None or b.bundle_id == wanted]
        if sim is None or not found:
            return _told("access denied", 403)
        bundle = found[-1]
        order = self._ledger.orders[bundle.order_id]
        if ask.query("type") == "validate":
            options = [{"offerId": f"offer-{bundle.bundle_id}", "amount": order.unit_cost, "currency": order.currency}]
            return reply({"status": "valid", "refundable": bundle.state == "new", "offers": options})
        to_balance = ask.query("refundToBalance") == "true"
        if to_balance and ask.query("offerId") != f"offer-{bundle.bundle_id}":
            return _told("offerId is required to refund to balance", 400)
        return self._revoked(sim, bundle, order, to_balance)

    def _revoked(self, sim: Sim, bundle: Bundle, order: Order, to_balance: bool) -> Response:
        unused, bundle.state = bundle.state == "new", "revoked"
        if all(other.state == "revoked" for other in sim.bundles):
            sim.state = "revoked"
        if not unused:
            return reply({"status": "Successfully Revoked Bundle"})
        if to_balance:
            self._ledger.credit(order.unit_cost)
            self._ledger.mark(order, "refunded", sim.iccid)
            return reply({"status": "Successfully Revoked Bundle, bundle has been refunded to balance"})
        self._ledger.take_back(order, sim.iccid)
        self.put(order)
        return reply({"status": "Successfully Revoked Bundle, bundle has been refunded to inventory"})

    async def refund(self, ask: Ask) -> Response:
        """POST /inventory/refund: unused units back to the balance."""
        body = ask.json() if isinstance(ask.json(), dict) else {}
        usage_id, quantity = body.get("usageId"), int(body.get("quantity") or 1)
        for waiting in self._waiting.values():
            for order in (self._ledger.orders[order_id] for order_id in waiting):
                if order.number == usage_id and self._ledger.unassigned(order) >= quantity > 0:
                    self._ledger.credit(order.unit_cost * quantity)
                    self._ledger.settle(order, "refunded", quantity)
                    return reply({"status": "Successfully refunded bundles to balance"})
        return _told("access denied", 403)
