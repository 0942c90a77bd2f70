"""`numnaroad run`: the whole platform on this machine, against the sandbox where no keys are set.

settings -> ports free -> embedded Postgres and migrations -> the Procfile's processes -> first catalogue sync ->
addresses printed when they answer. Ctrl-C ends all of it.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
import typer
from rich.console import Console

from cli.console import make_console
from cli.ports import is_free
from cli.processes import background
from resources.settings import MissingSettings, Settings, load_settings

ROOT = Path(__file__).resolve().parent.parent
_UP_WITHIN_SECONDS = 120


def run() -> None:
    """Run API, Dagster UI, daemon and sandbox until Ctrl-C."""
    console = make_console()
    settings = _settings_or_exit(console)
    _ports_free_or_exit(settings, console)
    console.print("NumnaRoad is starting; Ctrl-C ends all of it.")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    logs = settings.data_dir.absolute() / "logs"
    with background(_parts(settings), prepare_environment(settings), logs) as processes:
        watcher = threading.Thread(target=_announce, args=(settings, console, stop), daemon=True)
        watcher.start()
        ended = _first_to_end(processes, stop)
        stop.set()
        console.print("Ending.")
    if ended:
        last_lines = (logs / f"{ended}.log").read_text(errors="replace").splitlines()[-15:]
        console.print(f"[red]{ended} ended by itself; the end of {logs}/{ended}.log:[/red]", *last_lines, sep="\n  ")
        raise typer.Exit(1)


def _first_to_end(processes: Mapping[str, "subprocess.Popen[bytes]"], stop: threading.Event) -> str | None:
    while not stop.wait(0.5):
        for name, process in processes.items():
            if process.poll() is not None:
                return name
    return None


def prepare_environment(settings: Settings) -> dict[str, str]:
    """Start and migrate the store, lay out DAGSTER_HOME, and return the environment the processes share."""
    from resources.db.databases import databases
    from resources.db.migrate import migrate

    urls = databases(settings)
    migrate(urls)
    home = settings.dagster_home_path
    home.mkdir(parents=True, exist_ok=True)
    if settings.dagster_home is None or not (home / "dagster.yaml").exists():
        shutil.copyfile(ROOT / "deploy" / "dagster.yaml", home / "dagster.yaml")
    return {
        **os.environ,
        **_sandbox_secrets(settings),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "DATA_DIR": str(settings.data_dir.absolute()),
        "DATABASE_URL": urls.operational,
        "DAGSTER_DATABASE_URL": urls.dagster,
        "LAKE_CATALOGUE_URL": urls.lake,
        "DAGSTER_POSTGRES_URL": urls.dagster_sqlalchemy,
        "DAGSTER_HOME": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "NUMNAROAD_HOST": settings.host,
        "DAGSTER_PORT": str(settings.dagster_port),
        "CODE_SERVER_PORT": str(settings.code_server_port),
        "SANDBOX_PORT": str(settings.sandbox_port),
        "SANDBOX_SMTP_PORT": str(settings.sandbox_smtp_port),
        "SANDBOX_API_URL": settings.api_url,
        "SANDBOX_STATE": str(settings.data_dir.absolute() / "sandbox.json"),
        "PYTHONUNBUFFERED": "1",
    }


def _sandbox_secrets(settings: Settings) -> dict[str, str]:
    """Return the keys the sandbox's payment service shares with us: it reads the environment, not `.env`."""
    stripe = settings.stripe
    return {} if stripe.live else {"STRIPE_WEBHOOK_SECRET": stripe.credentials["webhook_secret"]}


def _settings_or_exit(console: Console) -> Settings:
    try:
        return load_settings()
    except MissingSettings as error:
        console.print(f"[red]{error}[/red]\nSet them in .env or the environment, or leave LIVE unset for the sandbox.")
        raise typer.Exit(2) from error


def _ports(settings: Settings) -> Mapping[str, int]:
    ports = {"API_PORT": settings.api_port, "DAGSTER_PORT": settings.dagster_port}
    ports["CODE_SERVER_PORT"] = settings.code_server_port
    if not settings.live:
        ports |= {"SANDBOX_PORT": settings.sandbox_port, "SANDBOX_SMTP_PORT": settings.sandbox_smtp_port}
    return ports


def _ports_free_or_exit(settings: Settings, console: Console) -> None:
    busy = {name: port for name, port in _ports(settings).items() if not is_free(settings.host, port)}
    for name, port in busy.items():
        console.print(f"[red]Port {port} is busy; end what uses it or set {name} to another one.[/red]")
    if busy:
        raise typer.Exit(2)


def _parts(settings: Settings) -> tuple[str, ...]:
    ours = ("api", "code", "runs", "daemon", "web")
    return ours if settings.live else ("sandbox", *ours)


def _announce(settings: Settings, console: Console, stop: threading.Event) -> None:
    """Wait for every part, ask for the first catalogue sync where none was published, and print the addresses."""
    web = f"http://{settings.host}:{settings.dagster_port}"
    probes = {"API": f"{settings.api_url}/healthz", "Dagster": f"{web}/server_info"}
    if not settings.live:
        probes["sandbox"] = f"{settings.sandbox_url}/healthz"
    for name, url in probes.items():
        if not wait_for(url, _UP_WITHIN_SECONDS, stop):
            console.print(f"[red]{name} does not answer at {url}; see {settings.data_dir}/logs.[/red]")
            return
    lines = [f"Shop       {settings.api_url}/", f"API docs   {settings.api_url}/docs", f"Dagster    {web}"]
    if not settings.live:
        lines.append(f"Sandbox    {settings.sandbox_url}/sandbox   (payments, inbox, Slack, providers)")
    lines.append(f"Logs       {settings.data_dir}/logs")
    console.print("\n[bold green]NumnaRoad is up[/bold green]\n  " + "\n  ".join(lines) + "\n")
    _first_sync(settings, console, stop)


def _first_sync(settings: Settings, console: Console, stop: threading.Event) -> None:
    if _packages_on_sale(settings):
        return
    from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError

    console.print("The shop is empty: the first catalogue sync starts now.")
    client = DagsterGraphQLClient(settings.host, port_number=settings.dagster_port)
    for _ in range(30):
        try:
            client.submit_job_execution("sync_catalogue", repository_location_name="numnaroad")
            break
        except DagsterGraphQLClientError:  # the code server is still loading
            if stop.wait(2):
                return
    started = time.monotonic()
    while not stop.wait(1):
        if count := _packages_on_sale(settings):
            console.print(f"[bold green]{count} destinations are on sale.[/bold green]")
            return
        if time.monotonic() - started > 2 * _UP_WITHIN_SECONDS:
            console.print("[red]No catalogue was published yet; look at the sync_catalogue run in Dagster.[/red]")
            return


def _packages_on_sale(settings: Settings) -> int:
    try:
        reply = httpx.get(f"{settings.api_url}/v1/destinations", timeout=5)
        return len(reply.json()["destinations"]) if reply.is_success else 0
    except (httpx.HTTPError, ValueError, KeyError):
        return 0


def wait_for(url: str, seconds: float, stop: threading.Event | None = None) -> bool:
    """Return whether `url` answers below 500 within `seconds`."""
    stop = stop or threading.Event()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if httpx.get(url, timeout=2).status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                return True
        except httpx.HTTPError:
            pass
        if stop.wait(0.3):
            return False
    return False
