"""Stripe's objects read into the port's records, pure: sessions, events, refunds, and amounts both ways.

An object that lacks what its record needs is refused: `PaymentRejected` for an API answer, `WebhookRejected` for an
event.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from esim.errors import InvalidMoney, PaymentRejected, WebhookRejected
from esim.money import Money
from esim.ports import Charge, CheckoutSession, ListedRefund, PaymentEvent, Refund

Json = Mapping[str, Any]

# Where Stripe counts other decimals than ISO 4217. Source: docs.stripe.com/currencies, special cases (2026-11).
_EXTRA_DECIMALS = {"ISK": 2, "UGX": 2, "MGA": -2}
_PAYMENTS = frozenset({"checkout.session", "payment_intent", "charge", "refund", "dispute"})


def stripe_amount(money: Money) -> int:
    """Return money in Stripe's smallest unit.

    Raises:
        PaymentRejected: Stripe cannot express it.
    """
    shift = _EXTRA_DECIMALS.get(money.currency, 0)
    if shift >= 0:
        return money.minor * int(10**shift)
    amount, rest = divmod(money.minor, int(10**-shift))
    if rest:
        raise PaymentRejected(f"{money} has decimals that Stripe does not take for {money.currency}")
    return amount


def whole_money(amount: Any, currency: Any) -> Money:
    """Return Stripe's smallest units as money.

    Raises:
        InvalidMoney: not a whole number of a known currency.
    """
    if type(amount) is not int or not isinstance(currency, str):
        raise InvalidMoney(f"Stripe sent amount {amount!r} {currency!r}, not a whole number of a currency")
    code = currency.upper()
    shift = _EXTRA_DECIMALS.get(code, 0)
    if shift <= 0:
        return Money(amount * int(10**-shift), code)
    minor, rest = divmod(amount, int(10**shift))
    if rest:
        raise InvalidMoney(f"Stripe sent {amount} {code}, a part of its smallest unit")
    return Money(minor, code)


def read_session(found: Json) -> CheckoutSession:
    """Read a Checkout Session.

    Raises:
        PaymentRejected: fields are missing or of another type.
    """
    try:
        expires_at = found.get("expires_at")
        return CheckoutSession(
            session_id=str(found["id"]),
            url=found.get("url"),
            status=str(found["status"]),
            payment_status=str(found["payment_status"]),
            payment_intent=id_of(found.get("payment_intent")) or None,
            amount=whole_money(found["amount_total"], found["currency"]),
            order_id=_order_id(found),
            created_at=moment(found["created"]),
            expires_at=None if expires_at is None else moment(expires_at),
        )
    except (KeyError, TypeError, InvalidMoney) as error:
        raise PaymentRejected(f"Stripe sent a session that cannot be read: {_what(error)}") from error


def read_refund(found: Json) -> Refund:
    """Read a refund.

    Raises:
        PaymentRejected: fields are missing or of another type.
    """
    try:
        return Refund(
            refund_id=str(found["id"]),
            amount=whole_money(found["amount"], found["currency"]),
            status=str(found["status"]),
            payment_intent=id_of(found["payment_intent"]),
            key=refund_key(found),
        )
    except (KeyError, TypeError, InvalidMoney) as error:
        raise PaymentRejected(f"Stripe sent a refund that cannot be read: {_what(error)}") from error


def refund_key(found: Json) -> str:
    """Return our key that a refund was asked for under; empty for one made by hand."""
    metadata = found.get("metadata")
    return str(metadata.get("refund_key") or "") if isinstance(metadata, Mapping) else ""


def read_listed_refund(found: Json) -> ListedRefund:
    """Read a refund of a list, with its time.

    Raises:
        PaymentRejected: fields are missing or of another type.
    """
    try:
        return ListedRefund(read_refund(found), moment(found["created"]))
    except (KeyError, TypeError) as error:
        raise PaymentRejected(f"Stripe sent a refund that cannot be read: {_what(error)}") from error


def read_charge(found: Json) -> Charge:
    """Read a charge; one made without a payment intent is known by its own id.

    Raises:
        PaymentRejected: fields are missing or of another type.
    """
    try:
        charge_id = str(found["id"])
        return Charge(
            charge_id=charge_id,
            payment_intent=id_of(found.get("payment_intent")) or charge_id,
            amount=whole_money(found["amount_captured"], found["currency"]),
            order_id=_order_id(found),
            created_at=moment(found["created"]),
        )
    except (KeyError, TypeError, InvalidMoney) as error:
        raise PaymentRejected(f"Stripe sent a charge that cannot be read: {_what(error)}") from error


def read_event(event: Any) -> PaymentEvent:
    """Read an event about a session, payment intent, charge, refund or dispute; others have empty order and amount.

    `amount` is the subject's own: a session's total, a charge's amount, a refund's amount. `payment_status` is a
    session's, else the subject's status.

    Raises:
        WebhookRejected: it is not an event.
    """
    try:
        if event["object"] != "event":
            raise WebhookRejected(f"the webhook body is a {event['object']!r}, not an event")
        subject: Json = event["data"]["object"]
        kind = str(subject.get("object", ""))
        return PaymentEvent(
            event_id=str(event["id"]),
            type=str(event["type"]),
            created_at=moment(event["created"]),
            order_id=_order_id(subject),
            session_id=str(subject["id"]) if kind == "checkout.session" else "",
            payment_intent=str(subject["id"]) if kind == "payment_intent" else id_of(subject.get("payment_intent")),
            amount=_amount(subject),
            payment_status=str(subject.get("payment_status") or subject.get("status") or ""),
            raw=subject,
        )
    except (KeyError, TypeError, AttributeError, InvalidMoney) as error:
        raise WebhookRejected(f"the webhook body is not an event: {_what(error)}") from error


def _amount(subject: Json) -> Money | None:
    if subject.get("object") not in _PAYMENTS:
        return None
    amount = subject.get("amount_total", subject.get("amount"))
    currency = subject.get("currency")
    return None if amount is None or currency is None else whole_money(amount, currency)


def _order_id(subject: Json) -> str:
    metadata = subject.get("metadata")
    named = metadata.get("order_id") if isinstance(metadata, Mapping) else None
    return str(subject.get("client_reference_id") or named or "")


def id_of(value: Any) -> str:
    """Return the id of an object that may be expanded; empty for none."""
    return str(value["id"]) if isinstance(value, Mapping) else str(value or "")


def moment(seconds: Any) -> datetime:
    """Return Stripe's whole seconds as a time.

    Raises:
        TypeError: they are not whole seconds.
    """
    if type(seconds) is not int:
        raise TypeError(f"{seconds!r} is not a time in seconds")
    return datetime.fromtimestamp(seconds, UTC)


def _what(error: Exception) -> str:
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
