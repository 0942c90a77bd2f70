"""Resend's API: `POST /resend/emails` with its checks, error bodies and idempotency keys, and reading one mail back."""

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping
from datetime import UTC
from email.utils import parseaddr
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from sandbox.drops import Hangup
from sandbox.faults import Fault
from sandbox.mailbox import ADDRESS, Attachment, Mail, Mailbox, new_id
from sandbox.switches import Switches
from sandbox.world import World

KEY_LIFE_S = 24 * 3600
MAX_RECIPIENTS = 50
MAX_BYTES = 40 * 1024 * 1024


class ResendError(Exception):
    """An answer other than 2xx: `{"statusCode", "name", "message"}`."""

    def __init__(self, status: int, name: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.name = name

    def response(self) -> Response:
        """The answer."""
        return JSONResponse({"statusCode": self.status, "name": self.name, "message": str(self)}, self.status)


class Resend:
    """One Resend account."""

    def __init__(self, world: World, box: Mailbox, faults: Switches) -> None:
        self._world = world
        self._box = box
        self._faults = faults
        self._api_key = os.environ.get("RESEND_API_KEY") or "re_sandbox"

    async def send(self, request: Request) -> Response:
        """POST /emails; never raises for what the client did wrong."""
        fault = self._faults.strike("error_status", "timeout")
        if fault is not None and fault.params.get("when", "before") == "before":
            return self._struck(fault)
        try:
            self._authenticate(request)
            answer = self._accept(await request.body(), request.headers.get("Idempotency-Key"))
        except ResendError as error:
            answer = error.response()
        return answer if fault is None else self._struck(fault)

    def read(self, request: Request, mail_id: str) -> Response:
        """GET /emails/{id}."""
        try:
            self._authenticate(request)
            mail = self._box.get(mail_id)
            if mail is None:
                raise ResendError(404, "not_found", "Email not found")
        except ResendError as error:
            return error.response()
        return JSONResponse(
            {
                "object": "email",
                "id": mail.id,
                "from": mail.sender,
                "to": mail.to,
                "cc": mail.cc,
                "bcc": mail.bcc,
                "reply_to": mail.reply_to,
                "created_at": mail.at,
                "subject": mail.subject,
                "html": mail.html or None,
                "text": mail.text or None,
                "last_event": "delivered",
                "tags": mail.tags,
            }
        )

    def _struck(self, fault: Fault) -> Response:
        if fault.kind == "timeout":
            return Hangup(self._world.closing, fault.number("seconds", 60))
        status = int(fault.number("status", 500))
        name = "rate_limit_exceeded" if status == 429 else "application_error"
        return ResendError(status, str(fault.params.get("name", name)), "A fault of the sandbox").response()

    def _authenticate(self, request: Request) -> None:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise ResendError(401, "missing_api_key", "Missing API Key")
        if key.strip() != self._api_key:
            raise ResendError(403, "invalid_api_key", "API key is invalid")

    def _accept(self, raw: bytes, key: str | None) -> Response:
        now = self._world.now()
        if key is not None and not 1 <= len(key) <= 256:
            raise ResendError(400, "invalid_idempotency_key", "The key must be between 1-256 chars.")
        digest = hashlib.sha256(raw).hexdigest()
        if key is not None and key in self._box.keys:
            known_id, known_digest, at = self._box.keys[key]
            if at + KEY_LIFE_S > now.timestamp():
                if known_digest != digest:
                    message = "This idempotency key has been used on a request with a different payload."
                    raise ResendError(409, "invalid_idempotent_request", message)
                return JSONResponse({"id": known_id})
        mail = _read(raw, now.astimezone(UTC).isoformat(), key)
        self._box.add(mail)
        if key is not None:
            self._box.keys[key] = (mail.id, digest, now.timestamp())
        return JSONResponse({"id": mail.id})


def _read(raw: bytes, at: str, key: str | None) -> Mail:
    body = _object(raw)
    for name in ("from", "to", "subject"):
        if not body.get(name):
            raise ResendError(422, "missing_required_field", f"Missing `{name}` field.")
    if not body.get("html") and not body.get("text"):
        raise ResendError(422, "missing_required_field", "Missing `html` or `text` field.")
    return Mail(
        id=new_id(),
        at=at,
        transport="resend",
        sender=_addresses(body, "from")[0],
        to=_addresses(body, "to"),
        cc=_addresses(body, "cc"),
        bcc=_addresses(body, "bcc"),
        reply_to=_addresses(body, "reply_to"),
        subject=_text(body, "subject"),
        html=_text(body, "html"),
        text=_text(body, "text"),
        headers={str(name): str(value) for name, value in (body.get("headers") or {}).items()},
        tags=_tags(body),
        idempotency_key=key,
        attachments=[_attachment(entry) for entry in body.get("attachments") or []],
    )


def _object(raw: bytes) -> dict[str, Any]:
    if len(raw) > MAX_BYTES:
        raise ResendError(413, "validation_error", "The email is larger than 40 MB.")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise ResendError(400, "validation_error", "The request body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise ResendError(422, "validation_error", "The request body must be an object.")
    return body


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ResendError(422, "validation_error", f"The `{name}` field must be a `string`.")
    return value


def _addresses(body: Mapping[str, Any], name: str) -> list[str]:
    value = body.get(name) or []
    people = [value] if isinstance(value, str) else value
    if not isinstance(people, list) or not all(isinstance(person, str) for person in people):
        raise ResendError(422, "validation_error", f"The `{name}` field must be a `string` or a list of them.")
    if len(people) > MAX_RECIPIENTS:
        raise ResendError(422, "validation_error", f"The `{name}` field takes at most {MAX_RECIPIENTS} addresses.")
    for person in people:
        if not ADDRESS.fullmatch(parseaddr(person)[1]):
            message = (
                f"Invalid `{name}` field. The email address needs to follow the `email@example.com` or "
                "`Name <email@example.com>` format."
            )
            raise ResendError(422, "validation_error", message)
    return people


def _tags(body: Mapping[str, Any]) -> list[dict[str, str]]:
    tags = body.get("tags") or []
    for tag in tags:
        text = f"{tag.get('name', '')}{tag.get('value', '')}" if isinstance(tag, dict) else " "
        if not text.replace("_", "").replace("-", "").isascii() or not text.replace("_", "").replace("-", "").isalnum():
            message = "Tags should only contain ASCII letters, numbers, underscores, or dashes."
            raise ResendError(422, "validation_error", message)
    return [{"name": str(tag["name"]), "value": str(tag.get("value", ""))} for tag in tags]


def _attachment(entry: Any) -> Attachment:
    if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
        raise ResendError(422, "invalid_attachment", "Attachment must have a `content` in base64.")
    try:
        base64.b64decode(entry["content"], validate=True)
    except (binascii.Error, ValueError):
        raise ResendError(422, "invalid_attachment", "Attachment `content` is not base64.") from None
    filename = str(entry.get("filename") or "attachment")
    guessed = "image/png" if filename.endswith(".png") else "application/octet-stream"
    content_id = entry.get("content_id")
    kind = str(entry.get("content_type") or guessed)
    return Attachment(filename, entry["content"], kind, str(content_id) if content_id else None)


def build(world: World, box: Mailbox, faults: Switches) -> APIRouter:
    """The routes under /resend."""
    account = Resend(world, box, faults)
    router = APIRouter(prefix="/resend", tags=["resend"])
    router.add_api_route("/emails", account.send, methods=["POST"], response_model=None)
    router.add_api_route("/emails/{mail_id}", account.read, methods=["GET"], response_model=None)
    return router
