"""Purchases that were sent after they were proven absent, and whose answer was lost: doubted again, and not forgotten.

A worker that stands still between its last look at its lease and the wire sends its purchase whenever it wakes up.
Where that answers, what it bought goes to stock. Where it does not, nobody would ever look: the attempt is closed.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, update

from resources.db import inbox, notices
from resources.db.tables import purchase_attempts
from resources.db.transitions import OrderRow, UnitRow

SOURCE = "late worker"


def look_again(conn: Connection, order: OrderRow, unit: UnitRow, attempt: Row[Any], now: datetime) -> None:
    """Have a closed attempt of a locked order looked up for a day, as if its provider had told of it; tell operations.

    Its settle time begins anew: it may have left just now.
    """
    work: dict[str, object] = {"provider": attempt.provider, "reference": attempt.reference, "provider_order_id": ""}
    event_id = f"attempt {attempt.attempt_id}"
    if not inbox.record(conn, SOURCE, event_id, "late_doubt", order.order_id, "is looked up again", work):
        return
    table = purchase_attempts
    conn.execute(update(table).where(table.c.attempt_id == attempt.attempt_id).values(sent_at=now))
    text = (
        f"Order {order.display_id}, eSIM {unit.n}: a worker that woke up late sent its purchase to {attempt.provider} "
        f"(reference {attempt.reference}) after it was proven absent, and got no clear answer. It is looked up for a "
        "day; what it bought goes to stock. Check the provider's own list of orders."
    )
    notices.tell_operations(conn, order.order_id, "late_doubt", f"late_doubt:{attempt.attempt_id}", text)
