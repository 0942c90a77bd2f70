"""Stripe behind the `PaymentGateway` port: Checkout pages, signed webhooks, refunds and fees, by the official SDK.

Promises: an attempt of an order opens one payment page and a refund key pays back once, however often either is
asked for; no error text carries an e-mail address. Never: sees a card, or moves an order (that is the caller's
transaction).
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any

import stripe

from esim.disputes import DisputeMovement
from esim.errors import PaymentError, PaymentRejected, PaymentServiceFault, PaymentUnavailable, WebhookRejected
from esim.money import Money
from esim.ports import Charge, CheckoutRequest, CheckoutSession, ListedRefund, PaymentEvent, Refund
from resources.payments.stripe_disputes import listed_movement
from resources.payments.stripe_objects import (
    read_charge,
    read_event,
    read_listed_refund,
    read_refund,
    read_session,
    stripe_amount,
    whole_money,
)
from resources.settings import Settings

TOLERANCE_SECONDS = 300
PAGE_SIZE = 100
MAX_EVENT_TYPES = 20
REFUND_REASONS = frozenset({"duplicate", "fraudulent", "requested_by_customer"})
EXPANDED_FEE = "latest_charge.balance_transaction"
# Nothing was decided about the payment: our key, our pace or the line is at fault, so trying again later is right.
UNDECIDED = (
    stripe.APIConnectionError,
    stripe.RateLimitError,
    stripe.AuthenticationError,
    stripe.PermissionError,
)


class StripeGateway:
    """One Stripe account; safe to share between threads (the SDK pools connections per thread)."""

    def __init__(
        self,
        *,
        secret_key: str,
        webhook_secret: str,
        api_base: str = "https://api.stripe.com",
        timeout: float = 20.0,
        retries: int = 2,
    ) -> None:
        """Take the secret key, the webhook secrets (comma separated during a rotation) and the timeout in seconds."""
        stripe.enable_telemetry = False  # otherwise the SDK keeps an id file in the home folder
        self._secrets = tuple(secret.strip() for secret in webhook_secret.split(",") if secret.strip())
        self._http = stripe.RequestsClient(timeout=timeout)
        self._client = stripe.StripeClient(
            secret_key,
            base_addresses={"api": api_base.rstrip("/")},
            http_client=self._http,
            max_network_retries=retries,
        )

    def create_checkout(self, request: CheckoutRequest) -> CheckoutSession:
        """Open a payment page; the same order id and attempt return the same session.

        Stripe keeps a failure under its key for a day too: only another attempt gets beyond it.

        Raises:
            PaymentRejected: Stripe refuses it, or the order id was used with other lines, addresses or times.
            PaymentServiceFault: Stripe answered that it failed; no page of this attempt was told to us.
            PaymentUnavailable: no answer; the same request may be sent again.
        """
        names = {"order_id": request.order_id, "display_id": request.display_id}
        intent: Any = {"metadata": names, "description": f"Order {request.display_id}"}
        params: Any = {
            "mode": "payment",
            "line_items": [_line(line.name, line.description, line.unit, line.quantity) for line in request.lines],
            "success_url": request.success_url,
            "cancel_url": request.cancel_url,
            "client_reference_id": request.order_id,
            "customer_email": request.email,
            "expires_at": int(request.expires_at.timestamp()),
            "metadata": names,
            "payment_intent_data": intent,
        }
        with _asking(f"open a payment page for order {request.order_id}"):
            made = self._client.v1.checkout.sessions.create(params, {"idempotency_key": _key(request)})
            return read_session(made.to_dict())

    def verify_webhook(self, body: bytes, signature: str | None, now: datetime) -> PaymentEvent:
        """Authenticate raw bytes (tolerance 300 s) and read the event.

        Raises:
            WebhookRejected: no, wrong or stale signature, or not an event.
        """
        if not self._secrets:
            raise WebhookRejected(
                "no webhook secret is set; set STRIPE_WEBHOOK_SECRET to the endpoint's signing secret"
            )
        if not signature:
            raise WebhookRejected("the Stripe-Signature header is missing")
        if not any(_is_signed(body, signature, secret) for secret in self._secrets):
            raise WebhookRejected("the Stripe-Signature header does not match the body")
        age = now.timestamp() - _signed_at(signature)
        if age > TOLERANCE_SECONDS:
            raise WebhookRejected(
                f"the webhook was signed {int(age)} s ago; at most {TOLERANCE_SECONDS} s are accepted"
            )
        try:
            event = json.loads(body, parse_float=Decimal)
        except ValueError as error:
            raise WebhookRejected("the webhook body is not JSON") from error
        return read_event(event)

    def session(self, session_id: str) -> CheckoutSession:
        """Read one session.

        Raises:
            PaymentRejected: there is no such session.
            PaymentUnavailable: no answer.
        """
        with _asking(f"read session {session_id}"):
            return read_session(self._client.v1.checkout.sessions.retrieve(session_id).to_dict())

    def sessions_since(self, since: datetime) -> Iterator[CheckoutSession]:
        """List sessions created at or after `since`, newest first."""
        params: Any = {"created": {"gte": int(since.timestamp())}, "limit": PAGE_SIZE}
        with _asking("list sessions"):
            for found in self._client.v1.checkout.sessions.list(params).auto_paging_iter():
                yield read_session(found.to_dict())

    def events_since(self, since: datetime, types: Sequence[str]) -> Iterator[PaymentEvent]:
        """List events of these types (at most 20; none means all) created at or after `since`, newest first."""
        if len(types) > MAX_EVENT_TYPES:
            raise PaymentRejected(f"Stripe filters by at most {MAX_EVENT_TYPES} event types, got {len(types)}")
        params: Any = {"created": {"gte": int(since.timestamp())}, "limit": PAGE_SIZE}
        if types:
            params["types"] = list(types)
        with _asking("list events"):
            for found in self._client.v1.events.list(params).auto_paging_iter():
                yield read_event(found.to_dict())

    def charges_since(self, since: datetime) -> Iterator[Charge]:
        """List the payments taken at or after `since`, newest first; attempts that failed are left out."""
        params: Any = {"created": {"gte": int(since.timestamp())}, "limit": PAGE_SIZE}
        with _asking("list charges"):
            for found in self._client.v1.charges.list(params).auto_paging_iter():
                if found.status == "succeeded":
                    yield read_charge(found.to_dict())

    def refunds_since(self, since: datetime) -> Iterator[ListedRefund]:
        """List refunds made at or after `since`, newest first, whoever made them."""
        params: Any = {"created": {"gte": int(since.timestamp())}, "limit": PAGE_SIZE}
        with _asking("list refunds"):
            for found in self._client.v1.refunds.list(params).auto_paging_iter():
                yield read_listed_refund(found.to_dict())

    def dispute_movements_since(self, since: datetime) -> Iterator[DisputeMovement]:
        """List what disputes withdrew and gave back at or after `since`, newest first."""
        made: Any = {"created": {"gte": int(since.timestamp())}, "limit": PAGE_SIZE}
        params: Any = {"type": "adjustment", "expand": ["data.source"], **made}
        with _asking("list balance transactions"):
            for found in self._client.v1.balance_transactions.list(params).auto_paging_iter():
                if (moved := listed_movement(found.to_dict())) is not None:
                    yield moved

    def expire(self, session_id: str) -> None:
        """Close a payment page; one that is closed already stays so.

        Raises:
            PaymentRejected: it was paid, or does not exist.
            PaymentUnavailable: no answer.
        """
        try:
            with _asking(f"close session {session_id}"):
                self._client.v1.checkout.sessions.expire(session_id)
        except PaymentRejected:
            if self.session(session_id).status != "expired":
                raise

    def fee(self, payment_intent: str) -> Money | None:
        """Return what Stripe kept of a payment, in the currency it settles in, once it is known."""
        with _asking(f"read the fee of {payment_intent}"):
            found = self._client.v1.payment_intents.retrieve(payment_intent, {"expand": [EXPANDED_FEE]}).to_dict()
        charge = found.get("latest_charge")
        moved = charge.get("balance_transaction") if isinstance(charge, dict) else None
        return whole_money(moved["fee"], moved["currency"]) if isinstance(moved, dict) else None

    def refund_made(self, payment_intent: str, key: str) -> Refund | None:
        """Return the refund of a payment that was made under a key, however long ago; None when there is none.

        Raises:
            PaymentUnavailable: no answer.
        """
        return next((made for made in self.refunds_of(payment_intent) if made.key == key[:500]), None)

    def refunds_of(self, payment_intent: str) -> Sequence[Refund]:
        """Return every refund of a payment as it stands now, newest first, whoever made it.

        Raises:
            PaymentUnavailable: no answer.
        """
        params: Any = {"payment_intent": payment_intent, "limit": PAGE_SIZE}
        with _asking(f"list the refunds of {payment_intent}"):
            listed = self._client.v1.refunds.list(params).auto_paging_iter()
            return [read_refund(found.to_dict()) for found in listed]

    def refund(self, payment_intent: str, amount: Money, *, key: str, reason: str, faults: int = 0) -> Refund:
        """Pay back; the same `key` never pays back twice within a day, for which Stripe remembers keys.

        `reason` and `key` are kept in the refund's metadata, so that `refund_made` finds it later. `faults` counts the
        answers that Stripe failed, which it would only repeat: another count is another request to it.

        Raises:
            PaymentRejected: more than is left, or disputed, or already paid back under another key.
            PaymentServiceFault: Stripe answered that it failed, and repeats that for a day under this key and count.
            PaymentUnavailable: no answer; ask again with the same key.
        """
        params: Any = {
            "payment_intent": payment_intent,
            "amount": stripe_amount(amount),
            "metadata": {"reason": reason[:500], "refund_key": key[:500]},
        }
        if reason in REFUND_REASONS:
            params["reason"] = reason
        with _asking(f"refund {amount} of {payment_intent}"):
            asked: Any = {"idempotency_key": f"{key}:after-{faults}" if faults else key}
            return read_refund(self._client.v1.refunds.create(params, asked).to_dict())

    def close(self) -> None:
        """Give this thread's connections back."""
        close: Callable[[], None] = self._http.close
        close()


def stripe_gateway(settings: Settings) -> StripeGateway:
    """The gateway these settings name: the sandbox's until a secret key is set."""
    endpoint = settings.stripe
    return StripeGateway(
        secret_key=endpoint.credentials["secret_key"],
        webhook_secret=endpoint.credentials["webhook_secret"],
        api_base=endpoint.url,
    )


def _key(request: CheckoutRequest) -> str:
    return request.order_id if request.attempt == 1 else f"{request.order_id}:{request.attempt}"


def _line(name: str, description: str, unit: Money, quantity: int) -> dict[str, Any]:
    product = {"name": name, **({"description": description} if description else {})}
    price = {"currency": unit.currency.lower(), "unit_amount": stripe_amount(unit), "product_data": product}
    return {"quantity": quantity, "price_data": price}


def _is_signed(body: bytes, signature: str, secret: str) -> bool:
    verify: Callable[..., bool] = stripe.WebhookSignature.verify_header
    if not signature.isascii():
        return False  # the SDK compares texts in constant time, which Python does for ASCII only
    try:
        return verify(body, signature, secret)
    except (stripe.SignatureVerificationError, UnicodeDecodeError):
        return False


def _signed_at(signature: str) -> float:
    """The first timestamp of a verified header, the one the SDK verified."""
    return float(next(part[2:] for part in signature.split(",") if part.startswith("t=")))


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """Turn the SDK's errors into the port's."""
    try:
        yield
    except stripe.StripeError as error:
        raise _translated(error, what) from None


def _translated(error: stripe.StripeError, what: str) -> PaymentError:
    """Name the error by its code, never by a text that may repeat an address."""
    told = [type(error).__name__, error.code, getattr(error, "param", None), error.request_id]
    detail = ", ".join(str(part) for part in told if part)
    if error.user_message and getattr(error, "param", None) != "customer_email" and "@" not in error.user_message:
        detail = f"{detail}: {error.user_message}"
    if isinstance(error, UNDECIDED) or error.http_status is None or error.http_status == 409:
        return PaymentUnavailable(f"Stripe did not {what} ({detail}); try again later")
    if error.http_status >= 500:
        return PaymentServiceFault(f"Stripe failed to {what} ({detail}); try again later")
    return PaymentRejected(f"Stripe refused to {what} ({detail})")
