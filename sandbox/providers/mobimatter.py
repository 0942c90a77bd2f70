"""MobiMatter API v2: an order is a hold that is completed, cancelled or expires; nothing is bought without complete.

HTTP 429 means out of stock, 455 that the network behind is down, 402 comes with a body that says 400. No order list, no
look-up by label. KYC products finish later and call back with an RSA signature.
"""

import base64
from collections import deque
from datetime import datetime, timedelta
from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute

from sandbox.providers import mobimatter_shapes as shapes
from sandbox.providers.fates import Fate, Unfinished, draw
from sandbox.providers.ledger import Books, Ledger, Order, Sim
from sandbox.providers.mobimatter_catalogue import MERCHANT, MobimatterCatalogue
from sandbox.providers.mobimatter_shapes import bad, good
from sandbox.providers.shelf import Package, charged, delists
from sandbox.providers.signing_key import public_pem, sign
from sandbox.providers.site import Ask, Site, Voice
from sandbox.wire import Refused, as_json, dumps
from sandbox.world import World

API_KEY = "sandbox-key"


class Mobimatter:
    """The handlers of one sandbox."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.catalogue = MobimatterCatalogue(world)
        books = world.part(Books, Books)
        self.ledger = books.open(Ledger(world, "mobimatter", iccid_prefix="8985203", host="smdp.matter-sandbox.test"))
        self.unfinished = Unfinished(self.ledger, self._finish)
        self._holds: deque[tuple[datetime, str]] = deque()
        world.on_reset(self._holds.clear)
        world.purchases.before_find.append(self._expire)
        world.keep("mobimatter.holds", lambda: [[at.isoformat(), name] for at, name in self._holds], self._load)

    def _load(self, holds: list[list[str]]) -> None:
        self._holds.extend((datetime.fromisoformat(at), name) for at, name in holds)

    def guard(self, ask: Ask) -> Response | None:
        """Check key and merchant."""
        headers = ask.request.headers
        if headers.get("api-key") == API_KEY and headers.get("merchantid") == MERCHANT:
            return None
        return bad(401, "Unauthorized")

    async def products(self, ask: Ask) -> Response:
        """GET products."""
        return self.catalogue.answer(ask)

    async def networks(self, ask: Ask) -> Response:
        """GET products/{productId}/networks."""
        package = self.catalogue.find(ask.path("product_id"))
        return (
            bad(400, "Product not found for merchant")
            if package is None
            else good(self.catalogue.networks(package.wire))
        )

    # --- holds ----------------------------------------------------------------------------------------------------

    def _expire(self) -> None:
        """Release every hold whose time is over."""
        now = self.world.clock()
        while self._holds and self._holds[0][0] <= now:
            order = self.ledger.orders.get(self._holds.popleft()[1])
            if order is not None and order.state == "reserved":
                self._release(order, "expired")

    def _release(self, order: Order, state: str) -> None:
        self.ledger.credit(order.unit_cost)
        self.ledger.mark(order, state)
        order.extra["updated"] = self.ledger.stamp()

    def call_of(self, body: bytes) -> str:
        """Whether a request belongs to an order or to a top-up."""
        wanted = as_json(body)
        if not isinstance(wanted, dict):
            return "order"
        order = self.ledger.orders.get(str(wanted.get("orderId")))
        return "topup" if wanted.get("addOnOrderIdentifier") or (order and order.kind == "topup") else "order"

    async def create(self, ask: Ask) -> Response:
        """POST order: holds the price, buys nothing."""
        self._expire()
        body = _body(ask)
        package, root = self._wanted(ask, body), None
        category = str(package.wire.get("productCategory"))
        if body.get("productCategory") not in {None, category}:
            return bad(400, "productCategory does not match the product")
        if package.kind == "topup":
            root = self._root(str(body.get("addOnOrderIdentifier") or ""), package)
        label = body.get("label")
        if label is not None and len(str(label)) > 300:
            return bad(400, "label must be at most 300 characters")
        cost = charged(ask, package)
        if not self.ledger.charge(cost):
            return bad(402, "Unable to authorize funds: insufficient balance", 400)
        number = self.ledger.number()
        order = self.ledger.open(
            package, order_id=f"SBX-{number}", number=number, state="reserved", unit_cost=cost,
            reference=str(label) if label else None,
        )  # fmt: skip
        order.extra |= {"root": root, "callback": body.get("callbackUrl"), "kyc": category == "esim_delayed"}
        foreign = ask.fault("foreign_currency")
        order.currency = str(foreign.params.get("currency", "EUR")) if foreign else "USD"
        hold = timedelta(seconds=self.world.config.hold_seconds)
        self._holds.append((self.world.clock() + hold, order.order_id))
        return good({"orderId": order.order_id, "productCategory": category})

    def _wanted(self, ask: Ask, body: dict[str, Any]) -> Package:
        product_id = body.get("productId")
        if not product_id:
            raise Refused(bad(400, "productId is required"))
        package, gone = self.catalogue.find(str(product_id)), ask.fault("delisted")
        if package is None or (gone is not None and delists(gone, package.package_id)):
            raise Refused(bad(400, "Product not found for merchant"))
        return package

    def _root(self, order_id: str, package: Package) -> str:
        root = self.ledger.orders.get(order_id)
        base = self.catalogue.find(root.package_id) if root else None
        if root is None or root.kind == "topup" or root.state != "delivered" or base is None:
            raise Refused(bad(400, "addOnOrderIdentifier must be a completed root order"))
        if base.family != package.family:
            raise Refused(bad(400, "Product family does not match the parent order"))
        return order_id

    async def complete(self, ask: Ask) -> Response:
        """PUT order/complete: takes the money and delivers, at the price of now."""
        order = self._order(str(_body(ask).get("orderId") or ""))
        if order.state != "reserved":
            return bad(400, f"Order is in state {shapes.STATES[order.state]}")
        package = self.catalogue.find(order.package_id)
        if package is None:
            self._release(order, "cancelled")
            return bad(400, "Product not found for merchant")
        self._reprice(ask, order, package)
        order.extra["updated"] = self.ledger.stamp()
        fate = draw(ask)
        if order.extra["kyc"] or fate.fails or fate.held:
            self.ledger.mark(order, "processing")
            self.unfinished.add(order, fate)
        else:
            self._deliver(order, package)
        return good(self._wire(order))

    def _reprice(self, ask: Ask, order: Order, package: Package) -> None:
        moved = charged(ask, package)
        if moved == order.unit_cost:
            return
        if not self.ledger.charge(moved - order.unit_cost):
            self._release(order, "cancelled")
            raise Refused(bad(402, "Unable to authorize funds: insufficient balance", 400))
        self.ledger.reprice(order, moved)

    def _deliver(self, order: Order, package: Package) -> None:
        if order.kind == "topup":
            root = self.ledger.orders[str(order.extra["root"])]
            self.ledger.extend(order, package, self.ledger.sims_of(root)[0])
            root.extra.setdefault("linked", []).append(order.order_id)
        else:
            self.ledger.issue(order, package)

    def _finish(self, order: Order, fate: Fate) -> None:
        package = self.catalogue.find(order.package_id)
        if fate.fails or package is None:
            self._release(order, "cancelled")
            return
        self._deliver(order, package)
        order.extra["updated"] = self.ledger.stamp()
        for _ in range(fate.copies if order.extra["kyc"] else 0):
            self._call_back(order)

    def _call_back(self, order: Order) -> None:
        url = str(order.extra.get("callback") or f"{self.world.config.api_url}/webhooks/providers/mobimatter")
        data = self._wire(order)
        text = f"{order.order_id}.{MERCHANT}.{data['orderLineItem']['providerName']}".encode()
        signature = base64.b64encode(sign(self.world.config.seed, text)).decode()
        body = dumps({"eventType": "order.esim_delayed.completed", "signature": signature, "eventData": data})
        headers = {"content-type": "application/json"}
        self.world.courier.send("mobimatter", url, body, headers, delays=(30, 60, 300, 900, 1800, 1800, 1800))

    async def cancel(self, ask: Ask) -> Response:
        """PUT order/cancel: only a hold can be let go."""
        order = self._order(str(_body(ask).get("orderId") or ""))
        if order.state != "reserved":
            return bad(400, f"Order is in state {shapes.STATES[order.state]}")
        self._release(order, "cancelled")
        return good("Order cancelled")

    def undo(self, ask: Ask) -> None:
        """What the platform does when a completion fails: the hold is voided and the order cancelled."""
        body = ask.json()
        order = self.ledger.orders.get(str(body.get("orderId"))) if isinstance(body, dict) else None
        if ask.step == "complete" and order is not None and order.state == "reserved":
            self._release(order, "cancelled")

    # --- looking --------------------------------------------------------------------------------------------------

    def _order(self, order_id: str) -> Order:
        self._expire()
        order = self.ledger.orders.get(order_id)
        if order is None:
            raise Refused(bad(404, "order not found"))
        return order

    def _sim(self, order: Order) -> Sim:
        sims = self.ledger.sims_of(order)
        if not sims:
            raise Refused(bad(400, "Order has no eSIM"))
        return sims[0]

    def _wire(self, order: Order) -> dict[str, Any]:
        sims = self.ledger.sims_of(order)
        return shapes.order_wire(order, self.catalogue.find(order.package_id), sims[0] if sims else None)

    async def one_order(self, ask: Ask) -> Response:
        """GET order/{orderId}."""
        return good(self._wire(self._order(ask.path("order_id"))))

    async def order_by_iccid(self, ask: Ask) -> Response:
        """GET order?iccid=."""
        iccid = ask.query("iccid") or ""
        if not (iccid.isdigit() and iccid.startswith("89")):
            return bad(400, "iccid must be digits that start with 89")
        sim = self.ledger.sim_of_iccid(iccid)
        return bad(404, "order not found") if sim is None else good(self._wire(self.ledger.orders[sim.order_id]))

    async def linked(self, ask: Ask) -> Response:
        """GET order/{rootOrderId}/linked."""
        return good(self._order(ask.path("order_id")).extra.get("linked", []))

    async def info(self, ask: Ask) -> Response:
        """GET provider/info/{orderId}."""
        return good(shapes.info(self._sim(self._order(ask.path("order_id")))))

    async def usage(self, ask: Ask) -> Response:
        """GET provider/usage/{orderId}: no envelope."""
        order = self._order(ask.path("order_id"))
        return Response(
            dumps(shapes.usage(order, self.catalogue.find(order.package_id), self._sim(order))),
            media_type="application/json",
        )

    async def balance(self, _ask: Ask) -> Response:
        """GET merchant/balance: holds are taken off already."""
        self._expire()
        return good({"balance": self.ledger.balance})

    async def eligibility(self, ask: Ask) -> Response:
        """GET order/{orderId}/refund/eligibility."""
        order = self._order(ask.path("order_id"))
        unused = order.state == "delivered" and self._sim(order).state == "new"
        reason = (
            None if unused else "eSIM already installed" if order.state == "delivered" else "Order is not completed"
        )
        return good({"isEligible": unused, "fee": 0 if unused else None, "reason": reason})

    async def refund(self, ask: Ask) -> Response:
        """PUT order/refund: 202 when it is marked."""
        order = self._order(str(_body(ask).get("orderId") or ""))
        if order.state != "delivered" or self._sim(order).state != "new":
            return bad(400, "Order is not eligible for refund")
        sim = self._sim(order)
        if order.kind == "sim":
            sim.state = "revoked"
        self.ledger.credit(order.unit_cost)
        self.ledger.mark(order, "refunded")
        return good("Refund requested", 202)

    async def email(self, ask: Ask) -> Response:
        """POST email: accepted; the sandbox sends nothing on the provider's behalf."""
        self._order(str(_body(ask).get("orderId") or ""))
        return good("Sent")

    async def public_key(self, _ask: Ask) -> Response:
        """The public key callbacks are signed with."""
        return Response(public_pem(self.world.config.seed), media_type="application/x-pem-file")


def _body(ask: Ask) -> dict[str, Any]:
    body = ask.json()
    if not isinstance(body, dict):
        raise Refused(bad(400, "The body must be a JSON object"))
    return body


def build(world: World) -> list[BaseRoute]:
    """The routes of MobiMatter."""
    mobimatter = Mobimatter(world)

    def refusing(status: int, message: str, inside: int | None = None) -> Any:
        def answer(ask: Ask) -> Response:
            mobimatter.undo(ask)
            return bad(status, message, inside)

        return answer

    voice = Voice(
        mobimatter.guard,
        {
            "refuse": refusing(400, "Product not found for merchant"),
            "out_of_stock": refusing(429, "Product is out of stock"),
            "insufficient_balance": refusing(402, "Unable to authorize funds: insufficient balance", 400),
            "upstream_down": refusing(455, "Provider is currently unavailable"),
            "unauthorised": lambda _ask: bad(401, "Unauthorized"),
            "ok_with_error": lambda _ask: bad(200, "Unexpected error", 500),
        },
    )
    site = Site(world, "mobimatter", voice)
    for method, path, call, handler, step in (
        ("GET", "products", "catalogue", mobimatter.products, ""),
        ("GET", "products/{product_id}/networks", "status", mobimatter.networks, "networks"),
        ("PUT", "order/cancel", "cancel", mobimatter.cancel, ""),
        ("PUT", "order/refund", "cancel", mobimatter.refund, "refund"),
        ("GET", "order", "status", mobimatter.order_by_iccid, "iccid"),
        ("GET", "order/{order_id}", "status", mobimatter.one_order, ""),
        ("GET", "order/{order_id}/linked", "status", mobimatter.linked, "linked"),
        ("GET", "order/{order_id}/refund/eligibility", "status", mobimatter.eligibility, "eligibility"),
        ("GET", "provider/info/{order_id}", "usage", mobimatter.info, ""),
        ("GET", "provider/usage/{order_id}", "usage", mobimatter.usage, ""),
        ("GET", "merchant/balance", "balance", mobimatter.balance, ""),
        ("POST", "email", "status", mobimatter.email, "email"),
    ):
        site.add(method, f"/api/v2/{path}", call, handler, step=step)
    which = mobimatter.call_of
    site.add("POST", "/api/v2/order", which, mobimatter.create, step="create", buys="complete")
    site.add("PUT", "/api/v2/order/complete", which, mobimatter.complete, step="complete", buys="complete")
    site.add("GET", "/public_key.pem", "status", mobimatter.public_key, step="key", guarded=False)
    return site.routes
