"""`make bench-catalogue`: how long a catalogue sync takes, and best price over a million offers, as figures and ratios.

A sandbox in another process serves five providers x 5,000 plans without rate limits; an embedded Postgres and a lake in
a temporary folder take them. Every figure is printed beside its target; the exit status is 1 when one is missed.
"""

import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from assets.catalogue_sync import sync_catalogue
from bench.best_price import Race, race
from cli.ports import free_port
from cli.run import wait_for
from esim.fakes import MemoryTokenStore
from resources.catalogue_desk import CatalogueDesk, utc_now
from resources.db.databases import Databases, make_engine
from resources.db.embedded import leave_embedded, start_embedded, with_database
from resources.db.migrate import migrate
from resources.providers.base import ProviderHttp, Unlimited
from resources.providers.registry import build_providers
from resources.rates import ReferenceRates
from resources.settings import Settings
from resources.warehouse.lake import Lake

ROOT = Path(__file__).resolve().parent.parent
PLANS = 5_000
ROUNDS = 3
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure and what it has to be."""

    name: str
    value: float
    unit: str
    target: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the target is met."""
        return self.value >= self.target if self.at_least else self.value <= self.target


def main() -> int:
    """Run everything and print the table; 1 when a target is missed."""
    console = Console()
    for name in Settings.model_fields:  # no key of this machine may point a benchmark at a live provider
        os.environ.pop(name.upper(), None)
    with tempfile.TemporaryDirectory(prefix="numnaroad-bench-") as folder, _sandbox() as url:
        figures = _sync_figures(Path(folder), url, console)
    figures += _race_figures(race())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB
    figures.append(Figure("peak memory", peak, "GiB", 1.5 * 10**9 / _GIB))
    _print(console, figures)
    return 0 if all(figure.met for figure in figures) else 1


def _sync_figures(folder: Path, url: str, console: Console) -> list[Figure]:
    settings = Settings(_env_file=None, data_dir=folder, sandbox_port=httpx.URL(url).port or 0)  # type: ignore[call-arg]  # pydantic-settings' own argument
    server = start_embedded(folder)
    try:
        with _desk(server, folder / "warm", settings) as desk:
            sync_catalogue(desk)  # the sandbox makes its catalogue, imports and pools get warm
        cold, unchanged = [], []
        for number in range(ROUNDS):
            with _desk(server, folder / f"shop{number}", settings) as desk:
                cold.append(_seconds(partial(sync_catalogue, desk)))
                unchanged += [_seconds(partial(sync_catalogue, desk)) for _ in range(2)]
                report = sync_catalogue(desk)
        providers = build_providers(settings, limiter=Unlimited(), tokens=MemoryTokenStore(), clock=utc_now)
        requests = [_requests_of(provider) for provider in providers.values()]
        bare = [_seconds(partial(_download_and_parse, requests)) for _ in range(ROUNDS)]
    finally:
        leave_embedded(folder)
    plans = sum(each.download.offers.height for each in report.received)
    console.print(f"{plans} plans of five providers -> {report.published.on_sale} packages on sale")
    base = statistics.median(bare)
    return [
        Figure("sync, cold", statistics.median(cold), "s", 4.0),
        Figure("sync, nothing changed", statistics.median(unchanged), "s", 2.0),
        Figure("cold / download and parse JSON only", statistics.median(cold) / base, "x", 3.0),
        Figure("unchanged / download and parse JSON only", statistics.median(unchanged) / base, "x", 3.0),
    ]


def _race_figures(result: Race) -> list[Figure]:
    return [
        Figure("best price over 1 M offers (polars)", result.polars, "s", 1.9),
        Figure("polars / hand-written DuckDB query", result.polars / result.duckdb, "x", 1.5),
        Figure("row rule / polars", result.rows / result.polars, "x", 30.0, at_least=True),
    ]


@contextmanager
def _desk(server: str, folder: Path, settings: Settings) -> Iterator[CatalogueDesk]:
    name = folder.name
    urls = Databases(*(with_database(server, f"{name}{part}") for part in ("", "_dagster", "_lake")))
    migrate(urls)
    engine = make_engine(urls.operational)
    providers = build_providers(settings, limiter=Unlimited(), tokens=MemoryTokenStore(), clock=utc_now)
    with Lake(urls.lake, folder / "lake") as lake:
        lake.table_exists("raw", "airalo_offers")  # a shop has its lake before its first sync
        lake.transact(lambda connection: connection.execute("select 1").fetchall())
        yield CatalogueDesk(engine, lake, providers, ReferenceRates(settings.rates.url))
    for provider in providers.values():
        provider.close()
    engine.dispose()


def _download_and_parse(requests: list[list[httpx.Request]]) -> int:
    """Fetch the same payloads at once and decode them with exact decimals; return the bytes."""
    with ThreadPoolExecutor(len(requests)) as pool:
        return sum(pool.map(_replay, requests))


def _requests_of(provider: object) -> list[httpx.Request]:
    """Return the requests a provider's catalogue takes, noted while it is read once."""
    noted: list[httpx.Request] = []
    original = ProviderHttp._exchange

    def noting(self: ProviderHttp, request: httpx.Request, most_bytes: int, most_seconds: float) -> object:
        noted.append(request)
        return original(self, request, most_bytes, most_seconds)

    ProviderHttp._exchange = noting  # type: ignore[method-assign,assignment]  # a benchmark's peephole
    try:
        for _ in provider.catalogue():  # type: ignore[attr-defined]  # every provider has one
            pass
    finally:
        ProviderHttp._exchange = original  # type: ignore[method-assign]  # put back
    return noted


def _replay(requests: list[httpx.Request]) -> int:
    total = 0
    with httpx.Client(timeout=60) as client:
        for request in requests:
            body = client.send(request).content
            json.loads(body, parse_float=Decimal)
            total += len(body)
    return total


@contextmanager
def _sandbox() -> Iterator[str]:
    port = free_port()
    environment = {
        **os.environ,
        "SANDBOX_PORT": str(port),
        "SANDBOX_SMTP_PORT": "0",
        "SANDBOX_PLANS_PER_PROVIDER": str(PLANS),
        "SANDBOX_RATE_LIMITS": "0",
    }
    process = subprocess.Popen([sys.executable, "-m", "sandbox"], env=environment, cwd=ROOT)
    try:
        url = f"http://127.0.0.1:{port}"
        if not wait_for(f"{url}/healthz", 60):
            raise SystemExit("the sandbox did not start; its messages are above")
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _seconds(work: Callable[[], object]) -> float:
    gc.collect()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _print(console: Console, figures: list[Figure]) -> None:
    table = Table("figure", "measured", "target", "", title="make bench-catalogue", header_style="bold")
    for figure in figures:
        sign = ">=" if figure.at_least else "<="
        verdict = "[green]met[/green]" if figure.met else "[red]missed[/red]"
        table.add_row(
            figure.name, f"{figure.value:.2f} {figure.unit}", f"{sign} {figure.target:.2f} {figure.unit}", verdict
        )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
