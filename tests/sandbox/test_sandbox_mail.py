"""Mail in the sandbox: Resend's API, the SMTP sink, the inbox pages and their JSON."""

import base64
import smtplib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.config import SandboxConfig
from sandbox.serve import Served, served

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
KEY = {"Authorization": "Bearer re_sandbox"}


@pytest.fixture(scope="module")
def mail_sandbox() -> Iterator[Served]:
    with served(SandboxConfig(plans_per_provider=10)) as sandbox:
        yield sandbox


@pytest.fixture
def web(mail_sandbox: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=mail_sandbox.base_url, timeout=10) as client:
        client.post("/sandbox/reset").raise_for_status()
        yield client


def letter(**changes: Any) -> dict[str, Any]:
    return {
        "from": "Shop <orders@shop.test>",
        "to": ["customer@example.com"],
        "subject": "Your <eSIM>",
        "html": '<h1>Hello</h1><img src="cid:qr-1">',
        "text": "Hello",
        "attachments": [
            {"filename": "qr 1.png", "content": base64.b64encode(PIXEL).decode(), "content_id": "qr-1"},
        ],
        **changes,
    }


def send(web: httpx.Client, key: str | None = None, **changes: Any) -> httpx.Response:
    headers = {**KEY, **({"Idempotency-Key": key} if key else {})}
    return web.post("/resend/emails", json=letter(**changes), headers=headers)


def mails(web: httpx.Client, **query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = web.get("/sandbox/mails", params=query).json()["mails"]
    return found


def test_mail_sent_by_resend_is_in_the_inbox(web: httpx.Client) -> None:
    answer = send(web)
    assert answer.status_code == 200
    mail_id = answer.json()["id"]
    assert "Your &lt;eSIM&gt;" in web.get("/inbox").text
    page = web.get(f"/inbox/{mail_id}")
    assert 'sandbox="allow-popups' in page.text
    assert web.get(f"/resend/emails/{mail_id}", headers=KEY).json()["to"] == ["customer@example.com"]
    assert web.get("/resend/emails/none", headers=KEY).json()["name"] == "not_found"


def test_inline_images_are_shown_and_nothing_can_run(web: httpx.Client) -> None:
    mail_id = send(web).json()["id"]
    html = web.get(f"/inbox/{mail_id}/html")
    assert f'<img src="/inbox/{mail_id}/attachments/0">' in html.text
    assert "script-src" not in html.headers["content-security-policy"]
    assert "default-src 'none'" in html.headers["content-security-policy"]
    image = web.get(f"/inbox/{mail_id}/attachments/0")
    assert (image.content, image.headers["content-type"]) == (PIXEL, "image/png")
    assert web.get(f"/inbox/{mail_id}/attachments/1").status_code == 404


def test_same_key_is_delivered_once(web: httpx.Client) -> None:
    first = send(web, "notice-1").json()
    assert send(web, "notice-1").json() == first
    assert len(mails(web)) == 1
    other = send(web, "notice-1", subject="Another")
    assert (other.status_code, other.json()["name"]) == (409, "invalid_idempotent_request")
    assert mails(web)[0]["idempotency_key"] == "notice-1"


@pytest.mark.parametrize(
    ("changes", "status", "name"),
    [
        ({"to": []}, 422, "missing_required_field"),
        ({"to": ["nobody"]}, 422, "validation_error"),
        ({"to": [f"c{n}@example.com" for n in range(51)]}, 422, "validation_error"),
        ({"html": None, "text": None}, 422, "missing_required_field"),
        ({"subject": ["no"]}, 422, "validation_error"),
        ({"attachments": [{"filename": "x"}]}, 422, "invalid_attachment"),
        ({"attachments": [{"filename": "x", "content": "not base64!"}]}, 422, "invalid_attachment"),
        ({"tags": [{"name": "a b", "value": "c"}]}, 422, "validation_error"),
    ],
)
def test_bad_mails_get_resends_errors(web: httpx.Client, changes: dict[str, Any], status: int, name: str) -> None:
    answer = send(web, **changes)
    assert answer.status_code == status
    assert (answer.json()["statusCode"], answer.json()["name"]) == (status, name)
    assert mails(web) == []


def test_keys_are_checked(web: httpx.Client) -> None:
    assert web.post("/resend/emails", json=letter()).json()["name"] == "missing_api_key"
    wrong = web.post("/resend/emails", json=letter(), headers={"Authorization": "Bearer re_other"})
    assert (wrong.status_code, wrong.json()["name"]) == (403, "invalid_api_key")
    assert web.post("/resend/emails", content=b"{", headers=KEY).status_code == 400


def test_smtp_mail_arrives_with_its_parts(web: httpx.Client, mail_sandbox: Served) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "Shop <o@shop.test>", "customer@example.com", "Grüße"
    message["Message-ID"] = "<notice-2@shop.test>"
    message.set_content("Hello")
    message.add_alternative('<p>Hallo</p><img src="cid:qr-1">', subtype="html")
    html: Any = list(message.iter_parts())[1]
    html.add_related(PIXEL, "image", "png", cid="<qr-1>", filename="qr.png")
    port = web.get("/sandbox/mails").json()["smtp_port"]
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as server:
        server.login("anybody", "anything")
        server.send_message(message, to_addrs=["customer@example.com", "hidden@example.com"])
    mail = mails(web)[0]
    assert (mail["transport"], mail["subject"], mail["bcc"]) == ("smtp", "Grüße", ["hidden@example.com"])
    assert mail["text"].strip() == "Hello"
    assert mail["headers"]["Message-ID"] == "<notice-2@shop.test>"
    assert base64.b64decode(mail["attachments"][0]["content"]) == PIXEL
    assert f'src="/inbox/{mail["id"]}/attachments/0"' in web.get(f"/inbox/{mail['id']}/html").text


def test_mails_are_found_by_recipient_and_time(web: httpx.Client) -> None:
    send(web)
    send(web, to=["Somebody Else <other@example.com>"])
    assert [m["to"] for m in mails(web)] == [["Somebody Else <other@example.com>"], ["customer@example.com"]]
    assert len(mails(web, to="OTHER@example.com")) == 1
    now = datetime.now(UTC)
    assert len(mails(web, since=(now - timedelta(minutes=1)).isoformat())) == 2
    assert mails(web, since=(now + timedelta(minutes=1)).isoformat()) == []
    assert web.get("/sandbox/mails", params={"since": "yesterday"}).status_code == 422


def test_faults_strike_as_often_as_asked(web: httpx.Client) -> None:
    fault = {"kind": "error_status", "times": 2, "params": {"status": 503}}
    web.put("/sandbox/mail/faults", json=fault).raise_for_status()
    assert [send(web).status_code for _ in range(3)] == [503, 503, 200]
    web.put("/sandbox/mail/faults", json={"kind": "timeout", "times": 1, "params": {"when": "after", "seconds": 0.05}})
    with pytest.raises(httpx.RemoteProtocolError):
        send(web, "notice-3")
    assert send(web, "notice-3").status_code == 200
    assert len(mails(web)) == 2
    assert web.put("/sandbox/mail/faults", json={"kind": "meteor"}).status_code == 422
    web.put("/sandbox/mail/faults", json=fault)
    web.delete("/sandbox/faults")
    assert web.get("/sandbox/mail/faults").json()["faults"] == []


def test_smtp_fault_is_a_temporary_refusal(web: httpx.Client) -> None:
    web.put("/sandbox/mail/faults", json={"kind": "error_status", "times": 1}).raise_for_status()
    port = web.get("/sandbox/mails").json()["smtp_port"]
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as server, pytest.raises(smtplib.SMTPDataError) as refused:
        server.sendmail("o@shop.test", ["customer@example.com"], "Subject: x\r\n\r\nx")
    assert refused.value.smtp_code == 451
    assert mails(web) == []


def test_mails_outlive_a_restart(tmp_path: Path) -> None:
    config = SandboxConfig(plans_per_provider=10, state=tmp_path / "state.json")
    with served(config) as first, httpx.Client(base_url=first.base_url) as web:
        sent = send(web, "notice-4").json()
    with served(config) as second, httpx.Client(base_url=second.base_url) as web:
        assert send(web, "notice-4").json() == sent
        assert len(mails(web)) == 1
