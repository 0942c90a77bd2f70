"""Run the API: `python -m api`, by the settings HOST, API_PORT and API_WORKERS.

uvicorn with uvloop and httptools. `make bench-api` measures granian beside it, which serves the hot path about 1.4
times as fast (30,000/s to 21,000/s on two cores, 2026-11). uvicorn is kept all the same: both are far above what a shop
needs, and granian's worker is a second process that makes the cold start longer and survives, with the port, when its
parent is killed.
"""

import gc
import os
import sys
import tempfile
from pathlib import Path

import uvicorn

from resources.logs import configure_logging, configure_sentry
from resources.settings import MissingSettings, Settings, load_settings

GRACE_SECONDS = 3  # open event streams get this long when the server stops; their readers resume elsewhere


def create_app() -> object:
    """Build the app in a worker process, with its logging."""
    from api.app import create_app as build

    settings = load_settings()
    configure_logging()
    if settings.sentry_dsn:
        configure_sentry(settings.sentry_dsn.get_secret_value())
    return build(settings, settled=spare_the_collector)


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
    if settings.api_workers > 1:
        _share_metrics(settings)
    uvicorn.run(
        "api.__main__:create_app",
        factory=True,
        host=settings.host,
        port=settings.api_port,
        workers=settings.api_workers if settings.api_workers > 1 else None,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,  # the gate logs requests, without their addresses
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return 0


def _share_metrics(settings: Settings) -> None:
    """Let prometheus-client add up what several workers count."""
    folder = settings.data_dir.absolute() / "metrics"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", str(Path(tempfile.mkdtemp(dir=folder))))


if __name__ == "__main__":
    sys.exit(main())
