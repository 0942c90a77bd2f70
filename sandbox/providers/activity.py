"""What travellers do with their eSIMs, on demand: install, use, use up; the provider then sends what it would send.

PUT /sandbox/esims/{iccid} -> eSIM and bundle -> the provider's own events. Also the wallets, to look at and to set.
"""

from decimal import Decimal, InvalidOperation
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from sandbox.providers.ledger import Books, Bundle, Ledger, Sim
from sandbox.wire import reply
from sandbox.world import World

STATES = ("new", "installed", "active", "used_up", "expired")


def crossed(before: int, after: int, thresholds: tuple[int, ...]) -> list[int]:
    """The thresholds of used per cent that this step went over."""
    return [threshold for threshold in thresholds if before < threshold <= after]


def _percent(bundle: Bundle) -> int:
    return 0 if not bundle.data_bytes else 100 * bundle.used_bytes // bundle.data_bytes


def _problem(text: str, status: int = 422) -> Response:
    return reply({"detail": text}, status)


def _found(books: Books, iccid: str) -> tuple[Ledger, Sim] | None:
    for ledger in books.ledgers.values():
        sim = ledger.sim_of_iccid(iccid)
        if sim is not None:
            return ledger, sim
    return None


def _shown(ledger: Ledger, sim: Sim) -> dict[str, Any]:
    bundles = [
        {"package_id": b.package_id, "state": b.state, "used_percent": _percent(b), "kind": b.kind} for b in sim.bundles
    ]
    return {"provider": ledger.slug, "iccid": sim.iccid, "state": sim.state, "bundles": bundles}


def _live(sim: Sim) -> Bundle:
    return next((bundle for bundle in sim.bundles if bundle.state in {"active", "new"}), sim.bundles[-1])


def _apply(world: World, sim: Sim, state: str, percent: int | None) -> tuple[Bundle, int, int]:
    bundle = _live(sim)
    before = _percent(bundle)
    used = 100 if state == "used_up" else before if percent is None else percent
    if bundle.data_bytes is not None:
        bundle.used_bytes = bundle.data_bytes * used // 100
    if state in {"active", "used_up", "expired"}:
        bundle.started_at = bundle.started_at or world.clock().isoformat()
        bundle.state = state
    sim.state = state
    return bundle, before, _percent(bundle)


class Activity:
    """The handlers behind /sandbox/esims and /sandbox/balances."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._books = world.part(Books, Books)

    async def look(self, iccid: str) -> Response:
        """One eSIM, whoever sold it."""
        found = _found(self._books, iccid)
        return _problem("no provider has sold this ICCID", 404) if found is None else reply(_shown(*found))

    async def use(self, iccid: str, request: Request) -> Response:
        """Install it or use data: `{"state": "installed"}`, `{"used_percent": 80}`."""
        found = _found(self._books, iccid)
        if found is None:
            return _problem("no provider has sold this ICCID", 404)
        ledger, sim = found
        wanted = _object(await request.body())
        percent = wanted.get("used_percent")
        state = wanted.get("state") or (sim.state if percent is None else "active")
        if state not in STATES:
            return _problem(f"unknown state {state!r}; allowed: {', '.join(STATES)}")
        if percent is not None and (not isinstance(percent, int) or not 0 <= percent <= 100):
            return _problem("used_percent must be a whole number from 0 to 100")
        bundle, before, after = _apply(self._world, sim, state, percent)
        tell = self._books.listeners.get(ledger.slug)
        if tell is not None:
            tell(sim, bundle, before, after)
        return reply(_shown(ledger, sim))

    async def balances(self) -> Response:
        """What each wallet holds, in USD."""
        return reply({slug: str(ledger.balance) for slug, ledger in self._books.ledgers.items()})

    async def set_balances(self, request: Request) -> Response:
        """Set wallets: `{"airalo": "12.50"}`."""
        wanted = _object(await request.body())
        unknown = [slug for slug in wanted if slug not in self._books.ledgers]
        if unknown:
            return _problem(f"unknown provider {unknown}; allowed: {', '.join(self._books.ledgers)}")
        try:
            amounts = {slug: Decimal(str(amount)) for slug, amount in wanted.items()}
        except InvalidOperation:
            return _problem("every balance must be an amount such as 12.50")
        for slug, amount in amounts.items():
            self._books.ledgers[slug].balance = amount
        return await self.balances()


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def build(world: World) -> APIRouter:
    """The control routes about eSIMs and wallets."""
    activity = Activity(world)
    router = APIRouter(prefix="/sandbox", tags=["control"])
    router.add_api_route("/esims/{iccid}", activity.look, methods=["GET"], response_model=None)
    router.add_api_route("/esims/{iccid}", activity.use, methods=["PUT"], response_model=None)
    router.add_api_route("/balances", activity.balances, methods=["GET"], response_model=None)
    router.add_api_route("/balances", activity.set_balances, methods=["PUT"], response_model=None)
    return router
