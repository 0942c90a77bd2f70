"""Sandboxes for its own tests: one on a real socket per module, small and quick."""

import http.server
import queue
import threading
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


@pytest.fixture
def mobimatter(sandbox: httpx.Client, running: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{running.base_url}/mobimatter/api/v2", timeout=10) as client:
        client.headers.update({"api-key": "sandbox-key", "merchantId": "00000000-0000-4000-8000-000000000001"})
        yield client


class Receiver:
    """A place on a free port that takes webhooks."""

    def __init__(self) -> None:
        self.got: queue.Queue[tuple[dict[str, str], bytes]] = queue.Queue()
        got = self.got

        class Taker(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                got.put(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(200)
                self.end_headers()

            def do_HEAD(self) -> None:
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Taker)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def next(self) -> tuple[dict[str, str], bytes]:
        """Headers and body of the next webhook."""
        return self.got.get(timeout=10)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    place = Receiver()
    yield place
    place.close()


@pytest.fixture
def esim_card(sandbox: httpx.Client, running: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{running.base_url}/esim_card/api/developer/reseller", timeout=10) as client:
        answer = client.post("/login", json={"email": "sandbox@numnaroad.test", "password": "sandbox-secret"})
        client.headers["authorization"] = f"Bearer {answer.json()['access_token']}"
        yield client
