"""Serve an ASGI app from a thread on a real socket, as in production, and give it a client."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.shop import Shop
from resources.settings import Settings
from tests.ports import free_port


@dataclass(frozen=True)
class ServedApi:
    """An API that answers on `url`."""

    url: str
    app: FastAPI
    client: httpx.Client

    @property
    def shop(self) -> Shop:
        shop: Shop = self.app.state.shop
        return shop


@contextlib.contextmanager
def serve(app: Any, port: int) -> Iterator[None]:
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", access_log=False, lifespan="on")
    )
    server.config.timeout_graceful_shutdown = 2
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), "the server starts")
        assert server.started, "the server did not start; its log above says why"
        yield
    finally:
        server.should_exit = True
        thread.join(15)


@contextlib.contextmanager
def served_api(settings: Settings, port: int | None = None, **changes: Any) -> Iterator[ServedApi]:
    settings = settings.model_copy(update={"api_port": port or free_port(), **changes})
    app = create_app(settings)
    with serve(app, settings.api_port), httpx.Client(base_url=settings.api_url, timeout=20) as client:
        yield ServedApi(settings.api_url, app, client)


def wait_until(condition: Any, what: str, seconds: float = 15.0) -> None:
    """Wait on a condition, never for a time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain until {what}"
        threading.Event().wait(0.01)
