"""The yardstick of `bench.api`: a bare Starlette route that returns given bytes, and one that returns an empty 304."""

import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def create_app() -> Starlette:
    """Build the app; BARE_BODY names the file with the bytes."""
    body = Path(os.environ["BARE_BODY"]).read_bytes()

    async def same_bytes(_request: Request) -> Response:
        return Response(body, media_type="application/json")

    async def unchanged(_request: Request) -> Response:
        return Response(status_code=304, headers={"ETag": '"1-0"'})

    return Starlette(routes=[Route("/v1/packages", same_bytes), Route("/unchanged", unchanged)])
