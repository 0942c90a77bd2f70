"""The link in a customer's mail that opens the order, in whatever browser it is opened.

The token in it is not kept anywhere: it is the vault's seal of the order id, made again when a mail is rendered and
when it is used. It opens one order, as the token from checkout does, for as long as the key that made it is listed.
"""

import base64
import binascii
from urllib.parse import urlsplit
from uuid import UUID

from resources.db.vault import Vault

_PURPOSE = "order-mail-token"
_MARK = ".mail."
_SESSION = "{CHECKOUT_SESSION_ID}"  # the payment service fills it in when the customer comes back; a mail must too


def mail_token(order_id: UUID, vault: Vault) -> str:
    """Return the token that opens an order from its mail; like checkout's, it names its order first."""
    return f"{_text(order_id.bytes)}{_MARK}{_text(vault.seal(order_id.bytes, _PURPOSE))}"


def is_mail_token(token: str, order_id: UUID, vault: Vault) -> bool:
    """Return whether `token` is one that a mail about this order carried."""
    named, _, seal = token.partition(_MARK)
    try:
        sealed = base64.urlsafe_b64decode(seal + "=" * (-len(seal) % 4))
    except (binascii.Error, ValueError):
        return False
    return named == _text(order_id.bytes) and vault.is_seal(sealed, order_id.bytes, _PURPOSE)


def order_link(success_url: str, session_id: str | None, order_id: UUID, vault: Vault) -> str:
    """Return where a mail about an order leads: where its customer came back to, with the token if the page is ours.

    Only our own page of the order has the order's id as its path: nobody else knew the id when the address was given.
    """
    if urlsplit(success_url).path == f"/orders/{order_id}":
        return f"{success_url}#token={mail_token(order_id, vault)}"
    return success_url.replace(_SESSION, session_id or "")


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
