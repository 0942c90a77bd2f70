"""Two carriers behind the `Mailer` port: Resend's API and any SMTP server, chosen by the settings.

Promises: the key of a notice goes along (`Idempotency-Key`, `Message-ID`), so a repeat is recognised where the carrier
can; an error says what happened without naming the recipient.
"""

import base64
import hashlib
import ipaddress
import re
import smtplib
import socket
import ssl
from contextlib import suppress
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, parseaddr
from threading import Timer
from typing import Any

import httpx

from esim.errors import NoticeError
from esim.ports import Mail, Mailer
from resources.settings import Settings
from resources.tls import tls_context

SMTPS_PORT, SUBMISSION_PORT = 465, 587
_UNSAFE_IN_ID = re.compile(r"[^A-Za-z0-9._-]+")


class ResendMailer:
    """Sends by Resend, which delivers one key once within 24 hours."""

    def __init__(self, *, api_key: str, api_url: str, sender: str, timeout: float = 10.0) -> None:
        """Take the key, the API's address, the From header and a timeout in seconds."""
        self._sender = sender
        self._url = f"{api_url.rstrip('/')}/emails"
        self._client = httpx.Client(
            timeout=timeout, verify=tls_context(), headers={"Authorization": f"Bearer {api_key}"}
        )

    def send(self, mail: Mail, *, key: str) -> str:
        """Hand one mail over and return Resend's id; empty when this key was delivered before with other content.

        Raises:
            NoticeError: not handed over; try again later.
        """
        try:
            answer = self._client.post(self._url, json=self._body(mail, key), headers={"Idempotency-Key": key[:256]})
        except httpx.HTTPError as error:
            raise NoticeError(f"Resend did not take notice {key} ({type(error).__name__}); try again later") from None
        told = _json_of(answer)
        if answer.is_success and isinstance(told.get("id"), str):
            return str(told["id"])
        if answer.status_code == 409 and told.get("name") == "invalid_idempotent_request":
            return ""  # Resend took this key before, and says that trying again is useless
        name = str(told.get("name") or "no error name")
        raise NoticeError(f"Resend did not take notice {key} (HTTP {answer.status_code}, {name}); try again later")

    def _body(self, mail: Mail, key: str) -> dict[str, Any]:
        attachments = [
            {
                "filename": image.filename,
                "content": base64.b64encode(image.content).decode(),
                "content_type": image.content_type,
                "content_id": image.content_id,
            }
            for image in mail.images
        ]
        return {
            "from": self._sender,
            "to": [mail.to],
            "subject": mail.subject,
            "html": mail.html,
            "text": mail.text,
            "headers": {"X-Entity-Ref-ID": key},
            **({"attachments": attachments} if attachments else {}),
        }

    def close(self) -> None:
        """Give connections back."""
        self._client.close()


class SmtpMailer:
    """Sends by SMTP: TLS from the start on port 465, STARTTLS on 587 and wherever the server offers it."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        sender: str,
        user: str = "",
        password: str = "",
        timeout: float = 15.0,
        deadline: float = 60.0,
    ) -> None:
        """Take the server, the From header, a login where one is needed, and seconds: for one answer, for a mail."""
        self._host = host
        self._port = port
        self._sender = sender
        self._user = user
        self._password = password
        self._timeout = timeout
        self._deadline = deadline

    def send(self, mail: Mail, *, key: str) -> str:
        """Hand one mail over and return its Message-ID, which follows from `key`.

        A server that answers each command slowly is hung up on at the deadline: by then another sender may try.

        Raises:
            NoticeError: not handed over; try again later.
        """
        message_id = self._message_id(key)
        try:
            message = self._message(mail, message_id)
            server = self._connect()
            guard = Timer(self._deadline, _hang_up, (server,))
            guard.start()
            try:
                self._sign_in(server)
                server.send_message(message)
            finally:
                guard.cancel()
                with suppress(smtplib.SMTPException, OSError):  # taken is taken, however the server says goodbye
                    server.quit()
                server.close()
        except smtplib.SMTPResponseException as error:
            raise self._failed(key, f"SMTP {error.smtp_code}") from None
        except (OSError, ValueError, IndexError, MessageError) as error:  # the line, or an address nobody can have
            raise self._failed(key, type(error).__name__) from None
        return message_id

    def _failed(self, key: str, why: str) -> NoticeError:
        return NoticeError(f"{self._host}:{self._port} did not take notice {key} ({why}); try again later")

    def _connect(self) -> smtplib.SMTP:
        if self._port == SMTPS_PORT:
            secure = ssl.create_default_context()
            return smtplib.SMTP_SSL(self._host, self._port, timeout=self._timeout, context=secure)
        return smtplib.SMTP(self._host, self._port, timeout=self._timeout)

    def _sign_in(self, server: smtplib.SMTP) -> None:
        """Encrypt where the port demands it or the server can, then log in; never a password over an open line."""
        encrypted = self._port == SMTPS_PORT
        server.ehlo()
        if not encrypted and (self._port == SUBMISSION_PORT or server.has_extn("starttls")):
            server.starttls(context=ssl.create_default_context())
            encrypted = True
        if self._user:
            if not encrypted and not _is_loopback(self._host):
                raise smtplib.SMTPNotSupportedError("no TLS, so the password is not sent")
            server.login(self._user, self._password)

    def _message_id(self, key: str) -> str:
        """An id that follows from the key: readable, and unique by its digest."""
        domain = parseaddr(self._sender)[1].rpartition("@")[2] or "localhost"
        readable = _UNSAFE_IN_ID.sub("-", key)[:60].strip("-.")
        return f"<{readable}.{hashlib.sha256(key.encode()).hexdigest()[:16]}@{domain}>"

    def _message(self, mail: Mail, message_id: str) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self._sender
        message["To"] = Address(addr_spec=mail.to)
        message["Subject"] = mail.subject
        message["Message-ID"] = message_id
        message["Date"] = formatdate(usegmt=True)
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(mail.text)
        message.add_alternative(mail.html, subtype="html")
        html = list(message.iter_parts())[-1]
        assert isinstance(html, EmailMessage)  # noqa: S101 (the part just added)
        for image in mail.images:
            main, _, sub = image.content_type.partition("/")
            html.add_related(image.content, main, sub, cid=f"<{image.content_id}>", filename=image.filename)
        return message

    def close(self) -> None:
        """Nothing to give back: every mail has its own connection."""


def _hang_up(server: smtplib.SMTP) -> None:
    if server.sock is not None:
        with suppress(OSError):
            server.sock.shutdown(socket.SHUT_RDWR)


def mailer(settings: Settings) -> Mailer:
    """The carrier these settings name: Resend with a key, else the SMTP server, else the sandbox's Resend."""
    resend = settings.resend
    if settings.smtp_host and not resend.live:
        return SmtpMailer(
            host=settings.smtp_host,
            port=settings.smtp_port,
            sender=settings.mail_from,
            user=settings.smtp_user or "",
            password=settings.smtp_pass.get_secret_value() if settings.smtp_pass else "",
        )
    return ResendMailer(api_key=resend.credentials["api_key"], api_url=resend.url, sender=settings.mail_from)


def _json_of(answer: httpx.Response) -> dict[str, Any]:
    try:
        told = answer.json()
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
