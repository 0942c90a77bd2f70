"""Checkout over HTTP."""

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Header
from starlette.responses import Response

from api.deps import ShopDep
from api.errors import (
    BODY_TOO_LARGE,
    CHECKOUT_EXPIRED,
    IDEMPOTENCY_KEY_MISSING,
    IDEMPOTENCY_MISMATCH,
    INVALID_REQUEST,
    PAYMENT_REFUSED,
    PAYMENT_UNAVAILABLE,
    PRICE_CHANGED,
    SOLD_OUT,
    TOO_MANY_REQUESTS,
    Problem,
)
from api.openapi import problems
from api.schemas.checkout import Checkout, CheckoutRequest
from api.services.place_order import place_order

router = APIRouter(prefix="/v1", tags=["checkout"])
_REFUSALS = (IDEMPOTENCY_KEY_MISSING, PRICE_CHANGED, SOLD_OUT, IDEMPOTENCY_MISMATCH, CHECKOUT_EXPIRED, INVALID_REQUEST)
_KEY = Header(
    alias="Idempotency-Key",
    min_length=1,
    max_length=255,
    pattern=r"^[\x21-\x7e]+$",
    description="A fresh random value per order, such as a UUID. The same key with the same body gets the same answer "
    "again, order token included, so it must not be guessable; with another body it gets a 409.",
    examples=["8e03978e-40d5-43e8-bc93-6894a57f9324"],
)


@router.post(
    "/checkout",
    operation_id="createCheckout",
    summary="Order and get a payment page",
    status_code=201,
    response_model=Checkout,
    responses=problems(*_REFUSALS, PAYMENT_REFUSED, PAYMENT_UNAVAILABLE, BODY_TOO_LARGE, TOO_MANY_REQUESTS),
)
async def create_checkout(shop: ShopDep, asked: CheckoutRequest, key: Annotated[str, _KEY]) -> Response:
    """Place an order at today's prices and open a payment page for it."""
    try:
        # Threads of its own: a slow payment service must not hold up webhooks and order pages.
        placed = await to_thread.run_sync(place_order, shop, key, asked, limiter=shop.payment_threads)
    except Problem as problem:
        shop.metrics.checkouts.labels(problem.kind.name).inc()
        raise
    shop.metrics.checkouts.labels("replayed" if placed.replayed else "placed").inc()
    headers = {"Location": f"/v1/orders/{placed.order_id}", "Cache-Control": "no-store"}
    if placed.replayed:
        headers["Idempotent-Replayed"] = "true"
    return Response(placed.body, 201, headers, media_type="application/json")
