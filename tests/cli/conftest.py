"""A shop that the commands find through their settings."""

import pytest
from sqlalchemy import Engine

from resources.settings import Settings
from tests.resources.db.shop import OfferSpec, open_shop


@pytest.fixture
def shop(engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """A shop found by the commands through their settings; Mia types them."""
    open_shop(engine, [OfferSpec("airalo", "2.00")])
    assert settings.database_url
    monkeypatch.setenv("DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("NUMNAROAD_OPERATOR", "mia")
    return engine
