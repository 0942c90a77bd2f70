"""Events as Stripe sends them, signed with the sandbox's secret."""

import hashlib
import hmac
import json
import time
from typing import Any
from uuid import uuid4

import httpx

SECRET = "whsec_sandbox"


def session_event(
    kind: str,
    order_id: str,
    *,
    amount: int,
    currency: str = "usd",
    payment_status: str = "paid",
    payment_intent: str = "pi_1",
    session_id: str = "cs_test_1",
    event_id: str | None = None,
) -> dict[str, Any]:
    subject = {
        "id": session_id,
        "object": "checkout.session",
        "amount_total": amount,
        "currency": currency,
        "client_reference_id": order_id,
        "metadata": {"order_id": order_id},
        "payment_intent": payment_intent,
        "payment_status": payment_status,
        "status": "complete",
    }
    return event(kind, subject, event_id)


def event(kind: str, subject: dict[str, Any], event_id: str | None = None) -> dict[str, Any]:
    return {
        "id": event_id or f"evt_{uuid4().hex}",
        "object": "event",
        "type": kind,
        "created": int(time.time()),
        "data": {"object": subject},
    }


def sign(body: bytes, *, secret: str = SECRET, at: int | None = None) -> dict[str, str]:
    timestamp = int(time.time()) if at is None else at
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {"Stripe-Signature": f"t={timestamp},v1={digest}", "Content-Type": "application/json"}


def send(client: httpx.Client, what: dict[str, Any]) -> httpx.Response:
    body = json.dumps(what, indent=2).encode()
    return client.post("/webhooks/stripe", content=body, headers=sign(body))
