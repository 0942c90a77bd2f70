"""Who tells us what happened to an order's money, and how it is noted in the order's history."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from resources.db.transitions import Event, OrderRow, note


@dataclass(frozen=True, slots=True)
class Teller:
    """Who tells, and when."""

    actor: str
    now: datetime


def note_told(conn: Connection, order: OrderRow, reason: str, details: Mapping[str, object], teller: Teller) -> None:
    """Append what was told to a locked order's history; its status stays."""
    event = Event(order.order_id, order.status, order.status, reason, teller.actor, teller.now, None, None, details)
    note(conn, [event])
