"""`numnaroad doctor`: check every part the platform depends on and say what to do about what is missing."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import httpx
import typer
from rich.table import Table

from cli.console import make_console
from resources.settings import PROVIDERS, Endpoint, MissingSettings, Settings, load_settings

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `advice` says what to do when it is not well."""

    part: str
    well: bool
    state: str
    advice: str = ""


def doctor() -> None:
    """Check Python, packages, settings, store, lake and everything outside; exit 1 when something must be mended."""
    findings = list(_examine())
    table = Table("part", "state", "what to do", header_style="bold")
    for finding in findings:
        mark = "[green]ok[/green]" if finding.well else "[red]no[/red]"
        table.add_row(f"{mark}  {finding.part}", finding.state, finding.advice)
    make_console().print(table)
    if not all(finding.well for finding in findings):
        raise typer.Exit(1)


def _examine() -> Iterator[Finding]:
    yield _python()
    yield _packages()
    try:
        settings = load_settings()
    except MissingSettings as error:
        yield Finding("settings", False, str(error), "set them in .env, or leave LIVE unset to use the sandbox")
        return
    yield Finding("settings", True, "live" if settings.live else "sandbox where no keys are set")
    yield _attempt("store", lambda: _store(settings), "check DATABASE_URL; `numnaroad migrate` makes the schema")
    yield _attempt("lake", lambda: _lake(settings), "check LAKE_DATA_PATH and LAKE_CATALOGUE_URL")
    yield from warm_runs(settings.dagster_home_path)
    yield _reachable("payment", settings.stripe)
    if settings.smtp_host is None:
        yield _reachable("mail", settings.resend)
    yield _reachable("reference rates", settings.rates)
    for slug in PROVIDERS:
        yield _reachable(slug, settings.provider(slug))


def _python() -> Finding:
    running = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", (3, 11) <= sys.version_info < (3, 14), running, "use Python 3.11 to 3.13")


def _packages() -> Finding:
    wrong = []
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if "==" not in line or line.startswith((" ", "#")) or ";" in line:
            continue
        name, wanted = line.rstrip(" \\").split("==")
        try:
            if version(name.partition("[")[0]) != wanted:
                wrong.append(name)
        except PackageNotFoundError:
            wrong.append(name)
    state = f"differ from the lock: {', '.join(wrong[:5])}" if wrong else "as locked"
    return Finding("packages", not wrong, state, "make setup" if wrong else "")


def _attempt(part: str, look: Callable[[], str], advice: str) -> Finding:
    try:
        return Finding(part, True, look())
    except Exception as error:  # noqa: BLE001 - drivers have error trees of their own; a doctor reports, it never dies
        return Finding(part, False, _first_line(error), advice)


def _store(settings: Settings) -> str:
    from sqlalchemy import text

    from resources.db.databases import databases, make_engine

    engine = make_engine(databases(settings).operational, pool_size=1)
    with engine.connect() as connection:
        revision = connection.execute(text("select version_num from alembic_version")).scalar_one()
        server = connection.execute(text("show server_version")).scalar_one()
    return f"PostgreSQL {server}, schema {revision}, {'server' if settings.database_url else 'embedded'}"


def _lake(settings: Settings) -> str:
    from resources.db.databases import databases
    from resources.warehouse.lake import Lake

    lake = Lake(databases(settings).lake, settings.lake_path)
    with lake.connect(read_only=True) as connection:
        connection.execute("select 1")
    return settings.lake_path


def warm_runs(home: Path) -> Iterator[Finding]:
    """Say whether the host of warm runs answers, where `dagster.yaml` in this DAGSTER_HOME names its launcher."""
    from pipelines.warm_runs.config import NoFolder, configured, open_place
    from pipelines.warm_runs.wire import Conversation, HostAway

    config = configured(home) if (home / "dagster.yaml").exists() else None
    if config is None:
        return
    place = config.place(str(home))
    try:
        with Conversation(open_place(place)) as host:
            host.ask({"do": "ask", "run_id": "doctor"})
    except (HostAway, NoFolder) as error:
        advice = "restart `python -m pipelines.warm_runs`; runs start the default way meanwhile, seconds later each"
        yield Finding("warm runs", False, str(error), advice)
    else:
        yield Finding("warm runs", True, str(place))


def _reachable(part: str, endpoint: Endpoint) -> Finding:
    where = f"{'live' if endpoint.live else 'sandbox'}: {endpoint.url}"
    try:
        httpx.get(endpoint.url, timeout=5)
    except httpx.HTTPError as error:
        advice = "check the address and the network" if endpoint.live else "start the platform: make run"
        return Finding(part, False, f"{where} ({type(error).__name__})", advice)
    return Finding(part, True, where)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
