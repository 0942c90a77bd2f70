"""How one order looks in a terminal: what to do first, then tables of everything that happened."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from resources.db.attention import Item
from resources.db.order_report import OrderReport


def print_order(console: Console, report: OrderReport, items: Sequence[Item]) -> None:
    """Print an order with what it waits for."""
    console.print(f"[bold]{report.order['display_id']}[/bold]  {report.order['order_id']}")
    for name, value in report.order.items():
        if name not in {"display_id", "order_id"} and value is not None:
            console.print(f"  {name:18} {escape(text_of(value))}")
    print_items(console, items, "What to do")
    print_rows(console, "Items", report.items)
    print_rows(console, "Units", report.units, hide=("fence",))
    print_rows(console, "Purchase attempts", report.attempts, hide=("esim_id",))
    print_rows(console, "Events", report.events)
    print_rows(console, "Ledger", report.ledger)
    balance = ", ".join(f"{account} {micros}" for account, micros in sorted(report.balance.items()))
    console.print(
        f"Ledger balance in micro-USD: {balance or 'nothing booked'}; together {sum(report.balance.values())}"
    )
    print_rows(console, "Notices", report.notices)
    print_rows(console, "Refunds", report.refunds)


def print_items(console: Console, items: Sequence[Item], title: str) -> None:
    """Print things that wait for a person; the commands stand on lines of their own, to be copied."""
    if not items:
        return
    console.print(f"[bold]{title}[/bold]")
    for item in items:
        since = f"{item.since:%Y-%m-%d %H:%M} UTC"
        head = f"{item.urgency.name.lower()}  {item.kind}  since {since}  {item.subject}"
        console.print(f"[bold]{escape(head)}[/bold]", highlight=False, soft_wrap=True)
        console.print(f"  {escape(item.reason)}", highlight=False, soft_wrap=True)
        for line in item.commands:
            console.print(f"    {escape(line)}", highlight=False, soft_wrap=True)


def print_rows(console: Console, title: str, rows: Sequence[Mapping[str, Any]], hide: Iterable[str] = ()) -> None:
    """Print rows as a table; a column without a single value says nothing and is left out."""
    if not rows:
        return
    names = [name for name in rows[0] if name not in hide and any(row[name] not in (None, "") for row in rows)]
    table = Table(*names, title=title, title_justify="left", header_style="bold")
    for row in rows:
        table.add_row(*(escape(text_of(row[name])) for name in names))
    console.print(table)


def text_of(value: object) -> str:
    """Return a value as a table shows it."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    return str(value)
