"""Take a provider's webhook as what it is: a hint to read again, never a fact.

verify -> parse -> one inbox row per event with the ids to look up -> the poller reads the provider itself. Nothing a
webhook says is believed, so a forged one can cause a look-up and no more. Providers that do not sign are heard only
about purchases of ours, so that strangers cannot fill the inbox.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from api.shop import Shop
from esim.ports import Provider
from esim.purchase import ProviderEvent
from resources.db import inbox
from resources.db.provider_hints import order_of_hint
from resources.providers.payload import clean

_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Heard:
    """How many events a body had, and how many of them were new."""

    events: int
    fresh: int


def record_provider_event(shop: Shop, provider: Provider, headers: Mapping[str, str], body: bytes) -> Heard:
    """Verify and note a webhook's events; the same event again changes nothing.

    Raises:
        WebhookRejected: unsigned where the provider signs, wrongly signed, or unreadable; nothing was changed.
    """
    provider.verify_webhook(headers, body)
    events = provider.parse_webhook(body)
    with shop.engine.begin() as conn:
        fresh = sum(_note(shop, conn, provider, event, f"{number}", body) for number, event in enumerate(events))
    return Heard(len(events), fresh)


def _note(shop: Shop, conn: Connection, provider: Provider, told: ProviderEvent, number: str, body: bytes) -> bool:
    reference, order_no = _clean(told.reference), _clean(told.provider_order_id)
    event = replace(told, reference=reference, provider_order_id=order_no, iccid=_clean(told.iccid))
    iccid_hash = shop.vault.lookup_hash(event.iccid) if event.iccid else None
    named = {"reference": event.reference, "provider_order_id": event.provider_order_id}
    order_id = order_of_hint(conn, provider.slug, iccid_hash=iccid_hash, **named)
    if order_id is None and not provider.capabilities.signed_webhooks:
        return False
    work = inbox.provider_work(provider.slug, event)
    # Where a provider gives no event id, the body itself tells a repeat from news.
    event_id = _clean(event.event_id) or f"body:{hashlib.sha256(number.encode() + body).hexdigest()}"
    handled = "to be read again" if work else "noted"
    return inbox.record(conn, provider.slug, event_id, event.kind.value, order_id, handled, work)


def _clean(text: str) -> str:
    """Return what the database can hold of a text from outside."""
    return clean(text)[:_LONGEST]
