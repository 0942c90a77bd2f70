"""Resend and SMTP against the sandbox: one contract, keys passed on, errors without addresses."""

import base64
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from threading import Thread
from typing import Any

import httpx
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from esim.errors import NoticeError
from esim.ports import InlineImage, Mail, Mailer
from resources.mail.carriers import ResendMailer, SmtpMailer, mailer
from resources.settings import Settings
from tests.ports import free_port

SENDER = "NumnaRoad <orders@numnaroad.test>"
MAIL = Mail(
    to="customer@example.com",
    subject="Grüße",
    html='<p>Hello</p><img src="cid:esim-1-qr">',
    text="Hello",
    images=(InlineImage("esim-1-qr", "esim-1.png", b"\x89PNG-bytes"),),
)


def mails(web: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = web.get("/sandbox/mails", params={"to": MAIL.to}).json()["mails"]
    return found


@pytest.fixture
def resend(web: httpx.Client, sandbox_url: str) -> Iterator[ResendMailer]:
    found = ResendMailer(api_key="re_sandbox", api_url=f"{sandbox_url}/resend", sender=SENDER, timeout=5)
    yield found
    found.close()


@pytest.fixture
def smtp(web: httpx.Client) -> SmtpMailer:
    port = web.get("/sandbox/mails").json()["smtp_port"]
    return SmtpMailer(host="127.0.0.1", port=port, sender=SENDER, user="shop", password="secret", timeout=5)


@pytest.fixture(params=["resend", "smtp"])
def carrier(request: pytest.FixtureRequest) -> Mailer:
    found: Mailer = request.getfixturevalue(request.param)
    return found


def test_mail_arrives_whole(carrier: Mailer, web: httpx.Client) -> None:
    assert carrier.send(MAIL, key="order:1:confirmation")
    arrived = mails(web)[0]
    assert (arrived["from"], arrived["to"], arrived["subject"]) == (SENDER, ["customer@example.com"], "Grüße")
    assert arrived["html"].strip() == MAIL.html
    assert arrived["text"].strip() == "Hello"
    image = arrived["attachments"][0]
    assert (image["content_id"], image["content_type"]) == ("esim-1-qr", "image/png")
    assert base64.b64decode(image["content"]) == b"\x89PNG-bytes"


def test_mail_without_pictures_has_no_attachments(carrier: Mailer, web: httpx.Client) -> None:
    carrier.send(Mail(MAIL.to, "x", "<p>x</p>", "x"), key="k")
    assert mails(web)[0]["attachments"] == []


def test_refused_mail_is_an_error_without_the_address(carrier: Mailer, web: httpx.Client) -> None:
    fault = {"kind": "error_status", "times": 1, "params": {"status": 503}}
    web.put("/sandbox/mail/faults", json=fault).raise_for_status()
    with pytest.raises(NoticeError, match=r"notice k.*(503|451)") as refused:
        carrier.send(MAIL, key="k")
    assert "customer" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert carrier.send(MAIL, key="k")
    assert len(mails(web)) == 1


def test_lost_answer_is_an_error_and_a_repeat_carries_the_same_key(carrier: Mailer, web: httpx.Client) -> None:
    fault = {"kind": "timeout", "times": 1, "params": {"when": "after", "seconds": 0.05}}
    web.put("/sandbox/mail/faults", json=fault).raise_for_status()
    with pytest.raises(NoticeError):
        carrier.send(MAIL, key="k")
    carrier.send(MAIL, key="k")
    seen = {mail["idempotency_key"] or mail["headers"]["Message-ID"] for mail in mails(web)}
    assert len(seen) == 1


@pytest.mark.parametrize("address", ["nobody", "a@b\nBcc: other@example.com", "", "a@", "@b", "a b@c.d"])
def test_impossible_addresses_are_refused(carrier: Mailer, web: httpx.Client, address: str) -> None:
    with pytest.raises(NoticeError):
        carrier.send(Mail(address, "x", "<p>x</p>", "x"), key="k")
    assert web.get("/sandbox/mails").json()["total"] == 0


def test_nobody_listening_is_an_error() -> None:
    dead: list[Mailer] = [
        ResendMailer(api_key="k", api_url="http://127.0.0.1:9", sender=SENDER),
        SmtpMailer(host="127.0.0.1", port=9, sender=SENDER),
    ]
    for carrier in dead:
        with pytest.raises(NoticeError, match="notice k"):
            carrier.send(MAIL, key="k")


def test_resend_delivers_one_key_once(resend: ResendMailer, web: httpx.Client) -> None:
    first = resend.send(MAIL, key="k")
    assert resend.send(MAIL, key="k") == first
    assert resend.send(Mail(MAIL.to, "changed", "<p>x</p>", "x"), key="k") == ""
    assert len(mails(web)) == 1


def test_resend_wrong_key_is_named(web: httpx.Client, sandbox_url: str) -> None:
    stranger = ResendMailer(api_key="re_wrong", api_url=f"{sandbox_url}/resend", sender=SENDER)
    with closing(stranger), pytest.raises(NoticeError, match="HTTP 403, invalid_api_key"):
        stranger.send(MAIL, key="k")


def test_smtp_message_id_follows_from_the_key(smtp: SmtpMailer, web: httpx.Client) -> None:
    first = smtp.send(MAIL, key="order:1/confirmation")
    assert first == mails(web)[0]["headers"]["Message-ID"]
    assert first.startswith("<order-1-confirmation.")
    assert first.endswith("@numnaroad.test>")
    assert smtp.send(MAIL, key="order:1/confirmation") == first
    assert smtp.send(MAIL, key="order-1-confirmation") != first


class StallingServer:
    """Takes every command but answers nothing after DATA."""

    def __enter__(self) -> int:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()
        return int(self._listener.getsockname()[1])

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, connection.makefile("rb") as lines:
            connection.sendall(b"220 ready\r\n")
            for line in lines:
                if line.upper().startswith(b"DATA"):
                    lines.read()  # until the other side hangs up
                    return
                connection.sendall(b"250 go on\r\n")

    def __exit__(self, *_: object) -> None:
        self._thread.join(20)
        self._listener.close()


def test_smtp_hangs_up_on_a_server_that_keeps_it_waiting() -> None:
    with StallingServer() as port:
        mailer = SmtpMailer(host="127.0.0.1", port=port, sender=SENDER, timeout=15, deadline=0.1)
        with pytest.raises(NoticeError, match="SMTPServerDisconnected"):
            mailer.send(MAIL, key="order:1:confirmation")


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, ResendMailer),
        ({"resend_api_key": "re_live"}, ResendMailer),
        ({"smtp_host": "mail.example.com"}, SmtpMailer),
        ({"smtp_host": "mail.example.com", "resend_api_key": "re_live"}, ResendMailer),
    ],
)
def test_settings_choose_the_carrier(changes: dict[str, str], kind: Callable[..., Mailer]) -> None:
    settings = Settings(_env_file=None, **changes)  # type: ignore[call-arg, arg-type]  # pydantic-settings
    assert type(mailer(settings)) is kind


class BadGoodbye:
    """A server that takes the mail and then will not say goodbye properly."""

    def __init__(self) -> None:
        self.taken = 0

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.taken += 1
        return "250 taken"

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        return "421 too busy to say goodbye"


def test_mail_that_was_taken_is_sent_however_the_server_says_goodbye() -> None:
    handler, port = BadGoodbye(), free_port()
    server = Controller(handler, hostname="127.0.0.1", port=port)
    server.start()
    try:
        assert SmtpMailer(host="127.0.0.1", port=port, sender=SENDER, timeout=5).send(MAIL, key="k")
    finally:
        server.stop()
    assert handler.taken == 1
