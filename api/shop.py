"""What the routes work with, opened and closed together: database, catalogue shelf, vault and payment gateway.

There is one `Shop` per app; nothing lives in module variables.
"""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from threading import Lock
from time import monotonic
from typing import Any

from anyio import CapacityLimiter
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from api.curiosity import Curiosity
from api.intake import Intake
from api.listener import Listener, OrderWatch
from api.metrics import Metrics
from api.middleware.cors import Cors
from api.rate_limit import TokenBuckets
from api.snapshot import CatalogueSnapshot, Shelf
from esim.ports import Clock, PaymentEvent, PaymentGateway, Provider
from resources.db.catalogue_reader import current_version, published_catalogue
from resources.db.databases import databases, make_engine
from resources.db.payments import Booking
from resources.db.vault import Vault
from resources.db.watch_figures import StoreFigures, store_figures
from resources.payment_events import TakenEvent, take_first_payments
from resources.settings import Settings

# Calls to the payment service at once, on threads of their own: checkouts, and questions that nobody waits for.
PAYMENT_THREADS = 20
ASKING_THREADS = 5
FIGURES_SECONDS = 5.0  # however many scrape, the store is asked that often


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def _nothing() -> None:
    """Do nothing."""


class Shop:
    """The state of one app."""

    engine: Engine
    payments: Intake[tuple[PaymentEvent, Booking], TakenEvent | None]
    vault: Vault
    gateway: PaymentGateway
    payment_threads: CapacityLimiter
    asking_threads: CapacityLimiter

    def __init__(self, settings: Settings, clock: Clock = utc_now, settled: Callable[[], None] = _nothing) -> None:
        """Take what the app is told; `settled` is called whenever a catalogue has just been put on the shelf."""
        self.settings = settings
        self._settled = settled
        self.clock = clock
        self.shelf = Shelf()
        self.metrics = Metrics(self.shelf)
        self.cors = Cors(settings.origins)
        self.buckets = TokenBuckets(settings.rate_limit_per_minute)
        self.watch = OrderWatch()
        self.curiosity = Curiosity()
        self.closing = asyncio.Event()
        self._lock = Lock()
        self._figures: tuple[float, StoreFigures | None] = (float("-inf"), None)
        self._providers: dict[str, Provider] = {}
        self._listening: asyncio.Task[None] | None = None
        self._asides: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Connect, put the newest catalogue on the shelf and listen for the next.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot be reached or is not migrated.
        """
        url = (await run_in_threadpool(databases, self.settings)).operational
        self.engine = make_engine(url, pool_size=20)
        self.payments = Intake(partial(take_first_payments, self.engine))
        self.vault = await run_in_threadpool(Vault.from_settings, self.settings)
        self.gateway = await run_in_threadpool(_gateway, self.settings)
        self.payment_threads = CapacityLimiter(PAYMENT_THREADS)
        self.asking_threads = CapacityLimiter(ASKING_THREADS)
        await self.refresh_catalogue()
        self._listening = asyncio.create_task(Listener(url, self.watch, self.refresh_catalogue).run(), name="listener")

    def end_streams(self) -> None:
        """Let every event stream end now; its reader goes on elsewhere."""
        self.closing.set()
        self.watch.everything_may_have_moved()

    def start_aside(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside the requests; it is dropped when the shop closes."""
        task = asyncio.create_task(work)
        self._asides.add(task)
        task.add_done_callback(self._asides.discard)

    async def close(self) -> None:
        """End event streams, stop listening and give connections back."""
        self.end_streams()
        ending = [*self._asides, *([self._listening] if self._listening else [])]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        for provider in self._providers.values():
            provider.close()
        self.engine.dispose()

    async def refresh_catalogue(self) -> None:
        """Put the newest published version on the shelf, if it is not there yet."""
        if await run_in_threadpool(self._published_version) != self.shelf.current.snapshot.version:
            self.shelf.swap(await run_in_threadpool(lambda: CatalogueSnapshot(published_catalogue(self.engine))))
            self._settled()
        self.shelf.checked_at = self.clock()

    def provider(self, slug: str) -> Provider:
        """Return the client of a provider, for its webhooks; made when first asked for."""
        with self._lock:
            if slug not in self._providers:
                self._providers[slug] = _provider(slug, self)
            return self._providers[slug]

    def store_figures(self) -> StoreFigures | None:
        """Return how the order store is doing, at most five seconds old; None while the database does not answer."""
        with self._lock:
            read_at, figures = self._figures
        if monotonic() - read_at < FIGURES_SECONDS:
            return figures
        try:
            with self.engine.connect() as conn:
                figures = store_figures(conn, self.clock())
        except SQLAlchemyError:
            figures = None
        with self._lock:
            self._figures = (monotonic(), figures)
        return figures

    def _published_version(self) -> int:
        with self.engine.connect() as conn:
            return current_version(conn)


def _gateway(settings: Settings) -> PaymentGateway:
    from resources.payments.stripe import stripe_gateway

    return stripe_gateway(settings)


def _provider(slug: str, shop: Shop) -> Provider:
    from resources.db.tokens import PostgresTokenStore
    from resources.providers.base import Unlimited
    from resources.providers.registry import build_provider

    # The API only verifies and parses; it calls no provider, so nothing has to be limited.
    tokens = PostgresTokenStore(shop.engine, shop.vault)
    return build_provider(slug, shop.settings, limiter=Unlimited(), tokens=tokens, clock=shop.clock)
