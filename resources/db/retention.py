"""What the operational store forgets, in batches, each a short transaction of its own.

Orders, units, attempts, their events, refunds and the ledger are kept, and with them every notice that belongs to an
order: it is the memory of what a customer and operations were told, so that nobody is told again years later.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine, text

BATCH = 5_000


@dataclass(frozen=True, slots=True)
class Keep:
    """For how many days things are kept."""

    notices: int = 30
    events: int = 90
    drains: int = 7
    answers: int = 7  # a checkout's answer, for a client that asks again


@dataclass(frozen=True, slots=True)
class _Rule:
    table: str
    old: str  # the condition, with `:before`
    days: int


def forget(engine: Engine, keep: Keep, now: datetime, *, batch: int = BATCH) -> Mapping[str, int]:
    """Delete what is older than it has to be kept; return how many rows of which table went."""
    return {rule.table: _forget(engine, rule, now, batch) for rule in _rules(keep)}


def _rules(keep: Keep) -> list[_Rule]:
    done = "(work is null or worked_at is not null)"
    return [
        _Rule("outbox", "created_at < :before and sent_at < :before and order_id is null", keep.notices),
        _Rule("inbox_events", f"received_at < :before and {done}", keep.events),
        _Rule("idempotency_keys", "created_at < :before", keep.answers),
        _Rule("drains", "coalesce(ended_at, heartbeat_at) < :before and heartbeat_at < :before", keep.drains),
        _Rule("rate_limits", "theoretical_arrival_at < :before", 1),
        _Rule("provider_tokens", "expires_at < :before", 1),
        _Rule("offer_outages", '"until" < :before', 7),
        _Rule("provider_events", '"at" < :before', keep.events),
        _Rule("alerts", "ended_at < :before", keep.events),
    ]


def _forget(engine: Engine, rule: _Rule, now: datetime, batch: int) -> int:
    # Names and conditions are constants of this module. Rows somebody is writing are left for tomorrow.
    picked = f"select ctid from {rule.table} where {rule.old} limit :batch for update skip locked"  # noqa: S608 - see above
    statement = text(f"delete from {rule.table} where ctid = any(array({picked}))")  # noqa: S608 - see above
    before, gone = now - timedelta(days=rule.days), 0
    while True:
        with engine.begin() as conn:
            deleted = conn.execute(statement, {"before": before, "batch": batch}).rowcount
        gone += deleted
        if deleted < batch:
            return gone
