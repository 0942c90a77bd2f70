"""eSIM Access on the wire: signed requests, the envelope, and what its error codes prove about an order.

Codes are text with leading zeros. `success` decides; HTTP statuses of business failures are not documented, so the
body is read for an envelope whatever the status is (docs.esimaccess.com, April 2026).
"""

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from esim.errors import MalformedReply, ProviderAuthFailed, ProviderError, ProviderRejected
from esim.purchase import ErrorType, Rejected, Unknown
from resources.providers.base import Reply
from resources.providers.payload import mapping, said

PENDING = "200010"  # profiles are still being allocated: an order exists
DUPLICATE = "310402"  # this transactionId was used: an order exists (seen by one integrator, unconfirmed)
BUSY = frozenset({"000001", "900001"})
_AUTH = frozenset({"000101", "000102", "101001", "101002", "101003", "401001"})

# Codes that prove that no order was made, and what they mean for the next try.
_REFUSALS: Mapping[str, ErrorType] = {
    **dict.fromkeys(_AUTH, ErrorType.AUTH_FAILED),
    **dict.fromkeys(("000103", "000104", "000105", "000106", "000107"), ErrorType.PROVIDER_API_ERROR),
    **dict.fromkeys(("200005", "200006"), ErrorType.PRICE_CHANGED),
    "200007": ErrorType.INSUFFICIENT_BALANCE,
    "200008": ErrorType.INVALID_PRODUCT,
    "200011": ErrorType.OUT_OF_STOCK,
    **dict.fromkeys(("310201", "310211", "310221", "310231", "310251"), ErrorType.INVALID_PRODUCT),
    **dict.fromkeys(("310241", "310243"), ErrorType.INVALID_PRODUCT),
}
NOT_IN_THIS_STATE = frozenset({"200002", "200009"})


class Refused(ProviderRejected):
    """A clear refusal with eSIM Access's own code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Envelope:
    """An answer: whether it succeeded, its code and message, and the payload."""

    success: bool
    code: str
    message: str
    payload: Any


def signed_headers(access_code: str, secret: str, *, request_id: str, timestamp: str, body: bytes) -> dict[str, str]:
    """Return the headers of a signed call: HMAC-SHA256 in lower-case hex over the exact bytes that are sent."""
    message = f"{timestamp}{request_id}{access_code}".encode() + body
    return {
        "RT-AccessCode": access_code,
        "RT-RequestID": request_id,
        "RT-Timestamp": timestamp,
        "RT-Signature": hmac.new(secret.encode(), message, sha256).hexdigest(),
        "Content-Type": "application/json",
    }


def encode(body: Mapping[str, object]) -> bytes:
    """Return the bytes of a request body: serialised once, signed and sent as they are."""
    return json.dumps(body, separators=(",", ":")).encode()


def open_envelope(reply: Reply) -> Envelope:
    """Return the envelope in an answer.

    Raises:
        MalformedReply: there is none.
    """
    body = mapping(reply.json(), "the answer of eSIM Access")
    success = body.get("success")
    if not isinstance(success, bool) and success not in {"true", "false"}:
        raise MalformedReply(f"HTTP {reply.status} without a success field")
    message = body.get("errorMsg") or body.get("errorMessage")
    return Envelope(success in {True, "true"}, str(body.get("errorCode") or "0"), said(message), body.get("obj"))


def busy(reply: Reply) -> bool:
    """Return whether an answer to a read says "try again" (900001, 000001)."""
    if len(reply.body) > 2_000:
        return False
    try:
        envelope = open_envelope(reply)
    except MalformedReply:
        return False
    return not envelope.success and envelope.code in BUSY


def error_of(call: str, envelope: Envelope) -> ProviderError:
    """Return the error for a read that eSIM Access refused."""
    words = f"esim_access {call}: {envelope.code} {envelope.message}".rstrip()
    if envelope.code in _AUTH:
        return ProviderAuthFailed(f"{words}; check ESIM_ACCESS_CLIENT_ID, ESIM_ACCESS_CLIENT_SECRET and the IP list")
    return Refused(envelope.code, words)


def refusal_of(call: str, envelope: Envelope) -> Rejected | Unknown:
    """Return what a failed purchase proves: only listed codes prove that nothing was bought."""
    words = f"esim_access {call}: {envelope.code} {envelope.message}".rstrip()
    if envelope.code in _REFUSALS:
        return Rejected(_REFUSALS[envelope.code], words)
    if call == "topup" and envelope.code in NOT_IN_THIS_STATE:
        return Rejected(ErrorType.INVALID_PRODUCT, words)
    if envelope.code in {PENDING, DUPLICATE}:
        return Unknown(ErrorType.PROVIDER_API_ERROR, f"{words}; an order with this transactionId exists")
    return Unknown(ErrorType.PROVIDER_API_ERROR, f"{words}; not proven that nothing was bought")
