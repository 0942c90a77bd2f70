"""Signed payment events at a steady pace: how they are taken, what of them is delivered, and what a kill leaves."""

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Protocol
from uuid import UUID

from sqlalchemy import text

from bench.order_shop import DELIVERED, BenchShop, CpuShares, bench_shop

PER_SECOND, SECONDS, CONNECTIONS = 500, 12, 32
KILLED_AFTER_SECONDS = 4.0
ORDERS_PER_SECOND, ARRIVING_PER_SECOND, SUSTAINED_SECONDS = 200, 205, 20


class Judge(Protocol):
    """Prints a figure beside its target, and remembers a miss."""

    def __call__(self, name: str, value: float, target: float, unit: str, *, at_least: bool = False) -> None:
        """Judge one figure."""


@dataclass
class Load:
    """What became of the events: milliseconds of those answered, statuses, and the ids answered 2xx."""

    ms: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    taken: set[str] = field(default_factory=set)


def intake(judge: Judge) -> None:
    """Send events at a steady pace to the API alone and with all else at work, then with the API killed on the way."""
    with bench_shop(0) as shop:
        shop.place(64, paid=True)
        shop.wait_until(DELIVERED, 64, 90)
        shop.finish_start()
        _take(shop, judge, "everything running, drains at work")
    with bench_shop(0, parts=("sandbox", "api")) as shop:
        _take(shop, judge, "the API alone")
        events = _events(shop, PER_SECOND * SECONDS)
        load = asyncio.run(_send_all(shop, events, PER_SECOND, kill=shop.processes["api"].pid))
        with shop.engine.connect() as conn:
            noted = set(conn.execute(text("select event_id from inbox_events where handled = 'paid'")).scalars())
        lost = len(load.taken - noted)
        print(f"  API killed after {KILLED_AFTER_SECONDS:.0f} s: {len(load.taken)} events answered 2xx, {lost} lost")
        if not load.taken:
            sys.exit("no event was taken before the kill")
        judge("events answered 2xx and lost in the kill", float(lost) + 1, 1, "(+1)")


def _take(shop: BenchShop, judge: Judge, what: str) -> None:
    with CpuShares(shop) as shares:
        load = asyncio.run(_send_all(shop, _events(shop, PER_SECOND * SECONDS), PER_SECOND))
    load.ms.sort()
    print(f"webhook intake at {PER_SECOND} events/s for {SECONDS} s, {what}: {dict(load.statuses)}; {shares}")
    judge(f"webhook intake p99, {what}", load.ms[int(len(load.ms) * 0.99)], 50, "ms")
    judge(f"events answered 2xx, {what}", len(load.taken), PER_SECOND * SECONDS, "events", at_least=True)


def sustained(judge: Judge, latency_ms: int) -> None:
    """Pay orders by webhook at a steady pace while everything runs; see that deliveries keep pace."""
    with bench_shop(latency_ms) as shop:
        shop.place(64, paid=True)
        shop.wait_until(DELIVERED, 64, 90)
        shop.settle()
        shop.finish_start()
        events = _events(shop, ARRIVING_PER_SECOND * SUSTAINED_SECONDS)
        before = shop.number(DELIVERED)
        with CpuShares(shop) as shares:
            load = asyncio.run(_send_all(shop, events, ARRIVING_PER_SECOND))
            waiting = before + len(load.taken) - shop.number(DELIVERED)
            if not shop.wait_until(DELIVERED, before + len(load.taken), 120):
                sys.exit("what was paid was not delivered in two minutes")
        rate = shop.number(
            "select count(*) * 0.8 / (percentile_cont(0.9) within group (order by at)"
            " - percentile_cont(0.1) within group (order by at)) from (select extract(epoch from delivered_at) as at"
            " from esims where status = 'delivered' order by delivered_at desc limit :n) d",
            n=len(load.taken),
        )
        print(
            f"{ARRIVING_PER_SECOND} orders/s paid by webhook for {SUSTAINED_SECONDS} s, sandbox latency {latency_ms} ms"
        )
        judge(
            f"sustained, paid by webhook, latency {latency_ms} ms", rate, ORDERS_PER_SECOND, "orders/s", at_least=True
        )
        print(f"  {waiting:.0f} in work when the last was paid; {shares}")


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


async def _send_all(
    shop: BenchShop, events: Sequence[tuple[UUID, bytes]], per_second: int, kill: int | None = None
) -> Load:
    load, queue = Load(), asyncio.Queue[tuple[float, UUID, bytes]]()
    senders = [asyncio.create_task(_sender(shop, queue, load)) for _ in range(CONNECTIONS)]
    started = time.perf_counter()
    for n, (order_id, request) in enumerate(events):
        due = started + n / per_second
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
