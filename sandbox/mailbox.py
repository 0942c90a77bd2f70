"""The mails that were sent to the sandbox, whichever way they came, and how a raw one is read."""

import base64
import email
import email.policy
import re
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import getaddresses
from typing import Any

ADDRESS = re.compile(r"[^@\s<>,]+@[^@\s<>,]+\.[^@\s<>,]+")
_CID = re.compile(r"cid:([^\"'\s>)]+)")


@dataclass(frozen=True)
class Attachment:
    """One attached file; `content` is base64."""

    filename: str
    content: str
    content_type: str
    content_id: str | None = None

    def data(self) -> bytes:
        """The bytes of the file."""
        return base64.b64decode(self.content)


@dataclass(frozen=True)
class Mail:
    """One mail as it arrived; `at` is ISO 8601 in UTC."""

    id: str
    at: str
    transport: str
    sender: str
    to: list[str]
    subject: str
    html: str = ""
    text: str = ""
    cc: list[str] = field(default_factory=list)
    bcc: list[str] = field(default_factory=list)
    reply_to: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    tags: list[dict[str, str]] = field(default_factory=list)
    idempotency_key: str | None = None
    attachments: list[Attachment] = field(default_factory=list)

    def reached(self, address: str) -> bool:
        """Whether this address is among the recipients."""
        people = getaddresses([*self.to, *self.cc, *self.bcc])
        return any(found.lower() == address.lower() for _, found in people)

    def html_with_images(self) -> str:
        """The HTML with `cid:` images pointing at this sandbox's attachment pages."""
        places = {a.content_id: index for index, a in enumerate(self.attachments) if a.content_id}

        def place(match: re.Match[str]) -> str:
            index = places.get(match.group(1))
            return match.group(0) if index is None else f"/inbox/{self.id}/attachments/{index}"

        return _CID.sub(place, self.html)

    def as_json(self) -> dict[str, Any]:
        """The mail for tests: everything, with the address of each attachment."""
        row = asdict(self)
        row["from"] = row.pop("sender")
        row["url"] = f"/inbox/{self.id}"
        for index, attachment in enumerate(row["attachments"]):
            attachment["url"] = f"/inbox/{self.id}/attachments/{index}"
            attachment["size"] = len(self.attachments[index].data())
        return row


class Mailbox:
    """All mails, oldest first, and the idempotency keys of the last day."""

    def __init__(self) -> None:
        self._mails: dict[str, Mail] = {}
        self.keys: dict[str, tuple[str, str, float]] = {}

    def add(self, mail: Mail) -> None:
        """Keep a mail."""
        self._mails[mail.id] = mail

    def get(self, mail_id: str) -> Mail | None:
        """The mail with this id."""
        return self._mails.get(mail_id)

    def newest_first(self, to: str | None = None, since: datetime | None = None) -> Iterator[Mail]:
        """Mails to an address, since a moment."""
        for mail in reversed(self._mails.values()):
            if (to is None or mail.reached(to)) and (since is None or datetime.fromisoformat(mail.at) >= since):
                yield mail

    def clear(self) -> None:
        """Throw every mail away."""
        self._mails.clear()
        self.keys.clear()

    def dump(self) -> dict[str, Any]:
        """Plain data for the sandbox's state file."""
        return {"mails": [asdict(mail) for mail in self._mails.values()], "keys": self.keys}

    def load(self, kept: dict[str, Any]) -> None:
        """Take back what `dump` gave."""
        for row in kept["mails"]:
            files = [Attachment(**attachment) for attachment in row["attachments"]]
            self.add(Mail(**{**row, "attachments": files}))
        self.keys.update({key: (saved[0], saved[1], saved[2]) for key, saved in kept["keys"].items()})


def new_id() -> str:
    """An id for a mail."""
    return str(uuid.uuid4())


def read_mime(raw: bytes, sender: str, recipients: list[str], now: datetime) -> Mail:
    """Read a mail that came by SMTP; the envelope decides who gets it."""
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)  # noqa: S101 (the default policy makes nothing else)
    named = [address.lower() for _, address in getaddresses([str(message.get("To", "")), str(message.get("Cc", ""))])]
    return Mail(
        id=new_id(),
        at=now.astimezone(UTC).isoformat(),
        transport="smtp",
        sender=str(message.get("From", sender)),
        to=[r for r in recipients if r.lower() in named] or recipients,
        bcc=[r for r in recipients if r.lower() not in named],
        reply_to=[str(message["Reply-To"])] if message["Reply-To"] else [],
        subject=str(message.get("Subject", "")),
        html=_body(message, "html"),
        text=_body(message, "plain"),
        headers={name: str(value) for name, value in message.items()},
        attachments=[_attachment(part) for part in message.walk() if _is_file(part)],
    )


def _body(message: EmailMessage, kind: str) -> str:
    part = message.get_body(preferencelist=(kind,))
    content = part.get_content() if part is not None else ""
    return content if isinstance(content, str) else ""


def _is_file(part: Any) -> bool:
    return not part.is_multipart() and (part.get_filename() is not None or part["Content-ID"] is not None)


def _attachment(part: Any) -> Attachment:
    content_id = part["Content-ID"]
    return Attachment(
        filename=part.get_filename() or "attachment",
        content=base64.b64encode(part.get_payload(decode=True) or b"").decode(),
        content_type=part.get_content_type(),
        content_id=str(content_id).strip().strip("<>") if content_id else None,
    )
