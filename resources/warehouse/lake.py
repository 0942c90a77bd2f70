"""The lake: Parquet files plus a catalogue in PostgreSQL (DuckLake), opened through DuckDB.

Any number of processes write and read at once: a write is one transaction, a reader sees the last committed snapshot
and never half a table. Writers that collide try again, a bounded number of times. Passwords stay out of statements
and messages. Money is BIGINT or DECIMAL here; a float in a money column is refused.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from random import SystemRandom
from typing import Self, TypeVar

import duckdb
import polars as pl
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from esim.errors import NumnaRoadError
from resources.warehouse.extensions import load_extension, quoted
from resources.warehouse.tables import NAME, SCHEMAS, table_exists

_ATTEMPTS = 12
_WORK_LOCK = 0x6C616B65
_CONFLICTS = ("conflict", "could not serialize", "deadlock detected", "duplicate key value", "concurrent update")

T = TypeVar("T")
Connection = duckdb.DuckDBPyConnection


class LakeUnavailable(NumnaRoadError):
    """The lake cannot be opened."""


class LakeConflict(NumnaRoadError):
    """Other writers kept changing the same table; the write was given up and changed nothing."""


class Lake:
    """The lake at a libpq `catalogue_url` with its Parquet files under `data_path` (a folder or an `s3://` prefix).

    One DuckDB instance per process and mode is opened on first use and kept; `close()` (or `with`) lets go of it.
    """

    def __init__(self, catalogue_url: str, data_path: str | Path) -> None:
        self._url = catalogue_url
        remote = "://" in str(data_path)
        self.data_path = str(data_path).rstrip("/") + "/" if remote else f"{Path(data_path).absolute()}/"
        self._instances: dict[tuple[int, bool, bool], Connection] = {}
        self._lock = threading.Lock()
        self._writers: dict[int, threading.RLock] = {}

    def __repr__(self) -> str:
        return f"Lake({self._conninfo()!r}, {self.data_path!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def connect(self, *, read_only: bool = False, sealed: bool = False) -> Iterator[Connection]:
        """Give a connection whose current database is the lake, with its schemas in place.

        One that is `sealed` is read-only, reaches no files but the lake's own and loads nothing, and stays so.

        Raises:
            LakeUnavailable: the catalogue or the files cannot be reached; the message says what to do.
        """
        connection = self._instance(read_only or sealed, sealed).cursor()
        try:
            connection.execute(f"use {NAME}")
            yield connection
        finally:
            connection.close()

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction and commit it; on a conflict with another writer run it again.

        Raises:
            LakeConflict: it collided every time.
        """
        last: duckdb.Error | None = None
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(SystemRandom().uniform(0, min(2.0, 0.05 * 2**attempt)))
            with self._writer(), self.connect() as connection:
                try:
                    connection.execute("begin")
                    result = work(connection)
                    connection.execute("commit")
                except duckdb.Error as error:
                    _roll_back(connection)
                    if not _is_conflict(error):
                        raise
                    last = error
                except BaseException:
                    _roll_back(connection)
                    raise
                else:
                    return result
        raise LakeConflict(f"gave up after {_ATTEMPTS} collisions with other writers, nothing was written: {last}")

    def read(self, sql: str, params: Sequence[object] | Mapping[str, object] = ()) -> pl.DataFrame:
        """Return the rows of a query on the last committed snapshot."""
        with self.connect(read_only=True) as connection:
            return connection.execute(sql, params if isinstance(params, Mapping) else list(params)).pl()

    def table_exists(self, schema: str, table: str) -> bool:
        """Tell whether there is such a table or view."""
        with self.connect(read_only=True) as connection:
            return table_exists(connection, schema, table)

    @contextmanager
    def exclusive(self, work: str) -> Iterator[None]:
        """Let only one process at a time do this kind of work; the others wait their turn.

        Raises:
            LakeConflict: another process has been at it for ten minutes.
            LakeUnavailable: the catalogue's server cannot be reached.
        """
        try:
            guard = psycopg.connect(self._url, autocommit=True, connect_timeout=10)
        except psycopg.OperationalError as error:
            raise LakeUnavailable(self._advice(error)) from error
        with guard:
            guard.execute("set lock_timeout = '10min'")
            try:
                guard.execute("select pg_advisory_lock(%s, hashtext(%s))", [_WORK_LOCK, work])
            except psycopg.errors.LockNotAvailable as error:
                raise LakeConflict(f"another process has been busy with {work} for ten minutes; look for it") from error
            yield

    def attach_statement(self, *, read_only: bool = True) -> str:
        """Return the ATTACH line with which any DuckDB client opens the lake; a password is not part of it."""
        mode = ", read_only" if read_only else ""
        source, path = quoted(f"ducklake:postgres:{self._conninfo()}"), quoted(self.data_path)
        return f"attach '{source}' as {NAME} (data_path '{path}'{mode})"

    def close(self) -> None:
        """Let go of this process's DuckDB instances."""
        with self._lock:
            for key in [key for key in self._instances if key[0] == os.getpid()]:
                self._instances.pop(key).close()

    def _writer(self) -> threading.RLock:
        # Threads that comment on columns in one DuckDB instance at once corrupt its memory (1.5.5: the process dies),
        # so a process writes one transaction at a time; other processes have instances of their own.
        with self._lock:
            return self._writers.setdefault(os.getpid(), threading.RLock())

    def _instance(self, read_only: bool, sealed: bool) -> Connection:
        # A forked child must not touch its parent's instance: DuckDB's threads do not survive a fork.
        key = (os.getpid(), read_only, sealed)
        with self._lock:
            if key not in self._instances:
                self._instances[key] = self._open(read_only)
                if sealed:
                    self._seal(self._instances[key])
            return self._instances[key]

    def _seal(self, instance: Connection) -> None:
        instance.execute(f"set allowed_directories = ['{quoted(self.data_path)}']")
        instance.execute("set enable_external_access = false")
        instance.execute("set lock_configuration = true")

    def _open(self, read_only: bool) -> Connection:
        instance = self._bare_instance()
        try:
            if not self._attached(instance, read_only):
                self._create()
                if not self._attached(instance, read_only):
                    raise LakeUnavailable(f"the lake {self!r} was created but cannot be opened")
        except BaseException:
            instance.close()
            raise
        return instance

    def _bare_instance(self) -> Connection:
        off: dict[str, str | bool | int | float | list[str]] = {
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
        instance = duckdb.connect(config=off)
        for name in ("postgres_scanner", "ducklake", *(("httpfs",) if self.data_path.startswith("s3://") else ())):
            load_extension(instance, name)
        instance.execute("set TimeZone = 'UTC'")
        if password := conninfo_to_dict(self._url).get("password"):
            instance.execute(f"create secret (type postgres, password '{quoted(str(password))}')")
        return instance

    def _attached(self, instance: Connection, read_only: bool) -> bool:
        """Attach the lake where it is complete; otherwise leave it detached and say so."""
        try:
            instance.execute(f"{self.attach_statement(read_only=read_only)[:-1]}, create_if_not_exists false)")
        except duckdb.Error as error:
            if "explicitly disabled" in str(error):
                return False
            raise LakeUnavailable(self._advice(error)) from error
        found = instance.execute(
            "select count(*) from duckdb_schemas() where database_name = ? and schema_name in ?", [NAME, list(SCHEMAS)]
        ).fetchone()
        if found == (len(SCHEMAS),):
            return True
        instance.execute(f"detach {NAME}")
        return False

    def _create(self) -> None:
        if "://" not in self.data_path:
            Path(self.data_path).mkdir(parents=True, exist_ok=True)
        with self.exclusive("create"), self._bare_instance() as instance:
            instance.execute(self.attach_statement(read_only=False))
            for schema in SCHEMAS:
                instance.execute(f"create schema if not exists {NAME}.{schema}")

    def _conninfo(self) -> str:
        parts = {key: value for key, value in conninfo_to_dict(self._url).items() if key != "password"}
        return make_conninfo("", **parts)

    def _advice(self, error: Exception) -> str:
        text = str(error)
        if "DATA_PATH" in text:
            return f"the lake's files are not under {self.data_path}: set LAKE_DATA_PATH to where they are ({text})"
        return f"the lake's catalogue {self._conninfo()!r} cannot be opened; is the server up, and migrated? ({text})"


def _is_conflict(error: duckdb.Error) -> bool:
    text = str(error).lower()
    return any(mark in text for mark in _CONFLICTS)


def _roll_back(connection: Connection) -> None:
    with suppress(duckdb.Error):  # a failed commit has ended the transaction already
        connection.execute("rollback")
