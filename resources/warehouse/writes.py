"""Writing tables of the lake: any number of them in one transaction, whole, appended or merged."""
# ruff: noqa: S608 - only names checked by table_name() are put into statements

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import duckdb
import polars as pl

from resources.warehouse.lake import Lake
from resources.warehouse.tables import check_frame, merge_rows, set_comments, table_exists, table_name


@dataclass(frozen=True, slots=True)
class LakeTable:
    """Rows to write to one table of the lake; merged rows overwrite those with the same `key`."""

    schema: str
    table: str
    rows: pl.DataFrame
    comment: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)
    mode: Literal["replace", "append", "merge"] = "replace"
    key: tuple[str, ...] = ()


def write_tables(lake: Lake, tables: Sequence[LakeTable]) -> None:
    """Write all tables in one transaction: readers see all of them change at once.

    Raises:
        InvalidInput: a bad name, no columns, a float in a money column, or a key that is missing or not unique.
        LakeConflict: other writers kept a table busy; nothing was written.
    """
    names = [table_name(each.schema, each.table) for each in tables]
    for name, each in zip(names, tables, strict=True):
        check_frame(name, each.rows)

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        for name, each in zip(names, tables, strict=True):
            new = each.mode == "replace" or not table_exists(connection, each.schema, each.table)
            _put(connection, name, each)
            if new:
                set_comments(connection, name, each.comment, each.notes)

    if tables:
        lake.transact(work)


def _put(connection: duckdb.DuckDBPyConnection, name: str, each: LakeTable) -> None:
    if each.mode == "merge":
        merge_rows(connection, name, each.rows, each.key)
        return
    connection.register("incoming", each.rows)
    if each.mode == "replace":
        connection.execute(f"create or replace table {name} as select * from incoming")
    else:
        connection.execute(f"create table if not exists {name} as select * from incoming limit 0")
        connection.execute(f"insert into {name} by name select * from incoming")
