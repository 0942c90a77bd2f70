"""What people did: one row per action, in its transaction, never changed; what was done today is one query."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, insert, select

from esim.errors import InvalidInput
from resources.db.tables import audit_events
from resources.logs import redact_text

ACTOR_PREFIX = "operator:"
_LONGEST_REASON = 500
_LONGEST_NAME = 80


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
