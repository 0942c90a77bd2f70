"""An order's life as server-sent events, from any point on, until nothing more can follow.

The database's notifications wake it; a heartbeat keeps proxies from closing the line and, while a payment is awaited,
asks the payment service whether a webhook was lost.
"""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import orjson
from starlette.concurrency import run_in_threadpool

from api.errors import TOO_MANY_STREAMS, Problem
from api.services.reconcile_session import ask_aside
from api.services.view_order import News, news_after
from api.shop import Shop
from esim.orders import OrderStatus

HEARTBEAT_SECONDS = 15.0
LONGEST_SECONDS = 30 * 60.0  # then the client reconnects and goes on after the last event it has
MOST_STREAMS = 1000
MOST_STREAMS_PER_ORDER = 5  # a few tabs and phones; whoever has one token must not take everybody's streams
RECONNECT_MS = 2000


def check_room(shop: Shop, order_id: UUID) -> None:
    """Refuse another stream where this process, or this order in it, has enough.

    Raises:
        Problem: 503 with a time to come back.
    """
    if shop.metrics.streams_open >= MOST_STREAMS or shop.watch.waiting(order_id) >= MOST_STREAMS_PER_ORDER:
        raise Problem(TOO_MANY_STREAMS, "Ask for the order itself every few seconds.", headers={"Retry-After": "10"})


async def follow_order(shop: Shop, order_id: UUID, after: int) -> AsyncIterator[bytes]:
    """Yield the events of an order after event `after` as they happen, then `end`."""
    bell = shop.watch.subscribe(order_id)
    shop.metrics.streams_open += 1
    end = asyncio.get_running_loop().time() + LONGEST_SECONDS
    try:
        yield b"retry: %d\n\n" % RECONNECT_MS
        while not shop.closing.is_set() and asyncio.get_running_loop().time() < end:
            bell.clear()
            news = await run_in_threadpool(news_after, shop, order_id, after)
            for event in news.events:
                after = event.id
                yield _message("status", event.model_dump_json().encode(), event.id)
            if news.final:
                yield _message("end", orjson.dumps({"status": news.status}))
                return
            async for beat in _wait(shop, order_id, bell, news):
                yield beat
    finally:
        shop.metrics.streams_open -= 1
        shop.watch.leave(order_id, bell)


async def _wait(shop: Shop, order_id: UUID, bell: asyncio.Event, news: News) -> AsyncIterator[bytes]:
    while True:
        if news.status is OrderStatus.PENDING:
            await ask_aside(shop, order_id)
        try:
            await asyncio.wait_for(bell.wait(), HEARTBEAT_SECONDS)
        except TimeoutError:
            yield b": still here\n\n"
        else:
            return


def _message(kind: str, data: bytes, event_id: int | None = None) -> bytes:
    identity = b"" if event_id is None else b"id: %d\n" % event_id
    return b"%bevent: %b\ndata: %b\n\n" % (identity, kind.encode(), data)
