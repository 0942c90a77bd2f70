"""Ask the payment service about an order that has been pending suspiciously long: a lost webhook loses nothing.

The customer who looks at the order page sets it off, at most every few seconds an order, and waits for none of it.
What it finds goes through the same `record_payment` as the webhook, so whoever is first wins and the other changes
nothing.
"""

from datetime import timedelta
from uuid import UUID

import structlog
from anyio import to_thread

from api.shop import Shop
from esim.errors import PaymentError
from esim.orders import OrderStatus
from resources.db.checkout_store import open_checkout
from resources.db.order_views import order_head
from resources.db.payments import Booking, Payment, PaymentResult, record_payment

ACTOR = "order page"
ASK_AFTER = timedelta(seconds=5)  # webhooks usually arrive within two seconds of the payment

log = structlog.get_logger("api.reconcile")


async def ask_aside(shop: Shop, order_id: UUID) -> None:
    """Start asking without keeping anybody waiting; while all threads for it are busy, the next look tries again."""
    if shop.asking_threads.available_tokens:
        shop.start_aside(_ask(shop, order_id))


async def _ask(shop: Shop, order_id: UUID) -> None:
    try:
        await to_thread.run_sync(ask_if_overdue, shop, order_id, limiter=shop.asking_threads)
    except Exception:  # nobody waits for this answer; the webhook, the reconciler and the next look remain
        log.exception("an overdue order could not be reconciled", order_id=str(order_id))


def ask_if_overdue(shop: Shop, order_id: UUID) -> PaymentResult | None:
    """Reconcile an order that waits for its payment for more than a few seconds, if nobody asked just now."""
    now = shop.clock()
    with shop.engine.connect() as conn:
        head = order_head(conn, order_id)
    if head is None or head.status is not OrderStatus.PENDING or now - head.created_at < ASK_AFTER:
        return None
    return reconcile_session(shop, order_id) if shop.curiosity.may_ask(order_id, now) else None


def reconcile_session(shop: Shop, order_id: UUID) -> PaymentResult | None:
    """Read an order's payment page at the payment service and apply what it says; None where nothing was found.

    The payment service being down is no news: the webhook, the reconciler and the next look remain.
    """
    with shop.engine.connect() as conn:
        order = open_checkout(conn, order_id)
    if order.status is not OrderStatus.PENDING or order.session_id is None:
        return None
    try:
        session = shop.gateway.session(order.session_id)
    except PaymentError:
        return None
    if session.payment_status != "paid" or session.payment_intent is None:
        return None
    payment = Payment(order_id, session.payment_intent, session.session_id, session.amount, ACTOR)
    booking = Booking(ACTOR, shop.clock(), shop.settings.customer_deadline_minutes)
    with shop.engine.begin() as conn:
        return record_payment(conn, payment, booking)
