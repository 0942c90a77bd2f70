"""What does not agree: found, told once, and closed by itself when it is gone.

A finding is known by its side (payments, books, providers:<slug>), kind and subject. `settle_findings` takes all that
one whole look at a side found: new ones are told, known ones are only seen again, and what was not found any more is
resolved. One that comes back is told again. A person may accept one (a purchase made in a provider's portal, say):
it is kept, and counts as no disagreement any more. Details carry ids and figures, never personal data.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from esim.errors import NotFound
from resources.db import notices
from resources.db.audit import Operator, record_action
from resources.db.operator_actions import Done
from resources.db.order_names import display_ids
from resources.db.tables import balance_readings, orders, reconciliation_findings
from resources.db.transitions import Event, lock_order, note

TOLD_AT_ONCE = 20  # beyond this a side is told of in one note: a broken hour must not flood the channel
BALANCE_DIFFERS = "balance_differs"
LOUD = frozenset({"bought_twice", "ledger_unbalanced"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One disagreement; `text` is the sentence for operations, ids and figures only."""

    kind: str
    subject: str
    text: str
    order_id: UUID | None = None
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settled:
    """What one look at a side changed: findings that are new, all that are open, and how many were resolved."""

    new: tuple[Finding, ...]
    open: int
    resolved: int


def settle_findings(conn: Connection, side: str, found: Sequence[Finding], now: datetime) -> Settled:
    """Keep everything one whole look at a side found, tell what is new, and resolve what is gone."""
    once = {(finding.kind, finding.subject): finding for finding in found}
    new = [finding for finding in once.values() if _keep(conn, side, finding, now)]
    f = reconciliation_findings.c
    gone = update(reconciliation_findings).where(f.side == side, f.resolved_at.is_(None), f.last_seen < now)
    resolved = conn.execute(gone.values(resolved_at=now)).rowcount
    _tell(conn, side, new, now)
    return Settled(tuple(new), len(once), resolved)


def note_finding(conn: Connection, side: str, finding: Finding, now: datetime) -> bool:
    """Keep one finding and tell it, outside of a whole look at its side; return whether it is new."""
    new = _keep(conn, side, finding, now)
    if new:
        _tell(conn, side, [finding], now)
    return new


def _keep(conn: Connection, side: str, finding: Finding, now: datetime) -> bool:
    """Return whether a finding is new: not known at all, or resolved when it was last heard of."""
    f = reconciliation_findings.c
    row: dict[str, object] = {
        "side": side,
        "kind": finding.kind,
        "subject": finding.subject,
        "order_id": finding.order_id,
    }
    row |= {"details": dict(finding.details) | {"text": finding.text}, "first_seen": now, "last_seen": now}
    seen = insert(reconciliation_findings).values(**row)
    known = seen.on_conflict_do_update(
        index_elements=["side", "kind", "subject"],
        set_={"last_seen": now, "details": row["details"], "order_id": finding.order_id},
        where=f.resolved_at.is_(None),
    )
    told = conn.execute(known.returning(f.first_seen)).scalar_one_or_none()
    if told is not None:
        return bool(told == now)
    again = update(reconciliation_findings).where(f.side == side, f.kind == finding.kind, f.subject == finding.subject)
    conn.execute(again.values(**row, resolved_at=None, accepted_by=None, accepted_reason=None))
    return True


def _tell(conn: Connection, side: str, new: Sequence[Finding], now: datetime) -> None:
    singly = [finding for finding in new if finding.kind in LOUD]
    singly += [finding for finding in new if finding.kind not in LOUD][:TOLD_AT_ONCE]
    names = display_ids(conn, [finding.order_id for finding in singly])
    for finding in singly:
        loud = ":rotating_light: " if finding.kind in LOUD else ""
        key = f"finding:{side}:{finding.kind}:{finding.subject}:{now:%Y%m%dT%H%M%S}"
        notices.tell_operations(conn, finding.order_id, "finding", key, f"{loud}{_named(finding, names)}")
    if len(new) > len(singly):
        text = f"{len(new) - len(singly)} more findings ({side}): `numnaroad reconcile` lists them."
        notices.tell_operations(conn, None, "findings", f"findings:{side}:{now:%Y%m%dT%H%M%S}", text)


def _named(finding: Finding, names: Mapping[UUID, str]) -> str:
    name = names.get(finding.order_id) if finding.order_id is not None else None
    if name is None or name in finding.text:
        return finding.text
    return f"{finding.text} Order {name}." if finding.kind in LOUD else f"Order {name}: {finding.text}"


def accept_finding(conn: Connection, finding_id: int, who: Operator) -> Done:
    """Note that a person knows of an open finding and why it is right as it is; its order's history says so too.

    Raises:
        NotFound: no such finding is open.
    """
    f = reconciliation_findings.c
    accepted = update(reconciliation_findings).where(f.finding_id == finding_id, f.resolved_at.is_(None))
    accepted = accepted.values(accepted_by=who.name, accepted_reason=who.reason)
    found = conn.execute(accepted.returning(f.kind, f.subject, f.order_id)).one_or_none()
    if found is None:
        raise NotFound(f"no finding {finding_id} is open; `numnaroad reconcile` lists them with their numbers")
    if found.kind == BALANCE_DIFFERS:  # what is explained must not hide what comes after it: begin anew
        conn.execute(delete(balance_readings).where(balance_readings.c.provider == found.subject))
    if found.order_id is not None:
        order = lock_order(conn, found.order_id)
        told = f"finding {found.kind} accepted: {who.reason}"
        details = {"finding_id": finding_id, "subject": found.subject}
        event = Event(order.order_id, order.status, order.status, told, who.actor, who.now, None, who.run_id, details)
        note(conn, [event])
    subject, changes = f"finding {finding_id}", (f"{found.kind} of {found.subject} is accepted",)
    record_action(conn, who, "finding accept", subject, order_id=found.order_id, details={"changes": list(changes)})
    return Done(subject, changes, order_id=found.order_id)


@dataclass(frozen=True, slots=True)
class OpenFinding:
    """An open finding as operations list it."""

    finding_id: int
    side: str
    kind: str
    subject: str
    display_id: str | None
    details: Mapping[str, Any]
    first_seen: datetime
    last_seen: datetime


def open_findings(
    conn: Connection, sides: Iterable[str] = (), limit: int = 500, *, with_accepted: bool = False
) -> list[OpenFinding]:
    """Return open findings of these sides (a side names all its parts; none means every side), the oldest first."""
    f = reconciliation_findings.c
    columns = (f.finding_id, f.side, f.kind, f.subject, orders.c.display_id, f.details, f.first_seen, f.last_seen)
    wanted = [or_(f.side == side, f.side.startswith(f"{side}:")) for side in sides]
    query = select(*columns).join_from(reconciliation_findings, orders, orders.c.order_id == f.order_id, isouter=True)
    if not with_accepted:
        query = query.where(f.accepted_by.is_(None))
    query = query.where(f.resolved_at.is_(None), *([or_(*wanted)] if wanted else []))
    rows = conn.execute(query.order_by(f.first_seen, f.finding_id).limit(limit))
    return [OpenFinding(*row) for row in rows]


def count_open(conn: Connection) -> Mapping[str, int]:
    """Return how many findings are open per side."""
    f = reconciliation_findings.c
    side = func.split_part(f.side, ":", 1)
    rows = conn.execute(
        select(side, func.count()).where(f.resolved_at.is_(None), f.accepted_by.is_(None)).group_by(side)
    )
    return {str(name): int(count) for name, count in rows}
