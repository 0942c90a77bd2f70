"""What every test may use: a real Postgres, one embedded server a run and a fresh database a test, and settings.

Nothing of the machine's environment reaches a test: settings variables are cleared and `.env` is not read.
"""

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import structlog
from filelock import FileLock
from psycopg import sql
from sqlalchemy import Engine

from resources.db.databases import Databases, make_engine
from resources.db.embedded import leave_embedded, start_embedded, with_database
from resources.db.migrate import migrate
from resources.settings import Settings, load_settings

_FOLDER = "NUMNAROAD_TESTS"
_TEMPLATE = "template_numnaroad"
_SPEED = ("fsync = off", "synchronous_commit = off", "full_page_writes = off")


def pytest_configure(config: pytest.Config) -> None:
    """Give the run one folder of its own, outside pytest's: a second run at the same time tidies that one up.

    Where a test sets up no logging, structlog's own printing of a traceback, locals and all, takes seconds.
    """
    printed = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, printed]
    )
    if not hasattr(config, "workerinput"):
        os.environ[_FOLDER] = tempfile.mkdtemp(prefix="numnaroad-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the run's folder when every worker has ended."""
    if not hasattr(config, "workerinput"):
        leave_embedded(Path(os.environ[_FOLDER]))
        shutil.rmtree(os.environ.pop(_FOLDER), ignore_errors=True)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Spare the garbage collector what was imported: Dagster and friends, over and over, a tenth of the run."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_tmp() -> Path:
    """A folder shared by all workers of this run."""
    return Path(os.environ[_FOLDER])


@pytest.fixture(scope="session")
def postgres_url(shared_tmp: Path) -> str:
    """The maintenance database of this run's embedded server, with a migrated template database in it."""
    url = start_embedded(shared_tmp)
    with FileLock(shared_tmp / "postgres.lock"), psycopg.connect(url, autocommit=True) as connection:
        exists = connection.execute("select 1 from pg_database where datname = %s", (_TEMPLATE,)).fetchone()
        if not exists:
            for setting in _SPEED:
                connection.execute(f"alter system set {setting}".encode())
            connection.execute("select pg_reload_conf()")
            template = with_database(url, _TEMPLATE)
            migrate(Databases(template, template, template))
    return url


@pytest.fixture(scope="session")
def empty_databases() -> list[str]:
    """Databases of this worker that earlier tests left untouched: most tests need neither Dagster's nor the lake's."""
    return []


@pytest.fixture
def databases(postgres_url: str, empty_databases: list[str]) -> Iterator[Databases]:
    """Three fresh databases: operational (migrated), Dagster's and the lake catalogue's (both empty)."""
    name = f"t_{uuid4().hex[:12]}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        _create(connection, name, _TEMPLATE)
        while len(empty_databases) < 2:
            empty_databases.append(f"e_{uuid4().hex[:12]}")
            _create(connection, empty_databases[-1], "template1")
        others = [empty_databases.pop(), empty_databases.pop()]
        yield Databases(*(with_database(postgres_url, each) for each in (name, *others)))
        _drop(connection, name)
        for other in others:
            if _is_untouched(with_database(postgres_url, other)):
                empty_databases.append(other)
            else:
                _drop(connection, other)


def _create(connection: psycopg.Connection, name: str, template: str) -> None:
    statement = sql.SQL("create database {} template {} strategy file_copy")
    connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))


def _drop(connection: psycopg.Connection, name: str) -> None:
    connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def _is_untouched(url: str) -> bool:
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')"
        ).fetchone()
    return tables == (0,)


@pytest.fixture
def engine(databases: Databases) -> Iterator[Engine]:
    """An engine on the fresh operational database."""
    engine = make_engine(databases.operational, pool_size=10)
    yield engine
    engine.dispose()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No setting of the machine reaches a test; the settings cache is empty before and after."""
    for field in Settings.model_fields:
        monkeypatch.delenv(field.upper(), raising=False)
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()


@pytest.fixture
def settings(databases: Databases, tmp_path: Path) -> Settings:
    """Settings of a sandbox shop on the fresh databases, with its files below `tmp_path`."""
    return Settings(
        data_dir=tmp_path / "data",
        database_url=databases.operational,  # type: ignore[arg-type]  # pydantic turns it into a secret
        dagster_database_url=databases.dagster,  # type: ignore[arg-type]  # likewise
        lake_catalogue_url=databases.lake,  # type: ignore[arg-type]  # likewise
    )
