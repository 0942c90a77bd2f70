"""Notes for operations: delivered or an error that can be retried, and never personal data."""

from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from esim.errors import NoticeError
from esim.ports import ChatNotifier
from resources.mail.slack import SlackNotifier, notifier
from resources.settings import Settings


@pytest.fixture
def slack(web: httpx.Client, sandbox_url: str) -> Iterator[SlackNotifier]:
    found = SlackNotifier(webhook_url=f"{sandbox_url}/slack/webhook", timeout=5)
    yield found
    found.close()


def texts(web: httpx.Client) -> list[str]:
    return [message["payload"]["text"] for message in web.get("/sandbox/slack").json()["messages"]]


def test_note_arrives(slack: SlackNotifier, web: httpx.Client) -> None:
    port: ChatNotifier = slack
    port.post("Order OID001 failed at airalo (out of stock)", key="k")
    assert texts(web) == ["Order OID001 failed at airalo (out of stock)"]


def test_personal_data_is_taken_out_before_it_leaves(slack: SlackNotifier, web: httpx.Client) -> None:
    slack.post("customer@example.com got 8900000000000000001 LPA:1$smdp.example.com$K2-ABC", key="k")
    assert texts(web) == ["[redacted] got [redacted] [redacted]"]


def test_long_notes_are_cut(slack: SlackNotifier, web: httpx.Client) -> None:
    slack.post("x" * 10_000, key="k")
    assert len(texts(web)[0]) == 3000


def test_refusal_and_silence_are_errors_without_the_secret_address(slack: SlackNotifier, web: httpx.Client) -> None:
    web.put("/sandbox/slack/faults", json={"kind": "error_status", "times": 1}).raise_for_status()
    with pytest.raises(NoticeError, match=r"note k \(HTTP 500, fatal\)"):
        slack.post("x", key="k")
    with pytest.raises(NoticeError, match="no_text"):
        slack.post("", key="k")
    dead = SlackNotifier(webhook_url="http://127.0.0.1:9/services/secret")
    with pytest.raises(NoticeError, match="ConnectError") as refused:
        dead.post("x", key="k")
    assert "secret" not in str(refused.value)


def test_words_of_others_are_harmless_in_slacks_markup(slack: SlackNotifier, web: httpx.Client) -> None:
    slack.post("airalo says: <!channel> & <https://example.com|look>", key="k")
    assert texts(web) == ["airalo says: &lt;!channel&gt; &amp; &lt;https://example.com|look&gt;"]


def test_settings_name_the_channel(web: httpx.Client, sandbox_url: str) -> None:
    settings = Settings(_env_file=None, sandbox_port=int(sandbox_url.rpartition(":")[2]))  # type: ignore[call-arg]  # pydantic-settings
    with closing(notifier(settings)) as channel:
        channel.post("hello", key="k")
    assert texts(web) == ["hello"]
