"""Everything a batch of first payments writes, in one statement: a customer waits for it to be committed.

The rows come from where every other writer gets them (`transitions`, `ledger`); only the way to the tables is short.
"""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, text

from resources.db.documents import document
from resources.db.ledger import INSERT_ENTRIES
from resources.db.transitions import INSERT_EVENTS, Event

Row = dict[str, Any]

_UPDATES = """
    with units as (
        update esims e set status = w.status, updated_at = w.updated_at, next_attempt_at = w.next_attempt_at,
            lease_owner = null, lease_until = null
        from jsonb_to_recordset(cast(:units as jsonb)) as w(
            esim_id uuid, status text, updated_at timestamptz, next_attempt_at timestamptz)
        where e.esim_id = w.esim_id
    ), orders as (
        update orders o set status = w.status, updated_at = w.updated_at, attention_reason = null,
            payment_intent = w.payment_intent, payment_status = w.payment_status, session_id = w.session_id,
            paid_at = coalesce(o.paid_at, w.paid_at), deadline_at = w.deadline_at
        from jsonb_to_recordset(cast(:orders as jsonb)) as w(
            order_id uuid, status text, updated_at timestamptz, payment_intent text, payment_status text,
            session_id text, paid_at timestamptz, deadline_at timestamptz)
        where o.order_id = w.order_id
    ), entries as (
"""
# The two inserts are spelt where every other writer has them.
_WRITE = text("".join((_UPDATES, INSERT_ENTRIES, ")", INSERT_EVENTS)))


@dataclass(slots=True)
class PaymentWrites:
    """The rows of one batch; columns of units and orders that a payment does not set are not written."""

    units: list[Row] = field(default_factory=list)
    orders: list[Row] = field(default_factory=list)
    entries: list[Row] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def write(self, conn: Connection) -> None:
        """Write all of it."""
        conn.execute(_WRITE, {name: document(getattr(self, name)) for name in self.__slots__})
