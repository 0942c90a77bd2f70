"""Notices that nobody could hand over: an operator mended the cause and has them tried again."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection, func, or_, select, update

from resources.db.audit import Operator, record_action
from resources.db.operator_actions import Done
from resources.db.outbox import MOST_ATTEMPTS
from resources.db.tables import outbox
from resources.db.transitions import lock_order

_SOON = timedelta(minutes=2)  # due by then, or being handed over this moment: it needs nobody
_LISTED = 20


def resend_notices(conn: Connection, who: Operator, order_id: UUID | None) -> Done:
    """Make notices that failed due at once, given up or not: an order's, or (None) everybody's.

    Raises:
        NotFound: there is no such order.
    """
    o = outbox.c
    stuck = [
        o.sent_at.is_(None),
        o.attempts > 0,
        or_(o.attempts >= MOST_ATTEMPTS, o.next_attempt_at > func.now() + _SOON),
    ]
    subject = "notices"
    if order_id is not None:
        subject = f"order {lock_order(conn, order_id).display_id}"
        stuck.append(o.order_id == order_id)
    free = select(o.outbox_id).where(*stuck).with_for_update(skip_locked=True).cte("free")
    again = update(outbox).where(o.outbox_id == free.c.outbox_id).values(attempts=0, next_attempt_at=func.now())
    keys = sorted(conn.scalars(again.returning(o.key)))
    more = (f"and {len(keys) - _LISTED} more",) if len(keys) > _LISTED else ()
    changes = (*(f"notice {key} is handed over again" for key in keys[:_LISTED]), *more)
    if keys:
        details = {"notices": keys[:_LISTED], "count": len(keys), "changes": list(changes)}
        record_action(conn, who, "notices resend", subject, order_id=order_id, details=details)
    return Done(subject, changes, order_id=order_id)
