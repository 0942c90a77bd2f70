"""The display ids by which operators are told of orders: of findings, and of the orders behind an alert."""

from collections.abc import Collection, Mapping
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, select, text

from resources.db.alerts import AlertKind
from resources.db.outbox import MOST_ATTEMPTS
from resources.db.tables import orders

_SOME = 3
_LATE = {
    AlertKind.SLOW_DRAIN: """
        select order_id, next_attempt_at as since from esims where status = 'queued' and next_attempt_at <= :now
        union all select order_id, lease_until from esims where status = 'working' and lease_until < :now
    """,
    AlertKind.OPEN_PURCHASES: """
        select e.order_id, a.started_at as since from esims e join purchase_attempts a using (esim_id)
        where e.status in ('pending', 'unknown') and a.state in ('pending', 'unknown')
    """,
    AlertKind.REFUNDS_LATE: "select order_id, created_at as since from refunds where state = 'requested'",
    AlertKind.NOTICES_LATE: """
        select order_id, next_attempt_at as since from outbox
        where sent_at is null and next_attempt_at <= :now and attempts < :most
    """,
}


def display_ids(conn: Connection, order_ids: Collection[UUID | None]) -> Mapping[UUID, str]:
    """Return the display ids of orders; one that does not exist has none."""
    wanted = {order_id for order_id in order_ids if order_id is not None}
    if not wanted:
        return {}
    found = conn.execute(select(orders.c.order_id, orders.c.display_id).where(orders.c.order_id.in_(wanted)))
    return {row.order_id: row.display_id for row in found}


def oldest_late(conn: Connection, kind: AlertKind, now: datetime) -> list[str]:
    """Return the display ids of the orders that an alert of this kind is about, of the oldest three."""
    of_kind = text(
        f"select o.display_id from ({_LATE[kind]}) late join orders o using (order_id)"  # noqa: S608 - constants only
        " group by o.display_id order by min(late.since), o.display_id limit :some"
    )
    given = {"now": now, "most": MOST_ATTEMPTS, "some": _SOME}
    return list(conn.scalars(of_kind, {name: value for name, value in given.items() if f":{name}" in of_kind.text}))
