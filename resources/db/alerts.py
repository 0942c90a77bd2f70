"""Alerts with a beginning and an end: one row an episode, told once when it begins and once when it is over.

The note to Slack is queued in the same transaction. `subject` and `text` carry ids, slugs and figures only.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert

from resources.db.notices import tell_operations
from resources.db.tables import alerts

_LISTED = 10


class AlertKind(StrEnum):
    """What operations are alerted to; each has its section in the operator's guide."""

    CIRCUIT_OPEN = "circuit_open"
    PROVIDER_DEGRADED = "provider_degraded"
    PROVIDER_UNFUNDED = "provider_unfunded"
    LOW_BALANCE = "low_balance"
    LOW_STOCK = "low_stock"
    SLOW_DRAIN = "slow_drain"
    OPEN_PURCHASES = "open_purchases"
    REFUNDS_LATE = "refunds_late"
    NOTICES_LATE = "notices_late"
    SENSOR_SILENT = "sensor_silent"
    DAEMON_SILENT = "daemon_silent"
    RUN_FAILED = "run_failed"


@dataclass(frozen=True, slots=True)
class OpenAlert:
    """One episode that is not over."""

    kind: str
    subject: str
    text: str
    since: datetime


def raise_alert(conn: Connection, kind: AlertKind, subject: str, text: str, now: datetime) -> bool:
    """Begin an episode and tell of it; False when it is going on already."""
    if not _begin(conn, kind, {subject: text}, now):
        return False
    _tell(conn, kind, subject, "begins", text, now)
    return True


def end_alert(conn: Connection, kind: AlertKind, subject: str, text: str, now: datetime) -> bool:
    """End an episode and tell that it is over; False when there is none."""
    if not _end(conn, kind, [subject], now):
        return False
    _tell(conn, kind, subject, "ends", text, now)
    return True


def watch(conn: Connection, kind: AlertKind, present: Mapping[str, str], now: datetime, over: str) -> None:
    """Begin and end episodes of a kind so that the open ones are those `present` (subject -> text); tell each."""
    for subject in sorted(_open_subjects(conn, kind) - set(present)):
        end_alert(conn, kind, subject, f"{over}: {subject}" if subject else over, now)
    for subject, text in sorted(present.items()):
        raise_alert(conn, kind, subject, text, now)


def watch_together(
    conn: Connection, kind: AlertKind, present: Mapping[str, str], gone: Iterable[str], now: datetime, heading: str
) -> list[str]:
    """End the episodes of subjects that are `gone` and begin one for every new subject, with one note for all of them.

    Returns the subjects whose episode began.
    """
    _end(conn, kind, gone, now)
    begun = sorted(_begin(conn, kind, present, now))
    if begun:
        some = ", ".join(present[subject] for subject in begun[:_LISTED])
        more = f" and {len(begun) - _LISTED} more" if len(begun) > _LISTED else ""
        _tell(conn, kind, begun[0], "begins", f"{heading}: {some}{more}.", now)
    return begun


def open_alerts(conn: Connection) -> list[OpenAlert]:
    """Return every episode that is not over, oldest first."""
    a = alerts.c
    found = select(a.kind, a.subject, a.text, a.since).where(a.ended_at.is_(None)).order_by(a.since, a.alert_id)
    return [OpenAlert(*row) for row in conn.execute(found)]


def _begin(conn: Connection, kind: AlertKind, present: Mapping[str, str], now: datetime) -> set[str]:
    rows = [
        {"kind": kind, "subject": subject, "text": text[:1000], "since": now, "told_at": now}
        for subject, text in sorted(present.items())
    ]
    if not rows:
        return set()
    begun = insert(alerts).values(rows).on_conflict_do_nothing().returning(alerts.c.subject)
    return set(conn.scalars(begun))


def _end(conn: Connection, kind: AlertKind, subjects: Iterable[str], now: datetime) -> set[str]:
    over = update(alerts).where(_is_open(kind), alerts.c.subject.in_(sorted(subjects))).values(ended_at=now)
    return set(conn.scalars(over.returning(alerts.c.subject)))


def _open_subjects(conn: Connection, kind: AlertKind) -> set[str]:
    return set(conn.scalars(select(alerts.c.subject).where(_is_open(kind))))


def _is_open(kind: AlertKind) -> ColumnElement[bool]:
    return (alerts.c.kind == kind) & alerts.c.ended_at.is_(None)


def _tell(conn: Connection, kind: AlertKind, subject: str, step: str, text: str, now: datetime) -> None:
    """Queue the note; its key names the newest episode of the kind, so that no other note can have it."""
    newest = conn.scalar(select(func.max(alerts.c.alert_id)).where(alerts.c.kind == kind))
    tell_operations(conn, None, kind, f"alert:{kind}:{subject}:{step}:{newest}:{now:%Y%m%dT%H%M%S}", text)
