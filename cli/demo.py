"""`numnaroad demo`: the main job once, on real parts, in a shop of its own that is gone afterwards.

five catalogues -> best prices -> checkout -> signed webhook -> sensor -> run -> failover away from a provider made to
fail -> eSIM by e-mail -> margin read from the lake. At the end Stripe, the providers and the order must agree.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cli.console import make_console
from cli.demo_steps import Disagreement, Shop
from cli.own_platform import PARTS, isolated_environment
from cli.processes import background, leave_on_sigterm
from cli.run import prepare_environment, wait_for

_UP_WITHIN_SECONDS = 60


def demo(
    keep: Annotated[bool, typer.Option(help="Keep the demo shop's data folder to look at")] = False,
) -> None:
    """Run the main job end to end in a fresh sandbox shop and compare what every side says; exit 1 if they disagree."""
    console = make_console()
    started = time.monotonic()
    leave_on_sigterm()
    folder = Path(tempfile.mkdtemp(prefix="numnaroad-demo-"))
    environment = isolated_environment(folder, {"DRAIN_IDLE_SECONDS": "5", "SENSOR_WAIT_SECONDS": "10"})
    try:
        # The command works in the demo shop's settings from here on, never in those of a shop that is there already.
        os.environ.clear()
        os.environ.update(environment)
        problems = _play(console, folder)
    finally:
        if keep:
            console.print(f"Kept: DATA_DIR={folder / 'data'}", soft_wrap=True)
        else:
            _remove(folder)
    seconds = time.monotonic() - started
    if problems:
        for problem in problems:
            console.print(f"[red]DISAGREEMENT: {problem}[/red]")
        sys.exit(1)
    console.print(f"\n[bold green]All sides agree.[/bold green] {seconds:.0f} s.")


def _play(console: Console, folder: Path) -> list[str]:
    from resources.settings import load_settings

    load_settings.cache_clear()
    settings = load_settings()
    console.rule("[bold]1  A fresh shop: embedded Postgres, sandbox, API, Dagster daemon")
    environment = prepare_environment(settings)
    with background(PARTS, environment, folder / "logs"):
        shop = Shop(settings, console)
        for url in (f"{settings.sandbox_url}/healthz", f"{settings.api_url}/healthz"):
            if not wait_for(url, _UP_WITHIN_SECONDS):
                return [f"nothing answers at {url}; rerun with --keep and read {folder}/logs"]
        try:
            return shop.play()
        except Disagreement as error:
            return [str(error)]


def _remove(folder: Path) -> None:
    import shutil

    from resources.db.embedded import leave_embedded

    leave_embedded(folder / "data")
    shutil.rmtree(folder, ignore_errors=True)
