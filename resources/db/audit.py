"""What people did: one row per action, in its transaction, never changed; what was done today is one query.

A look that a person takes is an action too: it is noted when it ends, with what it found and mended.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Engine, insert, select

from esim.errors import InvalidInput
from resources.db.tables import audit_events
from resources.logs import redact_text

ACTOR_PREFIX = "operator:"
NOT_SAID = "not said"
_LONGEST_REASON = 500
_LONGEST_NAME = 80
_MOST_SENTENCES = 100


@dataclass(frozen=True, slots=True)
class Operator:
    """Who acts, why and when; what looks personal in the reason is taken out, since it is kept for good."""

    name: str
    reason: str
    now: datetime
    run_id: str | None = None

    def __post_init__(self) -> None:
        """Tidy the name and the reason.

        Raises:
            InvalidInput: one of them is empty.
        """
        name = redact_text(" ".join(self.name.split()))[:_LONGEST_NAME]
        reason = redact_text(" ".join(self.reason.split()))[:_LONGEST_REASON]
        if not name:
            raise InvalidInput("say who acts: --as NAME, or set NUMNAROAD_OPERATOR", field="operator")
        if not reason:
            raise InvalidInput("say why: --reason TEXT; it is kept with the action", field="reason")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "reason", reason)

    @property
    def actor(self) -> str:
        """How events name this person."""
        return f"{ACTOR_PREFIX}{self.name}"


@dataclass(slots=True)
class Look:
    """What a person's look came to, in sentences with ids and figures only: what it found, and what it mended."""

    found: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One thing a person did."""

    at: datetime
    actor: str
    action: str
    subject: str
    reason: str
    run_id: str | None = None
    details: Mapping[str, object] = field(default_factory=dict)


def record_action(
    conn: Connection,
    who: Operator,
    action: str,
    subject: str,
    *,
    order_id: UUID | None = None,
    details: Mapping[str, object] | None = None,
) -> None:
    """Note what a person did, in the transaction that does it; `details` carries ids and figures only."""
    row = {"at": who.now, "actor": who.actor, "action": action, "subject": subject, "reason": who.reason}
    row |= {"order_id": order_id, "details": dict(details or {}), "run_id": who.run_id}
    conn.execute(insert(audit_events).values(**row))


def looker(name: str, reason: str, now: datetime, run_id: str | None = None) -> Operator:
    """Return who looks: where nothing is decided, the reason may be left out.

    Raises:
        InvalidInput: the name is empty.
    """
    return Operator(name, reason.strip() or NOT_SAID, now, run_id)


@contextmanager
def audited_look(
    engine: Engine, who: Operator | None, action: str, subject: str, *, order_id: UUID | None = None
) -> Iterator[Look]:
    """Note a person's look when it ends, also when it breaks off, since what it mended by then stays; a clock's is not.

    It has a transaction of its own: what a look mends is many, each for itself.
    """
    look = Look()
    try:
        yield look
    except BaseException as error:
        look.found.append(f"broke off: {type(error).__name__}")
        raise
    finally:
        if who is not None:
            details = {"found": _first(look.found), "changes": _first(look.changes)}
            with engine.begin() as conn:
                record_action(conn, who, action, subject, order_id=order_id, details=details)


def actions(
    conn: Connection, *, since: datetime | None = None, actor: str | None = None, limit: int = 200
) -> Sequence[AuditEvent]:
    """Return what was done, newest first; `actor` is a name with or without its prefix."""
    a = audit_events.c
    found = select(a.at, a.actor, a.action, a.subject, a.reason, a.run_id, a.details)
    if since is not None:
        found = found.where(a.at >= since)
    if actor:
        found = found.where(a.actor == f"{ACTOR_PREFIX}{actor.removeprefix(ACTOR_PREFIX)}")
    return [AuditEvent(**row._mapping) for row in conn.execute(found.order_by(a.audit_id.desc()).limit(limit))]


def _first(sentences: Sequence[str]) -> list[str]:
    more = len(sentences) - _MOST_SENTENCES
    return [*sentences[:_MOST_SENTENCES], *([f"and {more} more"] if more > 0 else [])]
