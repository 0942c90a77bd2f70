"""The processes a campaign starts and kills: drains and the API, forked from a server that has imported all of it.

Every child is a process of its own with its own connections; it can be killed, stopped and continued like any other.
"""

import contextlib
import logging
import multiprocessing
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any, cast

from chaos.clock import SharedClock
from chaos.planted import planted
from chaos.points import Fate, Reaper, WatchedTransport
from esim.ports import Provider
from resources.order_operations import OrderTools
from resources.settings import Settings

PRELOADED = ["chaos.children", "chaos.preloaded"]


@dataclass(frozen=True)
class DrainOrder:
    """What one drain process is told."""

    settings: Settings
    clock: SharedClock
    diary: Path
    log: Path
    fate: Fate | None = None
    workers: int = 6
    idle_seconds: float = 0.2
    max_seconds: float = 1.5
    limited: bool = False  # obey the providers' published rate limits, which cost real time
    bug: str = ""
    seen: Path | None = field(default=None)  # where a survey writes what it saw


def forkserver() -> ForkServerContext:
    """Return the context whose server has imported what children need, so that one starts in milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def start(context: ForkServerContext, target: Any, *arguments: object) -> ForkServerProcess:
    """Start a child; it does not outlive an orderly end of this process."""
    process = context.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def drain(order: DrainOrder) -> None:
    """Run one drain with the real adapters, stores and gateways, under its fate."""
    from pipelines.drain import Drain, DrainLimits

    _keep_quiet(order.log)
    reaper = Reaper(order.fate, order.diary)
    tools = tools_of(order, reaper)
    Drain(tools, DrainLimits(order.workers, order.idle_seconds, order.max_seconds)).run()
    if order.seen is not None:
        with order.seen.open("a") as file:
            file.writelines(f"{point}\n" for point in reaper.seen)


def tools_of(order: DrainOrder, reaper: Reaper) -> OrderTools:
    """Return the tools of a drain: the product's own, but for a transport that is watched."""
    from resources.db.databases import databases, make_engine
    from resources.db.limiter import PostgresLimiter
    from resources.db.tokens import PostgresTokenStore
    from resources.db.vault import Vault
    from resources.providers.base import Unlimited
    from resources.providers.registry import FACTORIES, build_provider

    engine = make_engine(databases(order.settings).operational, pool_size=4)
    limiter = PostgresLimiter(engine) if order.limited else Unlimited()
    tokens = PostgresTokenStore(engine, Vault.from_settings(order.settings))
    providers: Mapping[str, Provider] = {
        slug: planted(
            order.bug,
            build_provider(
                slug,
                order.settings,
                limiter=limiter,
                tokens=tokens,
                clock=order.clock,
                transport=WatchedTransport(slug, reaper),
            ),
        )
        for slug in FACTORIES
    }
    tools = OrderTools(order.settings, providers=providers, clock=order.clock)
    for each in (engine, tools.engine):
        reaper.watch(each)
    return tools


def serve_api(settings: Settings, clock: SharedClock, log: Path) -> None:
    """Serve the storefront API, as `python -m api` does, by the campaign's clock."""
    import uvicorn

    from api.app import create_app

    _keep_quiet(log)
    app = create_app(settings, clock=clock)
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.api_port,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )


def _keep_quiet(log: Path) -> None:
    """Send everything a child says to its log: what breaks here is meant to."""
    sink = log.open("a", buffering=1)
    sys.stdout = sys.stderr = cast(Any, sink)
    logging.basicConfig(stream=sink, level=logging.WARNING, force=True)
    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sink),
        processors=[structlog.processors.add_log_level, structlog.processors.KeyValueRenderer()],
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError):
            signal.signal(number, signal.SIG_DFL)
