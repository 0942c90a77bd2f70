"""What happened to a provider, appended and never changed: when, why, and by whom."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, insert, select

from resources.db.tables import provider_events


class Event(StrEnum):
    """What can happen to a provider."""

    OPENED = "circuit opened"
    PROBE_FAILED = "probe failed"
    ANSWERS_AGAIN = "answers again"  # a harmless read succeeded: the next purchase is the probe
    CLOSED = "circuit closed"
    RESET = "circuit reset"
    DEGRADED = "degraded"
    RECOVERED = "recovered"
    UNFUNDED = "unfunded"
    FUNDED = "funded"


ENGINE = "provider_state"


def note_event(conn: Connection, provider: str, event: Event, reason: str, now: datetime, actor: str = ENGINE) -> None:
    """Append one event; `reason` carries figures and error words, nothing personal."""
    row = {"at": now, "provider": provider, "event": event, "reason": reason[:500], "actor": actor}
    conn.execute(insert(provider_events).values(**row))


def newest_events(conn: Connection, provider: str, most: int = 20) -> list[tuple[datetime, str, str, str]]:
    """Return a provider's newest events as (when, what, why, who), newest first."""
    e = provider_events.c
    found = select(e.at, e.event, e.reason, e.actor).where(e.provider == provider)
    return [
        (at, what, why, who)
        for at, what, why, who in conn.execute(found.order_by(e.at.desc(), e.event_id.desc()).limit(most))
    ]
