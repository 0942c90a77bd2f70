"""The state that all parts of the sandbox share: clock, randomness, faults, purchases and work in the background.

One `World` per app; nothing is kept at module level, so several sandboxes can live in one process.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
import orjson

from sandbox.config import SandboxConfig
from sandbox.faults import FaultBook
from sandbox.purchases import PurchaseLog
from sandbox.webhooks import Courier

logger = logging.getLogger("sandbox")

Part = TypeVar("Part")


def utc_now() -> datetime:
    """The current moment, with its zone."""
    return datetime.now(UTC)


class World:
    """Everything the routers of one sandbox have in common."""

    def __init__(self, config: SandboxConfig, clock: Callable[[], datetime] = utc_now) -> None:
        self.config = config
        self.ahead = timedelta()  # what the control routes put this sandbox's clock ahead by
        self.clock: Callable[[], datetime] = lambda: clock() + self.ahead
        self._rngs: dict[str, random.Random] = {}
        self.faults = FaultBook(self.rng("faults"))
        self.purchases = PurchaseLog(self.now)
        self.courier = Courier(self)
        self.closing = asyncio.Event()
        self._client: httpx.AsyncClient | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._resets: list[Callable[[], None]] = []
        self._parts: dict[type, Any] = {}
        self._starts: list[Callable[[], Awaitable[None]]] = []
        self._stops: list[Callable[[], Awaitable[None]]] = []
        self._kept: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {}
        self.on_reset(self.faults.clear)
        self.on_reset(self.purchases.clear)
        self.on_reset(self.courier.clear)
        self.keep("purchases", self.purchases.dump, self.purchases.load)

    def part(self, kind: type[Part], make: "Callable[[World], Part]") -> Part:
        """The state of one part of the sandbox (Stripe, mail, ...), made on first use."""
        if kind not in self._parts:
            self._parts[kind] = make(self)
        state: Part = self._parts[kind]
        return state

    def rng(self, topic: str) -> random.Random:
        """The generator of one topic; topics do not disturb each other's sequence."""
        if topic not in self._rngs:
            self._rngs[topic] = random.Random(f"{self.config.seed}:{topic}")  # noqa: S311 (repeatable, not secret)
        return self._rngs[topic]

    def now(self) -> datetime:
        """The moment by the clock in force."""
        return self.clock()

    @property
    def http(self) -> httpx.AsyncClient:
        """The client for webhooks; made on first use, inside the running loop."""
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=10.0, trust_env=False)
        return self._client

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do something in the background; what it raises is logged, and the sandbox goes on."""
        task = asyncio.get_running_loop().create_task(self._guard(work, name), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, work: Coroutine[Any, Any, None], name: str) -> None:
        try:
            await work
        except Exception:  # a task nobody awaits: unlogged, its error would be lost
            logger.exception("background work %s failed", name)

    def later(self, seconds: float, action: Callable[[], Awaitable[None]], name: str) -> None:
        """Run an action after a while, unless the sandbox ends first."""

        async def wait_and_act() -> None:
            await asyncio.sleep(seconds)
            await action()

        self.spawn(wait_and_act(), name)

    def on_start(self, action: Callable[[], Awaitable[None]]) -> None:
        """Register what must run inside the loop before the first request (a mail server, say)."""
        self._starts.append(action)

    def on_stop(self, action: Callable[[], Awaitable[None]]) -> None:
        """Register what must end before the loop does."""
        self._stops.append(action)

    async def open(self) -> None:
        """Take over the saved state, then start what was registered."""
        if self.config.state is not None:
            self.load(self.config.state)
        for action in self._starts:
            await action()

    def on_reset(self, action: Callable[[], None]) -> None:
        """Register what a reset must clear."""
        self._resets.append(action)

    def keep(self, name: str, dump: Callable[[], Any], load: Callable[[Any], None]) -> None:
        """Register a part of the state file: `dump` returns plain JSON data (Decimal as text), `load` takes it back."""
        self._kept[name] = (dump, load)

    def reset(self) -> None:
        """Forget faults, purchases and all orders; work under way is called off."""
        for task in list(self._tasks):
            task.cancel()
        for action in self._resets:
            action()

    def save(self, target: Path) -> None:
        """Write the state file by atomic rename, so a crash leaves the old one whole."""
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(target.name + ".new")
        draft.write_bytes(orjson.dumps({name: dump() for name, (dump, _) in self._kept.items()}, default=str))
        draft.replace(target)

    def load(self, source: Path) -> None:
        """Read the state file where there is one; parts it does not know start empty."""
        if not source.is_file():
            return
        state = orjson.loads(source.read_bytes())
        for name, (_, load) in self._kept.items():
            if name in state:
                load(state[name])

    async def close(self) -> None:
        """End background work, stop what was started and save the state."""
        self.closing.set()
        for action in reversed(self._stops):
            await action()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()
        if self.config.state is not None:
            self.save(self.config.state)
