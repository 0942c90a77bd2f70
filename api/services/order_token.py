"""The token that opens one order: which order, and 256 random bits of which only a hash is kept.

Because the token names its order, a token of another order is told from a token that was never given without a
search, and answered "not found": whether that other order exists is nobody's business.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from uuid import UUID

_SECRET_BYTES = 32
_ID_CHARACTERS = 22


def new_token(order_id: UUID) -> str:
    """Return a fresh token for an order."""
    return f"{base64.urlsafe_b64encode(order_id.bytes).decode().rstrip('=')}.{secrets.token_urlsafe(_SECRET_BYTES)}"


def order_of(token: str) -> UUID | None:
    """Return the order a token claims to open; None for what cannot be a token."""
    encoded, dot, secret = token.partition(".")
    if not dot or not secret or len(encoded) != _ID_CHARACTERS:
        return None
    try:
        return UUID(bytes=base64.urlsafe_b64decode(encoded + "=="))
    except (binascii.Error, ValueError):
        return None


def token_hash(token: str) -> bytes:
    """Return what is kept of a token; a plain hash is enough for 256 random bits."""
    return hashlib.sha256(token.encode()).digest()


def is_token(token: str, kept: bytes) -> bool:
    """Return whether `token` is the one whose hash was kept, in constant time."""
    return hmac.compare_digest(token_hash(token), kept)
