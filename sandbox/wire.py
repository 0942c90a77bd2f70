"""Bytes on the wire: JSON with exact decimals, and the request as a provider's handler sees it."""

from decimal import Decimal
from typing import Any

import orjson
from starlette.responses import Response


def _exact(value: Any) -> Any:
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value.normalize(), "f") if value else "0")
    raise TypeError(f"{type(value).__name__} cannot go on the wire")


def dumps(value: Any) -> bytes:
    """JSON with every Decimal as the number it is; no binary fraction comes between."""
    return orjson.dumps(value, default=_exact)


def as_json(body: bytes) -> Any:
    """A body as JSON; None when it is not JSON."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(dumps(value), status, headers, "application/json")


def raw(content: bytes, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer whose bytes are ready."""
    return Response(content, 200, headers, "application/json")


class Refused(Exception):
    """Ends a handler with a ready answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"answered {response.status_code}")
        self.response = response
