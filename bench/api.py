"""Measure the catalogue's hot path against a bare Starlette route that returns the same bytes on the same server.

Needs `wrk` (Debian: `apt-get install wrk`). A database of its own is made below a temporary folder, with 125 plans
for Japan among 5,000. Every ratio is the median over short rounds in which ours and the bare route take turns, so that
a busy machine disturbs both alike; the CPU time a request costs is printed beside it, because it is disturbed least.
Exit status 1 when a figure is missed on the server that `python -m api` uses.
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from sqlalchemy import Engine, insert

from cli.ports import free_port
from resources.db.databases import databases, make_engine
from resources.db.migrate import migrate
from resources.db.tables import catalogue_versions, packages
from resources.settings import Settings

CHOSEN = "uvicorn"
SERVERS = ("uvicorn", "granian")
OURS, BARE = "api.__main__:create_app", "bench.bare_app:create_app"
QUERY = "/v1/packages?destination=JP"
PLANS_JP, PLANS = 125, 5000
ROUNDS, SECONDS, CONNECTIONS = 9, 2, 64
FIELDS = ("per_second", "p99_ms", "cpu_us")
MIN_RATIO, MIN_RATIO_304, MAX_P99_RATIO, MAX_COLD_START = 0.8, 0.9, 2.0, 3.0


@dataclass(frozen=True)
class Load:
    """What wrk measured."""

    per_second: float
    p99_ms: float
    cpu_us: float  # of the server, a request: what a busy machine disturbs least


def main() -> int:
    """Run everything and print it; return 1 when a figure is missed."""
    if shutil.which("wrk") is None:
        sys.stderr.write("bench-api needs wrk: apt-get install wrk (or brew install wrk)\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="bench-api-") as folder:
        settings = Settings(data_dir=Path(folder), rate_limit_per_minute=10**9)
        urls = databases(settings)
        migrate(urls)
        engine = make_engine(urls.operational, pool_size=1)
        publish(engine)
        engine.dispose()
        environment = os.environ | {"DATABASE_URL": urls.operational, "DATA_DIR": folder}
        environment |= {"RATE_LIMIT_PER_MINUTE": str(10**9), "BARE_BODY": str(Path(folder) / "body.json")}
        results = [measure(server, environment) for server in SERVERS]
        cold = cold_start(environment)
    print(f"cold start of python -m api: {cold:.2f} s (at most {MAX_COLD_START} s)")
    good = results[SERVERS.index(CHOSEN)] and cold <= MAX_COLD_START
    print(f"\n{'all figures held' if good else 'A FIGURE WAS MISSED'} on {CHOSEN}, which python -m api uses")
    return 0 if good else 1


def publish(engine: Engine) -> None:
    """Write one catalogue version: 125 plans for Japan, the rest spread over other countries."""
    others = [f"{a}{b}" for a in "ABCDEFG" for b in "ABCDEFGHIJ"]
    rows = [plan(n, "JP" if n < PLANS_JP else others[n % len(others)]) for n in range(PLANS)]
    with engine.begin() as conn:
        conn.execute(insert(catalogue_versions).values(packages=PLANS, offers=PLANS, changed=PLANS))
        conn.execute(insert(packages), rows)


def plan(n: int, country: str) -> dict[str, object]:
    """Return the row of one believable plan."""
    price = 199 + 37 * (n % 150)
    return {
        "package_id": f"{country.lower()}-{1 + n % 50}gb-{7 + n % 30}d-{n}",
        "name": f"{country} {1 + n % 50} GB, {7 + n % 30} days",
        "destination_code": country,
        "destination_name": "Japan" if country == "JP" else country,
        "destination_type": "country",
        "kind": "plan",
        "coverage": [country],
        "allowance": "total",
        "data_mb": 1000 * (1 + n % 50),
        "validity_days": 7 + n % 30,
        "networks": ["NTT Docomo", "SoftBank"],
        "supports_top_up": True,
        "price_minor_usd": price,
        "prices": {"USD": price},
        "floor_micros": 1,
        "best_offer_id": f"airalo:{n}",
        "best_landed_micros": 1,
        "offer_count": 1,
        "on_sale": True,
        "version": 1,
    }


def measure(server: str, environment: dict[str, str]) -> bool:
    """Print the ratios on one server; return whether they hold."""
    with serving(server, OURS, environment) as (ours, process):
        plain = {"Accept-Encoding": "identity"}  # as wrk asks: each encoding has a tag of its own
        answer = httpx.get(ours + QUERY, headers=plain)
        answer.raise_for_status()
        Path(environment["BARE_BODY"]).write_bytes(answer.content)
        etag = answer.headers["etag"]
        if httpx.get(ours + QUERY, headers=plain | {"If-None-Match": etag}).status_code != httpx.codes.NOT_MODIFIED:
            raise RuntimeError("the entity tag is not recognised, so there is no 304 to measure")
        with serving(server, BARE, environment) as (bare, bare_process):
            rounds: dict[str, list[Load]] = {name: [] for name in ("ours", "bare", "ours 304", "bare 304")}
            for _ in range(ROUNDS):
                rounds["ours"].append(wrk(process, ours + QUERY))
                rounds["bare"].append(wrk(bare_process, bare + QUERY))
                rounds["ours 304"].append(wrk(process, ours + QUERY, f"If-None-Match: {etag}"))
                rounds["bare 304"].append(wrk(bare_process, f"{bare}/unchanged", f"If-None-Match: {etag}"))
    print(f"{server}: GET {QUERY}, {PLANS_JP} plans, {len(answer.content)} bytes, {CONNECTIONS} connections")
    for name, loads in rounds.items():
        rate, p99, cpu = (statistics.median(getattr(load, field) for load in loads) for field in FIELDS)
        print(f"  {name:9} {rate:9,.0f}/s   p99 {p99:6.2f} ms   {cpu:5.1f} us CPU a request")
    figures = [
        ("requests/s, ours to bare", ratio(rounds, "ours", "bare", "per_second"), MIN_RATIO, True),
        ("p99, ours to bare", ratio(rounds, "ours", "bare", "p99_ms"), MAX_P99_RATIO, False),
        ("304 requests/s, ours to bare 304", ratio(rounds, "ours 304", "bare 304", "per_second"), MIN_RATIO_304, True),
    ]
    for name, value, bound, at_least in figures:
        print(f"  {name:34} {value:5.2f}   ({'at least' if at_least else 'at most'} {bound})")
    print(f"  CPU a request, bare to ours: {ratio(rounds, 'bare', 'ours', 'cpu_us'):.2f}, ", end="")
    print(f"304: {ratio(rounds, 'bare 304', 'ours 304', 'cpu_us'):.2f}\n")
    return all(value >= bound if at_least else value <= bound for _, value, bound, at_least in figures)


def ratio(rounds: dict[str, list[Load]], over: str, under: str, field: str) -> float:
    """Return the median of one figure's ratio, round by round: neighbours in time share what else the machine does."""
    pairs = zip(rounds[over], rounds[under], strict=True)
    ratios = [float(getattr(one, field)) / float(getattr(other, field)) for one, other in pairs]
    return statistics.median(ratios)


@contextmanager
def serving(server: str, target: str, environment: dict[str, str]) -> Iterator[tuple[str, psutil.Process]]:
    """Run an app on a server of its own and wait until it answers."""
    port = free_port()
    command = [sys.executable, "-m", "bench.api_server", server, target, str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        if target == OURS:
            wait_for(url + QUERY, process)
        else:
            wait_for(f"{url}/unchanged", process)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


def cold_start(environment: dict[str, str]) -> float:
    """Return the seconds from starting `python -m api` to its first catalogue answer, the median of three."""
    taken: list[float] = []
    for _ in range(3):
        port = free_port()
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "api"],
            env=environment | {"API_PORT": str(port)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for(f"http://127.0.0.1:{port}{QUERY}", process)
            taken.append(time.perf_counter() - started)
        finally:
            process.terminate()
            process.wait(20)
    return statistics.median(taken)


def wait_for(url: str, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """Wait until `url` answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            httpx.get(url, timeout=2)
        except httpx.HTTPError:
            time.sleep(0.02)  # the resolution of the cold start this measures
        else:
            return
    raise RuntimeError(f"{url} did not answer")


def wrk(server: psutil.Process, url: str, *headers: str) -> Load:
    """Load one address and read what wrk says."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--latency"]
    command += [part for header in headers for part in ("-H", header)]
    before = cpu_seconds(server)
    told = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    used = cpu_seconds(server) - before
    rate, p99 = re.search(r"Requests/sec:\s+([\d.]+)", told), re.search(r"99%\s+([\d.]+)(us|ms|s)", told)
    if rate is None or p99 is None or "Non-2xx" in told:
        raise RuntimeError(f"wrk could not measure {url}:\n{told}")
    requests = re.search(r"(\d+) requests in", told)
    served = int(requests[1]) if requests else 1
    return Load(float(rate[1]), float(p99[1]) * {"us": 0.001, "ms": 1, "s": 1000}[p99[2]], used / served * 1e6)


def cpu_seconds(server: psutil.Process) -> float:
    """Return the CPU time a server and its workers have used."""
    return sum(sum(part.cpu_times()[:2]) for part in (server, *server.children(recursive=True)))


if __name__ == "__main__":
    sys.exit(main())
