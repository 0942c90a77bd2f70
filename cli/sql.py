"""`numnaroad sql`: ask the lake a question, or open a small shell on it; it reads and never writes."""

import json as json_text
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from cli.console import make_console
from esim.errors import InvalidInput

if TYPE_CHECKING:  # polars and duckdb are heavy: `numnaroad --help` must not wait for them
    import polars as pl

    from resources.warehouse.query import Reader

_HELP = "End a query with ; — .tables lists the tables, .attach prints the line for other DuckDB clients, .quit leaves."


def sql(
    query: Annotated[str | None, typer.Argument(help="One reading statement; without it a shell opens")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print all rows as CSV")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print all rows as JSON, exact decimals as text")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Rows shown in a table")] = 100,
) -> None:
    """Query the lake, read-only: raw, staging, core and marts."""
    from resources.db.databases import databases
    from resources.settings import load_settings
    from resources.warehouse.lake import Lake
    from resources.warehouse.query import Reader

    if csv and json:
        raise InvalidInput("give --csv or --json, not both")
    settings = load_settings()
    with Lake(databases(settings).lake, settings.lake_path) as lake:
        reader = Reader(lake)
        if query is None:
            _shell(reader, make_console(), limit)
        elif csv:
            sys.stdout.write(_flat(reader.run(query)).write_csv())
        elif json:
            rows = reader.run(query).to_dicts()
            sys.stdout.write(json_text.dumps(rows, indent=2, default=str, ensure_ascii=False) + "\n")
        else:
            _show(reader.run(query), make_console(), limit)


def _flat(rows: "pl.DataFrame") -> "pl.DataFrame":
    """Return rows as CSV can hold them: lists joined by semicolons, records as JSON."""
    import polars as pl

    def text(value: object) -> str | None:
        if isinstance(value, list):
            return ";".join(text(each) or "" for each in value)
        if isinstance(value, dict):
            return json_text.dumps(value, default=str, ensure_ascii=False)
        return None if value is None else str(value)

    nested = [name for name, kind in rows.schema.items() if kind.is_nested()]
    return rows.with_columns(pl.Series(name, [text(v) for v in rows[name].to_list()], pl.String) for name in nested)


def _shell(reader: "Reader", console: Console, limit: int) -> None:
    with suppress(ImportError):
        import readline  # noqa: F401 - gives input() its line editing and history

    console.print(f"The lake, read-only. Elsewhere: [bold]{escape(reader.lake.attach_statement())};[/bold]\n{_HELP}")
    for text in _statements():
        try:
            match text:
                case ".tables":
                    _show(reader.tables(), console, limit)
                case ".attach":
                    console.print(escape(reader.lake.attach_statement()) + ";", soft_wrap=True)
                case _ if text.startswith("."):
                    console.print(_HELP)
                case _:
                    _show(reader.run(text), console, limit)
        except InvalidInput as error:
            console.print(f"[red]{escape(str(error))}[/red]")


def _statements() -> Iterator[str]:
    """Yield what a person types: dot commands, and statements up to their semicolon; ends at .quit or end of input."""
    lines: list[str] = []
    while True:
        try:
            line = input("      -> " if lines else "numnaroad> ").strip()
        except (EOFError, KeyboardInterrupt):
            return
        if not lines and line in {".quit", ".exit", "exit", "quit"}:
            return
        if not lines and line.startswith("."):
            yield line
        elif line:
            lines.append(line)
            if line.endswith(";"):
                yield "\n".join(lines)
                lines = []


def _show(rows: "pl.DataFrame", console: Console, limit: int) -> None:
    if sum(map(len, rows.columns)) + 3 * rows.width > console.width:
        _show_upright(rows, console, limit)
    else:
        _show_flat(rows, console, limit)
    hidden = rows.height - min(rows.height, limit)
    more = f", {hidden} more not shown (--limit, --csv)" if hidden else ""
    console.print(f"{rows.height} row{'' if rows.height == 1 else 's'}{more}", style="dim")


def _show_upright(rows: "pl.DataFrame", console: Console, limit: int) -> None:
    """Print a line per column, one block a row: for results wider than the terminal."""
    for row in rows.head(limit).iter_rows(named=True):
        table = Table("column", Column("value", overflow="fold"), header_style="bold")
        for name, value in row.items():
            table.add_row(name, "" if value is None else escape(str(value)))
        console.print(table)


def _show_flat(rows: "pl.DataFrame", console: Console, limit: int) -> None:
    table = Table(header_style="bold")
    for name, kind in rows.schema.items():
        table.add_column(name, justify="right" if kind.is_numeric() else "left", overflow="fold")
    for row in rows.head(limit).iter_rows():
        table.add_row(*("" if value is None else escape(str(value)) for value in row))
    console.print(table)
