"""`numnaroad attention`, `numnaroad audit`: what waits for a person, and what people did."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cli.acting import order_tools
from cli.console import make_console

if TYPE_CHECKING:
    from resources.db.attention import Item


def attention(as_json: Annotated[bool, typer.Option("--json", help="For programs")] = False) -> None:
    """Show everything that waits for a person: since when, why, and the commands that mend it."""
    from cli.order_pages import print_items
    from resources.db.attention import attention as queue

    with order_tools() as tools, tools.engine.connect() as conn:
        items = queue(conn, tools.clock())
    console = make_console()
    if as_json:
        console.print(
            json.dumps([_document(item) for item in items], indent=1), markup=False, highlight=False, soft_wrap=True
        )
    elif not items:
        console.print("Nothing waits for anybody.")
    else:
        print_items(console, items, f"{len(items)} waiting")


def audit(
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"], help="UTC; today's by default")
    ] = None,
    actor: Annotated[str | None, typer.Option(help="Only what this person did")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Rows shown")] = 200,
) -> None:
    """Show what people did with these commands and the jobs that do the same, newest first, and what looks found."""
    from resources.db.audit import actions

    console = make_console()
    with order_tools() as tools, tools.engine.connect() as conn:
        start = (since or tools.clock().replace(hour=0, minute=0, second=0, microsecond=0)).replace(tzinfo=UTC)
        found = actions(conn, since=start, actor=actor, limit=limit)
    if not found:
        console.print(f"Nobody did anything since {start:%Y-%m-%d %H:%M} UTC.")
        return
    table = Table("at (UTC)", "who", "action", "what", "why", "changed", "found", header_style="bold")
    for each in found:
        told = (_sentences(each.details.get(name)) for name in ("changes", "found"))
        cells = (f"{each.at:%Y-%m-%d %H:%M:%S}", each.actor, each.action, each.subject, each.reason, *told)
        table.add_row(*map(escape, cells))
    console.print(table)


def _sentences(told: object) -> str:
    return "; ".join(map(str, told)) if isinstance(told, list) else ""


def _document(item: "Item") -> dict[str, object]:
    shown = asdict(item) | {"urgency": item.urgency.name.lower(), "since": item.since.isoformat()}
    return shown | {"order_id": str(item.order_id) if item.order_id else None}
