"""eSIMCard reseller API: purchases that are instant, delayed without any id, or asynchronous with a handle.

Nothing of ours is stored there and nothing is idempotent; there is no cancel, no refund and no webhook. Refusals often
come with HTTP 200 and `status: false`.
"""

from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute

from sandbox.providers import esim_card_shapes as shapes
from sandbox.providers.esim_card_catalogue import (
    EsimCardCatalogue,
    continents,
    is_voice,
    networks,
    numbers,
    places,
)
from sandbox.providers.esim_card_shapes import bad, good
from sandbox.providers.fates import Fate, Unfinished, draw
from sandbox.providers.ledger import Books, Bundle, Ledger, Order, Sim, token, uuid_text
from sandbox.providers.shelf import Package, charged, delists
from sandbox.providers.site import Ask, Site, Voice
from sandbox.wire import Refused, as_json, raw, reply
from sandbox.world import World

EMAIL, PASSWORD = "sandbox@numnaroad.test", "sandbox-secret"
_DAY = 86_400
_LATER = "Purchased, but the eSIM is not downloadable yet. Wait 2 minutes, then read the my-esims list."


def _unauthenticated(_ask: Ask) -> Response:
    return reply({"message": "Unauthenticated."}, 401)


def _invalid(field: str) -> Refused:
    text = f"The {field.replace('_', ' ')} field is required."
    return Refused(reply({"message": "The given data was invalid.", "errors": {field: [text]}}, 422))


class EsimCard:
    """The handlers of one sandbox."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.catalogue = EsimCardCatalogue(world)
        books = world.part(Books, Books)
        self.ledger = books.open(Ledger(world, "esim_card", iccid_prefix="8910377", host="consumer.card-sandbox.test"))
        self.unfinished = Unfinished(self.ledger, self._finish)
        self.tokens: dict[str, float] = {}
        self._clear()
        world.on_reset(self._clear)
        world.keep("esim_card.more", self._dump, self._load)

    def _clear(self) -> None:
        self.sims: dict[str, str] = {}
        self.bundles: dict[str, str] = {}
        self.handles: dict[str, str] = {}

    def _dump(self) -> dict[str, dict[str, Any]]:
        return {"tokens": self.tokens, "sims": self.sims, "bundles": self.bundles, "handles": self.handles}

    def _load(self, data: dict[str, dict[str, Any]]) -> None:
        self.tokens, self.sims = data["tokens"], data["sims"]
        self.bundles, self.handles = data["bundles"], data["handles"]

    # --- who asks -------------------------------------------------------------------------------------------------

    def guard(self, ask: Ask) -> Response | None:
        """Check the bearer token."""
        scheme, _, value = ask.request.headers.get("authorization", "").partition(" ")
        known = scheme.lower() == "bearer" and self.tokens.get(value, 0) >= self.world.clock().timestamp()
        ask.account = value
        return None if known else _unauthenticated(ask)

    async def login(self, ask: Ask) -> Response:
        """POST login: an opaque token of the form id|random."""
        body = ask.json() if isinstance(ask.json(), dict) else dict(await ask.request.form())
        for field in ("email", "password"):
            if not body.get(field):
                raise _invalid(field)
        if body["email"] != EMAIL or body["password"] != PASSWORD:
            return bad("Invalid login details", 401)
        number = self.ledger.number()
        value = f"{number % 10_000_000}|{token('esim_card', self.world.config.seed, number, size=48).lower()}"
        self.tokens[value] = self.world.clock().timestamp() + _DAY
        user = {"id": 296, "name": "Sandbox Reseller", "email": EMAIL, "balance": self.ledger.balance}
        return reply({"status": True, "access_token": value, "token_type": "Bearer", "user": user})

    async def logout(self, ask: Ask) -> Response:
        """POST logout."""
        self.tokens.pop(ask.account, None)
        return reply({"status": True, "message": "Logged out successfully"})

    async def check_token(self, _ask: Ask) -> Response:
        """GET check-token."""
        return reply({"status": True, "extension": "reseller"})

    # --- catalogue ------------------------------------------------------------------------------------------------

    async def packages(self, ask: Ask) -> Response:
        """GET packages."""
        return self.catalogue.answer(ask)

    async def packages_of(self, ask: Ask) -> Response:
        """GET packages/country/{id}, packages/continent/{id}."""
        return self.catalogue.answer(ask, f"{ask.path('kind_of_place')}:{ask.path('place_id')}")

    async def packages_global(self, ask: Ask) -> Response:
        """GET packages/global."""
        return self.catalogue.answer(ask, "global")

    async def all_places(self, ask: Ask) -> Response:
        """GET packages/country, packages/continent."""
        kinds = {"country": places, "continent": continents}
        found = kinds.get(ask.path("kind_of_place"))
        return bad("Not found", 404) if found is None else good(found())

    async def pricing(self, _ask: Ask) -> Response:
        """GET pricing."""
        return raw(self.catalogue.shelf.bytes_for("pricing", self.catalogue.pricing))

    async def detail(self, ask: Ask) -> Response:
        """GET package/detail/{id}: the price of now."""
        package = self.catalogue.shelf.packages.get(ask.path("package_id"))
        if package is None:
            return bad("Package not available", 404)
        wire = {key: value for key, value in package.wire.items() if key not in {"coverage", "package_type"}}
        isos = list(dict.fromkeys(str(row["iso"]) for row in package.wire.get("coverage") or []))
        covered = networks(isos)
        return good(
            wire | {"price": f"{charged(ask, package):.2f}", "romaing_countries": covered, "countries": covered}
        )

    async def network_coverages(self, _ask: Ask) -> Response:
        """GET network-coverages."""
        return good(networks([place["code"].upper() for place in places()]))

    # --- buying ---------------------------------------------------------------------------------------------------

    async def purchase(self, ask: Ask) -> Response:
        """POST package/purchase: instant by default; with an ICCID a top-up."""
        package, body = self._wanted(ask, voice=False)
        target = self._target(body)
        order = self._charge(ask, package)
        if ask.fault("delayed"):
            self._later(ask, order, target)
            return good({"sim_applied": False, "message": _LATER})
        sim = self._fulfil(order, package, target)
        return good({
            "sim_applied": True, "sim": shapes.sim_wire(sim), "package": shapes.package_wire(sim, sim.bundles[-1]),
        })  # fmt: skip

    async def purchase_async(self, ask: Ask) -> Response:
        """POST package/purchase/async: a handle at once, the eSIM later."""
        package, body = self._wanted(ask, voice=False)
        target = self._target(body)
        order = self._charge(ask, package)
        sim_id = target.label if target else uuid_text("esim_card", "sim", order.number)
        order.extra["sim_id"] = sim_id
        self.handles[sim_id] = order.order_id
        if ask.fault("instant"):
            self._fulfil(order, package, target)
        else:
            self._later(ask, order, target)
        return good({"sim_applied": False, "sim_id": sim_id, "order_id": order.number})

    async def purchase_voice(self, ask: Ask) -> Response:
        """POST package/date_voice_sms/purchase."""
        package, _ = self._wanted(ask, voice=True)
        order = self._charge(ask, package)
        sim = self._fulfil(order, package, None)
        bundle = sim.bundles[-1]
        data = {"id": bundle.bundle_id, "package": bundle.title, "activated": False, "status": "Released"}
        return good(data, message="Request submitted")

    def _wanted(self, ask: Ask, *, voice: bool) -> tuple[Package, dict[str, Any]]:
        body = ask.json()
        if not isinstance(body, dict) or not body.get("package_type_id"):
            raise _invalid("package_type_id")
        package = self.catalogue.shelf.packages.get(str(body["package_type_id"]))
        gone = ask.fault("delisted")
        if package is None or (gone is not None and delists(gone, package.package_id)):
            raise Refused(bad("Package not available", 404))
        if is_voice(package.wire) != voice:
            raise Refused(bad("Package not available"))
        return package, body

    def _target(self, body: dict[str, Any]) -> Sim | None:
        if not body.get("iccid"):
            return None
        sim = self.ledger.sim_of_iccid(str(body["iccid"]))
        if sim is None:
            raise Refused(bad("eSIM not found"))
        return sim

    def _charge(self, ask: Ask, package: Package) -> Order:
        cost = charged(ask, package)
        if not self.ledger.charge(cost):
            raise Refused(bad("Insufficient balance", 400))
        number = self.ledger.number()
        return self.ledger.open(package, order_id=str(number), number=number, state="processing", unit_cost=cost)

    def _fulfil(self, order: Order, package: Package, target: Sim | None) -> Sim:
        if target is None:
            sim = self.ledger.issue(order, package)[0]
            sim.label = str(order.extra.get("sim_id") or uuid_text("esim_card", "sim", order.number))
            self.sims[sim.label] = sim.sim_id
        else:
            sim = target
            self.ledger.extend(order, package, sim)
        self.bundles[sim.bundles[-1].bundle_id] = sim.sim_id
        return sim

    def _later(self, ask: Ask, order: Order, target: Sim | None) -> None:
        order.extra["target"] = target.sim_id if target else None
        self.unfinished.add(order, draw(ask))

    def _finish(self, order: Order, fate: Fate) -> None:
        package = self.catalogue.shelf.packages.get(order.package_id)
        if fate.fails or package is None:
            self.ledger.credit(order.unit_cost)
            self.ledger.mark(order, "failed")
            return
        target = order.extra["target"]
        self._fulfil(order, package, self.ledger.sims[target] if target else None)

    async def can_topup(self, ask: Ask) -> Response:
        """POST can-topup-esim."""
        body = ask.json() if isinstance(ask.json(), dict) else {}
        sim = self.ledger.sim_of_iccid(str(body.get("iccid") or body.get("imei") or ""))
        return good({"topup_available": sim is not None and sim.state not in {"revoked", "cancelled"}})

    # --- looking --------------------------------------------------------------------------------------------------

    async def order(self, ask: Ask) -> Response:
        """GET order/{order_id}."""
        order = self.ledger.orders.get(ask.path("order_id"))
        if order is None:
            return bad("Order not found", 404)
        status = {"delivered": "Completed", "failed": "Failed"}.get(order.state, "Processing")
        made = [
            bundle for sim in self.ledger.sims_of(order) for bundle in sim.bundles if bundle.order_id == order.order_id
        ]
        row = {"id": made[0].bundle_id if made else None, "package": order.title}
        return good([row | {"date_created": shapes.plain(order.created_at), "status": status}])

    def _listed(self, ask: Ask, rows: list[Any]) -> Response:
        page, size = numbers(ask, usual=15)
        meta = {"total": len(rows), "perPage": size, "currentPage": page, "lastPage": max(1, -(-len(rows) // size))}
        return reply({"status": True, "meta": meta, "data": rows[(page - 1) * size : page * size]})

    async def my_esims(self, ask: Ask) -> Response:
        """GET my-esims: newest first."""
        return self._listed(ask, [shapes.sim_wire(sim) for sim in reversed(self.ledger.sims.values())])

    async def my_esim(self, ask: Ask) -> Response:
        """GET my-esims/{sim id}: a bare row while it is being made."""
        sim = self._sim(ask.path("sim_id"))
        if sim is not None:
            package = self.catalogue.shelf.packages.get(sim.bundles[0].package_id)
            return good(shapes.sim_detail(sim, package.wire.get("coverage") or [] if package else []))
        waiting = self.handles.get(ask.path("sim_id"))
        if waiting is None:
            return bad("eSIM not found", 404)
        status = "Failed" if self.ledger.orders[waiting].state == "failed" else "Processing"
        row = {"id": ask.path("sim_id"), "iccid": None, "status": status, "total_bundles": 0}
        return good({"sim": row, "in_use_packages": []})

    def _sim(self, name: str) -> Sim | None:
        sim_id = self.sims.get(name)
        return self.ledger.sims[sim_id] if sim_id else self.ledger.sim_of_iccid(name)

    def _bundles(self) -> list[Bundle]:
        return [bundle for sim in self.ledger.sims.values() for bundle in sim.bundles]

    async def my_bundles(self, ask: Ask) -> Response:
        """GET my-bundles: newest first."""
        rows = sorted(self._bundles(), key=lambda bundle: bundle.bought_at, reverse=True)
        return self._listed(ask, [shapes.listed_bundle(bundle) for bundle in rows])

    async def bundle(self, ask: Ask) -> Response:
        """GET bundles/{id}."""
        sim_id = self.bundles.get(ask.path("bundle_id"))
        if sim_id is None:
            return bad("Bundle not found", 404)
        found = next(b for b in self.ledger.sims[sim_id].bundles if b.bundle_id == ask.path("bundle_id"))
        shown = ("id", "package", "date_created", "activated", "status")
        row = shapes.listed_bundle(found)
        return good([{key: row[key] for key in shown}])

    async def usage(self, ask: Ask) -> Response:
        """GET my-sim/{sim id or iccid}/usage."""
        sim = self._sim(ask.path("sim_id"))
        return bad("eSIM not found", 404) if sim is None else good(shapes.quantities(sim.bundles))

    async def balance(self, _ask: Ask) -> Response:
        """GET balance: at the top level, without data."""
        return reply({"status": True, "balance": self.ledger.balance})


def _call(body: bytes) -> str:
    wanted = as_json(body)
    return "topup" if isinstance(wanted, dict) and wanted.get("iccid") else "order"


def _too_many(_ask: Ask) -> Response:
    return reply({"message": "Too Many Attempts."}, 429, {"Retry-After": "10"})


def build(world: World) -> list[BaseRoute]:
    """The routes of eSIMCard."""
    card = EsimCard(world)
    voice = Voice(
        card.guard,
        {
            "refuse": lambda _ask: bad("Request refused"),
            "out_of_stock": lambda _ask: bad("No eSIM available for this package"),
            "insufficient_balance": lambda _ask: bad("Insufficient balance", 400),
            "rate_limited": _too_many,
            "unauthorised": _unauthenticated,
            "ok_with_error": lambda _ask: bad("Something went wrong"),
        },
    )
    site = Site(world, "esim_card", voice)
    for method, path, call, handler, step in (
        ("POST", "logout", "login", card.logout, "logout"),
        ("GET", "check-token", "login", card.check_token, "check"),
        ("GET", "packages", "catalogue", card.packages, ""),
        ("GET", "packages/global", "catalogue", card.packages_global, "global"),
        ("GET", "packages/global/{kind}", "catalogue", card.packages_global, "global"),
        ("GET", "packages/{kind_of_place}", "catalogue", card.all_places, "places"),
        ("GET", "packages/{kind_of_place}/{place_id}", "catalogue", card.packages_of, "place"),
        ("GET", "packages/{kind_of_place}/{place_id}/{kind}", "catalogue", card.packages_of, "place"),
        ("GET", "pricing", "catalogue", card.pricing, "pricing"),
        ("GET", "package/detail/{package_id}", "status", card.detail, "detail"),
        ("GET", "package/details/{package_id}", "status", card.detail, "detail"),
        ("GET", "network-coverages", "catalogue", card.network_coverages, "networks"),
        ("POST", "package/purchase", _call, card.purchase, ""),
        ("POST", "package/purchase/async", _call, card.purchase_async, "async"),
        ("POST", "package/date_voice_sms/purchase", "order", card.purchase_voice, "voice"),
        ("POST", "can-topup-esim", "status", card.can_topup, "topup"),
        ("GET", "order/{order_id}", "status", card.order, ""),
        ("GET", "my-esims", "status", card.my_esims, "esims"),
        ("GET", "my-esims/{sim_id}", "status", card.my_esim, "esim"),
        ("GET", "my-bundles", "status", card.my_bundles, "bundles"),
        ("GET", "bundles/{bundle_id}", "status", card.bundle, "bundle"),
        ("GET", "my-sim/{sim_id}/usage", "usage", card.usage, ""),
        ("GET", "balance", "balance", card.balance, ""),
    ):
        site.add(method, f"/{path}", call, handler, step=step)
    site.add("POST", "/login", "login", card.login, guarded=False)
    return site.routes
