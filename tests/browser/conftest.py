"""A real Chromium, and a whole shop for it: our API, and the sandbox whose webhooks reach it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from sqlalchemy import Engine

from resources.settings import Settings
from sandbox.config import SandboxConfig
from sandbox.serve import served
from tests.api.catalogue_rows import publish, shelf_of_japan
from tests.api.serving import ServedApi, served_api
from tests.browser.install import find_chromium
from tests.ports import free_port


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    found = find_chromium()
    assert found is not None, "no Chromium is installed; `make setup browser` installs one (or set CHROMIUM)"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@dataclass(frozen=True)
class WholeShop:
    """A shop that takes (sandbox) payments, and the folder for pictures of it."""

    api: ServedApi
    sandbox: str
    pictures: Path


@pytest.fixture
def whole_shop(settings: Settings, engine: Engine, tmp_path: Path) -> Iterator[WholeShop]:
    publish(engine, shelf_of_japan())
    port = free_port()
    config = replace(SandboxConfig(plans_per_provider=10), api_url=f"http://127.0.0.1:{port}")
    with served(config) as sandbox:
        changes = {"stripe_api_base": f"{sandbox.base_url}/stripe", "rate_limit_per_minute": 10_000}
        with served_api(settings.model_copy(update=changes), port=port) as api:
            yield WholeShop(api, sandbox.base_url, tmp_path)


@pytest.fixture
def page(browser: Browser, whole_shop: WholeShop) -> Iterator[Page]:
    """A page whose errors and refused resources fail the test."""
    context = browser.new_context(base_url=whole_shop.api.url, locale="en-GB")
    context.set_default_timeout(15_000)
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    yield opened
    context.close()
    assert [line for line in complaints if "status of 4" not in line] == []
