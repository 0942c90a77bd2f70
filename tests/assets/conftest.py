"""A catalogue desk on a real database and lake, with providers that hand out what a test tells them."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import stamina
from sqlalchemy import Engine

from resources.catalogue_desk import CatalogueDesk
from resources.db.databases import Databases
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


@pytest.fixture
def lake(databases: Databases, tmp_path: Path) -> Iterator[Lake]:
    with Lake(databases.lake, tmp_path / "lake") as opened:
        yield opened


@pytest.fixture
def shelf(engine: Engine, lake: Lake) -> Iterator[Shelf]:
    _current[:] = [Shelf(engine, lake)]
    with stamina.set_testing(True, attempts=3, cap=True):
        yield _current[0]
    _current.clear()
