"""The `numnaroad` command: one module per noun, each thin over what the platform offers.

Heavy imports (dagster, duckdb, polars) happen inside the commands, so that `numnaroad --help` answers at once.
"""

import logging
import sys

import typer
from rich.console import Console

from cli import (
    attention,
    catalogue,
    chaos,
    demo,
    doctor,
    ledger,
    notices,
    orders,
    providers,
    reconcile,
    refunds,
    run,
    sql,
    stock,
    storage,
)
from esim.errors import NumnaRoadError
from resources.logs import configure_logging

_OURS = frozenset({"api", "assets", "chaos", "cli", "esim", "numnaroad", "pipelines", "resources"})

app = typer.Typer(
    name="numnaroad",
    help="Operate NumnaRoad: catalogue, orders, margins.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("run")(run.run)
app.command("doctor")(doctor.doctor)
app.command("migrate")(storage.migrate)
app.command("sync")(catalogue.sync)
app.command("packages")(catalogue.packages)
app.add_typer(orders.app, name="order")
app.add_typer(ledger.app, name="ledger")
app.command("reconcile")(reconcile.reconcile)
app.add_typer(providers.app, name="provider")
app.add_typer(stock.app, name="stock")
app.add_typer(notices.app, name="notices")
app.add_typer(refunds.app, name="refunds")
app.command("attention")(attention.attention)
app.command("audit")(attention.audit)
app.command("sql")(sql.sql)
app.command("demo")(demo.demo)
app.command("chaos")(chaos.chaos)


def main() -> None:
    """Run the command; what goes wrong in our own terms is one line on stderr and exit status 1."""
    show_our_warnings()
    try:
        app()
    except NumnaRoadError as error:
        Console(stderr=True).print(f"[red]{error}[/red]")
        sys.exit(1)


def show_our_warnings() -> None:
    """Let operators see warnings of our own parts; what a library does about a lost connection is not for them."""
    configure_logging("WARNING")
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda record: record.name.partition(".")[0] in _OURS or record.levelno >= logging.ERROR)
