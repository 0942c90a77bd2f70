"""The shop's pages without a browser: policy, escaping, odd addresses, and the process that serves them."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from api.docs_page import with_code
from resources.settings import Settings
from tests.api.baskets import placed
from tests.api.catalogue_rows import package_row, publish
from tests.api.serving import ServedApi, served_api, wait_until
from tests.api.test_api_catalogue import assert_problem
from tests.ports import free_port


def test_pages_allow_no_inline_script_and_no_stranger(api: ServedApi) -> None:
    for path in ("/", "/?destination=JP", "/docs", "/orders/0193a1c2-5b7e-7c11-9d0e-2f6f0a1b2c3d"):
        _check_policy(api, path)


def _check_policy(api: ServedApi, path: str) -> None:
    page = api.client.get(path)
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["referrer-policy"] == "no-referrer"
    body = page.text.replace(" src=", "")
    assert "<script>" not in body
    assert "onclick" not in body
    assert "style=" not in body


def test_the_reference_sets_names_as_code(api: ServedApi) -> None:
    page = api.client.get("/docs").text
    assert "Unchanged since the answer whose <code>ETag</code> is in <code>If-None-Match</code>." in page
    assert "`" not in page
    assert with_code("<b> & `<i>`") == "&lt;b&gt; &amp; <code>&lt;i&gt;</code>"


def test_the_api_answers_with_a_policy_that_allows_nothing(api: ServedApi) -> None:
    answer = api.client.get("/healthz")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["x-request-id"]
    named = api.client.get("/healthz", headers={"X-Request-ID": "partner-0001"})
    assert named.headers["x-request-id"] == "partner-0001"
    forged = api.client.get("/healthz", headers={"X-Request-ID": "a b\tc"})
    assert forged.headers["x-request-id"] != "a b\tc"


def test_what_strangers_and_providers_write_is_escaped(api: ServedApi, engine: Engine) -> None:
    nasty = "<script>alert(1)</script>"
    assert nasty not in api.client.get("/", params={"q": nasty}).text
    version = publish(engine, [package_row("jp-1", name=nasty, networks=[nasty], destination_name=nasty)])
    wait_until(lambda: api.shop.shelf.current.snapshot.version == version, "the new version is on the shelf")
    page = api.client.get("/?destination=JP").text
    assert nasty not in page
    assert "&lt;script&gt;" in page


@dataclass(frozen=True)
class Program:
    """A running `python -m api`."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path


ODD = [
    "destination=JP&min_data_mb=x&min_days=-1&sort=random&currency=XXX",
    "destination=J'P",
    "destination=" + "x" * 5000,
    "q=" + "x" * 5000,
    "q=%00%ff",
]


def test_odd_addresses_show_a_page(api: ServedApi) -> None:
    for query in ODD:
        assert api.client.get(f"/?{query}").status_code == 200, query


def test_one_match_shows_its_plans_at_once(api: ServedApi) -> None:
    assert "eSIM for Japan" in api.client.get("/?q=japan").text
    assert "No destination for" in api.client.get("/?q=atlantis").text


def test_static_files_are_served_and_nothing_else(api: ServedApi) -> None:
    assert api.client.get("/static/shop.js").headers["content-type"].startswith("text/javascript")
    assert_problem(api.client.get("/static/../app.py"), 404)
    assert_problem(api.client.get("/static/%2e%2e/app.py"), 404)
    assert_problem(api.client.get("/orders/not-an-id"), 404)


def test_browsers_keep_what_pages_name_by_version_and_nothing_else(api: ServedApi) -> None:
    page = api.client.get("/orders/0193a1c2-5b7e-7c11-9d0e-2f6f0a1b2c3d").text
    named = set(re.findall(r'"(/static/[^"#]+)', page))
    assert {address.partition("?")[0] for address in named} == {
        *("/static/shop.css", "/static/shop.js", "/static/order.js", "/static/icon.svg")
    }
    for address in named:
        assert api.client.get(address).headers["cache-control"] == "public, max-age=31536000, immutable"
    for address in ("/static/shop.js", "/static/shop.js?v=0123456789ab", "/static/shop.js?w=1"):
        unnamed = api.client.get(address)
        assert unnamed.headers["cache-control"] == "no-cache"
        again = api.client.get(address, headers={"If-None-Match": unnamed.headers["etag"]})
        assert (again.status_code, again.headers["cache-control"]) == (304, "no-cache")
    assert "url(" not in re.sub(r"url\(.data:[^)]*\)", "", api.client.get("/static/shop.css").text)


def test_a_title_promises_no_price_where_nothing_is_sold(api: ServedApi) -> None:
    assert "<title>eSIM for Japan from $2.99 · NumnaRoad</title>" in api.client.get("/?destination=JP").text
    assert "<title>eSIM for Japan · NumnaRoad</title>" in api.client.get("/?destination=JP&currency=GBP").text


def test_an_empty_shop_says_so(settings: Settings) -> None:
    with served_api(settings) as api:
        assert "The shelves are being filled" in api.client.get("/").text


@contextmanager
def program(settings: Settings, folder: Path, **environment: str) -> Iterator[Program]:
    """`python -m api` on a free port, stopped by SIGTERM."""
    assert settings.database_url is not None
    port = free_port()
    variables = {
        **{name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}},
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "DATA_DIR": str(folder / "data"),
        "API_PORT": str(port),
        **environment,
    }
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "api"], env=variables, stdout=out, stderr=out)
    try:
        wait_until(lambda: process.poll() is not None or _answers(port), "the API answers", 60)
        yield Program(process, f"http://127.0.0.1:{port}", log)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in {0, -signal.SIGTERM}
    assert "Traceback" not in log.read_text()


def test_the_program_serves_and_ends_cleanly(settings: Settings, shelf: int, tmp_path: Path) -> None:
    with program(settings, tmp_path) as api:
        answer = httpx.get(f"{api.url}/v1/destinations")
        assert (answer.status_code, len(answer.json()["destinations"])) == (200, 4)
        assert "server" not in answer.headers


@pytest.mark.parametrize(("workers", "stop"), [("1", signal.SIGTERM), ("1", signal.SIGINT), ("2", signal.SIGTERM)])
def test_stopping_ends_open_streams_at_once_and_in_order(
    settings: Settings, shelf: int, stripe_sandbox: str, tmp_path: Path, workers: str, stop: signal.Signals
) -> None:
    environment = {"API_WORKERS": workers, "STRIPE_API_BASE": f"{stripe_sandbox}/stripe"}
    with program(settings, tmp_path, **environment) as api, httpx.Client(base_url=api.url, timeout=10) as client:
        order = placed(client)
        headers = {"Authorization": f"Bearer {order['order_token']}"}
        with client.stream("GET", f"/v1/orders/{order['order_id']}/events", headers=headers) as stream:
            lines = stream.iter_lines()
            assert next(lines).startswith("retry:")
            api.process.send_signal(stop)
            began = time.monotonic()
            assert len(list(lines)) > 0  # to its proper end: a line that breaks is an error of the client's
        api.process.wait(20)
        assert time.monotonic() - began < 2.5
    assert list((tmp_path / "data").glob("metrics/*")) == []


def test_customers_behind_a_trusted_proxy_are_told_apart(settings: Settings, shelf: int, tmp_path: Path) -> None:
    environment = {"RATE_LIMIT_PER_MINUTE": "2", "TRUSTED_PROXIES": "127.0.0.2,10.0.0.0/8"}
    with program(settings, tmp_path, **environment) as api:
        behind = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(base_url=api.url, transport=behind) as proxy, httpx.Client(base_url=api.url) as stranger:
            told = [_from(proxy, f"203.0.113.{number}") for number in range(6)]
            forged = [_from(stranger, f"203.0.113.{number}") for number in range(6)]
    assert told == [200] * 6
    assert forged == [200, 200, 429, 429, 429, 429]


def _from(client: httpx.Client, address: str) -> int:
    return client.get("/v1/destinations", headers={"X-Forwarded-For": address}).status_code


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    except httpx.HTTPError:
        return False
