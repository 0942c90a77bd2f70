"""What every test may use: a real Postgres, one embedded server a run and a fresh database a test, and settings.

Nothing of the machine's environment reaches a test: settings variables are cleared and `.env` is not read.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
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
    """Give the run one folder of its own, outside pytest's: a second run at the same time tidies that one up."""
    if not hasattr(config, "workerinput"):
        os.environ[_FOLDER] = tempfile.mkdtemp(prefix="numnaroad-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the run's folder when every worker has ended."""
    if not hasattr(config, "workerinput"):
        leave_embedded(Path(os.environ[_FOLDER]))
        shutil.rmtree(os.environ.pop(_FOLDER), ignore_errors=True)


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


@pytest.fixture
def databases(postgres_url: str) -> Iterator[Databases]:
    """Three fresh databases: operational (migrated), Dagster's and the lake catalogue's (both empty)."""
    name = f"t_{uuid4().hex[:12]}"
    names = (name, f"{name}_dagster", f"{name}_lake")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for new, template in zip(names, (_TEMPLATE, "template1", "template1"), strict=True):
            connection.execute(
                sql.SQL("create database {} template {}").format(sql.Identifier(new), sql.Identifier(template))
            )
        yield Databases(*(with_database(postgres_url, new) for new in names))
        for old in names:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(old)))


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
