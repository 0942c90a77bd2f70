"""eSIM Go API v2.5: bundles bought at once, in the background above five, or into the inventory; callbacks V3.

There is no client reference and nothing is idempotent. One item per order is taken. A 503 to an order means that it is
being worked on; a 200 may carry a failed order.
"""

import csv
import io
from decimal import Decimal
from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute

from sandbox.geography import countries
from sandbox.providers import esim_go_shapes as shapes
from sandbox.providers.esim_go_catalogue import EsimGoCatalogue
from sandbox.providers.esim_go_stock import EsimGoStock
from sandbox.providers.fates import Fate, Unfinished, draw
from sandbox.providers.ledger import Books, Ledger, Order, Sim, uuid_text
from sandbox.providers.shelf import Package, charged, delists
from sandbox.providers.site import Ask, CallOf, Site, Voice, Window
from sandbox.wire import Refused, reply
from sandbox.world import World

API_KEY = "sandbox-key"
_AT_ONCE = 5


def _told(message: str, status: int) -> Response:
    return reply({"message": message}, status)


def _too_many(wait: int = 1) -> Response:
    headers = {"Retry-After": str(wait), "X-Ratelimit-Limit": "10", "X-Ratelimit-Remaining": "0"}
    return reply({"message": "Rate limit exceeded"}, 429, headers)


def _processing() -> Response:
    return reply({"message": "Processing - please come back later"}, 503, {"Retry-After": "3"})


class EsimGo:
    """The handlers of one sandbox."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.catalogue = EsimGoCatalogue(world)
        books = world.part(Books, Books)
        self.ledger = books.open(Ledger(world, "esim_go", iccid_prefix="8943102", host="rsp.esim-go-sandbox.test"))
        self.unfinished = Unfinished(self.ledger, self._finish)
        books.listeners["esim_go"] = shapes.Callbacks(world, API_KEY).used
        self.stock = EsimGoStock(self.ledger, self.catalogue.shelf)
        self._window = Window(world, 10, 1)

    # --- who asks -------------------------------------------------------------------------------------------------

    def guard(self, ask: Ask) -> Response | None:
        """Check the key: 403, or 401 on orders."""
        if ask.request.headers.get("x-api-key") == API_KEY:
            return None
        return _told("access denied", 401 if ask.call in {"order", "topup"} else 403)

    def limit(self, ask: Ask) -> Response | None:
        """Ten requests a second per address."""
        wait = self._window.take(ask.request.client.host if ask.request.client else "")
        return None if wait is None else _too_many(wait)

    # --- catalogue ------------------------------------------------------------------------------------------------

    async def bundles(self, ask: Ask) -> Response:
        """GET /catalogue."""
        return self.catalogue.answer(ask)

    async def bundle(self, ask: Ask) -> Response:
        """GET /catalogue/bundle/{name}."""
        package = self.catalogue.shelf.packages.get(ask.path("name"))
        if package is None:
            return _told("Bundle not found", 400)
        amount = package.wire.get("dataAmount")
        allowance = {
            "type": "DATA", "service": "ROAMING", "description": package.title, "amount": amount, "unit": "MB",
            "unlimited": package.data_bytes is None,
        }  # fmt: skip
        return reply({**package.wire, "price": charged(ask, package), "allowances": [allowance]})

    async def networks(self, ask: Ask) -> Response:
        """GET /networks."""
        table = countries()
        isos = (ask.query("isos") or "").split(",") if ask.query("isos") else list(table)
        rows = [
            {"name": iso, "networks": [{
                "name": f"{table[iso].name} Telecom", "brandName": f"{table[iso].name} Telecom", "mcc": "001",
                "mnc": "01", "tagid": f"{table[iso].iso3}01", "speed": ["4G", "5G"],
            }]}
            for iso in isos if iso in table
        ]  # fmt: skip
        return reply({"countryNetworks": rows})

    # --- buying ---------------------------------------------------------------------------------------------------

    async def order(self, ask: Ask) -> Response:
        """POST /orders: `validate` checks and prices, `transaction` buys."""
        body = ask.json()
        if not isinstance(body, dict) or body.get("type") not in {"validate", "transaction"}:
            return _told("type must be validate or transaction", 400)
        package, quantity, item = self._wanted(ask, body)
        sims = self._targets(item, quantity)
        cost, currency = charged(ask, package), self._currency(ask)
        if cost * quantity > self.ledger.balance:
            return _told("Insufficient balance", 400)
        assign = body.get("assign") is True
        if body["type"] == "validate":
            return reply(shapes.validated(package, quantity, cost, currency, assign, self.world.clock()))
        order = self._book(package, quantity, cost, currency, assign=assign)
        order.extra["allow_reassign"] = bool(item.get("allowReassign"))
        if not assign:
            self.stock.put(order)
            return reply(shapes.order_wire(order, []))
        return self._assign(ask, order, package, sims)

    def _wanted(self, ask: Ask, body: dict[str, Any]) -> tuple[Package, int, dict[str, Any]]:
        items = body.get("order") or [body]
        if not isinstance(items, list) or len(items) != 1 or not isinstance(items[0], dict):
            raise Refused(_told("order must hold one item", 400))
        item, name = items[0], str(items[0].get("item") or "")
        package, gone = self.catalogue.shelf.packages.get(name), ask.fault("delisted")
        if package is None or (gone is not None and delists(gone, name)):
            raise Refused(_told("Bundle not found", 400))
        quantity = item.get("quantity", 1)
        if isinstance(quantity, bool) or not isinstance(quantity, int) or not 1 <= quantity <= 100:
            raise Refused(_told("quantity must be between 1 and 100", 400))
        return package, quantity, item

    def _targets(self, item: dict[str, Any], quantity: int) -> list[Sim]:
        iccids = item.get("iccids") or []
        if iccids and len(iccids) != quantity:
            raise Refused(_told("the number of iccids must equal quantity", 400))
        sims = [self.ledger.sim_of_iccid(str(iccid)) for iccid in iccids]
        if any(sim is None for sim in sims):
            raise Refused(_told("access denied", 403))
        return [sim for sim in sims if sim is not None]

    def _currency(self, ask: Ask) -> str:
        foreign = ask.fault("foreign_currency")
        return str(foreign.params.get("currency", "EUR")) if foreign else "USD"

    def _book(self, package: Package, quantity: int, cost: Decimal, currency: str, *, assign: bool) -> Order:
        self.ledger.charge(cost * quantity)
        number = self.ledger.number()
        order = self.ledger.open(
            package, order_id=uuid_text("esim_go", self.world.config.seed, number), number=number,
            state="processing" if assign else "inventory", unit_cost=cost, quantity=quantity,
        )  # fmt: skip
        order.currency = currency
        order.extra |= {"assigned": assign, "running": str(self.ledger.balance)}
        return order

    def _assign(self, ask: Ask, order: Order, package: Package, sims: list[Sim]) -> Response:
        fate = draw(ask)
        if order.quantity <= _AT_ONCE and not fate.held:
            if fate.fails:
                self._fail(order)
            else:
                self._put_on(order, package, sims)
            return reply(shapes.order_wire(order, self.ledger.sims_of(order)))
        order.extra["targets"] = [sim.sim_id for sim in sims]
        self.unfinished.add(order, fate)
        return reply(shapes.order_wire(order, [])) if order.quantity > _AT_ONCE else _processing()

    def _finish(self, order: Order, fate: Fate) -> None:
        package = self.catalogue.shelf.packages.get(order.package_id)
        if fate.fails or package is None:
            self._fail(order)
        else:
            self._put_on(order, package, [self.ledger.sims[sim_id] for sim_id in order.extra["targets"]])

    def _put_on(self, order: Order, package: Package, sims: list[Sim]) -> None:
        usable = [sim for sim in sims if self._compatible(sim, package)]
        if len(usable) < len(sims) and not order.extra["allow_reassign"]:
            self._fail(order)
            return
        for sim in usable:
            self.ledger.extend(order, package, sim)
        self.ledger.issue(order, package, count=order.quantity - len(usable))

    def _fail(self, order: Order) -> None:
        self.ledger.credit(order.unit_cost * order.quantity)
        self.ledger.mark(order, "failed")

    @staticmethod
    def _compatible(sim: Sim, package: Package) -> bool:
        return sim.state not in {"revoked", "cancelled"} and bool(package.package_id)

    # --- looking --------------------------------------------------------------------------------------------------

    async def orders(self, ask: Ask) -> Response:
        """GET /orders: newest first; `createdAt` may be given twice for a range."""
        bounds = shapes.bounds(ask.request.query_params.getlist("createdAt"))
        if bounds is None:
            return _told("createdAt must be gte:<time> or lte:<time>", 400)
        low, high = bounds
        chosen = []
        for order in reversed(self.ledger.orders.values()):
            if low is not None and order.created < low:
                break
            if high is None or order.created <= high:
                chosen.append(order)
        page, size = shapes.paging(ask.query("page"), ask.query("limit"), usual=10, most=10_000)
        part = chosen[(page - 1) * size : page * size]
        rows = [shapes.order_wire(order, self.ledger.sims_of(order), listed=True) for order in part]
        if ask.fault("bare_array"):
            return reply(rows)
        pages = -(-len(chosen) // size)
        return reply({"orders": rows, "pageCount": pages, "pageSize": size, "rows": len(chosen)})

    async def one_order(self, ask: Ask) -> Response:
        """GET /orders/{orderReference}."""
        order = self.ledger.orders.get(ask.path("reference"))
        if order is None:
            return _told("Order not found", 404)
        return reply(shapes.order_wire(order, self.ledger.sims_of(order)))

    async def assignments(self, ask: Ask) -> Response:
        """GET /esims/assignments: CSV unless JSON is asked for."""
        references = ask.request.query_params.getlist("reference")
        rows: list[tuple[Sim, str]] = []
        for reference in references:
            order = self.ledger.orders.get(reference)
            sims = self.ledger.sims_of(order) if order else self.stock.applied(reference)
            rows += [(sim, reference) for sim in sims]
        if not rows:
            return _told("No eSIMs found for reference", 404)
        if "json" in ask.request.headers.get("accept", ""):
            shown = [shapes.assignment_wire(sim) for sim, _ in rows]
            return reply(shown[0] if len(shown) == 1 else shown)
        sheet = io.StringIO()
        writer = csv.writer(sheet)
        writer.writerow(["ICCID", "Matching ID", "RSP URL", "Bundle", "Reference"])
        writer.writerows([sim.iccid, sim.matching_id, sim.host, sim.bundles[0].package_id, ref] for sim, ref in rows)
        return Response(sheet.getvalue(), media_type="text/csv")

    def _known(self, ask: Ask) -> Sim:
        sim = self.ledger.sim_of_iccid(ask.path("iccid"))
        if sim is None:
            raise Refused(_told("access denied", 403))
        return sim

    async def esims(self, ask: Ask) -> Response:
        """GET /esims."""
        page, size = shapes.paging(ask.query("page"), ask.query("perPage"), usual=50, most=100)
        field, text = ask.query("filterBy"), ask.query("filter") or ""
        sims = [
            sim for sim in reversed(self.ledger.sims.values())
            if not text or text in (sim.label if field == "customerRef" else sim.iccid)
        ]  # fmt: skip
        rows = [shapes.listed_esim(sim) for sim in sims[(page - 1) * size : page * size]]
        return reply({"esims": rows, "pageCount": -(-len(sims) // size), "pageSize": size, "rows": len(sims)})

    async def tag(self, ask: Ask) -> Response:
        """PUT /esims: our name for an eSIM, after the order."""
        body = ask.json() if isinstance(ask.json(), dict) else {}
        sim = self.ledger.sim_of_iccid(str(body.get("iccid")))
        if sim is None:
            return _told("access denied", 403)
        sim.label = str(body.get("customerRef") or "")
        return reply({"status": "success"})

    async def esim(self, ask: Ask) -> Response:
        """GET /esims/{iccid}."""
        return reply(shapes.esim_wire(self._known(ask)))

    async def esim_bundles(self, ask: Ask) -> Response:
        """GET /esims/{iccid}/bundles."""
        return reply({"bundles": shapes.bundles_wire(self._known(ask))})

    async def esim_bundle(self, ask: Ask) -> Response:
        """GET /esims/{iccid}/bundles/{name}: the latest assignment."""
        found = [b for b in self._known(ask).bundles if b.package_id == ask.path("name")]
        if not found:
            return _told("access denied", 403)
        return reply({"assignments": [shapes.bundle_wire(found[-1])]})

    async def compatible(self, ask: Ask) -> Response:
        """GET /esims/{iccid}/compatible/{bundle}."""
        package = self.catalogue.shelf.packages.get(ask.path("name"))
        if package is None:
            return _told("Bundle not found", 400)
        return reply({"compatible": self._compatible(self._known(ask), package)})

    async def organisation(self, _ask: Ask) -> Response:
        """GET /organisation."""
        return reply(shapes.organisation(self.ledger.balance, self.world.config.api_url))

    async def groups(self, _ask: Ask) -> Response:
        """GET /organisation/groups."""
        return reply({"groups": shapes.GROUPS})

    async def topup_balance(self, ask: Ask) -> Response:
        """POST /organisation/balance?amount=."""
        text = ask.query("amount") or ""
        if not text.isdigit() or not 1000 <= int(text) <= 5000:
            return _told("amount must be between 1000 and 5000", 400)
        self.ledger.credit(Decimal(text))
        return reply({"amount": int(text), "balance": self.ledger.balance, "ref": self.ledger.number()})


def _call(body: bytes) -> str:
    return "topup" if b'"iccids"' in body else "order"


def _step(body: bytes) -> str:
    return "validate" if b'"validate"' in body else "transaction"


def build(world: World) -> list[BaseRoute]:
    """The routes of eSIM Go."""
    go = EsimGo(world)
    voice = Voice(
        go.guard,
        {
            "refuse": lambda _ask: _told("Order rejected", 400),
            "out_of_stock": lambda _ask: _told("No eSIMs available for this bundle", 400),
            "insufficient_balance": lambda _ask: _told("Insufficient balance", 400),
            "rate_limited": lambda _ask: _too_many(),
            "unauthorised": lambda ask: _told("access denied", 401 if ask.call in {"order", "topup"} else 403),
            "ok_with_error": lambda _ask: _told("Internal error", 200),
        },
    )
    site = Site(world, "esim_go", voice)

    def add(method: str, path: str, call: str | CallOf, handler: Any, **more: Any) -> None:
        site.add(method, path, call, handler, limit=go.limit, **more)

    add("GET", "/catalogue", "catalogue", go.bundles)
    add("GET", "/catalogue/bundle/{name}", "status", go.bundle, step="bundle")
    add("GET", "/networks", "status", go.networks, step="networks")
    add(
        "POST",
        "/orders",
        _call,
        go.order,
        step=_step,
        buys="transaction",
    )
    add("GET", "/orders", "status", go.orders, step="list")
    add("GET", "/orders/{reference}", "status", go.one_order)
    add("GET", "/esims/assignments", "status", go.assignments, step="assignments")
    add("POST", "/esims/apply", "order", go.stock.apply, step="apply", buys="apply")
    add("GET", "/esims", "status", go.esims, step="esims")
    add("PUT", "/esims", "status", go.tag, step="tag")
    add("GET", "/esims/{iccid}", "status", go.esim, step="esim")
    add("GET", "/esims/{iccid}/bundles", "usage", go.esim_bundles)
    add("GET", "/esims/{iccid}/bundles/{name}", "usage", go.esim_bundle)
    add("DELETE", "/esims/{iccid}/bundles/{name}", "cancel", go.stock.revoke)
    add("DELETE", "/esims/{iccid}/bundles/{name}/assignments/{assignment}", "cancel", go.stock.revoke)
    add("GET", "/esims/{iccid}/compatible/{name}", "status", go.compatible, step="compatible")
    add("GET", "/inventory", "status", go.stock.inventory, step="inventory")
    add("POST", "/inventory/refund", "cancel", go.stock.refund, step="inventory")
    add("GET", "/organisation", "balance", go.organisation)
    add("GET", "/organisation/groups", "balance", go.groups)
    add("POST", "/organisation/balance", "balance", go.topup_balance, step="topup")
    return site.routes
