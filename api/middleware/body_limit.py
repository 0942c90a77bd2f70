"""No request body larger than its route needs: counted as it arrives, whatever Content-Length claims."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import BODY_TOO_LARGE, Problem, problem_response

WEBHOOK_BYTES = 1024 * 1024  # Stripe's events stay far below
API_BYTES = 64 * 1024


class BodyLimit:
    """ASGI middleware that answers 413 before a large body is read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request with a counted body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = WEBHOOK_BYTES if scope["path"].startswith("/webhooks/") else API_BYTES
        detail = f"The body may have at most {most} bytes."
        if _claimed(scope) > most:
            problem = Problem(BODY_TOO_LARGE, detail, headers={"Connection": "close"})
            await problem_response(Request(scope), problem)(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
                raise HTTPException(413, detail)  # FastAPI lets only these through while it reads a body
            return message

        await self._app(scope, counted, send)


def _claimed(scope: Scope) -> int:
    length = dict(scope["headers"]).get(b"content-length", b"0")
    return int(length) if length.isdigit() else 0
