"""Every webhook event that came in, once: the unique key is what makes redelivery harmless."""

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import Connection, update
from sqlalchemy.dialects.postgresql import insert

from resources.db.tables import inbox_events


def record(
    conn: Connection,
    source: str,
    event_id: str,
    type: str,
    order_id: UUID | None,
    handled: str,
    work: Mapping[str, object] | None = None,
) -> bool:
    """Note an event; return False for a duplicate, whose sender is answered 2xx and nothing else happens.

    `work` says what a job has to read again at the provider (`provider`, `reference`, `provider_order_id`, …); it
    wakes that job as soon as the transaction commits.
    """
    row = {"source": source, "event_id": event_id, "type": type, "order_id": order_id, "handled": handled}
    statement = insert(inbox_events).values(**row, work=dict(work) if work is not None else None)
    return conn.scalar(statement.on_conflict_do_nothing().returning(inbox_events.c.event_id)) is not None


def note_handled(conn: Connection, source: str, event_id: str, handled: str, order_id: UUID | None = None) -> None:
    """Say what was done with an event that `record` noted first."""
    values: dict[str, object] = {"handled": handled}
    if order_id is not None:
        values["order_id"] = order_id
    key = (inbox_events.c.source == source) & (inbox_events.c.event_id == event_id)
    conn.execute(update(inbox_events).where(key).values(**values))
