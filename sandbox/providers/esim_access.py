"""eSIM Access API v1: every call a POST with an envelope; orders are asynchronous and idempotent by transactionId.

The wallet is charged when the order is accepted; profiles follow after a while, with an unsigned ORDER_STATUS event.
ICCIDs of cancelled eSIMs are given out again. One package per order is taken.
"""

import hashlib
import hmac
from datetime import datetime
from decimal import Decimal
from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute

from sandbox.providers import esim_access_shapes as shapes
from sandbox.providers.esim_access_catalogue import UNITS, EsimAccessCatalogue
from sandbox.providers.esim_access_shapes import bad, good
from sandbox.providers.fates import Fate, Unfinished, draw
from sandbox.providers.ledger import Books, Bundle, Ledger, Order, Sim, token
from sandbox.providers.shelf import Package, charged, delists
from sandbox.providers.site import Ask, Site, Voice, Window
from sandbox.wire import Refused, dumps
from sandbox.world import World

ACCESS_CODE, SECRET = "sandbox", "sandbox-secret"
_CLOCK_SKEW = 300
_ENDED = {"cancelled", "revoked", "expired"}


class EsimAccess:
    """The handlers of one sandbox."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.catalogue = EsimAccessCatalogue(world)
        books = world.part(Books, Books)
        self.ledger = books.open(
            Ledger(world, "esim_access", iccid_prefix="8910300", host="rsp.esimaccess-sandbox.test")
        )
        books.listeners["esim_access"] = self._used
        self.unfinished = Unfinished(self.ledger, self._allocate)
        self._window = Window(world, 8, 1)
        self._usual()
        world.on_reset(self._usual)
        world.keep("esim_access.more", lambda: {"free": self.free_iccids, "url": self.webhook}, self._load)

    def _usual(self) -> None:
        self.free_iccids: list[str] = []
        self.webhook = f"{self.world.config.api_url}/webhooks/providers/esim_access"

    def _load(self, data: dict[str, Any]) -> None:
        self.free_iccids, self.webhook = data["free"], data["url"]

    # --- who asks -------------------------------------------------------------------------------------------------

    def guard(self, ask: Ask) -> Response | None:
        """Check the access code and, when the request is signed, its time and signature."""
        headers = ask.request.headers
        code, signature = headers.get("rt-accesscode"), headers.get("rt-signature")
        if not code:
            return bad("000101")
        if code != ACCESS_CODE:
            return bad("000102")
        if signature is None:
            return None
        request_id, stamp = headers.get("rt-requestid"), headers.get("rt-timestamp")
        if not request_id or not stamp:
            return bad("000101")
        if not stamp.isdigit():
            return bad("000102")
        if abs(self.world.clock().timestamp() - int(stamp) / 1000) > _CLOCK_SKEW:
            return bad("101001")
        text = stamp.encode() + request_id.encode() + code.encode() + ask.body
        good_one = hmac.new(SECRET.encode(), text, hashlib.sha256).hexdigest()
        return None if hmac.compare_digest(good_one, signature) else bad("101003")

    def limit(self, _ask: Ask) -> Response | None:
        """Eight requests a second for the account."""
        wait = self._window.take()
        if wait is None:
            return None
        busy = bad("900001", status=429)
        busy.headers["Retry-After"] = str(wait)
        return busy

    # --- catalogue ------------------------------------------------------------------------------------------------

    async def packages(self, ask: Ask) -> Response:
        """package/list."""
        body = shapes.body_of(ask)
        base = None
        if body.get("iccid"):
            sim = self.ledger.sim_of_iccid(str(body["iccid"]))
            base = None if sim is None else self.catalogue.find(sim.bundles[0].package_id)
        elif body.get("type") == "TOPUP":
            base = self.catalogue.find(str(body.get("packageCode") or body.get("slug") or ""))
        return self.catalogue.answer(ask, body, base)

    async def locations(self, _ask: Ask) -> Response:
        """location/list."""
        return good({"locationList": self.catalogue.locations()})

    # --- buying ---------------------------------------------------------------------------------------------------

    async def order(self, ask: Ask) -> Response:
        """esim/order: a known transactionId gives its order back and buys nothing."""
        body = shapes.body_of(ask)
        reference = self._reference(body)
        known = self._known(ask, reference)
        if known is not None and not ask.fault("guard_first"):
            return good({"orderNo": known.order_id, "transactionId": reference})
        package, count, periods, line = self._wanted(ask, body)
        cost = charged(ask, package) * periods
        self._guard_price(body, line, cost / periods, cost * count)
        if known is not None:
            return good({"orderNo": known.order_id, "transactionId": reference})
        if not self.ledger.charge(cost * count):
            return bad("200007")
        number = self.ledger.number()
        order = self.ledger.open(
            package, order_id=f"B{self.world.clock():%y%m%d}{number}", number=number, state="processing",
            unit_cost=cost, reference=reference, quantity=count,
        )  # fmt: skip
        self.unfinished.add(order, draw(ask))
        return good({"orderNo": order.order_id, "transactionId": reference})

    @staticmethod
    def _reference(body: dict[str, Any]) -> str:
        reference = body.get("transactionId")
        if not isinstance(reference, str) or not reference:
            raise Refused(bad("000105"))
        if len(reference) > 50:
            raise Refused(bad("000107"))
        return reference

    def _known(self, ask: Ask, reference: str) -> Order | None:
        known = self.ledger.by_reference.get(reference)
        if known and ask.fault("duplicate_code"):
            raise Refused(bad("310402"))
        return self.ledger.orders[known[0]] if known else None

    def _wanted(self, ask: Ask, body: dict[str, Any]) -> tuple[Package, int, int, dict[str, Any]]:
        lines = body.get("packageInfoList")
        if not isinstance(lines, list) or len(lines) != 1 or not isinstance(lines[0], dict):
            raise Refused(bad("200008"))
        line = lines[0]
        code, count = str(line.get("packageCode") or ""), line.get("count")
        if not code or count is None:
            raise Refused(bad("000105"))
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 30:
            raise Refused(bad("200008"))
        package = self._package(ask, code, "sim")
        periods = line.get("periodNum", 1)
        daily = package.wire.get("dataType", 1) != 1
        if not isinstance(periods, int) or not 1 <= periods <= 365 or (periods > 1 and not daily):
            raise Refused(bad("200008"))
        return package, count, periods, line

    def _package(self, ask: Ask, code: str, kind: str) -> Package:
        package, gone = self.catalogue.find(code), ask.fault("delisted")
        if package is None or package.kind != kind or (gone is not None and delists(gone, package.package_id)):
            raise Refused(bad("310241", code))
        return package

    @staticmethod
    def _guard_price(body: dict[str, Any], line: dict[str, Any], unit: Decimal, total: Decimal) -> None:
        if line.get("price") is not None and line["price"] != int(unit * UNITS):
            raise Refused(bad("200005"))
        if body.get("amount") is not None and body["amount"] != int(total * UNITS):
            raise Refused(bad("200006"))

    def _allocate(self, order: Order, fate: Fate) -> None:
        package = self.catalogue.shelf.packages.get(order.package_id)
        if fate.fails or package is None:
            if fate.refunded:
                self.ledger.credit(order.unit_cost * order.quantity)
            self.ledger.mark(order, "failed")
            return
        spare = [self.free_iccids.pop() for _ in range(min(order.quantity, len(self.free_iccids)))]
        self.ledger.issue(order, package, spare)
        content = {"orderNo": order.order_id, "orderStatus": "GOT_RESOURCE", "transactionId": order.reference}
        for _ in range(fate.copies):
            self.notify("ORDER_STATUS", content)

    def notify(self, kind: str, content: dict[str, Any]) -> None:
        """Send one event to the saved address; nothing is signed."""
        if self.webhook:
            body = dumps(self._event(kind, content))
            self.world.courier.send("esim_access", self.webhook, body, {"content-type": "application/json"})

    def _used(self, sim: Sim, _bundle: Bundle, before: int, after: int) -> None:
        order = self.ledger.orders[sim.order_id]
        for kind, content in shapes.activity(sim, order, self.world.clock(), before, after):
            self.notify(kind, content)

    def _event(self, kind: str, content: dict[str, Any]) -> dict[str, Any]:
        now = shapes.event_time(self.world.clock())
        notify_id = token("event", self.ledger.number(), kind).lower()
        return {"notifyType": kind, "notifyId": notify_id, "eventGenerateTime": now, "content": content}

    async def topup(self, ask: Ask) -> Response:
        """esim/topup: at once, and idempotent like an order."""
        body = shapes.body_of(ask)
        reference = self._reference(body)
        known = self._known(ask, reference)
        if known is not None:
            return good(self._topped(self.ledger.sims_of(known)[0], known))
        sim = self._sim(body)
        package = self._package(ask, str(body.get("packageCode") or ""), "topup")
        base = self.catalogue.find(sim.bundles[0].package_id)
        if sim.state in _ENDED or base is None or base.family != package.family:
            return bad("200002")
        cost = charged(ask, package)
        self._guard_price(body, {}, cost, cost)
        if not self.ledger.charge(cost):
            return bad("200007")
        number = self.ledger.number()
        order = self.ledger.open(
            package, order_id=f"T{number}", number=number, state="processing", unit_cost=cost, reference=reference
        )
        self.ledger.extend(order, package, sim)
        return good(self._topped(sim, order))

    @staticmethod
    def _topped(sim: Sim, order: Order) -> dict[str, Any]:
        volume, days, used = shapes.totals(sim)
        return {
            "transactionId": order.reference, "iccid": sim.iccid, "expiredTime": shapes.when(shapes.expires(sim)),
            "totalVolume": volume, "totalDuration": days, "orderUsage": used, "topUpEsimTranNo": str(order.number),
        }  # fmt: skip

    # --- looking --------------------------------------------------------------------------------------------------

    async def query(self, ask: Ask) -> Response:
        """esim/query: by order, eSIM or time window; 200010 while profiles are being allocated."""
        body = shapes.body_of(ask)
        pager = body.get("pager")
        if not isinstance(pager, dict) or not isinstance(pager.get("pageNum"), int):
            return bad("000105")
        size = pager.get("pageSize")
        if not isinstance(size, int) or not 5 <= size <= 500 or not 1 <= pager["pageNum"] <= 10_000:
            return bad("000107")
        sims = self._found(body)
        part = sims[(pager["pageNum"] - 1) * size : pager["pageNum"] * size]
        shown = {"pageSize": size, "pageNum": pager["pageNum"], "total": len(sims)}
        return good({"esimList": [self._esim(sim) for sim in part], "pager": shown})

    def _found(self, body: dict[str, Any]) -> list[Sim]:
        if body.get("orderNo"):
            return self._sims_of_order(str(body["orderNo"]))
        if body.get("esimTranNo") or body.get("iccid"):
            return [self._sim(body)]
        if body.get("startTime") and body.get("endTime"):
            low, high = shapes.moment(body["startTime"]), shapes.moment(body["endTime"])
            return [sim for sim in self.ledger.sims.values() if low <= datetime.fromisoformat(sim.created_at) <= high]
        raise Refused(bad("000105"))

    def _sims_of_order(self, order_no: str) -> list[Sim]:
        order = self.ledger.orders.get(order_no)
        if order is None:
            raise Refused(bad("310272"))
        if order.state == "processing":
            raise Refused(bad("200010"))
        if order.state == "failed":
            raise Refused(bad("200009"))
        return self.ledger.sims_of(order)

    def _esim(self, sim: Sim) -> dict[str, Any]:
        find, orders = self.catalogue.shelf.packages.get, self.ledger.orders
        rows = [(find(bundle.package_id), orders[bundle.order_id]) for bundle in sim.bundles]
        return shapes.esim_wire(sim, orders[sim.order_id], rows)

    def _sim(self, body: dict[str, Any]) -> Sim:
        sim = self.ledger.sims.get(str(body.get("esimTranNo") or ""))
        if sim is None and body.get("iccid"):
            sim = self.ledger.sim_of_iccid(str(body["iccid"]))
        if sim is None:
            raise Refused(bad("310201" if body.get("esimTranNo") else "310403"))
        return sim

    async def usage(self, ask: Ask) -> Response:
        """esim/usage/query: ten eSIMs at most."""
        wanted = shapes.body_of(ask).get("esimTranNoList")
        if not isinstance(wanted, list) or not wanted:
            return bad("000105")
        if len(wanted) > 10:
            return bad("000107")
        now = shapes.when(self.world.clock())
        rows = []
        for sim in (self._sim({"esimTranNo": number}) for number in wanted):
            volume, _, used = shapes.totals(sim)
            rows.append({"esimTranNo": sim.sim_id, "dataUsage": used, "totalData": volume, "lastUpdateTime": now})
        return good({"esimUsageList": rows})

    async def balance(self, _ask: Ask) -> Response:
        """balance/query."""
        return good({"balance": int(self.ledger.balance * UNITS)})

    # --- ending ---------------------------------------------------------------------------------------------------

    async def cancel(self, ask: Ask) -> Response:
        """esim/cancel: only while unused; the price goes back and the ICCID is given out again."""
        sim = self._sim(shapes.body_of(ask))
        if sim.state != "new":
            return bad("200002")
        sim.state = "cancelled"
        for bundle in sim.bundles:
            order = self.ledger.orders[bundle.order_id]
            self.ledger.credit(order.unit_cost)
            self.ledger.mark(order, "cancelled", sim.iccid)
        self.free_iccids.append(sim.iccid)
        return good({})

    async def revoke(self, ask: Ask) -> Response:
        """esim/revoke: ends an eSIM without a refund."""
        return self._become(ask, "revoked")

    async def suspend(self, ask: Ask) -> Response:
        """esim/suspend."""
        return self._become(ask, "suspended")

    async def unsuspend(self, ask: Ask) -> Response:
        """esim/unsuspend."""
        return self._become(ask, "active")

    def _become(self, ask: Ask, state: str) -> Response:
        sim = self._sim(shapes.body_of(ask))
        if sim.state in _ENDED:
            return bad("200002")
        sim.state = state
        return good({})

    # --- webhook --------------------------------------------------------------------------------------------------

    async def save_webhook(self, ask: Ask) -> Response:
        """webhook/save: the address must take a CHECK_HEALTH event first."""
        url = str(shapes.body_of(ask).get("webhook") or "")
        if not url:
            return bad("000105")
        content = dumps(self._event("CHECK_HEALTH", {"orderNo": "1234567890", "orderStatus": "Test"}))
        if not await self.world.courier.takes(url, content, {"content-type": "application/json"}):
            return bad("200002")
        self.webhook = url
        return good({})

    async def saved_webhook(self, _ask: Ask) -> Response:
        """webhook/query."""
        return good({"webhook": self.webhook})


def build(world: World) -> list[BaseRoute]:
    """The routes of eSIM Access."""
    access = EsimAccess(world)
    voice = Voice(
        access.guard,
        {
            "refuse": lambda ask: bad("200002" if ask.call == "cancel" else "310243"),
            "out_of_stock": lambda _ask: bad("200011"),
            "insufficient_balance": lambda _ask: bad("200007"),
            "rate_limited": lambda _ask: bad("900001", status=429),
            "unauthorised": lambda _ask: bad("101003"),
            "ok_with_error": lambda _ask: bad("900001"),
        },
    )
    site = Site(world, "esim_access", voice)
    for path, call, handler in (
        ("package/list", "catalogue", access.packages),
        ("location/list", "status", access.locations),
        ("esim/order", "order", access.order),
        ("esim/query", "status", access.query),
        ("esim/usage/query", "usage", access.usage),
        ("esim/topup", "topup", access.topup),
        ("esim/cancel", "cancel", access.cancel),
        ("esim/revoke", "cancel", access.revoke),
        ("esim/suspend", "cancel", access.suspend),
        ("esim/unsuspend", "cancel", access.unsuspend),
        ("balance/query", "balance", access.balance),
        ("webhook/save", "webhook", access.save_webhook),
        ("webhook/query", "webhook", access.saved_webhook),
    ):
        site.add("POST", f"/api/v1/open/{path}", call, handler, limit=access.limit)
    return site.routes
