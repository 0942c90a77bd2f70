"""The yardstick of `bench.api`: a bare Starlette route that returns given bytes, and one that returns a bare 304.

The 304 carries the headers that RFC 9110 asks of one (those a 200 would have), as ours does: the same bytes again.
"""

import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

UNCHANGED = {"ETag": '"1-0000000000000000"', "Cache-Control": "public, max-age=300", "Vary": "Origin, Accept-Encoding"}


def create_app() -> Starlette:
    """Build the app; BARE_BODY names the file with the bytes."""
    body = Path(os.environ["BARE_BODY"]).read_bytes()

    async def same_bytes(_request: Request) -> Response:
        return Response(body, media_type="application/json")

    async def unchanged(_request: Request) -> Response:
        return Response(status_code=304, headers=UNCHANGED)

    return Starlette(routes=[Route("/v1/packages", same_bytes), Route("/unchanged", unchanged)])
