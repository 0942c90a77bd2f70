"""The shop's pages without a browser: policy, escaping, odd addresses, and the process that serves them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
from sqlalchemy import Engine

from resources.settings import Settings
from tests.api.catalogue_rows import package_row, publish
from tests.api.serving import ServedApi, free_port, served_api, wait_until
from tests.api.test_api_catalogue import assert_problem


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


def test_an_empty_shop_says_so(settings: Settings) -> None:
    with served_api(settings) as api:
        assert "The shelves are being filled" in api.client.get("/").text


def test_the_program_serves_and_ends_cleanly(settings: Settings, shelf: int, tmp_path: Path) -> None:
    assert settings.database_url is not None
    port = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}},
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "DATA_DIR": str(tmp_path / "data"),
        "API_PORT": str(port),
    }
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "api"], env=environment, stdout=out, stderr=out)
    try:
        wait_until(lambda: process.poll() is not None or _answers(port), "the API answers", 60)
        answer = httpx.get(f"http://127.0.0.1:{port}/v1/destinations")
        assert (answer.status_code, len(answer.json()["destinations"])) == (200, 4)
        assert "server" not in answer.headers
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in {0, -signal.SIGTERM}
    assert "Traceback" not in log.read_text()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    except httpx.HTTPError:
        return False
