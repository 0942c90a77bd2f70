"""What routes ask for by type: the shop, the raw body, the order that a token opens."""

from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from api.shop import Shop


def shop_of(request: Request) -> Shop:
    """Return the app's shop."""
    shop: Shop = request.app.state.shop
    return shop


async def raw_body(request: Request) -> bytes:
    """Return the body exactly as it came: signatures are over bytes."""
    return await request.body()


ShopDep = Annotated[Shop, Depends(shop_of)]
RawBody = Annotated[bytes, Depends(raw_body)]
