"""The Slack channel of the sandbox."""

from collections.abc import Iterator

import httpx
import pytest

from sandbox.config import SandboxConfig
from sandbox.serve import served


@pytest.fixture(scope="module")
def slack_url() -> Iterator[str]:
    with served(SandboxConfig(plans_per_provider=10)) as sandbox:
        yield sandbox.base_url


@pytest.fixture
def web(slack_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=slack_url, timeout=10) as client:
        client.post("/sandbox/reset").raise_for_status()
        yield client


def test_message_is_answered_ok_and_shown(web: httpx.Client) -> None:
    answer = web.post("/slack/webhook", json={"text": "Order <http://shop.test/o/1|OID001> failed <b>"})
    assert (answer.status_code, answer.text) == (200, "ok")
    assert answer.headers["content-type"].startswith("text/plain")
    page = web.get("/slack").text
    assert "OID001 (http://shop.test/o/1)" in page
    assert "&lt;b&gt;" in page
    assert web.get("/sandbox/slack").json()["messages"][0]["payload"]["text"].startswith("Order")


def test_blocks_and_form_payloads_are_read(web: httpx.Client) -> None:
    block = {"type": "section", "text": {"type": "mrkdwn", "text": "from a block"}}
    web.post("/slack/webhook", json={"blocks": [block]}).raise_for_status()
    web.post("/slack/webhook", data={"payload": '{"text": "from a form"}'}).raise_for_status()
    assert [m["text"] for m in web.get("/sandbox/slack").json()["messages"]] == ["from a form", "from a block"]


@pytest.mark.parametrize(
    ("body", "answer"), [(b"{", "invalid_payload"), (b"[]", "invalid_payload"), (b"{}", "no_text")]
)
def test_bad_payloads_are_refused_as_slack_does(web: httpx.Client, body: bytes, answer: str) -> None:
    refused = web.post("/slack/webhook", content=body)
    assert (refused.status_code, refused.text) == (400, answer)
    assert web.get("/sandbox/slack").json()["total"] == 0


def test_fault_fails_as_often_as_asked(web: httpx.Client) -> None:
    web.put("/sandbox/slack/faults", json={"kind": "error_status", "times": 1}).raise_for_status()
    assert [web.post("/slack/webhook", json={"text": "x"}).status_code for _ in range(2)] == [500, 200]
    assert web.put("/sandbox/slack/faults", json={"kind": "meteor"}).status_code == 422
    assert web.delete("/sandbox/slack/faults").json()["faults"] == []
