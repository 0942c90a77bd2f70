"""Turn a basket into an order and a payment page, exactly once per idempotency key.

key + order (one transaction) -> payment page at the payment service -> page and answer kept (one transaction)

A crash at any arrow is healed by the client's retry with the same key: the order is found again, the payment service
names the same page for the same attempt, and the answer, token included, is the same. Where it answered with a fault
of its own, which it would repeat for a day, the retry is another attempt; of two pages only the one kept is shown.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, timedelta
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import orjson

from api.errors import CHECKOUT_EXPIRED, IDEMPOTENCY_MISMATCH, PAYMENT_REFUSED, PAYMENT_UNAVAILABLE, Problem, invalid
from api.schemas.checkout import CheckoutRequest
from api.services.basket import price_basket
from api.services.browse_catalogue import check_currency
from api.services.order_token import new_token, token_hash
from api.shop import Shop
from esim.errors import PaymentRejected, PaymentServiceFault, PaymentUnavailable
from esim.orders import OrderStatus
from esim.ports import CheckoutLine
from esim.ports import CheckoutRequest as PaymentPage
from resources.db import checkout_store
from resources.db.catalogue_reader import current_version
from resources.db.checkout_store import KeptAnswer, NewOrder, OpenCheckout
from resources.db.payments import cancel_unpaid

PAGE_OPEN = timedelta(minutes=60)
SHORTEST_PAGE = timedelta(minutes=31)  # the payment service refuses pages that close within 30 minutes
RETRY_AFTER_SECONDS = 5
_CONTEXT = "checkout-response"


@dataclass(frozen=True, slots=True)
class PlacedOrder:
    """The answer to a checkout, as bytes that a repeat gets again."""

    order_id: UUID
    body: bytes
    replayed: bool


def place_order(shop: Shop, key: str, asked: CheckoutRequest) -> PlacedOrder:
    """Place an order and open its payment page, or find what this key did before.

    Raises:
        Problem: bad addresses or currency, changed prices, another request under this key, payments unavailable.
    """
    digest = _digest(asked)
    check_currency(asked.currency, shop.settings.sell_currencies)
    for name in ("success_url", "cancel_url"):
        _check_origin(name, getattr(asked, name), shop.settings.origins)
    kept = _find_or_place(shop, key, digest, asked)
    if kept.body_hash != digest:
        raise Problem(IDEMPOTENCY_MISMATCH, "Use a fresh Idempotency-Key for another basket, or repeat the same one.")
    told = shop.vault.decrypt(kept.response_enc, _CONTEXT)
    if kept.status is not None:
        return PlacedOrder(kept.order_id, told, replayed=True)
    return _open_page(shop, key, kept, json.loads(told)["order_token"])


def _digest(asked: CheckoutRequest) -> bytes:
    canonical = orjson.dumps(asked.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(canonical).digest()


def _check_origin(name: str, url: str | None, origins: tuple[str, ...]) -> None:
    """Refuse an address whose origin is not configured: it would make our payment page an open redirect."""
    if url is None:
        return
    clean = url.isascii() and url.isprintable() and not any(char in url for char in " \\<>\"'")
    if not clean or _origin(url) not in {known.lower() for known in origins}:
        raise invalid(name, "must begin with an origin this shop is configured for (STOREFRONT_ORIGINS)")


def _origin(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc}".lower()


def _home(shop: Shop, asked: CheckoutRequest) -> str:
    """Return which of our own origins the customer shops at: his browser keeps the order's token for that one only."""
    given_up_to = _origin(asked.cancel_url or "")
    return given_up_to if given_up_to in shop.settings.own_origins else shop.settings.api_url


def _find_or_place(shop: Shop, key: str, digest: bytes, asked: CheckoutRequest) -> KeptAnswer:
    with shop.engine.begin() as conn:
        found = checkout_store.kept_answer(conn, key)
        if found is not None:
            return found
        order_id = uuid4()
        token = new_token(order_id)
        sealed = shop.vault.encrypt(orjson.dumps({"order_token": token}), _CONTEXT)
        if checkout_store.claim_key(conn, key, digest, order_id, sealed):
            now = shop.clock()
            order = NewOrder(
                order_id=order_id,
                email=asked.email,
                phone=asked.phone,
                currency=asked.currency,
                lines=price_basket(conn, asked.items, asked.currency),
                token_hash=token_hash(token),
                catalogue_version=current_version(conn),
                success_url=asked.success_url or f"{_home(shop, asked)}/orders/{order_id}",
                cancel_url=asked.cancel_url or f"{shop.settings.api_url}/",
                now=now,
                expires_at=(now + PAGE_OPEN).replace(microsecond=0),
            )
            checkout_store.add_order(conn, order)
        kept = checkout_store.kept_answer(conn, key)
        assert kept is not None  # noqa: S101 - claimed by us or, committed, by somebody else
        return kept


def _open_page(shop: Shop, key: str, kept: KeptAnswer, token: str) -> PlacedOrder:
    with shop.engine.connect() as conn:
        order = checkout_store.open_checkout(conn, kept.order_id)
    if order.status is not OrderStatus.PENDING or order.expires_at - shop.clock() < SHORTEST_PAGE:
        raise Problem(CHECKOUT_EXPIRED, "Nothing was charged. Start again with a fresh Idempotency-Key.")
    session_id, url = _session(shop, order, key, kept.attempt)
    body = orjson.dumps(
        {
            "order_id": str(order.order_id),
            "display_id": order.display_id,
            "order_token": token,
            "checkout_url": url,
            "amount_minor": order.amount.minor,
            "currency": order.amount.currency,
            "expires_at": order.expires_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    )
    with shop.engine.begin() as conn:
        if checkout_store.keep_answer(conn, key, 201, shop.vault.encrypt(body, _CONTEXT)):
            checkout_store.attach_session(conn, order.order_id, session_id, url)
            return PlacedOrder(order.order_id, body, replayed=False)
        first = checkout_store.kept_answer(conn, key)
    assert first is not None  # noqa: S101 - a kept answer is forgotten after days
    return PlacedOrder(order.order_id, shop.vault.decrypt(first.response_enc, _CONTEXT), replayed=True)


def _session(shop: Shop, order: OpenCheckout, key: str, attempt: int) -> tuple[str, str]:
    page = PaymentPage(
        order_id=str(order.order_id),
        display_id=order.display_id,
        lines=tuple(CheckoutLine(name, unit, quantity) for name, unit, quantity in order.lines),
        email=order.email,
        success_url=order.success_url,
        cancel_url=order.cancel_url,
        expires_at=order.expires_at,
        attempt=attempt,
    )
    try:
        session = shop.gateway.create_checkout(page)
    except PaymentUnavailable as error:
        if isinstance(error, PaymentServiceFault):
            with shop.engine.begin() as conn:
                checkout_store.begin_next_attempt(conn, key, attempt)
        wait = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        detail = "Your basket is kept: send the same request with the same Idempotency-Key again."
        raise Problem(PAYMENT_UNAVAILABLE, detail, headers=wait) from error
    except PaymentRejected as error:
        with shop.engine.begin() as conn:
            reason = "the payment service refused the checkout"
            cancel_unpaid(conn, order.order_id, reason=reason, actor="api", now=shop.clock())
        raise Problem(PAYMENT_REFUSED, "Nothing was charged. Check the basket and start again.") from error
    if session.url is None:
        raise Problem(CHECKOUT_EXPIRED, "Nothing was charged. Start again with a fresh Idempotency-Key.")
    return session.session_id, session.url
