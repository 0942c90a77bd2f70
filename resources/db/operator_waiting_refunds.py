"""Refunds that wait after a fault: an operator mended the cause and has them tried again at once."""

from uuid import UUID

from sqlalchemy import Connection

from resources.db.audit import Operator, record_action
from resources.db.operator_actions import Done
from resources.db.refunds import hasten_refunds
from resources.db.transitions import lock_order

_LISTED = 20


def retry_refunds(conn: Connection, who: Operator, order_id: UUID | None) -> Done:
    """Make refunds that back off due at once: an order's, or (None) everybody's.

    Raises:
        NotFound: there is no such order.
    """
    subject = "refunds" if order_id is None else f"order {lock_order(conn, order_id).display_id}"
    keys = hasten_refunds(conn, order_id)
    if keys:
        details = {"refunds": keys[:_LISTED], "count": len(keys)}
        record_action(conn, who, "refunds retry", subject, order_id=order_id, details=details)
    changes = tuple(f"refund {key} is tried again at once" for key in keys[:_LISTED])
    more = (f"and {len(keys) - _LISTED} more",) if len(keys) > _LISTED else ()
    return Done(subject, changes + more, order_id=order_id)
