"""The sandbox as one ASGI app: five providers, Stripe, mail, Slack and rates behind one address.

It imports nothing of the platform: what it says comes from the contracts alone.
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime

from fastapi import FastAPI
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from sandbox import control, mail, rates, slack
from sandbox.config import SandboxConfig, read_config
from sandbox.drops import remember_transport
from sandbox.providers import activity, registry
from sandbox.stripe import control as stripe_control
from sandbox.stripe import router as stripe_router
from sandbox.world import World, utc_now


class Sandbox(FastAPI):
    """FastAPI that also remembers the server's transport, so that a fault can break the connection."""

    world: World

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        remember_transport(scope, send)
        await super().__call__(scope, receive, send)


def create_app(config: SandboxConfig | None = None, clock: Callable[[], datetime] = utc_now) -> Sandbox:
    """Build a sandbox; without a configuration it is read from the environment."""
    world = World(config or read_config(), clock)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await world.open()
        try:
            yield
        finally:
            await world.close()

    app = Sandbox(title="NumnaRoad sandbox", lifespan=lifespan, openapi_url=None)
    app.world = world
    app.include_router(control.build(world))
    registry.mount(app, world)
    app.include_router(stripe_router.build(world), prefix="/stripe")
    for part in (activity, stripe_control, mail, slack, rates):
        app.include_router(part.build(world))
    app.add_api_route("/healthz", _healthy, methods=["GET"], response_model=None)
    app.add_api_route("/", _home, methods=["GET"], response_model=None)
    return app


def _healthy() -> Response:
    return Response(b'{"status":"ok"}', media_type="application/json")


def _home() -> Response:
    return RedirectResponse("/sandbox")
