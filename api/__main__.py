"""Run the API: `python -m api`, by the settings HOST, API_PORT and API_WORKERS.

uvicorn with uvloop and httptools. `make bench-api` measures granian beside it, which serves the hot path about 1.4
times as fast (30,000/s to 21,000/s on two cores, 2026-11). uvicorn is kept all the same: both are far above what a shop
needs, and granian's worker is a second process that makes the cold start longer and survives, with the port, when its
parent is killed.
"""

import asyncio
import gc
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from resources.logs import configure_logging, configure_sentry
from resources.settings import MissingSettings, Settings, load_settings

GRACE_SECONDS = 3  # open answers get this long when the server stops; event streams end at once and resume elsewhere


def create_app() -> Any:  # not named, so that the parent of several workers need not import the framework
    """Build the app in the process that serves it, with its logging."""
    from api.app import create_app as build

    settings = load_settings()
    configure_logging()
    if settings.sentry_dsn:
        configure_sentry(settings.sentry_dsn.get_secret_value())
    return build(settings, settled=spare_the_collector)


def create_stoppable_app() -> Any:
    """Build the app inside uvicorn's running loop, to end its event streams as soon as the server is told to stop."""
    app = create_app()
    _hear_signals_too(app.state.shop.end_streams)
    return app


def _hear_signals_too(end_streams: Callable[[], None]) -> None:
    """End event streams on the signals that stop the server.

    uvicorn tells the app to shut down only after it has waited for open answers and cancelled them, and its worker
    processes take no server of ours that would do it earlier.
    """
    loop = asyncio.get_running_loop()

    def chained(inner: Callable[[int, FrameType | None], object]) -> Callable[[int, FrameType | None], None]:
        def heard(number: int, frame: FrameType | None) -> None:
            inner(number, frame)
            loop.call_soon_threadsafe(end_streams)

        return heard

    for number in (signal.SIGINT, signal.SIGTERM):
        server = signal.getsignal(number)
        if callable(server):
            signal.signal(number, chained(server))


def spare_the_collector() -> None:
    """Keep the catalogue and the imported code out of garbage collections.

    They stay as long as the process; looking through them again and again would only make some answers late.
    """
    gc.collect()
    gc.freeze()


def main() -> int:
    """Serve until interrupted; return the exit status."""
    try:
        settings = load_settings()
    except MissingSettings as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logging()
    config = uvicorn.Config(
        "api.__main__:create_stoppable_app",
        factory=True,
        host=settings.host,
        port=settings.api_port,
        workers=settings.api_workers,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,  # the gate logs requests, without their addresses
        server_header=False,
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    if settings.api_workers <= 1:
        server = uvicorn.Server(config)
        with suppress(KeyboardInterrupt):  # uvicorn stops in order and then raises the signal again
            server.run()
        return 0 if server.started else STARTUP_FAILURE
    with _shared_metrics(settings):
        Multiprocess(config, sockets=[config.bind_socket()]).run()
    return 0


@contextmanager
def _shared_metrics(settings: Settings) -> Iterator[None]:
    """Let prometheus-client add up what several workers count, in files that are gone afterwards."""
    folder = settings.data_dir.absolute() / "metrics"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as own:
        os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", own)
        yield


if __name__ == "__main__":
    sys.exit(main())
