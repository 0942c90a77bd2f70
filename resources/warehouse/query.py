"""Reads the lake for people: one statement at a time, and nothing but the lake.

A statement must be a SELECT, or EXPLAIN of one, whose table functions are known to read only the lake: others write
files, or ask the catalogue's server about its own machine. What runs at all runs on a sealed connection.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
import polars as pl

from esim.errors import InvalidInput
from resources.warehouse.lake import Lake

_EXPLAIN = re.compile(
    r"\s*explain(?:\s+analyze\b)?(?:\s*\([\w\s,]*\)(?=\s*\S))?(?P<rest>.*)", re.IGNORECASE | re.DOTALL
)
_TABLE_FUNCTIONS = {
    "range", "generate_series", "unnest", "repeat", "json_each", "json_tree", "snapshots", "table_info",
    "table_changes", "table_insertions", "table_deletions", "current_snapshot", "last_committed_snapshot",
    "ducklake_snapshots", "ducklake_table_info", "duckdb_schemas", "duckdb_tables", "duckdb_views", "duckdb_columns",
    "duckdb_functions", "duckdb_types", "duckdb_keywords", "pragma_table_info",
}  # fmt: skip
_HIDDEN = "__ducklake"  # the catalogue's own tables
_OVERVIEW = """
select schema_name || '.' || table_name as name, estimated_size as rows, comment as description
from duckdb_tables() where database_name = 'lake'
union all
select schema_name || '.' || view_name, null, comment
from duckdb_views() where database_name = 'lake' and not internal
order by name
"""


@dataclass(frozen=True, slots=True)
class Reader:
    """Answers queries on one lake; every answer is of the last committed snapshot."""

    lake: Lake

    def run(self, query: str) -> pl.DataFrame:
        """Return the rows of one reading statement.

        Raises:
            InvalidInput: it writes, is not exactly one statement, or does not run; the message says which.
        """
        _check(query)
        try:
            with self.lake.connect(sealed=True) as connection:
                return connection.execute(query).pl()
        except duckdb.Error as error:
            raise InvalidInput(str(error)) from error

    def tables(self) -> pl.DataFrame:
        """Return the tables and views there are, with what they mean."""
        return self.lake.read(_OVERVIEW)


def _check(query: str) -> None:
    statement = _only(query)
    kind = statement.type
    if kind == duckdb.StatementType.EXPLAIN and (explained := _EXPLAIN.fullmatch(statement.query)):
        query = explained["rest"]
        kind = _only(query).type
    if kind != duckdb.StatementType.SELECT:
        raise InvalidInput(
            f"this only reads the lake, and {kind.name} is not a reading statement; tables are changed by the"
            " models in dbt_like_sql/"
        )
    for node in _nodes(_parsed(query)):
        function = (node.get("function") or {}).get("function_name") if node.get("type") == "TABLE_FUNCTION" else None
        if function is not None and function not in _TABLE_FUNCTIONS:
            raise InvalidInput(f"this only reads the lake, and {function}() may reach beyond it")
        if any(str(node.get(part, "")).startswith(_HIDDEN) for part in ("catalog_name", "schema_name")):
            raise InvalidInput("the catalogue's own tables are not for reading; lake.snapshots() lists the snapshots")


def _only(query: str) -> duckdb.Statement:
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise InvalidInput(str(error)) from error
    if len(statements) != 1:
        raise InvalidInput(f"give one statement at a time; these are {len(statements)}")
    return statements[0]


def _parsed(query: str) -> dict[str, Any]:
    with duckdb.connect() as parser:
        row = parser.execute("select json_serialize_sql(?::varchar)", [query]).fetchone()
    tree: dict[str, Any] = json.loads(row[0]) if row else {"error": True}
    if tree["error"]:
        raise InvalidInput(f"this query cannot be checked: {tree.get('error_message', 'it does not parse')}")
    return tree


def _nodes(tree: object) -> Iterator[dict[str, Any]]:
    """Yield every node of a parsed statement."""
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    for part in tree if isinstance(tree, list) else ():
        yield from _nodes(part)
