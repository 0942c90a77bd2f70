"""Which of our purchases a provider's event is about."""

from uuid import UUID

from sqlalchemy import Connection, or_, select

from resources.db.tables import esims, purchase_attempts


def order_of_hint(
    conn: Connection, provider: str, *, reference: str, provider_order_id: str, iccid_hash: bytes | None
) -> UUID | None:
    """Return the order whose purchase has this reference, provider's order id or ICCID; None where none has."""
    attempt = purchase_attempts.c
    named = [attempt.reference == reference] if reference else []
    named += [attempt.provider_order_id == provider_order_id] if provider_order_id else []
    found: UUID | None = None
    if named:
        query = select(attempt.order_id).where(attempt.provider == provider, or_(*named))
        found = conn.scalar(query.order_by(attempt.attempt_id.desc()).limit(1))
    if found is None and iccid_hash is not None:
        delivered = select(esims.c.order_id).where(esims.c.provider == provider, esims.c.iccid_hash == iccid_hash)
        found = conn.scalar(delivered.order_by(esims.c.delivered_at.desc()).limit(1))
    return found
