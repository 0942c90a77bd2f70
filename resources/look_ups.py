"""What a provider says became of a purchase, asked for one attempt: by drains, and by operators who decide about it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row

from esim.ports import Provider
from esim.purchase import OTHER_ORDERS, ErrorType, Evidence, Outcome, Unknown
from resources.db.attempts import stored_request
from resources.db.esim_owners import other_orders, slot_is_taken
from resources.db.tables import OPEN_STATES


def look_up(engine: Engine, provider: Provider, attempt: Row[Any], now: datetime) -> Outcome:
    """Ask a provider about one attempt. Never raises for what an adapter does: then the purchase stays unclear."""
    try:
        if attempt.state == "pending" and attempt.provider_order_id:
            return provider.order_status(attempt.provider_order_id, stored_request(attempt))
        outcome = provider.resolve(stored_request(attempt), _evidence(engine, attempt), now)
    except Exception as error:  # noqa: BLE001 - whatever an adapter raises, the purchase stays open
        return Unknown(ErrorType.UNKNOWN, f"{provider.slug}: {type(error).__name__} while looking it up")
    if attempt.state in OPEN_STATES or attempt.slot is None:
        return outcome
    with engine.connect() as conn:  # asked last: who begins after this was not in the answer
        taken = slot_is_taken(conn, attempt)
    words = f"{provider.slug}: another purchase is open that cannot be told from this one; looked up after it"
    return Unknown(ErrorType.UNKNOWN, words) if taken else outcome


def _evidence(engine: Engine, attempt: Row[Any]) -> Evidence:
    """Return what an attempt noted before it bought, with the orders known to be others' where only that tells them."""
    evidence: Mapping[str, Any] = attempt.evidence or {}
    if attempt.slot is None:
        return evidence
    with engine.connect() as conn:
        return {**evidence, OTHER_ORDERS: other_orders(conn, attempt)}
