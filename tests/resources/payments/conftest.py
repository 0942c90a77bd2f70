"""A sandbox on a free port and a gateway that talks to it."""

from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from resources.payments.stripe import StripeGateway
from sandbox.config import SandboxConfig
from sandbox.serve import served


@pytest.fixture(scope="module")
def sandbox_url() -> Iterator[str]:
    # Nobody listens there: what Stripe would say by webhook is read from its event list.
    config = replace(SandboxConfig(plans_per_provider=10), api_url="http://127.0.0.1:9")
    with served(config) as sandbox:
        yield sandbox.base_url


@pytest.fixture
def web(sandbox_url: str) -> Iterator[httpx.Client]:
    """A client for the control routes of a sandbox that has just been reset."""
    with httpx.Client(base_url=sandbox_url, timeout=10) as client:
        client.post("/sandbox/reset").raise_for_status()
        yield client


@pytest.fixture
def gateway(web: httpx.Client, sandbox_url: str) -> Iterator[StripeGateway]:
    found = StripeGateway(
        secret_key="sk_test_sandbox",
        webhook_secret="whsec_old, whsec_sandbox",
        api_base=f"{sandbox_url}/stripe",
        timeout=5,
        retries=0,
    )
    yield found
    found.close()
