"""`numnaroad ledger …`: the accounts as they stand, and whether they explain themselves."""

from typing import Annotated

import typer
from rich.table import Table

from cli.console import make_console

app = typer.Typer(help="Look at the ledger.", no_args_is_help=True)


@app.callback()
def ledger() -> None:
    """Look at the ledger."""


@app.command("check")
def check(
    reference: Annotated[str, typer.Argument(metavar="[ORDER]", help="Order id or display id; none means all.")] = "",
) -> None:
    """Print each account's total and whatever disagrees, of one order or of all; exit 1 on a disagreement."""
    from resources.db.books import account_totals, check_books, check_order
    from resources.db.databases import databases, make_engine
    from resources.db.order_names import display_ids
    from resources.db.order_report import find_order_id
    from resources.settings import load_settings

    engine, console = make_engine(databases(load_settings()).operational, pool_size=1), make_console()
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn, conn.begin():
        order_id = find_order_id(conn, reference) if reference else None
        totals = account_totals(conn, order_id)
        findings = check_order(conn, order_id) if order_id else check_books(conn).findings
        names = display_ids(conn, [finding.order_id for finding in findings])
    engine.dispose()
    table = Table("account", "USD", "entries", header_style="bold")
    for account, micros, count in [
        *totals,
        ("sum", sum(micros for _, micros, _ in totals), sum(n for *_, n in totals)),
    ]:
        table.add_row(account, _usd(micros), str(count))
    console.print(table)
    for finding in findings:
        name = names.get(finding.order_id) if finding.order_id is not None else None
        order = "" if name is None else f"{name}: "
        console.print(f"[red]{finding.kind}[/red] {order}{finding.text}", soft_wrap=True)
    if findings:
        raise typer.Exit(1)
    console.print("Every posting sums to zero, and orders, events and ledger explain each other.")


def _usd(micros: int) -> str:
    sign, whole = ("-" if micros < 0 else ""), abs(micros)
    return f"{sign}{whole // 1_000_000}.{whole % 1_000_000:06d}"
