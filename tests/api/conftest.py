"""An API on a real socket over a real database, with a small catalogue published and Stripe's sandbox behind it."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from resources.settings import Settings
from sandbox.config import SandboxConfig
from sandbox.serve import served
from tests.api.catalogue_rows import publish, shelf_of_japan
from tests.api.serving import ServedApi, served_api


@pytest.fixture(scope="session")
def stripe_sandbox() -> Iterator[str]:
    """The address of a sandbox that no webhook of its own reaches us from."""
    config = SandboxConfig(plans_per_provider=10, api_url="http://127.0.0.1:9")
    with served(config) as sandbox:
        yield sandbox.base_url


@pytest.fixture
def shop_settings(settings: Settings, stripe_sandbox: str) -> Settings:
    """Settings that point at that sandbox, with a rate limit that does not get in the way."""
    changes = {"stripe_api_base": f"{stripe_sandbox}/stripe", "rate_limit_per_minute": 100_000}
    return settings.model_copy(update=changes)


@pytest.fixture
def shelf(engine: Engine) -> int:
    """The version of a small published catalogue."""
    return publish(engine, shelf_of_japan())


@pytest.fixture
def api(shop_settings: Settings, shelf: int) -> Iterator[ServedApi]:
    """The API with that catalogue."""
    with served_api(shop_settings) as served_app:
        yield served_app
