"""Webhooks as the gateway takes them: only fresh, genuine bytes become events; amounts are exact both ways."""

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esim.errors import InvalidMoney, PaymentRejected, WebhookRejected
from esim.money import Money
from resources.payments.stripe import StripeGateway
from resources.payments.stripe_objects import read_event, read_refund, read_session, stripe_amount, whole_money

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def gateway_with(secrets: str = "whsec_new,whsec_old") -> StripeGateway:
    return StripeGateway(secret_key="sk_test", webhook_secret=secrets, api_base="http://127.0.0.1:9")


def event(**subject: Any) -> dict[str, Any]:
    session = {
        "id": "cs_test_1",
        "object": "checkout.session",
        "amount_total": 1999,
        "currency": "usd",
        "client_reference_id": "order-1",
        "payment_intent": "pi_1",
        "payment_status": "paid",
        "status": "complete",
        "created": int(NOW.timestamp()),
    }
    return {
        "id": "evt_1",
        "object": "event",
        "type": "checkout.session.completed",
        "created": int(NOW.timestamp()),
        "data": {"object": session | subject},
    }


def sign(body: bytes, secret: str = "whsec_new", at: datetime = NOW) -> str:
    stamp = int(at.timestamp())
    digest = hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={stamp},v1={digest},v0=ignored"


BODY = json.dumps(event(), indent=2).encode()


def test_genuine_event_is_read() -> None:
    read = gateway_with().verify_webhook(BODY, sign(BODY), NOW)
    assert (read.event_id, read.type, read.created_at) == ("evt_1", "checkout.session.completed", NOW)
    assert (read.order_id, read.session_id, read.payment_intent) == ("order-1", "cs_test_1", "pi_1")
    assert (read.amount, read.payment_status) == (Money(1999, "USD"), "paid")
    assert read.raw["status"] == "complete"
    assert "order-1" in repr(read)
    assert "complete'" not in repr(read)  # the object itself may hold personal data


def test_both_secrets_count_during_a_rotation() -> None:
    for secret in ("whsec_new", "whsec_old"):
        assert gateway_with().verify_webhook(BODY, sign(BODY, secret), NOW).event_id == "evt_1"
    with pytest.raises(WebhookRejected, match="does not match"):
        gateway_with().verify_webhook(BODY, sign(BODY, "whsec_other"), NOW)
    with pytest.raises(WebhookRejected, match="STRIPE_WEBHOOK_SECRET"):
        gateway_with(" , ").verify_webhook(BODY, sign(BODY), NOW)


def test_changed_or_reserialised_bytes_are_refused() -> None:
    for body in (BODY.replace(b"1999", b"1"), json.dumps(json.loads(BODY)).encode(), BODY + b" ", b"\xff"):
        with pytest.raises(WebhookRejected, match="does not match"):
            gateway_with().verify_webhook(body, sign(BODY), NOW)


@pytest.mark.parametrize("header", [None, "", "t=1", "v1=abc", "t=x,v1=y", "nonsense", "t=,v1=", "=,=,="])
def test_missing_and_mangled_signatures_are_refused(header: str | None) -> None:
    with pytest.raises(WebhookRejected):
        gateway_with().verify_webhook(BODY, header, NOW)


def test_signature_is_good_for_300_seconds() -> None:
    signed = sign(BODY)
    assert gateway_with().verify_webhook(BODY, signed, NOW + timedelta(seconds=300)).event_id == "evt_1"
    with pytest.raises(WebhookRejected, match="301 s ago"):
        gateway_with().verify_webhook(BODY, signed, NOW + timedelta(seconds=301))


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"[]",
        b"null",
        b'{"object": "v2.core.event"}',
        b'{"object": "event", "id": "evt_1"}',
        b'{"object": "event", "data": 3}',
        json.dumps(event(amount_total=19.99)).encode(),
        json.dumps(event(currency="dollars")).encode(),
        json.dumps({**event(), "created": "today"}).encode(),
    ],
)
def test_signed_bodies_that_are_no_events_are_refused(body: bytes) -> None:
    with pytest.raises(WebhookRejected):
        gateway_with().verify_webhook(body, sign(body), NOW)


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (
            {"id": "pi_2", "object": "payment_intent", "amount": 5, "currency": "jpy", "metadata": {"order_id": "o"}},
            ("o", "", "pi_2", Money(5, "JPY")),
        ),
        (
            {"id": "re_2", "object": "refund", "amount": 5, "currency": "kwd", "payment_intent": {"id": "pi_2"}},
            ("", "", "pi_2", Money(5, "KWD")),
        ),
        ({"id": "du_1", "object": "dispute", "amount": 5, "currency": "eur"}, ("", "", "", Money(5, "EUR"))),
        ({"object": "balance", "amount": [1]}, ("", "", "", None)),
    ],
)
def test_events_about_other_objects_are_read(subject: dict[str, Any], expected: tuple[Any, ...]) -> None:
    read = read_event({**event(), "data": {"object": subject}})
    assert (read.order_id, read.session_id, read.payment_intent, read.amount) == expected


def test_answers_that_lack_something_are_refused_by_name() -> None:
    with pytest.raises(PaymentRejected, match="amount_total is missing"):
        read_session({"id": "cs_1", "status": "open", "payment_status": "unpaid"})
    with pytest.raises(PaymentRejected, match="status is missing"):
        read_refund({"id": "re_1", "amount": 1, "currency": "usd"})


@given(st.integers(-(10**12), 10**12), st.sampled_from(["USD", "EUR", "JPY", "KWD", "ISK", "UGX"]))
def test_amounts_survive_the_way_there_and_back(minor: int, currency: str) -> None:
    money = Money(minor, currency)
    assert whole_money(stripe_amount(money), currency.lower()) == money


def test_special_currencies_are_counted_as_stripe_does() -> None:
    assert stripe_amount(Money(5, "UGX")) == 500
    assert stripe_amount(Money(500, "MGA")) == 5
    assert whole_money(5, "mga") == Money(500, "MGA")
    with pytest.raises(PaymentRejected, match="does not take"):
        stripe_amount(Money(501, "MGA"))
    for amount, currency in ((501, "isk"), (1.0, "usd"), (True, "usd"), (1, None)):
        with pytest.raises(InvalidMoney):
            whole_money(amount, currency)
