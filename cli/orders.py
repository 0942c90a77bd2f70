"""`numnaroad order …`: look at one order without SQL and without personal data."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cli.console import make_console

app = typer.Typer(help="Look at orders.", no_args_is_help=True)


@app.callback()
def order() -> None:
    """Look at orders."""


@app.command("show")
def show(reference: Annotated[str, typer.Argument(help="Order id, or display id such as OID001")]) -> None:
    """Show an order: state, units, purchase attempts, events, ledger, notices and refunds."""
    from resources.db.databases import databases, make_engine
    from resources.db.order_report import find_order_id, order_report
    from resources.settings import load_settings

    engine = make_engine(databases(load_settings()).operational, pool_size=1)
    with engine.connect() as connection:
        report = order_report(connection, find_order_id(connection, reference))
    console = make_console()
    console.print(f"[bold]{report.order['display_id']}[/bold]  {report.order['order_id']}")
    for name, value in report.order.items():
        if name not in {"display_id", "order_id"} and value is not None:
            console.print(f"  {name:18} {_text(value)}")
    _print(console, "Items", report.items)
    _print(console, "Units", report.units, hide=("fence",))
    _print(console, "Purchase attempts", report.attempts, hide=("esim_id", "reference"))
    _print(console, "Events", report.events)
    _print(console, "Ledger", report.ledger)
    _print(console, "Notices", report.notices)
    _print(console, "Refunds", report.refunds)


def _print(console: Console, title: str, rows: Sequence[Mapping[str, Any]], hide: Iterable[str] = ()) -> None:
    if not rows:
        return
    # A column without a single value says nothing.
    names = [name for name in rows[0] if name not in hide and any(row[name] not in (None, "") for row in rows)]
    table = Table(*names, title=title, title_justify="left", header_style="bold")
    for row in rows:
        table.add_row(*(_text(row[name]) for name in names))
    console.print(table)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    return str(value)
