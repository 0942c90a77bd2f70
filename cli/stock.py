"""`numnaroad stock …`: eSIMs that no order got, given back or written off knowingly."""

from typing import Annotated

import typer

from cli.acting import As, Reason, Yes, act, order_tools
from cli.console import make_console

app = typer.Typer(help="eSIMs that were bought and that no order got.", no_args_is_help=True)

Number = Annotated[int, typer.Argument(help="Its number in `numnaroad stock list`")]


@app.callback()
def stock() -> None:
    """ESIMs that were bought and that no order got."""


@app.command("list")
def list_stock() -> None:
    """Show what is in stock, oldest first."""
    from dataclasses import asdict

    from cli.order_pages import print_rows
    from resources.db.operator_returns import stock as in_stock

    with order_tools() as tools, tools.engine.connect() as conn:
        found = in_stock(conn)
    console = make_console()
    if not found:
        console.print("Nothing is in stock.")
    print_rows(console, "In stock", [asdict(each) for each in found], hide=("order_id",))


@app.command("return")
def give_back(number: Number, reason: Reason, name: As = None, yes: Yes = False) -> None:
    """Ask the provider to take an eSIM in stock back, and book what it says."""
    act(reason, name, yes, lambda desk, who: desk.return_stock(number, who))


@app.command("write-off")
def write_off(number: Number, reason: Reason, name: As = None, yes: Yes = False) -> None:
    """Book an eSIM in stock as a loss."""
    act(reason, name, yes, lambda desk, who: desk.write_off_stock(number, who))
