"""Sandboxes for its own tests: one on a real socket per module, small and quick."""

from collections.abc import Iterator

import httpx
import pytest

from sandbox.config import SandboxConfig
from sandbox.serve import Served, served

SMALL = SandboxConfig(plans_per_provider=400, async_seconds=0.02, rate_limits=False)


@pytest.fixture(scope="module")
def running() -> Iterator[Served]:
    with served(SMALL) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Served) -> Iterator[httpx.Client]:
    """A client for the control routes of a sandbox that has just been reset."""
    with httpx.Client(base_url=running.base_url, timeout=10) as client:
        client.post("/sandbox/reset").raise_for_status()
        yield client


@pytest.fixture
def airalo(sandbox: httpx.Client, running: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{running.base_url}/airalo/v2", timeout=10) as client:
        form = {"client_id": "sandbox", "client_secret": "sandbox-secret", "grant_type": "client_credentials"}
        token = client.post("/token", data=form).json()["data"]["access_token"]
        client.headers["authorization"] = f"Bearer {token}"
        yield client


@pytest.fixture
def esim_go(sandbox: httpx.Client, running: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{running.base_url}/esim_go/v2.5", timeout=10) as client:
        client.headers["x-api-key"] = "sandbox-key"
        yield client


@pytest.fixture
def esim_access(sandbox: httpx.Client, running: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{running.base_url}/esim_access/api/v1/open", timeout=10) as client:
        client.headers["rt-accesscode"] = "sandbox"
        yield client
