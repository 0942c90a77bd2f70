"""Stripe's API under /v1 and the pages beside it, as one router that the app mounts at /stripe."""

import asyncio
from collections.abc import Callable, Iterable

from fastapi import APIRouter, Request
from starlette.responses import Response

from sandbox.stripe import account, events, pages, refunds, sessions
from sandbox.stripe.errors import StripeError
from sandbox.stripe.gate import Call, Gate, Operation
from sandbox.stripe.listing import PAGING, created_filter, line_item_list, page
from sandbox.stripe.session_objects import Json
from sandbox.stripe.state import StripeState, state_of
from sandbox.world import World

Test = Callable[[Json], bool]


class Api:
    """The operations behind the endpoints; each reads its own parameters."""

    def __init__(self, state: StripeState, url_prefix: str) -> None:
        self._state = state
        self._url_prefix = url_prefix

    def create_session(self, call: Call) -> Json:
        """POST /v1/checkout/sessions."""
        return sessions.create_session(self._state, call.params, self._url_prefix)

    def list_sessions(self, call: Call) -> Json:
        """GET /v1/checkout/sessions."""
        known = ("created", "customer", "customer_details", "payment_intent", "payment_link", "status", "subscription")
        sessions.expire_due(self._state)
        details = call.params.child("customer_details").allow(("email",))
        email = details.text("email")
        tests = [_equals(call, name) for name in ("payment_intent", "status", "customer", "payment_link")]
        tests.append(lambda row: email is None or (row["customer_details"] or {}).get("email") == email)
        return self._page(call, self._state.sessions, "checkout.session", "/v1/checkout/sessions", known, tests)

    def create_refund(self, call: Call) -> Json:
        """POST /v1/refunds."""
        return refunds.create_refund(self._state, call.params, call.request)

    def list_refunds(self, call: Call) -> Json:
        """GET /v1/refunds."""
        known = ("charge", "created", "payment_intent")
        tests = [_equals(call, "charge"), _equals(call, "payment_intent")]
        return self._page(call, self._state.refunds, "refund", "/v1/refunds", known, tests)

    def list_intents(self, call: Call) -> Json:
        """GET /v1/payment_intents."""
        tests = [_equals(call, "customer")]
        known = ("created", "customer")
        return self._page(call, self._state.intents, "payment_intent", "/v1/payment_intents", known, tests)

    def list_charges(self, call: Call) -> Json:
        """GET /v1/charges."""
        known = ("created", "customer", "payment_intent", "transfer_group")
        tests = [_equals(call, "payment_intent"), _equals(call, "customer")]
        return self._page(call, self._state.charges, "charge", "/v1/charges", known, tests)

    def list_transactions(self, call: Call) -> Json:
        """GET /v1/balance_transactions."""
        known = ("created", "currency", "payout", "source", "type")
        tests = [_equals(call, name) for name in ("source", "type", "currency")]
        return self._page(
            call, self._state.transactions, "balance_transaction", "/v1/balance_transactions", known, tests
        )

    def list_disputes(self, call: Call) -> Json:
        """GET /v1/disputes."""
        tests = [_equals(call, "charge"), _equals(call, "payment_intent")]
        known = ("charge", "created", "payment_intent")
        return self._page(call, self._state.disputes, "dispute", "/v1/disputes", known, tests)

    def list_events(self, call: Call) -> Json:
        """GET /v1/events."""
        params, known = call.params, ("created", "delivery_success", "type", "types")
        wanted = set(params.words("types"))
        single, success = params.text("type"), params.choice("delivery_success", ("true", "false"))
        if single and wanted:
            raise StripeError.invalid("You may only specify one of these parameters: type, types.")

        def typed(row: Json) -> bool:
            kind = row["type"]
            pattern = single[:-1] if single and single.endswith("*") else None
            if pattern is not None:
                return bool(kind.startswith(pattern))
            return kind == single if single else not wanted or kind in wanted

        def delivered(row: Json) -> bool:
            return success is None or (self._state.deliveries[row["id"]].state == "delivered") == (success == "true")

        return self._page(call, self._state.events, "event", "/v1/events", known, [typed, delivered])

    def _page(
        self, call: Call, table: dict[str, Json], kind: str, url: str, known: Iterable[str], tests: list[Test]
    ) -> Json:
        call.params.allow((*known, *PAGING))
        tests = [*tests, created_filter(call.params)]
        rows = [row for row in reversed(table.values()) if all(test(row) for test in tests)]
        return page(rows, call.params, url=url, kind=kind)

    def one(self, table: dict[str, Json], kind: str, object_id: str) -> Operation:
        """The operation that reads one object; it raises StripeError when there is none."""

        def read(call: Call) -> Json:
            call.params.allow(("expand",))
            if object_id not in table:
                raise StripeError.missing(kind, object_id)
            return table[object_id]

        return read

    def session(self, session_id: str) -> Operation:
        """The operation that reads one session, expired if its time is over."""
        return lambda call: sessions.find_session(self._state, session_id) if call.params.allow(("expand",)) else {}

    def expire(self, session_id: str) -> Operation:
        """The operation that ends a session."""
        return lambda call: sessions.expire_session(self._state, session_id, call.request)

    def line_items(self, session_id: str) -> Operation:
        """The operation that lists the lines of a session."""

        def read(call: Call) -> Json:
            sessions.find_session(self._state, session_id)
            whole = line_item_list(self._state, session_id)
            return page(whole["data"], call.params.allow(PAGING), url=whole["url"], kind="item")

        return read


def _equals(call: Call, name: str) -> Test:
    wanted = call.params.text(name)
    return lambda row: wanted is None or row.get(name) == wanted


def build(world: World) -> APIRouter:
    """The router to be mounted at /stripe."""
    state = state_of(world)
    api, gate = Api(state, f"{world.config.base_url}/stripe/pay/"), Gate(state)
    router = APIRouter(tags=["stripe"])
    router.include_router(_sessions(api, gate))
    router.include_router(_payments(state, api, gate))
    router.include_router(_reads(state, api, gate))
    router.include_router(pages.build(world))

    _keep_time(world, state)
    return router


def _keep_time(world: World, state: StripeState) -> None:
    """While the sandbox runs: send the webhooks that a restart interrupted, expire sessions whose time is over."""
    watches: list[asyncio.Task[None]] = []

    async def start() -> None:
        events.resume(state)
        watches.append(asyncio.create_task(sessions.watch_expiry(state), name="stripe session expiry"))

    async def stop() -> None:
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)

    world.on_start(start)
    world.on_stop(stop)


def _sessions(api: Api, gate: Gate) -> APIRouter:
    router = APIRouter(prefix="/v1/checkout/sessions")

    @router.post("", response_model=None)
    async def create(request: Request) -> Response:
        return await gate.run(request, api.create_session, "session_error")

    @router.get("", response_model=None)
    async def listed(request: Request) -> Response:
        return await gate.run(request, api.list_sessions)

    @router.get("/{session_id}", response_model=None)
    async def read(request: Request, session_id: str) -> Response:
        return await gate.run(request, api.session(session_id))

    @router.post("/{session_id}/expire", response_model=None)
    async def expire(request: Request, session_id: str) -> Response:
        return await gate.run(request, api.expire(session_id))

    @router.get("/{session_id}/line_items", response_model=None)
    async def lines(request: Request, session_id: str) -> Response:
        return await gate.run(request, api.line_items(session_id))

    return router


def _payments(state: StripeState, api: Api, gate: Gate) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.post("/refunds", response_model=None)
    async def refund(request: Request) -> Response:
        return await gate.run(request, api.create_refund, "refund_error")

    @router.get("/balance", response_model=None)
    async def balance(request: Request) -> Response:
        return await gate.run(request, lambda _call: account.balance(state))

    @router.get("/account", response_model=None)
    async def own_account(request: Request) -> Response:
        return await gate.run(request, lambda _call: account.account(state))

    return router


def _reads(state: StripeState, api: Api, gate: Gate) -> APIRouter:
    """A list and a single read for each kind of object."""
    router = APIRouter(prefix="/v1")
    kinds: dict[str, tuple[str, dict[str, Json], Operation]] = {
        "refunds": ("refund", state.refunds, api.list_refunds),
        "payment_intents": ("payment_intent", state.intents, api.list_intents),
        "charges": ("charge", state.charges, api.list_charges),
        "balance_transactions": ("balance_transaction", state.transactions, api.list_transactions),
        "disputes": ("dispute", state.disputes, api.list_disputes),
        "events": ("event", state.events, api.list_events),
    }

    @router.get("/{plural}", response_model=None)
    async def listed(request: Request, plural: str) -> Response:
        entry = kinds.get(plural)
        return await gate.run(request, entry[2] if entry else _unknown(request))

    @router.get("/{plural}/{object_id}", response_model=None)
    async def read(request: Request, plural: str, object_id: str) -> Response:
        entry = kinds.get(plural)
        return await gate.run(request, api.one(entry[1], entry[0], object_id) if entry else _unknown(request))

    @router.api_route("/{rest:path}", methods=["GET", "POST", "DELETE"], response_model=None)
    async def unknown(request: Request, rest: str) -> Response:
        del rest
        return await gate.run(request, _unknown(request))

    return router


def _unknown(request: Request) -> Operation:
    def refuse(_call: Call) -> Json:
        url = f"{request.method}: {request.scope['path']}"
        raise StripeError(404, "invalid_request_error", f"Unrecognized request URL ({url}).")

    return refuse
