"""Ask the payment service about an order that has been pending suspiciously long: a lost webhook loses nothing.

The customer who looks at the order page sets it off, at most every few seconds an order; what it finds goes through
the same `record_payment` as the webhook, so whoever is first wins and the other changes nothing.
"""

from collections import OrderedDict
from datetime import datetime, timedelta
from uuid import UUID

from api.shop import Shop
from esim.errors import PaymentError
from esim.orders import OrderStatus
from resources.db.checkout_store import open_checkout
from resources.db.payments import Booking, Payment, PaymentResult, record_payment

ACTOR = "order page"
ASK_AFTER = timedelta(seconds=5)  # webhooks usually arrive within two seconds of the payment
ASK_EVERY = timedelta(seconds=10)
_REMEMBERED = 10_000


class Curiosity:
    """Remembers when the payment service was last asked about an order, in this process."""

    def __init__(self) -> None:
        self._asked: OrderedDict[UUID, datetime] = OrderedDict()

    def may_ask(self, order_id: UUID, now: datetime) -> bool:
        """Return whether it is time to ask again, and note that it was asked."""
        last = self._asked.get(order_id)
        if last is not None and now - last < ASK_EVERY:
            return False
        self._asked[order_id] = now
        self._asked.move_to_end(order_id)
        while len(self._asked) > _REMEMBERED:
            self._asked.popitem(last=False)
        return True


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
