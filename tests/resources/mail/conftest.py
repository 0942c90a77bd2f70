"""A sandbox whose inbox and Slack channel the mailers talk to."""

from collections.abc import Iterator

import httpx
import pytest

from sandbox.config import SandboxConfig
from sandbox.serve import served


@pytest.fixture(scope="module")
def sandbox_url() -> Iterator[str]:
    with served(SandboxConfig(plans_per_provider=10)) as sandbox:
        yield sandbox.base_url


@pytest.fixture
def web(sandbox_url: str) -> Iterator[httpx.Client]:
    """A client for the control routes of a sandbox that has just been reset."""
    with httpx.Client(base_url=sandbox_url, timeout=10) as client:
        client.post("/sandbox/reset").raise_for_status()
        yield client
