"""Signed payment events at a steady pace, and what is left of them when the API is killed in the middle."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from uuid import UUID

from sqlalchemy import text

from bench.order_shop import BenchShop, CpuShares, bench_shop

PER_SECOND, SECONDS, CONNECTIONS = 500, 12, 32
KILLED_AFTER_SECONDS = 4.0
Judge = Callable[[str, float, float, str], None]


@dataclass
class Load:
    """What became of the events: milliseconds of those answered, statuses, and the ids answered 2xx."""

    ms: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    taken: set[str] = field(default_factory=set)


def intake(judge: Judge) -> None:
    """Send events at a steady pace to the API alone, then again with the API killed on the way."""
    with bench_shop(0, parts=("sandbox", "api")) as shop:
        with CpuShares(shop) as shares:
            load = asyncio.run(_send_all(shop, _events(shop, PER_SECOND * SECONDS)))
        load.ms.sort()
        print(f"webhook intake at {PER_SECOND} events/s for {SECONDS} s: {dict(load.statuses)}; {shares}")
        judge("webhook intake p99", load.ms[int(len(load.ms) * 0.99)], 50, "ms")
        events = _events(shop, PER_SECOND * SECONDS)
        load = asyncio.run(_send_all(shop, events, kill=shop.processes["api"].pid))
        with shop.engine.connect() as conn:
            noted = set(conn.execute(text("select event_id from inbox_events where handled = 'paid'")).scalars())
        lost = len(load.taken - noted)
        print(f"  API killed after {KILLED_AFTER_SECONDS:.0f} s: {len(load.taken)} events answered 2xx, {lost} lost")
        judge("events answered 2xx and lost in the kill", float(lost) + 1, 1, "(+1)")


def _events(shop: BenchShop, count: int) -> list[tuple[UUID, bytes]]:
    """Return whole HTTP requests, made beforehand so that the sender costs little."""
    host = shop.settings.api_url.removeprefix("http://")
    requests = []
    for order_id, plan in zip(shop.place(count, paid=False), cycle(shop.plans), strict=False):
        body, headers = shop.paid_event(order_id, plan)
        lines = [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join(["POST /webhooks/stripe HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}", *lines])
        requests.append((order_id, head.encode() + b"\r\n\r\n" + body))
    return requests


async def _send_all(shop: BenchShop, events: Sequence[tuple[UUID, bytes]], kill: int | None = None) -> Load:
    load, queue = Load(), asyncio.Queue[tuple[float, UUID, bytes]]()
    senders = [asyncio.create_task(_sender(shop, queue, load)) for _ in range(CONNECTIONS)]
    started = time.perf_counter()
    for n, (order_id, request) in enumerate(events):
        due = started + n / PER_SECOND
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if kill is not None and due - started >= KILLED_AFTER_SECONDS:
            os.kill(kill, signal.SIGKILL)
            break
        queue.put_nowait((due, order_id, request))
    if kill is None:
        await queue.join()
    else:
        await asyncio.sleep(0.5)
    for sender in senders:
        sender.cancel()
    return load


async def _sender(shop: BenchShop, queue: "asyncio.Queue[tuple[float, UUID, bytes]]", load: Load) -> None:
    reader, writer = await asyncio.open_connection(shop.settings.host, shop.settings.api_port)
    while True:
        due, order_id, request = await queue.get()
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            queue.task_done()
        status = int(head.split(b" ", 2)[1])
        load.ms.append(1000 * (time.perf_counter() - due))  # from when it was due: waiting in line counts
        load.statuses[status] += 1
        if status < 300:
            load.taken.add(f"evt_{order_id.hex}")
