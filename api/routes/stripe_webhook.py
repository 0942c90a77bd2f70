"""The payment service's webhook over HTTP: raw bytes in, a status out."""

from typing import Annotated

from fastapi import APIRouter, Header
from starlette.responses import Response

from api.deps import RawBody, ShopDep
from api.errors import BODY_TOO_LARGE, NOT_FOUND, WEBHOOK_REFUSED, Problem, not_found
from api.openapi import RAW_JSON, problems
from api.services.record_payment_event import record_payment_event
from esim.errors import WebhookRejected
from resources.payment_events import HANDLERS, SOURCE

router = APIRouter(prefix="/webhooks", tags=["webhooks"])
EVENTS = ", ".join(f"`{name}`" for name in HANDLERS)


@router.post(
    "/stripe",
    operation_id="stripeWebhook",
    summary="Events of the payment service",
    description=f"Verified over the raw body (`Stripe-Signature`, 300 s). Acts on {EVENTS}; any other is only noted.",
    status_code=204,
    response_class=Response,
    responses=problems(WEBHOOK_REFUSED, NOT_FOUND, BODY_TOO_LARGE),
    openapi_extra={"requestBody": RAW_JSON},
)
async def stripe_webhook(
    shop: ShopDep,
    body: RawBody,
    signature: Annotated[str | None, Header(alias="Stripe-Signature")] = None,
) -> Response:
    """Verify, note once, apply, answer; an error of ours is a 5xx, so that the event is sent again."""
    if not shop.settings.stripe.credentials["webhook_secret"]:
        raise not_found("Webhooks are not configured: set STRIPE_WEBHOOK_SECRET.")
    try:
        taken = await record_payment_event(shop, body, signature)
    except WebhookRejected as error:
        shop.metrics.webhooks.labels(SOURCE, "(refused)", "refused").inc()
        raise Problem(WEBHOOK_REFUSED, str(error)) from error
    kind = taken.type if taken.type in HANDLERS else "(other)"
    shop.metrics.webhooks.labels(SOURCE, kind, taken.handled.partition(":")[0]).inc()
    return Response(status_code=204)
