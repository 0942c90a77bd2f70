"""One warm host for a module's tests: it costs a few seconds of imports."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from resources.db.embedded import with_database
from tests.pipelines.warm_runs.stage import Stage

Staged = Callable[..., Stage]


@pytest.fixture(scope="module")
def staged(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staged]:
    """Set up stages, each with a database and a folder of its own."""
    with ExitStack() as stack:

        def stage(**config: Any) -> Stage:
            database = stack.enter_context(_database(postgres_url))
            made = Stage(tmp_path_factory.mktemp("stage"), database, **config)
            stack.callback(made.close)
            return made

        yield stage


@contextmanager
def _database(postgres_url: str) -> Iterator[str]:
    name = f"w_{uuid4().hex[:12]}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        yield with_database(postgres_url, name)
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


@pytest.fixture(autouse=True)
def no_home_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher looks for its host by DAGSTER_HOME first."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A host, a code server and their imports may take long on a busy machine."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(300))
