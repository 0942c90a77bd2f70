"""How one order looks in a terminal: what to do first, then tables of everything that happened."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from resources.db.attention import Item
from resources.db.order_report import OrderReport

_LEAST = 10  # signs that a column is left with
_SAME = ("from_status", "to_status", "reason", "actor")


def print_order(console: Console, report: OrderReport, items: Sequence[Item]) -> None:
    """Print an order with what it waits for."""
    console.print(f"[bold]{report.order['display_id']}[/bold]  {report.order['order_id']}")
    for name, value in report.order.items():
        if name not in {"display_id", "order_id"} and value is not None:
            console.print(f"  {name:18} {escape(text_of(value))}")
    print_items(console, items, "What to do")
    print_rows(console, "Items", report.items)
    print_rows(console, "Units", report.units, hide=("fence",))
    print_rows(console, "Purchase attempts", report.attempts)
    print_rows(console, "Events", once_each(report.events))
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
    """Print rows as a table; a column without a single value says nothing and is left out.

    Nothing is ever cut. What people copy, ids and references, stands on one line where the terminal is wide enough.
    """
    if not rows:
        return
    names = [name for name in rows[0] if name not in hide and any(row[name] not in (None, "") for row in rows)]
    cells = [{name: text_of(row[name]) for name in names} for row in rows]
    copied = {name: max(len(name), *(len(row[name]) for row in cells)) for name in names if _is_copied(name)}
    needed = sum(copied.values()) + _LEAST * (len(names) - len(copied)) + 3 * len(names) + 1
    if not console.is_terminal:  # a pipe is as wide as need be
        console.width = max(console.width, needed)
    fits = needed <= console.width
    columns = [Column(name, overflow="fold", no_wrap=fits and name in copied) for name in names]
    table = Table(*columns, title=title, title_justify="left", header_style="bold")
    for row in cells:
        table.add_row(*(escape(row[name]) for name in names))
    console.print(table)


def once_each(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return events with what repeats shown once, with how often and until when.

    An eSIM that waits for its turn at a provider is claimed and put back every few seconds.
    """
    of_unit: dict[object, list[int]] = {}
    for at, event in enumerate(events):
        of_unit.setdefault(event["esim_n"], []).append(at)
    kept = [turn for places in of_unit.values() for turn in _turns([(at, events[at]) for at in places])]
    return [
        {**events[at], "times": f"{times} times" if times > 1 else "", "until": until}
        for at, times, until in sorted(kept, key=lambda turn: turn[0])
    ]


def _turns(events: Sequence[tuple[int, Mapping[str, Any]]]) -> Iterator[tuple[int, int, datetime | None]]:
    """Yield an eSIM's events by their place, each with how often it came and when last, pairs that repeat only once."""
    told = [tuple(event[name] for name in _SAME) for _, event in events]
    start = 0
    while start < len(events):
        pair, times = told[start : start + 2], 1
        while len(pair) > 1 and told[start + 2 * times : start + 2 * times + 2] == pair:
            times += 1
        for each in range(2 if times > 1 else 1):
            last = events[start + each + 2 * (times - 1)][1]["at"] if times > 1 else None
            yield events[start + each][0], times, last
        start += 2 * times if times > 1 else 1


def _is_copied(name: str) -> bool:
    return name in {"reference", "key"} or name.endswith(("_id", "_key"))


def text_of(value: object) -> str:
    """Return a value as a table shows it."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    return str(value)
