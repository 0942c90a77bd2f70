"""Notices wait here, written in the transaction of the change they tell of, each with a key that exists once."""

from collections.abc import Mapping
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from resources.db.tables import outbox


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
