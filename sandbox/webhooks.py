"""Delivery of webhooks, with retries and with the faults that real delivery has: lost, doubled, out of order."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from sandbox.world import World

logger = logging.getLogger("sandbox.webhooks")

_AT_ONCE = 16


def any_2xx(status: int) -> bool:
    """The usual rule for a delivered webhook."""
    return 200 <= status < 300


def only_200(status: int) -> bool:
    """Airalo's rule: 204 and above count as failure."""
    return status == 200


class Courier:
    """Sends webhooks in the background and remembers the last 500 deliveries for the home page and for tests."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.log: deque[dict[str, Any]] = deque(maxlen=500)
        self._held: dict[str, asyncio.Event] = {}
        self._lines = asyncio.Semaphore(_AT_ONCE)
        self._deaf: set[str] = set()

    def clear(self) -> None:
        """Forget the deliveries made so far."""
        self.log.clear()
        self._held.clear()

    def send(
        self,
        sender: str,
        url: str,
        content: bytes,
        headers: Mapping[str, str],
        *,
        delays: Sequence[float] = (2, 10, 30, 120, 600),
        delivered: Callable[[int], bool] = any_2xx,
        call: str = "webhook",
    ) -> None:
        """Deliver one webhook: at once, then after each delay until the receiver takes it."""
        faults = self._world.faults
        if faults.take(sender, call, "webhook_lost"):
            self._note(sender, url, "lost", 0)
            return
        copies = 2 if faults.take(sender, call, "webhook_duplicate") else 1
        held = faults.take(sender, call, "webhook_reorder")
        for _ in range(copies):
            gate = asyncio.Event() if held else None
            if gate is not None and held is not None:
                self._held[sender] = gate
                self._world.spawn(self._open_later(gate, held.number("seconds", 2)), f"{sender} gate")
            self._world.spawn(
                self._deliver(sender, url, content, dict(headers), tuple(delays), delivered, gate), f"{sender} webhook"
            )

    async def _open_later(self, gate: asyncio.Event, seconds: float) -> None:
        await asyncio.sleep(seconds)
        gate.set()

    async def _deliver(
        self,
        sender: str,
        url: str,
        content: bytes,
        headers: dict[str, str],
        delays: tuple[float, ...],
        delivered: Callable[[int], bool],
        gate: asyncio.Event | None,
    ) -> None:
        if gate is not None:
            await gate.wait()
        for attempt, delay in enumerate((0.0, *delays), start=1):
            await asyncio.sleep(delay)
            status = await self._post(url, content, headers)
            self._note(sender, url, status, attempt)
            if isinstance(status, int) and delivered(status):
                break
        if gate is None and sender in self._held:
            self._held.pop(sender).set()

    async def _post(self, url: str, content: bytes, headers: dict[str, str]) -> int | str:
        try:
            async with self._lines:  # httpx searches all waiting requests for each one: a crowd would stop the sandbox
                answer = await self._world.http.post(url, content=content, headers=headers)
        except httpx.HTTPError as error:
            self._tell_once(url, type(error).__name__)
            return type(error).__name__
        self._deaf.discard(url)
        return answer.status_code

    def _tell_once(self, url: str, reason: str) -> None:
        if url not in self._deaf:
            self._deaf.add(url)
            logger.warning("webhooks to %s are not delivered (%s); they are tried again", url, reason)

    async def answers_head(self, url: str) -> bool:
        """Whether an address answers HEAD with 200, which some providers ask before they send anything there."""
        try:
            answer = await self._world.http.head(url)
        except (httpx.HTTPError, httpx.InvalidURL):
            return False
        return answer.status_code == 200

    async def takes(self, url: str, content: bytes, headers: dict[str, str]) -> bool:
        """Whether an address takes a trial message, which some providers send when it is registered."""
        try:
            answer = await self._world.http.post(url, content=content, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL):
            return False
        return any_2xx(answer.status_code)

    def _note(self, sender: str, url: str, result: int | str, attempt: int) -> None:
        self.log.append(
            {
                "sender": sender,
                "url": url,
                "result": result,
                "attempt": attempt,
                "at": self._world.clock().isoformat(),
            }
        )
