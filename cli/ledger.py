"""`numnaroad ledger …`: the accounts as they stand, and whether they explain themselves; who looked is kept."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from cli.acting import As, Note, looker, order_tools
from cli.console import make_console

if TYPE_CHECKING:
    from uuid import UUID

    from resources.db.findings import Finding

Totals = Sequence[tuple[str, int, int]]  # account, micro-USD, entries

app = typer.Typer(help="Look at the ledger.", no_args_is_help=True)


@app.callback()
def ledger() -> None:
    """Look at the ledger."""


@app.command("check")
def check(
    reference: Annotated[str, typer.Argument(metavar="[ORDER]", help="Order id or display id; none means all.")] = "",
    reason: Note = "",
    name: As = None,
) -> None:
    """Print each account's total and whatever disagrees, of one order or of all; exit 1 on a disagreement.

    Who checked, and what was found, is kept in the audit.
    """
    from resources.db.audit import audited_look
    from resources.db.books import account_totals, check_books, check_order
    from resources.db.order_names import display_ids
    from resources.db.order_report import find_order_id

    console = make_console()
    with order_tools() as tools:
        who = looker(tools, name, reason)
        with tools.engine.connect() as conn:
            order_id = find_order_id(conn, reference) if reference else None
            subject = f"order {display_ids(conn, [order_id])[order_id]}" if order_id else "ledger"
        with audited_look(tools.engine, who, "ledger check", subject, order_id=order_id) as look:
            with tools.engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn, conn.begin():
                totals = account_totals(conn, order_id)
                findings = check_order(conn, order_id) if order_id else check_books(conn).findings
                names = display_ids(conn, [finding.order_id for finding in findings])
            look.found += _in_words(totals, [finding.kind for finding in findings])
    _print(console, totals, findings, names)
    if findings:
        raise typer.Exit(1)
    console.print("Every posting sums to zero, and orders, events and ledger explain each other.")


def _print(console: Console, totals: Totals, findings: "Sequence[Finding]", names: "Mapping[UUID, str]") -> None:
    table = Table("account", "USD", "entries", header_style="bold")
    together = ("sum", sum(micros for _, micros, _ in totals), sum(count for *_, count in totals))
    for account, micros, count in [*totals, together]:
        table.add_row(account, _usd(micros), str(count))
    console.print(table)
    for finding in findings:
        name = names.get(finding.order_id) if finding.order_id is not None else None
        order = "" if name is None else f"{name}: "
        console.print(f"[red]{finding.kind}[/red] {order}{finding.text}", soft_wrap=True)


def _in_words(totals: Totals, kinds: Sequence[str]) -> list[str]:
    """Return what a check found: how much it looked at, and how many disagreements of each kind."""
    entries = (
        f"{sum(count for *_, count in totals)} entries, together {sum(micros for _, micros, _ in totals)} micro-USD"
    )
    return [entries, *(f"{count} {kind}" for kind, count in sorted(Counter(kinds).items()))]


def _usd(micros: int) -> str:
    sign, whole = ("-" if micros < 0 else ""), abs(micros)
    return f"{sign}{whole // 1_000_000}.{whole % 1_000_000:06d}"
