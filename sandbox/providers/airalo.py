"""Airalo Partner API v2: token, catalogue, orders at once and asynchronous, eSIMs, top-ups, refunds, signed webhooks.

Nothing here is idempotent: a POST that is sent twice buys twice, as at the provider.
"""

import hashlib
import hmac
import json
from decimal import Decimal
from typing import Any

import orjson
from starlette.responses import Response
from starlette.routing import BaseRoute

from sandbox.providers import airalo_answers as answers
from sandbox.providers import airalo_shapes as shapes
from sandbox.providers.activity import crossed
from sandbox.providers.airalo_catalogue import AiraloCatalogue
from sandbox.providers.fates import Fate, Unfinished, draw
from sandbox.providers.ledger import Books, Bundle, Ledger, Order, Sim, token
from sandbox.providers.shelf import Package, charged, delists
from sandbox.providers.site import Ask, Site, Voice, Window
from sandbox.webhooks import only_200
from sandbox.wire import Refused, dumps, reply
from sandbox.world import World

CLIENT_ID, CLIENT_SECRET = "sandbox", "sandbox-secret"
_DAY = 86_400
_TRIGGERS = {
    "test-insufficient-balance-7days-1gb": 11,
    "test-maintenance-mode-7days-1gb": 13,
    "test-disabled-top-up-7days-1gb": 23,
    "test-not-enough-7days-1gb": 33,
    "test-out-of-stock-7days-1gb": 34,
}


class Airalo:
    """The handlers of one sandbox."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.catalogue = AiraloCatalogue(world)
        books = world.part(Books, Books)
        self.ledger = books.open(Ledger(world, "airalo", iccid_prefix="8944001", host="rsp.airalo-sandbox.test"))
        books.listeners["airalo"] = self._used
        self.unfinished = Unfinished(self.ledger, self._finish)
        self.tokens: dict[str, float] = {}
        self.opt_ins: dict[str, str] = {}
        self._usual_opt_in()
        world.on_reset(self._usual_opt_in)
        world.keep("airalo.tokens", lambda: self.tokens, self._load_tokens)

    def _usual_opt_in(self) -> None:
        url = f"{self.world.config.api_url}/webhooks/providers/airalo"
        self.opt_ins = {"async_orders": url, "webhook_low_data": url}

    def _load_tokens(self, tokens: dict[str, float]) -> None:
        self.tokens = tokens

    # --- who asks -------------------------------------------------------------------------------------------------

    def guard(self, ask: Ask) -> Response | None:
        """Check the bearer token and, where there is one, the body's signature."""
        scheme, _, value = ask.request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or self.tokens.get(value, 0) < self.world.clock().timestamp():
            return answers.bare("Unauthenticated.", 401)
        ask.account = value
        return None if self._signature_holds(ask) else answers.coded(14)

    def _signature_holds(self, ask: Ask) -> bool:
        sent = ask.request.headers.get("airalo-signature")
        payload = ask.json()
        if not sent or payload is None:
            return True
        compact = json.dumps(payload, separators=(",", ":"))
        texts = {ask.body, compact.encode(), compact.replace("/", "\\/").encode(), orjson.dumps(payload)}
        good = {hmac.new(CLIENT_SECRET.encode(), text, hashlib.sha512).hexdigest() for text in texts}
        return any(hmac.compare_digest(sent, candidate) for candidate in good)

    async def token(self, ask: Ask) -> Response:
        """POST /token."""
        fields = await answers.fields_of(ask)
        if fields.get("client_id") != CLIENT_ID:
            raise answers.invalid(client_id="The selected client id is invalid.")
        if fields.get("client_secret") != CLIENT_SECRET:
            return answers.bare("Client authentication failed", 401)
        if fields.get("grant_type") != "client_credentials":
            raise answers.invalid(grant_type="The selected grant type is invalid.")
        value = f"sandbox-{token(self.world.config.seed, self.ledger.number(), size=40).lower()}"
        self.tokens[value] = self.world.clock().timestamp() + _DAY
        data = {"token_type": "Bearer", "expires_in": 31622400, "access_token": value}
        return reply({"data": data, "meta": {"message": "success"}})

    async def packages(self, ask: Ask) -> Response:
        """GET /packages."""
        return self.catalogue.answer(ask)

    # --- buying ---------------------------------------------------------------------------------------------------

    async def order(self, ask: Ask) -> Response:
        """POST /orders: buys and answers with the eSIMs."""
        fields = await answers.fields_of(ask)
        package, quantity = self._wanted(ask, fields, "sim")
        order = self._charge(ask, package, quantity, fields)
        sims = self.ledger.issue(order, package)
        return reply({"data": shapes.bought(order, package, sims, self.catalogue), "meta": {"message": "success"}})

    async def order_later(self, ask: Ask) -> Response:
        """POST /orders-async: takes the order; the eSIMs come by webhook."""
        fields = await answers.fields_of(ask)
        package, quantity = self._wanted(ask, fields, "sim")
        url = str(fields.get("webhook_url") or self.opt_ins.get("async_orders") or "")
        if not url:
            return reply({"reason": "User is not opted in and no webhook URL provided."}, 422)
        order = self._charge(ask, package, quantity, fields)
        request_id = token("request", order.number, size=26)[:25]
        order.extra |= {"request_id": request_id, "url": url}
        self.unfinished.add(order, draw(ask))
        accepted = {"request_id": request_id, "accepted_at": shapes.when(order.created_at)}
        return reply({"data": accepted, "meta": {"message": "success"}}, 202)

    def _finish(self, order: Order, fate: Fate) -> None:
        package = self._package(order)
        if fate.fails or package is None:
            self.ledger.credit(order.unit_cost * order.quantity)
            self.ledger.mark(order, "failed")
            body: dict[str, Any] = {"request_id": order.extra["request_id"], "reason": answers.REASONS[34]}
        else:
            data = shapes.bought(order, package, self.ledger.issue(order, package), self.catalogue)
            body = {"data": data | {"request_id": order.extra["request_id"]}, "meta": {"message": "success"}}
        for _ in range(fate.copies):
            self.notify(str(order.extra["url"]), body)

    def notify(self, url: str, body: dict[str, Any]) -> None:
        """Send one signed webhook; only a 200 counts as delivered."""
        content = dumps(body)
        signature = hmac.new(CLIENT_SECRET.encode(), content, hashlib.sha512).hexdigest()
        headers = {"content-type": "application/json", "airalo-signature": signature}
        delays = (1, 5, 30, 300, 900)
        self.world.courier.send("airalo", url, content, headers, delays=delays, delivered=only_200)

    def _used(self, sim: Sim, bundle: Bundle, before: int, after: int) -> None:
        url = self.opt_ins.get("webhook_low_data")
        for level in crossed(before, after, (75, 90)) if url else []:
            left = {"package_name": bundle.package_id, "remaining_percentage": 100 - after, "iccid": sim.iccid}
            self.notify(str(url), {"level": f"{level}%", **left})

    def _wanted(self, ask: Ask, fields: dict[str, Any], kind: str) -> tuple[Package, int]:
        package_id = str(fields.get("package_id") or "")
        if package_id in _TRIGGERS:
            raise Refused(answers.coded(_TRIGGERS[package_id], "3"))
        package = self.catalogue.shelf.packages.get(package_id)
        gone = ask.fault("delisted")
        if package is None or package.kind != kind or (gone is not None and delists(gone, package_id)):
            text = "invalid topup package" if kind == "topup" else "The selected package is invalid."
            raise answers.invalid(package_id=text if package_id else "The package id field is required.")
        quantity = str(fields.get("quantity", "" if kind == "sim" else "1"))
        if not quantity.isdigit() or int(quantity) < 1:
            raise answers.invalid(
                quantity="The quantity must be at least 1." if quantity else "The quantity field is required."
            )
        if int(quantity) > 50:
            raise answers.invalid(quantity="The quantity may not be greater than 50.")
        return package, int(quantity)

    def _charge(self, ask: Ask, package: Package, quantity: int, fields: dict[str, Any]) -> Order:
        cost = charged(ask, package)
        if not self.ledger.charge(cost * quantity):
            raise Refused(answers.coded(11, f"{self.ledger.balance:.2f}"))
        number = self.ledger.number()
        reference = str(fields["description"]) if fields.get("description") else None
        order = self.ledger.open(
            package, order_id=str(number), number=number, state="processing", unit_cost=cost, reference=reference,
            quantity=quantity,
        )  # fmt: skip
        foreign = ask.fault("foreign_currency")
        order.currency = str(foreign.params.get("currency", "EUR")) if foreign else "USD"
        order.extra["code"] = f"{self.world.clock():%Y%m%d}-{number}"
        return order

    async def topup(self, ask: Ask) -> Response:
        """POST /orders/topups."""
        fields = await answers.fields_of(ask)
        sim = self.ledger.sim_of_iccid(str(fields.get("iccid") or ""))
        if sim is None:
            raise answers.invalid(iccid="The selected iccid is invalid.")
        if sim.state == "cancelled":
            return answers.coded(73, sim.iccid)
        package, _ = self._wanted(ask, fields, "topup")
        if package not in self._topups_for(sim):
            raise answers.invalid(package_id="invalid topup package")
        order = self._charge(ask, package, 1, fields)
        self.ledger.extend(order, package, sim)
        return reply({"data": shapes.bought(order, package, [], self.catalogue), "meta": {"message": "success"}})

    def _topups_for(self, sim: Sim) -> list[Package]:
        base = self.catalogue.shelf.packages.get(sim.bundles[0].package_id)
        return [] if base is None else self.catalogue.topups.get(base.family, [])

    # --- looking --------------------------------------------------------------------------------------------------

    async def orders(self, ask: Ask) -> Response:
        """GET /orders: filters are LIKE, newest first; orders still under way are not listed."""
        include = set((ask.query("include") or "").split(","))
        rows = [
            shapes.listed(order, self._package(order), self.ledger.sims_of(order), include)
            for order in reversed(self.ledger.orders.values())
            if order.state != "processing" and order.kind == "sim" and self._passes(ask, order)
        ]
        return reply(answers.pages(ask, rows, f"{self.catalogue.base}/orders"))

    def _passes(self, ask: Ask, order: Order) -> bool:
        like = ask.query("filter[description]")
        code, iccid, status = ask.query("filter[code]"), ask.query("filter[iccid]"), ask.query("filter[order_status]")
        days = ask.query("filter[created_at]")
        return (
            (like is None or like in (order.reference or ""))
            and (code is None or code in order.extra["code"])
            and (status is None or status == shapes.STATUSES[order.extra.get("status", order.state)][1])
            and (days is None or days[:10] <= order.created_at[:10] <= days[-10:])
            and (iccid is None or any(iccid in sim.iccid for sim in self.ledger.sims_of(order)))
        )

    def _package(self, order: Order) -> Package | None:
        return self.catalogue.shelf.packages.get(order.package_id)

    async def one_order(self, ask: Ask) -> Response:
        """GET /orders/{id}; an unknown id answers 401, as the samples show."""
        order = self.ledger.orders.get(ask.path("order_id"))
        if order is None or order.state == "processing":
            return answers.bare("This action is unauthorized.", 401)
        include = set((ask.query("include") or "").split(","))
        data = shapes.listed(order, self._package(order), self.ledger.sims_of(order), include)
        return reply({"data": data, "meta": {"message": "success"}})

    async def sims(self, ask: Ask) -> Response:
        """GET /sims."""
        like = ask.query("filter[iccid]") or ""
        rows = [self._sim(ask, sim) for sim in reversed(self.ledger.sims.values()) if like in sim.iccid]
        return reply(answers.pages(ask, rows, f"{self.catalogue.base}/sims"))

    def _sim(self, ask: Ask, sim: Sim) -> dict[str, Any]:
        order = self.ledger.orders[sim.order_id]
        return shapes.detailed(sim, order, self._package(order), set((ask.query("include") or "").split(",")))

    def _known(self, ask: Ask) -> Sim:
        sim = self.ledger.sim_of_iccid(ask.path("iccid"))
        if sim is None:
            raise Refused(answers.bare("messages.resource_not_found", 404))
        return sim

    async def sim(self, ask: Ask) -> Response:
        """GET /sims/{iccid}."""
        return reply({"data": self._sim(ask, self._known(ask)), "meta": {"message": "success"}})

    async def usage(self, ask: Ask) -> Response:
        """GET /sims/{iccid}/usage."""
        return reply({"data": shapes.usage(self._known(ask)), "meta": {"message": "success"}})

    async def sim_packages(self, ask: Ask) -> Response:
        """GET /sims/{iccid}/packages."""
        bundles = self._known(ask).bundles
        packages = self.catalogue.shelf.packages
        rows = [shapes.history(n, bundle, packages.get(bundle.package_id)) for n, bundle in enumerate(bundles, 728)]
        return reply({"pricing": self.catalogue.pricing, "data": rows})

    async def sim_topups(self, ask: Ask) -> Response:
        """GET /sims/{iccid}/topups."""
        sim = self._known(ask)
        if sim.state == "cancelled":
            return answers.coded(73, sim.iccid)
        return reply({"pricing": self.catalogue.pricing, "data": [p.wire for p in self._topups_for(sim)]})

    async def balance(self, _ask: Ask) -> Response:
        """GET /balance."""
        amount = {"amount": self.ledger.balance, "currency": "USD"}
        data = {"balances": {"name": "balance", "availableBalance": amount}}
        return reply({"data": data, "meta": {"message": "success"}})

    async def refund(self, ask: Ask) -> Response:
        """POST /refund: people review it; here they agree after a while when the eSIM was never used."""
        fields = ask.json() if isinstance(ask.json(), dict) else {}
        iccids = [str(iccid) for iccid in fields.get("iccids") or []]
        if not 1 <= len(iccids) <= 5:
            raise answers.invalid(iccids="The iccids must have between 1 and 5 items.")
        if not fields.get("reason"):
            raise answers.invalid(reason="The reason field is required.")
        foreign = [iccid for iccid in iccids if self.ledger.sim_of_iccid(iccid) is None]
        if foreign:
            text = f"The following ICCIDs do not belong to your company: {', '.join(foreign)}"
            return answers.bare(text, 422)

        async def review() -> None:
            for iccid in iccids:
                self._give_back(iccid)

        self.world.later(2 * self.world.config.async_seconds, review, "airalo refund")
        data = {"refund_id": str(self.ledger.number()), "created_at": f"{self.world.clock():%Y-%m-%d %H:%M}"}
        return reply({"data": data, "meta": {"message": "success"}}, 202)

    def _give_back(self, iccid: str) -> None:
        sim = self.ledger.sim_of_iccid(iccid)
        if sim is None or sim.state != "new":
            return
        order = self.ledger.orders[sim.order_id]
        self.ledger.credit(order.unit_cost)
        sim.state = "cancelled"
        self.ledger.mark(order, "refunded", iccid)
        order.extra["status"] = "refunded" if order.state == "refunded" else "partially_refunded"

    # --- notifications --------------------------------------------------------------------------------------------

    async def opt_in(self, ask: Ask) -> Response:
        """POST /notifications/opt-in: the address must answer HEAD with 200 first."""
        fields = ask.json() if isinstance(ask.json(), dict) else {}
        kind, url = str(fields.get("type") or ""), str(fields.get("webhook_url") or "")
        if kind not in {"async_orders", "webhook_low_data", "webhook_credit_limit"}:
            raise answers.invalid(type="The selected type is invalid.")
        if not await self.world.courier.answers_head(url):
            raise answers.invalid(webhook_url="The webhook url must answer a HEAD request with status 200.")
        self.opt_ins[kind] = url
        return self._opted(kind)

    def _opted(self, kind: str) -> Response:
        data = {"notification": {"type": kind, "contact_point": self.opt_ins[kind]}}
        return reply({"data": data, "meta": {"message": "success"}})

    async def opted_in(self, ask: Ask) -> Response:
        """GET /notifications/opt-in."""
        kind = ask.query("type") or "async_orders"
        return self._opted(kind) if kind in self.opt_ins else answers.bare("messages.resource_not_found", 404)

    async def opt_out(self, ask: Ask) -> Response:
        """POST /notifications/opt-out."""
        fields = ask.json() if isinstance(ask.json(), dict) else {}
        self.opt_ins.pop(str(fields.get("type") or ""), None)
        return Response(status_code=204)


def build(world: World) -> list[BaseRoute]:
    """The routes of Airalo."""
    airalo = Airalo(world)
    voice = Voice(
        airalo.guard,
        {
            "refuse": lambda _ask: answers.coded(13),
            "out_of_stock": lambda _ask: answers.coded(34),
            "insufficient_balance": lambda _ask: answers.coded(11, Decimal("0.10")),
            "rate_limited": lambda _ask: answers.too_many(),
            "unauthorised": lambda _ask: answers.bare("Unauthenticated.", 401),
            "ok_with_error": lambda _ask: answers.coded(53, status=200),
        },
    )
    site = Site(world, "airalo", voice)
    mint = Window(world, 3, 60)
    limits = {
        "packages": answers.limited((Window(world, 80, 60), "")),
        "usage": answers.limited((Window(world, 10, 60), "iccid"), (Window(world, 5, 1), "")),
        "history": answers.limited((Window(world, 10, 60), "iccid")),
        "refund": answers.limited((Window(world, 5, 60), "")),
    }
    site.add("POST", "/token", "login", airalo.token, guarded=False, limit=answers.limited((mint, "")))
    site.add("GET", "/packages", "catalogue", airalo.packages, limit=limits["packages"])
    site.add("POST", "/orders", "order", airalo.order)
    site.add("POST", "/orders-async", "order", airalo.order_later, step="async")
    site.add("POST", "/orders/topups", "topup", airalo.topup)
    site.add("GET", "/orders", "status", airalo.orders, step="list")
    site.add("GET", "/orders/{order_id}", "status", airalo.one_order)
    site.add("GET", "/sims", "status", airalo.sims)
    site.add("GET", "/sims/{iccid}", "status", airalo.sim)
    site.add("GET", "/sims/{iccid}/usage", "usage", airalo.usage, limit=limits["usage"])
    site.add("GET", "/sims/{iccid}/packages", "usage", airalo.sim_packages, limit=limits["history"])
    site.add("GET", "/sims/{iccid}/topups", "status", airalo.sim_topups, step="topups")
    site.add("POST", "/refund", "cancel", airalo.refund, limit=limits["refund"])
    site.add("GET", "/balance", "balance", airalo.balance)
    site.add("POST", "/notifications/opt-in", "webhook", airalo.opt_in)
    site.add("GET", "/notifications/opt-in", "webhook", airalo.opted_in)
    site.add("POST", "/notifications/opt-out", "webhook", airalo.opt_out)
    return site.routes
