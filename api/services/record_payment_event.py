"""Take an event of the payment service: verified bytes -> one transaction -> done, or nothing happened."""

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from api.shop import Shop
from esim.ports import PaymentEvent
from resources.db.payments import Booking
from resources.db.together import STORE_AWAY
from resources.payment_events import TakenEvent, take_event_asking

ACTOR = "stripe webhook"


async def record_payment_event(shop: Shop, body: bytes, signature: str | None) -> TakenEvent:
    """Verify an event and apply it, once.

    Raises:
        WebhookRejected: forged, altered, stale or unreadable; nothing was changed.
        PaymentError: the payment service had to be asked and did not answer; nothing was changed.
    """
    now = shop.clock()
    event = shop.gateway.verify_webhook(body, signature, now)
    booking = Booking(ACTOR, now, shop.settings.customer_deadline_minutes)
    if taken := await _taken_with_others(shop, event, booking):
        return taken
    return await run_in_threadpool(take_event_asking, shop.engine, shop.gateway, event, booking)


async def _taken_with_others(shop: Shop, event: PaymentEvent, booking: Booking) -> TakenEvent | None:
    """Take a plain payment together with those that arrive at the same moment; None for whatever is not plain."""
    try:
        return await shop.payments.submit((event, booking))
    except STORE_AWAY:
        raise
    except SQLAlchemyError:
        return None  # what a batch cannot hold is looked at alone
