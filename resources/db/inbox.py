"""Every webhook event that came in, once: the unique key is what makes redelivery harmless."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from esim.orders import UnitStatus
from esim.purchase import EventKind, ProviderEvent
from resources.db.tables import esims, inbox_events, purchase_attempts

_ABOUT_ORDERS = frozenset({EventKind.ORDER_READY, EventKind.ORDER_FAILED})


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


def provider_work(provider: str, event: ProviderEvent) -> dict[str, object] | None:
    """Return what a job must read again because of a provider's event; None where nothing must.

    The event itself proves nothing and carries no activation data: only ids are kept.
    """
    if event.kind not in _ABOUT_ORDERS or not (event.reference or event.provider_order_id):
        return None
    return {"provider": provider, "reference": event.reference, "provider_order_id": event.provider_order_id}


def work_provider_event(conn: Connection, now: datetime) -> list[int] | None:
    """Make the purchases that the oldest fresh provider event speaks of due at once; None when there is no event.

    Returns the attempts that were closed without a purchase: an event about them may be a late arrival, which the
    caller looks up and keeps. One event a transaction, so that nobody waits while holding another unit's row.
    """
    i = inbox_events.c
    fresh = select(i.source, i.event_id, i.work).where(i.work.is_not(None), i.worked_at.is_(None))
    row = conn.execute(fresh.order_by(i.received_at).limit(1).with_for_update(skip_locked=True)).one_or_none()
    if row is None:
        return None
    done = update(inbox_events).where(i.source == row.source, i.event_id == row.event_id)
    conn.execute(done.values(worked_at=now))
    return _wake(conn, row.work, now)


def _wake(conn: Connection, work: Mapping[str, Any], now: datetime) -> list[int]:
    a, names = purchase_attempts.c, []
    if work.get("reference"):
        names.append(a.reference == work["reference"])
    if work.get("provider_order_id"):
        names.append(a.provider_order_id == work["provider_order_id"])
    if not names:
        return []
    found = conn.execute(
        select(a.attempt_id, a.esim_id, a.state).where(a.provider == work.get("provider"), or_(*names))
    )
    late = []
    for attempt in found.all():
        if attempt.state in {"pending", "unknown"}:
            _make_due(conn, attempt.esim_id, now)
        elif attempt.state == "rejected":
            late.append(int(attempt.attempt_id))
    return late


def _make_due(conn: Connection, esim_id: UUID, now: datetime) -> None:
    """Let an open unit be looked up at once; one that is being written this moment is due soon anyway."""
    wanted = (UnitStatus.PENDING, UnitStatus.UNKNOWN, UnitStatus.ATTENTION)
    unit = select(esims.c.esim_id).where(esims.c.esim_id == esim_id, esims.c.status.in_(wanted))
    free = unit.with_for_update(skip_locked=True).cte("free")
    conn.execute(update(esims).where(esims.c.esim_id == free.c.esim_id).values(next_attempt_at=now))
