"""The storefront API as one ASGI app: `create_app(settings)` assembles, the lifespan opens and closes.

server -> HotCatalogue (ready bytes) -> Gate (id, limit, headers, last catch) -> BodyLimit -> routes -> services
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from api import openapi, problem_handlers
from api.middleware.body_limit import BodyLimit
from api.middleware.gate import Gate
from api.middleware.headers import security_headers
from api.middleware.hot_catalogue import HotCatalogue
from api.routes import catalogue, checkout, operations, orders, pages, provider_webhooks, stripe_webhook
from api.shop import Shop, utc_now
from esim.ports import Clock
from resources.settings import Settings, load_settings

VERSION = "1.0.0"


class Storefront(FastAPI):
    """FastAPI with the hot path in front of it."""

    _front: ASGIApp | None = None

    def put_in_front(self, front: ASGIApp) -> None:
        """Let `front` have every request first; it passes on to `framework`."""
        self._front = front

    async def framework(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection as FastAPI does."""
        await super().__call__(scope, receive, send)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        await (self._front or self.framework)(scope, receive, send)


def create_app(
    settings: Settings | None = None, *, clock: Clock = utc_now, settled: Callable[[], None] = lambda: None
) -> FastAPI:
    """Return the app for `settings` (default: those of the environment); it connects when it is started.

    `settled` is called whenever a catalogue has just been put on the shelf.
    """
    settings = settings or load_settings()
    shop = Shop(settings, clock, settled)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await shop.open()
        try:
            yield
        finally:
            await shop.close()

    app = Storefront(
        title="NumnaRoad",
        version=VERSION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        middleware=_middleware(shop),
    )
    app.state.shop = shop
    app.put_in_front(HotCatalogue(app.framework, shop.shelf, shop.buckets, shop.cors, shop.metrics))
    for module in (catalogue, checkout, orders, stripe_webhook, provider_webhooks, operations, pages):
        app.include_router(module.router)
    app.mount("/static", pages.StaticPages(directory=pages.STATIC), name="static")
    problem_handlers.install(app)
    openapi.install(app, settings.api_url)
    return app


def _middleware(shop: Shop) -> list[Middleware]:
    headers = security_headers(https=shop.settings.api_url.startswith("https://"))
    return [
        Middleware(Gate, buckets=shop.buckets, cors=shop.cors, metrics=shop.metrics, headers=headers),
        Middleware(BodyLimit),
    ]
