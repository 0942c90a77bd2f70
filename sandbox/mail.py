"""Mail on localhost: Resend's API under /resend, an SMTP sink, the /inbox pages and JSON for tests.

POST /resend/emails | SMTP on `smtp_port` -> Mailbox -> /inbox, GET /sandbox/mails
"""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from sandbox import resend
from sandbox.mailbox import Mail, Mailbox, read_mime
from sandbox.pages import render
from sandbox.switches import Switches, fault_routes
from sandbox.world import World

KINDS = {
    "error_status": "answers params.status (500), by SMTP params.smtp_code (451); params.when is before or after",
    "timeout": "hangs params.seconds (60), then drops the connection; params.when is before or after the mail is taken",
}
MAX_SMTP_BYTES = 40 * 1024 * 1024


@dataclass
class MailState:
    """The mailbox of one sandbox, its faults, and the SMTP server while it runs."""

    world: World
    faults: Switches
    box: Mailbox = field(default_factory=Mailbox)
    server: asyncio.Server | None = None
    smtp_port: int = 0


def _make(world: World) -> MailState:
    state = MailState(world, Switches(world.rng("mail faults"), "mail", KINDS))
    world.on_reset(state.box.clear)
    world.on_reset(state.faults.clear)
    world.keep("mail", state.box.dump, state.box.load)
    return state


def state_of(world: World) -> MailState:
    """The mail of this sandbox."""
    return world.part(MailState, _make)


def clear_faults(world: World) -> None:
    """Take every mail fault out of force."""
    state_of(world).faults.clear()


class _Sink:
    """Takes every mail that comes by SMTP."""

    def __init__(self, state: MailState) -> None:
        self._state = state

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        """Keep one mail, unless a fault is in force."""
        fault = self._state.faults.strike("error_status", "timeout")
        when = fault.params.get("when", "before") if fault else None
        if fault is None or when == "after":
            content = envelope.content if isinstance(envelope.content, bytes) else b""
            recipients = [str(address) for address in envelope.rcpt_tos]
            self._state.box.add(read_mime(content, envelope.mail_from or "", recipients, self._state.world.now()))
        if fault is None:
            return "250 2.0.0 Accepted"
        if fault.kind == "timeout":
            await asyncio.sleep(fault.number("seconds", 60))
        return f"{int(fault.number('smtp_code', 451))} 4.3.0 A fault of the sandbox"


def _anybody(_server: Any, _session: Any, _envelope: Any, _mechanism: str, _data: Any) -> AuthResult:
    return AuthResult(success=True)


async def start(world: World) -> None:
    """Open the SMTP port; a second call does nothing. Raises RuntimeError naming the port when it is taken."""
    state = state_of(world)
    if state.server is not None:
        return

    def protocol() -> SMTP:
        return SMTP(
            _Sink(state),
            data_size_limit=MAX_SMTP_BYTES,
            enable_SMTPUTF8=True,
            authenticator=_anybody,
            auth_require_tls=False,
            hostname="sandbox.localhost",
            loop=asyncio.get_running_loop(),
        )

    wanted = world.config.smtp_port
    try:
        state.server = await asyncio.get_running_loop().create_server(protocol, world.config.host, wanted)
    except OSError as error:
        raise RuntimeError(f"SMTP port {wanted} is taken; set SANDBOX_SMTP_PORT to a free one ({error})") from error
    state.smtp_port = state.server.sockets[0].getsockname()[1]


async def stop(world: World) -> None:
    """Close the SMTP port."""
    state = state_of(world)
    if state.server is not None:
        state.server.close()
        state.server = None


def build(world: World) -> APIRouter:
    """Resend's API, the inbox and its JSON twin; the SMTP sink starts and stops with the world."""
    state = state_of(world)
    world.on_start(lambda: start(world))
    world.on_stop(lambda: stop(world))
    router = APIRouter(tags=["mail"])
    router.include_router(resend.build(world, state.box, state.faults))
    router.include_router(_inbox(state))
    router.include_router(_control(state))
    router.include_router(fault_routes("/sandbox/mail/faults", state.faults))
    return router


def _inbox(state: MailState) -> APIRouter:
    router = APIRouter(prefix="/inbox")

    @router.get("", response_model=None)
    async def inbox(to: str = "") -> Response:
        mails = list(state.box.newest_first(to or None))
        return render("inbox.html", mails=mails[:200], total=len(mails), to=to, smtp_port=state.smtp_port)

    @router.get("/{mail_id}", response_model=None)
    async def one(mail_id: str) -> Response:
        mail = state.box.get(mail_id)
        if mail is None:
            return render("missing.html", 404, what="mail")
        return render("mail.html", mail=mail)

    @router.get("/{mail_id}/html", response_model=None)
    async def html(mail_id: str) -> Response:
        mail = state.box.get(mail_id)
        if mail is None:
            return render("missing.html", 404, what="mail")
        return _isolated(mail)

    @router.get("/{mail_id}/attachments/{index}", response_model=None)
    async def attachment(mail_id: str, index: int) -> Response:
        mail = state.box.get(mail_id)
        if mail is None or not 0 <= index < len(mail.attachments):
            return render("missing.html", 404, what="attachment")
        found = mail.attachments[index]
        headers = {
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(found.filename, safe='')}",
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "default-src 'none'; sandbox",
        }
        return Response(found.data(), headers=headers, media_type=found.content_type)

    return router


def _isolated(mail: Mail) -> Response:
    """The mail's own HTML, which may run nothing and reach nothing but images."""
    policy = "default-src 'none'; img-src 'self' http: https: data:; style-src 'unsafe-inline'; "
    policy += "sandbox allow-popups allow-popups-to-escape-sandbox"
    body = f'<base target="_blank">{mail.html_with_images()}'
    return Response(body, headers={"Content-Security-Policy": policy}, media_type="text/html; charset=utf-8")


def _control(state: MailState) -> APIRouter:
    router = APIRouter(prefix="/sandbox")

    @router.get("/mails", response_model=None)
    async def mails(to: str | None = None, since: str | None = None) -> Response:
        try:
            moment = _moment(since)
        except ValueError:
            return JSONResponse({"detail": f"since={since!r} is not an ISO 8601 time"}, 422)
        rows = [mail.as_json() for mail in state.box.newest_first(to, moment)]
        return JSONResponse({"mails": rows, "total": len(rows), "smtp_port": state.smtp_port})

    return router


def _moment(text: str | None) -> datetime | None:
    """A query's time; a plus sign that arrived as a space is understood. Raises ValueError."""
    if not text:
        return None
    moment = datetime.fromisoformat(text.replace(" ", "+"))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
