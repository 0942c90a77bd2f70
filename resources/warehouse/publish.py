"""Publishes `analytics.duckdb`: one snapshot of core and marts in one file, for tools that want a file.

lake snapshot -> temporary file beside the old one -> compared with the snapshot and tied to the ledger -> renamed.
A reader has the old file or the new one, never half of either; when a check fails the old one stays.
"""
# ruff: noqa: S608 - names come from the lake's own catalogue

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb

from esim.errors import NumnaRoadError
from resources.warehouse.extensions import quoted
from resources.warehouse.lake import Lake
from resources.warehouse.tables import NAME, set_comments

FILE_NAME = "analytics.duckdb"
_SCHEMAS = ("core", "marts")
_TARGET = "published"
_RECENT_DAYS = 90
# Histories grow without end, and the file is copied whole at every refresh: the lake keeps what is older.
_RECENT = {"core.price_history": f"where changed_at >= now() - interval '{_RECENT_DAYS} days'"}
_ASSETS = ("cash", "provider_balance", "stock")
_STALE_SECONDS = 3600


class PublishRefused(NumnaRoadError):
    """The new file does not hold what the lake holds; the old one stays."""


@dataclass(frozen=True, slots=True)
class Published:
    """What was published: rows per table, the file's size and the margin it shows, in micro-USD."""

    path: Path
    rows: dict[str, int]
    size_bytes: int
    margin_micros: int


def publish(lake: Lake, path: Path) -> Published:
    """Write a new `path` from one snapshot of the lake and put it in the place of the old one.

    Raises:
        PublishRefused: the copy differs from the lake, or a mart's margin is not the ledger's.
        LakeUnavailable: the lake cannot be read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with lake.exclusive("publish"):
        _remove_stale(path)
        draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        draft.unlink(missing_ok=True)
        try:
            with lake.connect(read_only=True) as connection:
                rows, margin = _write(connection, draft)
            _compare(draft, rows)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    return Published(path, rows, path.stat().st_size, margin)


def _write(connection: duckdb.DuckDBPyConnection, draft: Path) -> tuple[dict[str, int], int]:
    connection.execute(f"attach '{quoted(str(draft))}' as {_TARGET}")
    try:
        connection.execute("begin")
        margin = _tied_margin(connection)
        tables = _tables(connection)
        rows = {}
        for schema, table, comment in tables:
            rows[f"{schema}.{table}"] = _copy(connection, schema, table, comment)
        connection.execute("commit")
    except BaseException:
        with suppress(duckdb.Error):
            connection.execute("rollback")
        raise
    finally:
        connection.execute(f"detach {_TARGET}")
    return rows, margin


def _tables(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str, str | None]]:
    query = (
        "select schema_name, table_name, comment from duckdb_tables()"
        " where database_name = ? and schema_name in ? order by all"
    )
    return connection.execute(query, [NAME, list(_SCHEMAS)]).fetchall()


def _copy(connection: duckdb.DuckDBPyConnection, schema: str, table: str, comment: str | None) -> int:
    source, target = f"{NAME}.{schema}.{table}", f"{_TARGET}.{schema}.{table}"
    columns = connection.execute(
        "select column_name, comment from duckdb_columns()"
        " where database_name = ? and schema_name = ? and table_name = ? and comment is not null",
        [NAME, schema, table],
    ).fetchall()
    connection.execute(f"create schema if not exists {_TARGET}.{schema}")
    rows = f"{source} {_RECENT.get(f'{schema}.{table}', '')}"
    connection.execute(f"create table {target} as select * from {rows}")
    set_comments(connection, target, comment, dict(columns))
    return _count(connection, rows)


def _tied_margin(connection: duckdb.DuckDBPyConnection) -> int:
    """Return the margin in micro-USD that ledger and marts agree on in this snapshot.

    Raises:
        PublishRefused: they do not agree; the message names the mart.
    """
    listed = ", ".join(f"'{account}'" for account in _ASSETS)
    ledger = _number(connection, f"select sum(amount_micros) from raw.ledger_entries where account in ({listed})")
    for mart in ("margins_by_day", "margins_by_destination", "margins_by_provider"):
        margin = _number(connection, f"select sum(margin_micros) from marts.{mart}")
        if margin != ledger:
            raise PublishRefused(
                f"marts.{mart} shows a margin of {margin} micro-USD and the ledger {ledger}; the old file stays."
                " Rebuild the models, then publish again"
            )
    return ledger


def _compare(draft: Path, rows: dict[str, int]) -> None:
    with duckdb.connect(str(draft), read_only=True) as copy:
        found = {name: _count(copy, name) for name in rows}
    if found != rows:
        different = sorted(name for name in rows if found[name] != rows[name])
        raise PublishRefused(f"the copy of {', '.join(different)} is not complete; the old file stays")


def _remove_stale(path: Path) -> None:
    """Remove what publishers that were killed left behind."""
    for left in path.parent.glob(f".{path.name}.*"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                left.unlink()


def _count(connection: duckdb.DuckDBPyConnection, rows: str) -> int:
    return _number(connection, f"select count(*) from {rows}")


def _number(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0] or 0) if row else 0
