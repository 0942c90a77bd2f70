"""A catalogue desk on a real database and lake, with providers that hand out what a test tells them."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import duckdb
import psycopg
import pytest
import stamina
from psycopg import sql
from sqlalchemy import Engine

from resources.catalogue_desk import CatalogueDesk
from resources.db.embedded import with_database
from resources.lake import LakeResource, open_lake
from resources.provider_clients import ProviderClients
from resources.warehouse.lake import Lake
from tests.assets.catalogue_builders import SLUGS, StreamedProvider, rates_source


class Shelf:
    """Five providers, a clock that can be moved, and the desk they belong to."""

    def __init__(self, engine: Engine, lake: Lake) -> None:
        self.now = datetime(2026, 3, 2, 12, tzinfo=UTC)
        self.providers = {slug: StreamedProvider(slug) for slug in SLUGS}
        self.desk = CatalogueDesk(engine, lake, self.providers, rates_source(), clock=lambda: self.now)

    def later(self, hours: float = 6) -> None:
        """Move the clock."""
        self.now += timedelta(hours=hours)


class ShelfClients(ProviderClients):
    """The Dagster resource, handing out a test's desk."""

    @contextmanager
    def desk(self, lake: Lake) -> Iterator[CatalogueDesk]:
        """Give the desk of the test that runs."""
        yield _current[0].desk


_current: list[Shelf] = []


@pytest.fixture(scope="session")
def lake_resource(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LakeResource]:
    """One lake for all tests of a worker: making one takes longer than most tests do."""
    name = f"lake_{uuid4().hex[:12]}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        url, path = with_database(postgres_url, name), str(tmp_path_factory.mktemp("lake"))
        yield LakeResource(catalogue_url=url, data_path=path)
        open_lake(url, path).close()
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def lake(lake_resource: LakeResource) -> Iterator[Lake]:
    """The worker's lake, emptied afterwards."""
    yield lake_resource.lake()
    lake_resource.lake().transact(_empty)


def _empty(connection: duckdb.DuckDBPyConnection) -> None:
    tables = connection.execute("select schema_name, table_name from duckdb_tables() where database_name = 'lake'")
    for schema, table in tables.fetchall():
        connection.execute(f"drop table {schema}.{table}")


@pytest.fixture
def shelf(engine: Engine, lake: Lake) -> Iterator[Shelf]:
    _current[:] = [Shelf(engine, lake)]
    with stamina.set_testing(True, attempts=3, cap=True):
        yield _current[0]
    _current.clear()
