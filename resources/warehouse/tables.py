"""Tables of the lake: their names, comments and merges, inside a transaction the caller holds."""
# ruff: noqa: S608 - only names checked by table_name() are put into statements; values are bound

import re
from collections.abc import Mapping, Sequence

import duckdb
import polars as pl

from esim.errors import InvalidInput
from resources.warehouse.extensions import quoted

NAME = "lake"
SCHEMAS = ("raw", "staging", "core", "marts")
_MONEY = re.compile(r"(_minor|_micros|_cost|_amount|^amount|^cost)(_|$)")
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]*\Z")


def table_name(schema: str, table: str) -> str:
    """Return `schema.table`.

    Raises:
        InvalidInput: the lake has no such schema, or the name is not lower-case snake case.
    """
    if schema not in SCHEMAS:
        raise InvalidInput(f"the lake has no schema {schema!r}; it has {', '.join(SCHEMAS)}", field="schema")
    if not _IDENTIFIER.match(table):
        raise InvalidInput(f"{table!r} is not a table name: lower-case letters, digits and _ only", field="table")
    return f"{schema}.{table}"


def table_exists(connection: duckdb.DuckDBPyConnection, schema: str, table: str) -> bool:
    """Tell whether a connection of the lake sees this table or view."""
    name = [NAME, schema, table]
    found = connection.execute(
        "select 1 from information_schema.tables where table_catalog = ? and table_schema = ? and table_name = ?", name
    )
    return found.fetchone() is not None


def merge_rows(connection: duckdb.DuckDBPyConnection, name: str, frame: pl.DataFrame, keys: Sequence[str]) -> None:
    """Insert the rows of `frame` whose key is new and overwrite the others, inside the caller's transaction.

    Raises:
        InvalidInput: a key that is missing, or not unique in `frame`.
    """
    if missing := [column for column in keys if column not in frame.columns]:
        raise InvalidInput(f"the rows for {name} have no key column {', '.join(missing)}", field=missing[0])
    if frame.select(keys).is_duplicated().any():
        raise InvalidInput(f"the rows for {name} repeat a key ({', '.join(keys)})", field=keys[0])
    connection.register("incoming", frame)
    connection.execute(f"create table if not exists {name} as select * from incoming limit 0")
    matches = " and ".join(f'existing."{column}" = incoming."{column}"' for column in keys)
    connection.execute(f"delete from {name} as existing using incoming where {matches}")
    connection.execute(f"insert into {name} by name select * from incoming")


def set_comments(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    comment: str | None,
    column_comments: Mapping[str, str],
    kind: str = "table",
) -> None:
    """Describe a table (or view) and its columns; an empty text removes nothing and adds nothing.

    A column the table does not have is left out: commenting on one is fatal to DuckLake and ends the whole process.
    """
    if comment:
        connection.execute(f"comment on {kind} {name} is '{quoted(comment)}'")
    present = {row[0] for row in connection.execute(f"describe {name}").fetchall()}
    for column, text in column_comments.items():
        if text and column in present:
            connection.execute(f"comment on column {name}.\"{column}\" is '{quoted(text)}'")


def check_frame(name: str, frame: pl.DataFrame) -> None:
    """Refuse a frame without columns or with money as floats.

    Raises:
        InvalidInput: the message names the column.
    """
    if not frame.columns:
        raise InvalidInput(f"there are no columns to write to {name}")
    floats = [column for column, kind in frame.schema.items() if kind.is_float() and _MONEY.search(column)]
    if floats:
        raise InvalidInput(f"{name}.{floats[0]} is money as a float; use an integer or a Decimal", field=floats[0])
