"""One database connection per process that listens: a published catalogue, an order that moved.

LISTEN `catalogue` -> reload the shelf; LISTEN `orders` -> wake the event streams of that order. Notifications can be
lost with the connection, so after every (re)connect, and every `POLL_SECONDS`, everything is looked at again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from uuid import UUID

import psycopg
import structlog

POLL_SECONDS = 30.0
_RECONNECT_FIRST_SECONDS = 0.2
_RECONNECT_MOST_SECONDS = 10.0

log = structlog.get_logger("api.listener")


class OrderWatch:
    """Wakes whoever waits for news of an order; only the event loop touches it."""

    def __init__(self) -> None:
        self._waiting: dict[UUID, set[asyncio.Event]] = {}

    def subscribe(self, order_id: UUID) -> asyncio.Event:
        """Return an event that is set whenever the order may have moved; give it back with `leave`."""
        bell = asyncio.Event()
        self._waiting.setdefault(order_id, set()).add(bell)
        return bell

    def leave(self, order_id: UUID, bell: asyncio.Event) -> None:
        """Stop waiting."""
        bells = self._waiting.get(order_id, set())
        bells.discard(bell)
        if not bells:
            self._waiting.pop(order_id, None)

    def waiting(self, order_id: UUID) -> int:
        """Return how many wait for news of this order."""
        return len(self._waiting.get(order_id, ()))

    def moved(self, order_id: UUID) -> None:
        """Wake those who wait for this order."""
        for bell in self._waiting.get(order_id, ()):
            bell.set()

    def everything_may_have_moved(self) -> None:
        """Wake everybody: notifications may have been missed."""
        for order_id in list(self._waiting):
            self.moved(order_id)


class Listener:
    """Runs until cancelled; survives restarts of the database."""

    def __init__(self, url: str, watch: OrderWatch, refresh: Callable[[], Awaitable[None]]) -> None:
        self._url = url
        self._watch = watch
        self._refresh = refresh

    async def run(self) -> None:
        """Listen, reconnecting with growing pauses."""
        pause = _RECONNECT_FIRST_SECONDS
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._url, autocommit=True, connect_timeout=10, application_name="numnaroad-api-listener"
                ) as connection:
                    await connection.execute("listen catalogue")
                    await connection.execute("listen orders")
                    pause = _RECONNECT_FIRST_SECONDS
                    await self._serve(connection)
            except psycopg.Error as error:
                log.warning("database connection lost; reconnecting", error=type(error).__name__, seconds=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RECONNECT_MOST_SECONDS)

    async def _serve(self, connection: psycopg.AsyncConnection) -> None:
        while True:
            await self._look_again()
            async for notice in connection.notifies(timeout=POLL_SECONDS):
                if notice.channel == "catalogue":
                    await self._look_again(orders=False)
                elif notice.channel == "orders":
                    with suppress(ValueError):
                        self._watch.moved(UUID(notice.payload))

    async def _look_again(self, *, orders: bool = True) -> None:
        if orders:
            self._watch.everything_may_have_moved()
        try:
            await self._refresh()
        except Exception:  # whatever a refresh meets, the shop goes on with the catalogue it has
            log.exception("the catalogue could not be read; the last one stays on the shelf")
