"""Take an event of the payment service: verified bytes -> one transaction -> done, or nothing happened."""

from api.shop import Shop
from resources.db.payments import Booking
from resources.payment_events import TakenEvent, take_event

ACTOR = "stripe webhook"


def record_payment_event(shop: Shop, body: bytes, signature: str | None) -> TakenEvent:
    """Verify an event and apply it, once.

    Raises:
        WebhookRejected: forged, altered, stale or unreadable; nothing was changed.
    """
    now = shop.clock()
    event = shop.gateway.verify_webhook(body, signature, now)
    with shop.engine.begin() as conn:
        return take_event(conn, event, Booking(ACTOR, now, shop.settings.customer_deadline_minutes))
