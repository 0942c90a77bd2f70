"""Copies changed rows of the operational store into `raw` tables of the lake.

Postgres (rows with `changed_xid` from the cursor on, one snapshot for all tables) -> CSV -> one lake transaction that
replaces those rows and moves the cursor. Killed at any point it loses and doubles nothing; repeated it changes
nothing; a transaction that commits late is not missed, because the cursor is the snapshot itself: what it could not
see is still to be loaded. Only allow-listed columns are read at all (`resources.warehouse.copies`).
"""
# ruff: noqa: S608 - statements are made of the allow-list's constants; values are bound or whole numbers

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import psycopg
from sqlalchemy import Connection, Engine, text

from resources.warehouse.copies import COPIES, CopiedTable
from resources.warehouse.extensions import quoted
from resources.warehouse.lake import Lake
from resources.warehouse.tables import NAME, set_comments, table_exists

# Transaction ids mean something within one database of one server only.
_POSITION = text(
    "select system_identifier::text || '/' || (select oid from pg_database where datname = current_database()),"
    " pg_current_snapshot()::text from pg_control_system()"
)
_CURSORS = "table_name varchar, store varchar, snapshot varchar, rows_loaded bigint, loaded_at timestamp"
# The index narrows to what no older transaction wrote; the snapshot then leaves out what it could see.
_UNSEEN = "changed_xid >= pg_snapshot_xmin({snapshot}) and not pg_visible_in_snapshot(changed_xid, {snapshot})"


@dataclass(frozen=True, slots=True)
class _Position:
    """A database and a snapshot of it (`xmin:xmax:running,…`)."""

    store: str
    snapshot: str

    @property
    def xmax(self) -> int:
        """The first transaction id the snapshot knows nothing of; it only ever grows."""
        return int(self.snapshot.split(":")[1])


@dataclass(frozen=True, slots=True)
class Loaded:
    """What one load did to one table: rows written to the lake, and rows the lake's table has now."""

    changed: int
    rows: int


def load_changes(engine: Engine, lake: Lake, copies: Sequence[CopiedTable] = COPIES) -> Mapping[str, Loaded]:
    """Bring the lake's copies up to date with the operational store, whole or not at all.

    Raises:
        LakeConflict, LakeUnavailable: the lake could not be written; nothing changed.
        sqlalchemy.exc.SQLAlchemyError: the operational store could not be read; nothing changed.
    """
    with lake.exclusive("load"):
        return lake.transact(lambda connection: _load(engine, connection, copies))


def tables_with_changes(engine: Engine, lake: Lake, copies: Sequence[CopiedTable] = COPIES) -> list[str]:
    """Return the tables that have rows the lake has not loaded."""
    with lake.connect(read_only=True) as connection:
        cursors = _cursors(connection)
        missing = {copy.name for copy in copies if _missing_columns(connection, copy)}
    with engine.connect() as postgres:
        here = _position(postgres)
        return [
            copy.name
            for copy in copies
            if copy.name in missing or _has_changes(postgres, copy, _since(cursors, copy, here))
        ]


def _load(engine: Engine, lake: duckdb.DuckDBPyConnection, copies: Sequence[CopiedTable]) -> Mapping[str, Loaded]:
    cursors = _cursors(lake)
    changed: dict[str, int] = {}
    snapshot = engine.connect().execution_options(isolation_level="REPEATABLE READ")
    with snapshot as postgres, TemporaryDirectory(prefix="numnaroad-load-") as folder:
        here = _position(postgres)
        for copy in copies:
            since = None if _prepare(lake, copy) else _since(cursors, copy, here)
            file = Path(folder) / f"{copy.name}.csv"
            changed[copy.name] = _export(postgres, copy, since, file)
            if since is None:
                lake.execute(f"delete from raw.{copy.name}")
            if changed[copy.name]:
                _import(lake, copy, file, merge=since is not None)
            file.unlink()
            if changed[copy.name] or since is None:
                _move_cursor(lake, copy.name, here, changed[copy.name])
    return {copy.name: Loaded(changed[copy.name], _count(lake, copy)) for copy in copies}


def _position(postgres: Connection) -> _Position:
    store, snapshot = postgres.execute(_POSITION).one()
    return _Position(str(store), str(snapshot))


def _cursors(lake: duckdb.DuckDBPyConnection) -> dict[str, _Position]:
    if not table_exists(lake, "raw", "load_cursors"):
        return {}
    rows = lake.execute("select table_name, store, snapshot from raw.load_cursors").fetchall()
    return {name: _Position(store, snapshot) for name, store, snapshot in rows}


def _since(cursors: Mapping[str, _Position], copy: CopiedTable, here: _Position) -> str | None:
    """Return the snapshot that was loaded; None, everything is to be loaded, when it was of another database.

    A snapshot from the future is of another one too: the database was put back to an earlier state.
    """
    cursor = cursors.get(copy.name)
    if cursor is None or cursor.store != here.store or cursor.xmax > here.xmax:
        return None
    return cursor.snapshot


def _has_changes(postgres: Connection, copy: CopiedTable, since: str | None) -> bool:
    unseen = "true" if since is None else _UNSEEN.format(snapshot="cast(:since as pg_snapshot)")
    query = f"select exists (select from {copy.name} where {unseen})"
    return bool(postgres.scalar(text(query), {} if since is None else {"since": since}))


def _missing_columns(lake: duckdb.DuckDBPyConnection, copy: CopiedTable) -> list[str]:
    query = (
        "select column_name from duckdb_columns() where database_name = ? and schema_name = 'raw' and table_name = ?"
    )
    found = lake.execute(query, [NAME, copy.name]).fetchall()
    present = {name for (name,) in found}
    return [f"{column.name} {column.type}" for column in copy.columns if column.name not in present]


def _prepare(lake: duckdb.DuckDBPyConnection, copy: CopiedTable) -> bool:
    """Create the copy's table or its new columns; tell whether every row must be loaded for it."""
    missing = _missing_columns(lake, copy)
    if not missing:
        return False
    if len(missing) == len(copy.columns):
        lake.execute(f"create table raw.{copy.name} ({', '.join(missing)})")
    for definition in missing if len(missing) < len(copy.columns) else ():
        lake.execute(f"alter table raw.{copy.name} add column {definition}")
    notes = {column.name: column.description for column in copy.columns}
    set_comments(lake, f"raw.{copy.name}", copy.description, notes)
    return True


def _export(postgres: Connection, copy: CopiedTable, since: str | None, file: Path) -> int:
    fields = ", ".join(column.expression for column in copy.columns)
    unseen = "true" if since is None else _UNSEEN.format(snapshot=f"'{quoted(since)}'::pg_snapshot")
    query = f"select {fields} from {copy.name} where {unseen}"
    driver: psycopg.Connection[Any] = postgres.connection.driver_connection  # type: ignore[assignment]  # psycopg 3
    with driver.cursor() as cursor, file.open("wb") as out:
        with cursor.copy(f"copy ({query}) to stdout (format csv)".encode()) as data:
            for block in data:
                out.write(block)
        return cursor.rowcount


def _import(lake: duckdb.DuckDBPyConnection, copy: CopiedTable, file: Path, *, merge: bool) -> None:
    types = ", ".join(f"'{column.name}': '{column.type}'" for column in copy.columns)
    # In PostgreSQL's CSV an unquoted nothing is null and "" is an empty text.
    options = "header = false, auto_detect = false, delim = ',', quote = '\"', escape = '\"', nullstr = ''"
    rows = f"read_csv('{quoted(str(file))}', columns = {{{types}}}, {options}, allow_quoted_nulls = false)"
    if merge:
        lake.execute(f"delete from raw.{copy.name} where {copy.key} in (select {copy.key} from {rows})")
    lake.execute(f"insert into raw.{copy.name} by name select * from {rows}")


def _move_cursor(lake: duckdb.DuckDBPyConnection, name: str, here: _Position, rows: int) -> None:
    lake.execute(f"create table if not exists raw.load_cursors ({_CURSORS})")
    lake.execute("delete from raw.load_cursors where table_name = ?", [name])
    lake.execute(
        "insert into raw.load_cursors values (?, ?, ?, ?, now()::timestamp)", [name, here.store, here.snapshot, rows]
    )


def _count(lake: duckdb.DuckDBPyConnection, copy: CopiedTable) -> int:
    return int((lake.execute(f"select count(*) from raw.{copy.name}").fetchone() or (0,))[0])
