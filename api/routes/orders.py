"""Orders over HTTP, for whoever has the order's token."""

from io import BytesIO
from typing import Annotated
from uuid import UUID

import segno
from fastapi import APIRouter, BackgroundTasks, Depends, Header, Path, Security
from fastapi.security import HTTPBearer
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api.deps import ShopDep
from api.errors import INVALID_REQUEST, NOT_FOUND, TOO_MANY_REQUESTS, TOO_MANY_STREAMS, UNAUTHORIZED
from api.openapi import Responses, problems
from api.schemas.orders import Order
from api.services.follow_order import check_room, follow_order
from api.services.reconcile_session import ask_aside
from api.services.view_order import activation_string, authorise, view_order

router = APIRouter(prefix="/v1/orders", tags=["orders"])
_TOKEN = HTTPBearer(
    auto_error=False, scheme_name="orderToken", description="The `order_token` from checkout; opens that order only."
)
_PRIVATE = {"Cache-Control": "no-store"}
_REFUSALS = problems(UNAUTHORIZED, NOT_FOUND, INVALID_REQUEST, TOO_MANY_REQUESTS)
_EXAMPLE = "0193a1c2-5b7e-7c11-9d0e-2f6f0a1b2c3d"


def opened_order(request: Request, shop: ShopDep, order_id: Annotated[str, Path(examples=[_EXAMPLE])]) -> UUID:
    """Return the order of the path, opened by the request's token."""
    return authorise(shop, order_id, request.headers.get("authorization"))


OpenedOrder = Annotated[UUID, Depends(opened_order)]


@router.get(
    "/{order_id}",
    operation_id="getOrder",
    summary="Get an order",
    responses=_REFUSALS,
    dependencies=[Security(_TOKEN)],
)
def get_order(shop: ShopDep, order_id: OpenedOrder, response: Response, background: BackgroundTasks) -> Order:
    """Get an order with its eSIMs; activation data is there once an eSIM is delivered."""
    response.headers.update(_PRIVATE)
    order = view_order(shop, order_id)
    if order.status == "pending":
        background.add_task(ask_aside, shop, order_id)
    return order


@router.get(
    "/{order_id}/events",
    operation_id="followOrder",
    summary="Follow an order",
    response_class=StreamingResponse,
    responses={
        200: {"description": "Server-sent events.", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
        **_REFUSALS,
        **problems(TOO_MANY_STREAMS),
    },
    dependencies=[Security(_TOKEN)],
)
async def follow(
    shop: ShopDep,
    order_id: OpenedOrder,
    last_event_id: Annotated[int, Header(alias="Last-Event-ID", ge=0, le=2**63 - 1)] = 0,
) -> StreamingResponse:
    """Stream `status` events (data: an `OrderEvent`) as they happen, and one `end` event when nothing can follow."""
    check_room(shop, order_id)
    headers = {**_PRIVATE, "X-Accel-Buffering": "no"}
    return StreamingResponse(follow_order(shop, order_id, last_event_id), 200, headers, "text/event-stream")


def _picture(media_type: str, *, text: bool = False) -> Responses:
    schema = {"type": "string"} if text else {"type": "string", "contentMediaType": media_type}
    return {200: {"description": "The picture.", "content": {media_type: {"schema": schema}}}, **_REFUSALS}


Number = Annotated[int, Path(ge=1, le=1000, description="Which eSIM of the order, from 1.", examples=[1])]


@router.get(
    "/{order_id}/esims/{n}/qr.svg",
    operation_id="getQrSvg",
    summary="QR code as SVG",
    response_class=Response,
    responses=_picture("image/svg+xml", text=True),
    dependencies=[Security(_TOKEN)],
)
def qr_svg(shop: ShopDep, order_id: OpenedOrder, n: Number) -> Response:
    """Draw the QR code that a phone scans to install the eSIM."""
    return Response(_qr(activation_string(shop, order_id, n), "svg"), 200, _PRIVATE, "image/svg+xml")


@router.get(
    "/{order_id}/esims/{n}/qr.png",
    operation_id="getQrPng",
    summary="QR code as PNG",
    response_class=Response,
    responses=_picture("image/png"),
    dependencies=[Security(_TOKEN)],
)
def qr_png(shop: ShopDep, order_id: OpenedOrder, n: Number) -> Response:
    """Draw the QR code that a phone scans to install the eSIM."""
    return Response(_qr(activation_string(shop, order_id, n), "png"), 200, _PRIVATE, "image/png")


def _qr(content: str, kind: str) -> bytes:
    picture = BytesIO()
    code = segno.make(content, error="m", micro=False)
    if kind == "svg":
        code.save(picture, kind="svg", scale=8, border=4, light="#fff", xmldecl=False, nl=False, omitsize=True)
    else:
        code.save(picture, kind="png", scale=8, border=4)
    return picture.getvalue()
