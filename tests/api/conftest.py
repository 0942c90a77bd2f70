"""An API on a real socket over a real database, with a small catalogue published."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from resources.settings import Settings
from tests.api.catalogue_rows import publish, shelf_of_japan
from tests.api.serving import ServedApi, served_api


@pytest.fixture
def shelf(engine: Engine) -> int:
    """The version of a small published catalogue."""
    return publish(engine, shelf_of_japan())


@pytest.fixture
def api(settings: Settings, shelf: int) -> Iterator[ServedApi]:
    """The API with that catalogue, and a rate limit that does not get in the way."""
    with served_api(settings, rate_limit_per_minute=100_000) as served:
        yield served
