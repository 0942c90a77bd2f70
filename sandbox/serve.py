"""Running the sandbox: in the foreground for people, in a thread on a free port for tests and the demo."""

import contextlib
import gc
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import uvicorn

from sandbox.app import Sandbox, create_app
from sandbox.config import SandboxConfig

_GRACE = 2


def run(config: SandboxConfig) -> None:
    """Serve until interrupted; one worker, because the state lives in it."""
    app = create_app(config)
    gc.collect()
    gc.freeze()  # the catalogues live as long as the process; walking them again and again would cost every purchase
    uvicorn.run(
        app,
        host=config.host,
        port=config.port,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=_GRACE,
    )


@dataclass(frozen=True)
class Served:
    """A sandbox that answers on `base_url`."""

    base_url: str
    app: Sandbox


@contextlib.contextmanager
def served(config: SandboxConfig | None = None) -> Iterator[Served]:
    """Serve a sandbox from a thread of this process on free ports; raises RuntimeError if it does not come up."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    app = create_app(replace(config or SandboxConfig(), host="127.0.0.1", port=port, base_url="", smtp_port=0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="error", access_log=False, lifespan="on", timeout_graceful_shutdown=_GRACE)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True, name="sandbox")
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("the sandbox did not start; its log above says why")
            thread.join(0.01)
        yield Served(app.world.config.base_url, app)
    finally:
        server.should_exit = True
        thread.join(15)
        listener.close()
