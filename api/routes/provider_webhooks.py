"""The providers' webhooks over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from api.deps import RawBody, ShopDep
from api.errors import BODY_TOO_LARGE, NOT_FOUND, WEBHOOK_FORBIDDEN, WEBHOOK_REFUSED, Problem, not_found
from api.openapi import RAW_JSON, problems
from api.services.record_provider_event import record_provider_event
from api.shop import Shop
from esim.errors import WebhookRejected
from esim.ports import Provider
from resources.settings import PROVIDERS

router = APIRouter(prefix="/webhooks/providers", tags=["webhooks"])
Slug = Annotated[str, Path(description="The provider.", examples=["airalo"])]


@router.post(
    "/{slug}",
    operation_id="providerWebhook",
    summary="Events of a provider",
    response_class=Response,
    responses={
        200: {"description": "Taken."},
        **problems(WEBHOOK_REFUSED, WEBHOOK_FORBIDDEN, NOT_FOUND, BODY_TOO_LARGE),
    },
    openapi_extra={"requestBody": RAW_JSON},
)
def provider_webhook(request: Request, shop: ShopDep, slug: Slug, body: RawBody) -> Response:
    """Verify and note an event; what it tells is read again at the provider."""
    provider = _provider(shop, slug)
    _check_sender(request, shop, provider)
    try:
        heard = record_provider_event(shop, provider, dict(request.headers), body)
    except WebhookRejected as error:
        shop.metrics.webhooks.labels(slug, "(refused)", "refused").inc()
        raise Problem(WEBHOOK_REFUSED, str(error)) from error
    shop.metrics.webhooks.labels(slug, "event", "fresh" if heard.fresh else "known").inc()
    return Response(status_code=200)


@router.head("/{slug}", operation_id="probeProviderWebhook", include_in_schema=False)
def probe(shop: ShopDep, slug: Slug) -> Response:
    """Answer a provider that checks the address before it uses it (Airalo's opt-in sends HEAD and wants 200)."""
    _provider(shop, slug)
    return Response(status_code=200)


def _provider(shop: Shop, slug: str) -> Provider:
    if slug not in PROVIDERS:
        raise not_found(f"There is no provider {slug}.")
    return shop.provider(slug)


def _check_sender(request: Request, shop: Shop, provider: Provider) -> None:
    """Keep strangers away from a provider that does not sign, where its addresses are known."""
    allowed = shop.settings.provider_webhook_ips
    sender = request.client.host if request.client else ""
    if allowed and not provider.capabilities.signed_webhooks and sender not in allowed:
        raise Problem(WEBHOOK_FORBIDDEN, "This address is not one the provider sends from (PROVIDER_WEBHOOK_IPS).")
