"""Slack on localhost: an incoming webhook, the page that shows what arrived, and JSON for tests."""

import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import orjson
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from sandbox.pages import render
from sandbox.switches import Switches, fault_routes
from sandbox.world import World

KINDS = {"error_status": "answers params.status (500) with the text of params.message"}
KEPT_MESSAGES = 500
_LINK = re.compile(r"<(https?://[^|>]+)\|([^>]+)>")


@dataclass
class SlackState:
    """The messages of one channel, oldest first."""

    faults: Switches
    messages: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT_MESSAGES))


def _make(world: World) -> SlackState:
    state = SlackState(Switches(world.rng("slack faults"), "slack", KINDS))
    world.on_reset(state.messages.clear)
    world.on_reset(state.faults.clear)
    world.keep("slack", lambda: list(state.messages), state.messages.extend)
    return state


def state_of(world: World) -> SlackState:
    """The Slack channel of this sandbox."""
    return world.part(SlackState, _make)


def clear_faults(world: World) -> None:
    """Take every Slack fault out of force."""
    state_of(world).faults.clear()


def build(world: World) -> APIRouter:
    """The webhook, the page and the JSON twin."""
    state = state_of(world)
    router = APIRouter(tags=["slack"])

    @router.post("/slack/webhook", response_model=None)
    async def webhook(request: Request) -> Response:
        fault = state.faults.strike("error_status")
        if fault is not None:
            return PlainTextResponse(str(fault.params.get("message", "fatal")), int(fault.number("status", 500)))
        payload = _payload(await request.body(), request.headers.get("Content-Type", ""))
        if payload is None:
            return PlainTextResponse("invalid_payload", 400)
        if not payload.get("text") and not payload.get("blocks") and not payload.get("attachments"):
            return PlainTextResponse("no_text", 400)
        state.messages.append({"at": world.now().isoformat(), "payload": payload, "text": _words(payload)})
        return PlainTextResponse("ok")

    @router.get("/slack", response_model=None)
    async def page() -> Response:
        return render("slack.html", messages=list(reversed(state.messages)))

    @router.get("/sandbox/slack", response_model=None)
    async def messages() -> Response:
        return JSONResponse({"messages": list(reversed(state.messages)), "total": len(state.messages)})

    router.include_router(fault_routes("/sandbox/slack/faults", state.faults))
    return router


def _payload(raw: bytes, content_type: str) -> dict[str, Any] | None:
    """The message as JSON, or as the form field `payload`; None when it is neither."""
    if content_type.startswith("application/x-www-form-urlencoded"):
        raw = parse_qs(raw.decode(errors="replace")).get("payload", [""])[0].encode()
    try:
        payload = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return payload if isinstance(payload, dict) else None


def _words(payload: dict[str, Any]) -> str:
    """What a reader sees: the text, or the texts of the blocks, links by their label."""
    text = payload.get("text")
    if not isinstance(text, str) or not text:
        blocks = payload.get("blocks")
        parts = [block.get("text") for block in blocks if isinstance(block, dict)] if isinstance(blocks, list) else []
        text = "\n".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))
    return _LINK.sub(r"\2 (\1)", text)
