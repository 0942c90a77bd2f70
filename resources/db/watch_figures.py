"""How the order store is doing, in one query over partial indexes: what waits, what is unclear, what is overdue.

The watch of operations, the `ops/alerts` asset and the API's metrics show the same figures. Nothing personal.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, select, text
from sqlalchemy.dialects.postgresql import insert

from resources.db.outbox import MOST_ATTEMPTS, TELL_AFTER_ATTEMPTS
from resources.db.tables import heartbeats

WATCH = "operations_watch"

# A notice is due since it was written, however often it was refused; a mail that operations were told of by itself
# counts only while nobody sends it, so that one bad address does not hide a carrier that is away.
_FIGURES = text(
    """
    select
        (select count(*) from esims where status = 'queued' and next_attempt_at <= :now) as waiting_units,
        (select least(min(next_attempt_at), :now) from esims where status = 'queued') as waiting_since,
        (select count(*) from esims where status = 'working' and lease_until < :now) as abandoned_units,
        (select least(min(lease_until), :now) from esims where status = 'working') as abandoned_since,
        (select count(*) from esims where status = 'attention') as attention_units,
        (select count(*) from esims where status = 'unknown') as unknown_purchases,
        (select min(a.started_at) from esims e join purchase_attempts a on a.esim_id = e.esim_id
            where e.status in ('pending', 'unknown') and a.state in ('pending', 'unknown')) as open_purchase_since,
        (select count(*) from refunds where state = 'requested') as due_refunds,
        (select min(created_at) from refunds where state = 'requested') as refund_since,
        notices.due_notices, notices.notice_since,
        (select count(*) from inbox_events where work is not null and worked_at is null) as provider_events,
        (select count(*) from providers where open_until > :now) as open_circuits,
        (select count(*) from alerts where ended_at is null) as open_alerts,
        (select at from heartbeats where name = :watch) as watched_at
    from (
        select count(*) filter (where since <= :now) as due_notices, min(since) as notice_since from (
            select case
                when attempts = 0 or (channel = 'mail' and attempts >= :told) then next_attempt_at
                else created_at end as since
            from outbox where sent_at is null and attempts < :most
        ) unsent
    ) notices
    """
)


@dataclass(frozen=True, slots=True)
class StoreFigures:
    """Counts, and ages in whole seconds (0 where there is nothing; `watch_age_seconds` -1 before the first watch)."""

    waiting_units: int
    waiting_seconds: int
    abandoned_units: int
    attention_units: int
    unknown_purchases: int
    open_purchase_seconds: int
    due_refunds: int
    refund_seconds: int
    due_notices: int
    notice_seconds: int
    provider_events: int
    open_circuits: int
    open_alerts: int
    watch_age_seconds: int

    def items(self) -> Mapping[str, int]:
        """Return the figures by name."""
        return asdict(self)


def store_figures(conn: Connection, now: datetime) -> StoreFigures:
    """Read the figures as of `now`."""
    values = {"now": now, "most": MOST_ATTEMPTS, "told": TELL_AFTER_ATTEMPTS, "watch": WATCH}
    row = conn.execute(_FIGURES, values).one()
    return StoreFigures(
        waiting_units=row.waiting_units + row.abandoned_units,
        waiting_seconds=max(_age(row.waiting_since, now), _age(row.abandoned_since, now)),
        abandoned_units=row.abandoned_units,
        attention_units=row.attention_units,
        unknown_purchases=row.unknown_purchases,
        open_purchase_seconds=_age(row.open_purchase_since, now),
        due_refunds=row.due_refunds,
        refund_seconds=_age(row.refund_since, now),
        due_notices=row.due_notices,
        notice_seconds=_age(row.notice_since, now),
        provider_events=row.provider_events,
        open_circuits=row.open_circuits,
        open_alerts=row.open_alerts,
        watch_age_seconds=-1 if row.watched_at is None else _age(row.watched_at, now),
    )


def beat(conn: Connection, name: str, now: datetime) -> datetime | None:
    """Note a sign of life and return the one before; None for the first."""
    before: datetime | None = conn.scalar(select(heartbeats.c.at).where(heartbeats.c.name == name))
    fresh = insert(heartbeats).values(name=name, at=now)
    conn.execute(fresh.on_conflict_do_update(index_elements=[heartbeats.c.name], set_={"at": now}))
    return before


def _age(since: datetime | None, now: datetime) -> int:
    return 0 if since is None else max(0, int((now - since).total_seconds()))
