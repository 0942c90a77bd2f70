"""One provider's front door: what happens to every request before and after its handler.

request → latency → faults of the line → credential → rate limit → refusals on demand → handler → faults after the work.
A fault of the line without params.step strikes an order only where it buys: a dry run or a reservation is passed over.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive

from sandbox.drops import Hangup, hold
from sandbox.faults import Fault
from sandbox.wire import Refused, as_json, reply
from sandbox.world import World

_HTML = (
    b"<!doctype html><html><head><title>Just a moment</title></head>"
    b"<body><h1>We will be right back</h1><p>Scheduled maintenance.</p></body></html>"
)
_ONLY_ON = {
    "out_of_stock": {"order", "topup"},
    "insufficient_balance": {"order", "topup"},
    "refuse": {"order", "topup", "cancel"},
    "upstream_down": {"order", "topup"},
}


@dataclass(slots=True)
class Ask:
    """One request at a provider."""

    world: World
    slug: str
    call: str
    step: str
    request: Request
    body: bytes
    account: str = ""

    def fault(self, *kinds: str) -> Fault | None:
        """The fault that strikes this request now, if any."""
        return self.world.faults.take(self.slug, self.call, *kinds, step=self.step)

    def query(self, name: str) -> str | None:
        """A query parameter; empty counts as absent."""
        return self.request.query_params.get(name) or None

    def path(self, name: str) -> str:
        """A path parameter."""
        return str(self.request.path_params[name])

    def json(self) -> Any:
        """The body as JSON, None when it is not JSON."""
        return as_json(self.body)


Handler = Callable[[Ask], Awaitable[Response]]
Guard = Callable[[Ask], Response | None]
StepOf = Callable[[bytes], str]
CallOf = Callable[[bytes], str]
Limit = Callable[[Ask], Response | None]


@dataclass(frozen=True)
class Voice:
    """How a provider says the things every provider says; each takes the call's name."""

    guard: Guard
    answers: Mapping[str, Callable[[Ask], Response]]


def no_limit(_ask: Ask) -> Response | None:
    """For calls without a published limit."""
    return None


class Site:
    """Collects one provider's routes."""

    def __init__(self, world: World, slug: str, voice: Voice) -> None:
        self.world = world
        self.slug = slug
        self._voice = voice
        self.routes: list[BaseRoute] = []

    def add(
        self,
        methods: str | Sequence[str],
        path: str,
        call: str | CallOf,
        handler: Handler,
        *,
        step: str | StepOf = "",
        buys: str | None = None,
        guarded: bool = True,
        limit: Limit = no_limit,
    ) -> None:
        """Add a route. `step` names this request within its call; `buys` is the step that spends money.

        Where one route serves two calls (an order and a top-up), a function tells them apart by the body.
        """
        names = [methods] if isinstance(methods, str) else list(methods)

        async def endpoint(request: Request) -> Response:
            body = await request.body()
            now = step if isinstance(step, str) else step(body)
            name = call if isinstance(call, str) else call(body)
            ask = Ask(self.world, self.slug, name, now, request, body)
            only_named = name in {"order", "topup"} and buys is not None and now != buys
            return await self._serve(
                ask, handler, limit if self.world.config.rate_limits else no_limit, guarded, only_named
            )

        self.routes.append(Route(path, endpoint, methods=names))

    async def _serve(self, ask: Ask, handler: Handler, limit: Limit, guarded: bool, only_named: bool) -> Response:
        if self.world.config.latency_ms:
            await asyncio.sleep(self.world.config.latency_ms / 1000)
        early = await self._before(ask, only_named)
        if early is None and guarded:
            early = self._voice.guard(ask)
        if early is None:
            early = limit(ask) or self._on_demand(ask)
        if early is not None:
            return early
        try:
            response = await handler(ask)
        except Refused as refusal:
            return refusal.response
        if response.status_code >= 400:
            return response
        return self._after(ask, response, only_named)

    async def _before(self, ask: Ask, only_named: bool) -> Response | None:
        take = self.world.faults.take
        slow = take(ask.slug, ask.call, "slow", step=ask.step)
        if slow:
            await _wait(ask.request.receive, self.world.closing, slow.number("seconds", 5))
        fault = take(
            ask.slug, ask.call, "timeout_before", "reset_before", "error_status", "html",
            step=ask.step, only_named=only_named,
        )  # fmt: skip
        if fault is None:
            return None
        if fault.kind == "timeout_before":
            return Hangup(self.world.closing, fault.number("seconds", 60))
        if fault.kind == "reset_before":
            return Hangup(self.world.closing)
        if fault.kind == "html":
            return Response(_HTML, 200, media_type="text/html")
        return reply({"message": "Server Error"}, int(fault.number("status", 500)))

    def _on_demand(self, ask: Ask) -> Response | None:
        for kind, answer in self._voice.answers.items():
            if ask.call in _ONLY_ON.get(kind, {ask.call}) and ask.fault(kind):
                return answer(ask)
        return None

    def _after(self, ask: Ask, response: Response, only_named: bool) -> Response:
        fault = self.world.faults.take(
            ask.slug, ask.call, "timeout_after", "reset_after", "error_after", "malformed", "html_after",
            step=ask.step, only_named=only_named,
        )  # fmt: skip
        if fault is None:
            return response
        if fault.kind == "timeout_after":
            return Hangup(self.world.closing, fault.number("seconds", 60))
        if fault.kind == "reset_after":
            return Hangup(self.world.closing)
        if fault.kind == "html_after":
            return Response(_HTML, 200, media_type="text/html")
        if fault.kind == "malformed":
            whole = bytes(response.body)
            return Response(whole[: len(whole) // 2], response.status_code, media_type="application/json")
        return reply({"message": "Service Unavailable"}, int(fault.number("status", 503)), {"Retry-After": "5"})


async def _wait(receive: Receive, closing: asyncio.Event, seconds: float) -> None:
    await hold(receive, closing, seconds)


class Window:
    """A fixed-window rate limit per key, as the providers publish theirs."""

    def __init__(self, world: World, most: int, seconds: int) -> None:
        self._world = world
        self.most = most
        self.seconds = seconds
        self._seen: dict[str, tuple[int, int]] = {}

    def take(self, key: str = "") -> int | None:
        """Count one call; None when it may pass, else the whole seconds until the window ends."""
        now = self._world.clock().timestamp()
        window = int(now // self.seconds)
        at, count = self._seen.get(key, (window, 0))
        count = count + 1 if at == window else 1
        if len(self._seen) > 50_000:
            self._seen.clear()
        self._seen[key] = (window, count)
        if count <= self.most:
            return None
        return max(1, int((window + 1) * self.seconds - now + 0.999))
