"""Every webhook event that came in, once: the unique key is what makes redelivery harmless."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert

from esim.orders import UnitStatus
from esim.purchase import EventKind, ProviderEvent
from resources.db.tables import esims, inbox_events, purchase_attempts

LOOK_UP_SECONDS = 180.0  # nobody else works an event while its late arrivals are looked up
LOOK_UP_FOR = timedelta(days=1)
_ABOUT_ORDERS = frozenset({EventKind.ORDER_READY, EventKind.ORDER_FAILED})


_RECORD = text(
    """
    insert into inbox_events (source, event_id, type, order_id, handled)
    select :source, event_id, type, order_id, :handled
    from jsonb_to_recordset(cast(:rows as jsonb)) as event(event_id text, type text, order_id uuid)
    on conflict do nothing
    returning event_id
    """
)


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


def record_many(conn: Connection, source: str, events: Sequence[tuple[str, str, UUID]], handled: str) -> set[str]:
    """Note events (id, type, order) that were handled in one way; return the ids of those that are no duplicates."""
    rows = [{"event_id": event_id, "type": kind, "order_id": str(order_id)} for event_id, kind, order_id in events]
    return set(conn.scalars(_RECORD, {"source": source, "handled": handled, "rows": json.dumps(rows)}))


def note_handled(conn: Connection, source: str, event_id: str, handled: str, order_id: UUID | None = None) -> None:
    """Say what was done with an event that `record` noted first."""
    values: dict[str, object] = {"handled": handled}
    if order_id is not None:
        values["order_id"] = order_id
    conn.execute(update(inbox_events).where(_is((source, event_id))).values(**values))


def provider_work(provider: str, event: ProviderEvent) -> dict[str, object] | None:
    """Return what a job must read again because of a provider's event; None where nothing must.

    The event itself proves nothing and carries no activation data: only ids are kept.
    """
    if event.kind not in _ABOUT_ORDERS or not (event.reference or event.provider_order_id):
        return None
    return {"provider": provider, "reference": event.reference, "provider_order_id": event.provider_order_id}


@dataclass(frozen=True, slots=True)
class LateArrival:
    """A closed attempt that an event speaks of: it may have bought something after all; `event` says which told."""

    attempt_id: int
    event: tuple[str, str]


def work_provider_event(conn: Connection, now: datetime) -> list[LateArrival] | None:
    """Make the purchases that the oldest fresh provider event speaks of due at once; None when there is no event.

    Returns the attempts that were closed without an eSIM: an event about them may be a late arrival, which the caller
    looks up and keeps, and then calls `event_worked`; until it does, the event comes up again every three minutes, for
    a day.
    One event a transaction, so that nobody waits while holding another unit's row.
    """
    i = inbox_events.c
    fresh = select(i.source, i.event_id, i.work, i.received_at).where(
        i.work.is_not(None), i.worked_at.is_(None), or_(i.next_work_at.is_(None), i.next_work_at <= now)
    )
    row = conn.execute(fresh.order_by(i.received_at).limit(1).with_for_update(skip_locked=True)).one_or_none()
    if row is None:
        return None
    event = (row.source, row.event_id)
    late = [LateArrival(attempt_id, event) for attempt_id in _wake(conn, row.work, now)]
    if late and now - row.received_at < LOOK_UP_FOR:
        again_at = now + timedelta(seconds=LOOK_UP_SECONDS)
        conn.execute(update(inbox_events).where(_is(event)).values(next_work_at=again_at))
    else:
        event_worked(conn, event, now)
    return late


def event_worked(conn: Connection, event: tuple[str, str], now: datetime) -> None:
    """Note that nothing is left to do about an event."""
    conn.execute(update(inbox_events).where(_is(event)).values(worked_at=now))


def _is(event: tuple[str, str]) -> ColumnElement[bool]:
    return (inbox_events.c.source == event[0]) & (inbox_events.c.event_id == event[1])


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
        elif attempt.state in {"rejected", "stocked"}:
            late.append(int(attempt.attempt_id))
    return late


def _make_due(conn: Connection, esim_id: UUID, now: datetime) -> None:
    """Let an open unit be looked up at once; one that is being written this moment is due soon anyway."""
    wanted = (UnitStatus.PENDING, UnitStatus.UNKNOWN, UnitStatus.ATTENTION)
    unit = select(esims.c.esim_id).where(esims.c.esim_id == esim_id, esims.c.status.in_(wanted))
    free = unit.with_for_update(skip_locked=True).cte("free")
    conn.execute(update(esims).where(esims.c.esim_id == free.c.esim_id).values(next_attempt_at=now))
