"""The shop's own pages: server-rendered, with one small script; they use the same API as anybody else."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from uuid import UUID

from fastapi import APIRouter
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import PathLike, StaticFiles
from starlette.types import Scope

from api.deps import ShopDep
from api.docs_page import reference, with_code
from api.errors import KINDS, not_found
from api.middleware.headers import PAGE_POLICY
from api.services import storefront_page as view
from api.shop import Shop

HERE = Path(__file__).parent.parent
STATIC = HERE / "static"
router = APIRouter(include_in_schema=False)
_HEADERS = {"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-cache"}


class StaticPages(StaticFiles):
    """Our static files: a browser keeps what a page names by its version, and asks again about anything else."""

    def file_response(
        self, full_path: PathLike, stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Answer with a file."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        versioned = scope["query_string"] == f"v={_digest()}".encode()
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if versioned else "no-cache"
        return response


@router.get("/")
async def shop_page(request: Request, shop: ShopDep) -> Response:
    """Show destinations, or the plans of one."""
    values = view.front_page(shop.shelf.current.snapshot, request.query_params, shop.settings.sell_currencies)
    return _page("shop.html", shop, **values)


@router.get("/orders/{order_id}")
async def order_page(shop: ShopDep, order_id: str) -> Response:
    """Show the frame of an order; the script fills it with what the token opens."""
    try:
        known = UUID(order_id)
    except ValueError:
        raise not_found(f"{order_id} is not an order id.") from None
    return _page("order.html", shop, order_id=str(known))


@router.get("/docs")
async def docs_page(request: Request, shop: ShopDep) -> Response:
    """Show the API's reference, from its own description."""
    return _page("docs.html", shop, api=reference(request.app.openapi()), kinds=KINDS)


def _page(template: str, shop: Shop, **values: object) -> Response:
    settings = shop.settings
    promised = settings.customer_deadline_minutes if settings.enable_auto_refund else None
    shared = {"sandbox": not settings.stripe.live, "refund_minutes": promised}
    html = _templates().get_template(template).render(shared | values)
    return HTMLResponse(html, headers=_HEADERS)


@lru_cache(maxsize=1)
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"money": view.money, "assets": _digest()}
    environment.filters["with_code"] = with_code
    return environment


@lru_cache(maxsize=1)
def _digest() -> str:
    """Return what changes with our static files: pages name them by it, so that browsers may keep them."""
    files = sorted(path for path in STATIC.iterdir() if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
