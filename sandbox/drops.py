"""Answers that are none: a connection that hangs or breaks, as the network does it.

Works on uvicorn's transport, because ASGI has no word for "hang up". Without one (an in-process client) the same
moment raises `ConnectionDroppedError`.
"""

import asyncio
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

TRANSPORT = "sandbox.transport"


class ConnectionDroppedError(ConnectionResetError):
    """The sandbox hung up on purpose."""


def remember_transport(scope: Scope, send: Send) -> None:
    """Keep the server's transport in the scope, before any middleware wraps `send`."""
    if scope["type"] == "http":
        scope[TRANSPORT] = getattr(getattr(send, "__self__", None), "transport", None)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


async def hold(receive: Receive, closing: asyncio.Event, seconds: float) -> None:
    """Wait, but not longer than the client or the sandbox itself lasts."""
    waits = [asyncio.ensure_future(_gone(receive)), asyncio.ensure_future(closing.wait())]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


class Hangup(Response):
    """Waits a while, then breaks the connection without one byte of an answer."""

    def __init__(self, closing: asyncio.Event, seconds: float = 0) -> None:
        super().__init__(b"", 599)
        self._closing = closing
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hang, then hang up."""
        if self._seconds:
            await hold(receive, self._closing, self._seconds)
        transport = scope.get(TRANSPORT)
        if transport is None:
            raise ConnectionDroppedError("the sandbox dropped this connection because a fault asked for it")
        transport.abort()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_gone(receive), 5)
