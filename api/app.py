"""The storefront API as one ASGI app: `create_app(settings)` assembles, the lifespan opens and closes.

server -> HotCatalogue (ready bytes) -> Gate (id, limit, headers, last catch) -> BodyLimit -> routes -> services
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware import Middleware

from api import openapi, problem_handlers
from api.middleware.body_limit import BodyLimit
from api.middleware.gate import Gate
from api.middleware.headers import security_headers
from api.middleware.hot_catalogue import HotCatalogue
from api.routes import catalogue, checkout, operations, orders, provider_webhooks, stripe_webhook
from api.shop import Shop, utc_now
from esim.ports import Clock
from resources.settings import Settings, load_settings

VERSION = "1.0.0"


def create_app(settings: Settings | None = None, *, clock: Clock = utc_now) -> FastAPI:
    """Return the app for `settings` (default: those of the environment); it connects when it is started."""
    settings = settings or load_settings()
    shop = Shop(settings, clock)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await shop.open()
        try:
            yield
        finally:
            await shop.close()

    app = FastAPI(
        title="NumnaRoad",
        version=VERSION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        middleware=_middleware(shop),
    )
    app.state.shop = shop
    for module in (catalogue, checkout, orders, stripe_webhook, provider_webhooks, operations):
        app.include_router(module.router)
    problem_handlers.install(app)
    openapi.install(app, settings.api_url)
    return app


def _middleware(shop: Shop) -> list[Middleware]:
    buckets, cors, metrics = shop.buckets, shop.cors, shop.metrics
    headers = security_headers(https=shop.settings.api_url.startswith("https://"))
    return [
        Middleware(HotCatalogue, shelf=shop.shelf, buckets=buckets, cors=cors, metrics=metrics, headers=headers),
        Middleware(Gate, buckets=buckets, cors=cors, metrics=metrics, headers=headers),
        Middleware(BodyLimit),
    ]
