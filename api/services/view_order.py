"""What a customer sees of an order; the only place of the API where activation data is decrypted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection

from api.errors import UNAUTHORIZED, Problem, not_found
from api.schemas.orders import Esim, Order, OrderEvent, OrderItem
from api.schemas.shared import Price
from api.services.order_token import is_token, order_of
from api.shop import Shop
from esim.orders import FINAL_FOR_CUSTOMERS, OrderStatus, UnitStatus
from esim.purchase import EsimProfile
from resources.db import order_views
from resources.db.order_links import is_mail_token
from resources.db.order_views import ItemView, StepView, UnitView
from resources.mail.messages import apple_install_url

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="order"'}
_UNIT_WORDS: Mapping[UnitStatus, str] = {
    UnitStatus.UNPAID: "unpaid",
    UnitStatus.DELIVERED: "delivered",
    UnitStatus.FAILED: "failed",
    UnitStatus.REFUNDED: "refunded",
    UnitStatus.CANCELLED: "cancelled",
    UnitStatus.ATTENTION: "attention",
}
_PREPARING = "preparing"  # whichever way a provider is being asked is not the customer's concern
_ORDER_MESSAGES: Mapping[str, str] = {
    "pending": "Checkout opened.",
    "paid": "Payment received.",
    "processing": "We are getting your eSIM ready.",
    "completed": "Everything is delivered.",
    "failed": "We could not deliver this order; your money is on its way back.",
    "refunded": "Your money was refunded.",
    "cancelled": "The checkout was closed without a payment.",
    "attention": "Our team is looking at this order.",
}
_PAYMENT_FAILED = "Your payment did not go through; nothing was charged."
_UNIT_MESSAGES: Mapping[str, str] = {
    _PREPARING: "eSIM {n} is being prepared.",
    "delivered": "eSIM {n} is ready to install.",
    "failed": "eSIM {n} could not be delivered; its price is on its way back.",
    "refunded": "eSIM {n} was refunded.",
    "attention": "Our team is looking at eSIM {n}.",
}


@dataclass(frozen=True, slots=True)
class News:
    """The steps of an order after a given one, and whether more can follow."""

    events: Sequence[OrderEvent]
    status: OrderStatus
    final: bool


def authorise(shop: Shop, order_id: str, authorization: str | None) -> UUID:
    """Return the order that a bearer token opens: the one checkout gave, or the one in the customer's mail.

    Raises:
        Problem: 401 without a valid token; 404 for any order but the token's own, whether it exists or not.
    """
    scheme, _, token = (authorization or "").partition(" ")
    claimed = order_of(token.strip()) if scheme.lower() == "bearer" else None
    if claimed is not None:
        with shop.engine.connect() as conn:
            kept = order_views.token_hash_of(conn, claimed)
        if kept is not None and (is_token(token.strip(), kept) or is_mail_token(token.strip(), claimed, shop.vault)):
            if order_id.lower() != str(claimed):
                raise not_found("There is no such order.")
            return claimed
    raise Problem(UNAUTHORIZED, "Send the order_token from checkout as a bearer token.", headers=_CHALLENGE)


def view_order(shop: Shop, order_id: UUID) -> Order:
    """Return the whole order with its eSIMs' activation data.

    Raises:
        Problem: 404, the order was erased meanwhile.
    """
    with shop.engine.connect() as conn:
        # The steps first: whoever follows the order after the last of them is told of all that is not in the rest yet.
        steps = order_views.order_steps(conn, order_id)
        head = order_views.order_head(conn, order_id)
        if head is None:
            raise not_found("There is no such order.")
        items = {item.item_id: item for item in order_views.order_items_of(conn, order_id)}
        units = order_views.order_units(conn, order_id)
    return Order(
        order_id=str(head.order_id),
        display_id=head.display_id,
        status=head.status.value,
        payment_status=head.payment_status,
        amount_minor=head.amount_minor,
        refunded_minor=head.refunded_minor,
        currency=head.currency,
        created_at=head.created_at,
        paid_at=head.paid_at,
        items=[_item(item) for item in items.values()],
        esims=[_esim(shop, order_id, unit, items[unit.item_id]) for unit in units],
        events=_events(steps),
    )


def activation_string(shop: Shop, order_id: UUID, n: int) -> str:
    """Return what the QR code of eSIM `n` carries.

    Raises:
        Problem: 404, there is no such eSIM or it is not delivered yet.
    """
    with shop.engine.connect() as conn:
        units = order_views.order_units(conn, order_id, n)
    profile = _profile(shop, units[0]) if units else None
    if profile is None:
        raise not_found(f"eSIM {n} of this order is not delivered.")
    return profile.lpa


def news_after(shop: Shop, order_id: UUID, event_id: int) -> News:
    """Return what happened to an order after an event.

    Raises:
        Problem: 404, the order was erased meanwhile.
    """
    with shop.engine.connect() as conn:
        return _news(conn, order_id, event_id)


def _news(conn: Connection, order_id: UUID, event_id: int) -> News:
    # The status first: when it is final, the steps read after it are complete.
    head = order_views.order_head(conn, order_id)
    if head is None:
        raise not_found("There is no such order.")
    events = [event for event in _events(order_views.order_steps(conn, order_id)) if event.id > event_id]
    return News(events, head.status, head.status in FINAL_FOR_CUSTOMERS)


def _item(item: ItemView) -> OrderItem:
    return OrderItem(
        package_id=item.package_id,
        name=str(item.package.get("name", item.package_id)),
        quantity=item.quantity,
        unit_price=Price(amount_minor=item.unit_price_minor, currency=item.currency),
    )


def _esim(shop: Shop, order_id: UUID, unit: UnitView, item: ItemView) -> Esim:
    esim = Esim.model_construct(
        n=unit.n,
        status=_UNIT_WORDS.get(unit.status, _PREPARING),
        package_id=item.package_id,
        name=str(item.package.get("name", item.package_id)),
    )
    profile = _profile(shop, unit)
    if profile is None:
        return esim
    codes = {
        "iccid": profile.iccid,
        "lpa": profile.lpa,
        "smdp_address": profile.smdp_address,
        "activation_code": profile.activation_code,
        "confirmation_code": profile.confirmation_code or None,
        "apn": profile.apn or None,
        "qr_url": f"{shop.settings.api_url}/v1/orders/{order_id}/esims/{unit.n}/qr.svg",
        "install_url": apple_install_url(profile.lpa),
    }
    return esim.model_copy(update=codes)


def _profile(shop: Shop, unit: UnitView) -> EsimProfile | None:
    if unit.status is not UnitStatus.DELIVERED or unit.profile_enc is None:
        return None
    return shop.vault.decrypt_profile(bytes(unit.profile_enc))


def _events(steps: Sequence[StepView]) -> list[OrderEvent]:
    """Tell steps in the customer's words; steps that are one and the same to a customer are told once."""
    told: list[OrderEvent] = []
    last: dict[int | None, str] = {}
    for step in steps:
        words = _words(step)
        if words is None or last.get(step.esim_n) == words[0]:
            continue
        last[step.esim_n] = words[0]
        told.append(OrderEvent(id=step.event_id, at=step.at, esim=step.esim_n, status=words[0], message=words[1]))
    return told


def _words(step: StepView) -> tuple[str, str] | None:
    if step.esim_n is None:
        unpaid = step.to_status == OrderStatus.FAILED and step.from_status == OrderStatus.PENDING
        return step.to_status, _PAYMENT_FAILED if unpaid else _ORDER_MESSAGES[step.to_status]
    status = _UNIT_WORDS.get(UnitStatus(step.to_status), _PREPARING)
    message = _UNIT_MESSAGES.get(status)
    return None if message is None else (status, message.format(n=step.esim_n))
