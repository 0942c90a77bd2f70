"""Notices wait here, written in the transaction of the change they tell of, each with a key that exists once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from resources.db.databases import at_once
from resources.db.documents import document
from resources.db.tables import outbox

MOST_ATTEMPTS = 200  # about eight days; what cannot be delivered by then is shown, not tried
TELL_AFTER_ATTEMPTS = 10  # about an hour and a half: the carrier or its key is wrong
_IN_FLIGHT = timedelta(seconds=120)  # nobody else sends the same notice while one does
FRESH_SECONDS = 20.0  # a claim older than this is renewed before the notice leaves: what a carrier takes must fit in
_RETRY_FIRST = timedelta(seconds=5)
_RETRY_MOST = timedelta(hours=1)


INSERT_NOTICES = """
    insert into outbox (key, channel, kind, order_id, payload)
    select key, channel, kind, order_id, payload from jsonb_to_recordset(cast(:notices as jsonb)) as notice(
        key text, channel text, kind text, order_id uuid, payload jsonb)
    on conflict (key) do nothing
"""
_QUEUE = text(INSERT_NOTICES)
_SENT = text(
    """
    update outbox o set sent_at = now(), carrier_id = w.carrier_id, last_error = null
    from jsonb_to_recordset(cast(:rows as jsonb)) as w(outbox_id bigint, carrier_id text)
    where o.outbox_id = w.outbox_id
    """
)
_RENEW = text(
    """
    update outbox o set next_attempt_at = now() + :in_flight
    from jsonb_to_recordset(cast(:rows as jsonb)) as w(outbox_id bigint, attempts int)
    where o.outbox_id = w.outbox_id and o.attempts = w.attempts and o.sent_at is null
    returning o.outbox_id
    """
)


class Channel(StrEnum):
    """Where a notice goes."""

    MAIL = "mail"
    SLACK = "slack"


def enqueue(
    conn: Connection,
    *,
    key: str,
    channel: Channel | str,
    kind: str,
    order_id: UUID | None,
    payload: Mapping[str, object] | None = None,
) -> bool:
    """Queue one notice, to be sent after the commit; return False when `key` was queued before.

    `payload` carries ids and figures the message is rendered from; addresses and activation data are read when the
    notice is sent, so that erasing a person empties them here too.
    """
    row = {"key": key, "channel": Channel(channel), "kind": kind, "order_id": order_id, "payload": dict(payload or {})}
    statement = insert(outbox).values(**row).on_conflict_do_nothing(index_elements=[outbox.c.key])
    return conn.scalar(statement.returning(outbox.c.outbox_id)) is not None


@dataclass(frozen=True, slots=True)
class Notice:
    """One notice to queue; see `enqueue`."""

    key: str
    channel: Channel
    kind: str
    order_id: UUID | None
    payload: Mapping[str, object] = field(default_factory=dict)


def enqueue_many(conn: Connection, notices: Sequence[Notice]) -> None:
    """Queue notices in one statement; those whose key was queued before are left as they are."""
    if notices:
        conn.execute(_QUEUE, {"notices": document(notices)})


@dataclass(frozen=True, slots=True)
class DueNotice:
    """One notice to hand over; `key` lets the carrier recognise a repeat."""

    outbox_id: int
    key: str
    channel: Channel
    kind: str
    order_id: UUID | None
    payload: Mapping[str, Any]
    attempts: int


def claim_notices(engine: Engine, limit: int) -> list[DueNotice]:
    """Give out at most `limit` notices due by the store's clock, oldest first, each to one sender at a time."""
    o = outbox.c
    due = (
        select(o.outbox_id)
        .where(o.sent_at.is_(None), o.next_attempt_at <= func.now(), o.attempts < MOST_ATTEMPTS)
        .order_by(o.next_attempt_at, o.outbox_id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    taken = update(outbox).where(o.outbox_id == due.c.outbox_id)
    taken = taken.values(attempts=o.attempts + 1, next_attempt_at=func.now() + _IN_FLIGHT)
    columns = (o.outbox_id, o.key, o.channel, o.kind, o.order_id, o.payload, o.attempts)
    with engine.begin() as conn:
        rows = conn.execute(taken.returning(*columns)).all()
    notices = [DueNotice(row[0], row[1], Channel(row[2]), *row[3:]) for row in rows]
    return sorted(notices, key=lambda notice: notice.outbox_id)


def renew_claims(engine: Engine, notices: Sequence[DueNotice]) -> list[DueNotice]:
    """Prolong the claim on notices that have waited for their turn; return those nobody else has taken meanwhile."""
    rows = [{"outbox_id": notice.outbox_id, "attempts": notice.attempts} for notice in notices]
    with at_once(engine).connect() as conn:
        ours = set(conn.scalars(_RENEW, {"rows": document(rows), "in_flight": _IN_FLIGHT}))
    return [notice for notice in notices if notice.outbox_id in ours]


@dataclass(frozen=True, slots=True)
class Handed:
    """Notices that one call to a carrier handed over, and the id it gave."""

    outbox_ids: tuple[int, ...]
    carrier_id: str


def note_sent(conn: Connection, handed: Sequence[Handed]) -> None:
    """Note that notices were handed over."""
    rows = [{"outbox_id": one, "carrier_id": bundle.carrier_id} for bundle in handed for one in bundle.outbox_ids]
    conn.execute(_SENT, {"rows": document(rows)})


def note_needless(conn: Connection, notice: DueNotice, why: str) -> None:
    """Note that a notice is not sent any more, since what it would say is no longer so."""
    done = update(outbox).where(outbox.c.outbox_id == notice.outbox_id, outbox.c.sent_at.is_(None))
    conn.execute(done.values(sent_at=func.now(), last_error=why))


def note_not_sent(conn: Connection, notice: DueNotice, error: str) -> None:
    """Note that handing a notice over failed; it is tried again, ever later, up to an hour apart.

    Operations are told of a mail that keeps failing, and of one that is given up.
    """
    wait = min(_RETRY_FIRST * 2 ** min(notice.attempts - 1, 12), _RETRY_MOST)
    values = {"last_error": error[:500], "next_attempt_at": func.now() + wait}
    conn.execute(update(outbox).where(outbox.c.outbox_id == notice.outbox_id).values(**values))
    if notice.channel is Channel.MAIL and notice.attempts in {TELL_AFTER_ATTEMPTS, MOST_ATTEMPTS}:
        goes_on = "it is tried on" if notice.attempts < MOST_ATTEMPTS else "it is not tried any more"
        text = (
            f"Mail {notice.key} was refused {notice.attempts} times; {goes_on}. `numnaroad order show` has the error."
        )
        key = f"slack:mail_refused:{notice.outbox_id}:{notice.attempts}"
        payload = {"text": text}
        enqueue(conn, key=key, channel=Channel.SLACK, kind="mail_refused", order_id=notice.order_id, payload=payload)


def late_notices(conn: Connection, late: timedelta) -> int:
    """Return how many notices have been due for longer than `late`: nobody is sending them."""
    o = outbox.c
    waiting = (o.sent_at.is_(None), o.next_attempt_at <= func.now() - late, o.attempts < MOST_ATTEMPTS)
    return int(conn.scalar(select(func.count()).select_from(outbox).where(*waiting)) or 0)
