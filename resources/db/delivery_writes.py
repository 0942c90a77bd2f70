"""Everything a batch of deliveries writes, in one statement: a customer waits for it to be committed.

The rows come from where every other writer gets them (`transitions`, `ledger`, `notices`); only the way to the tables
is short.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, text

from resources.db.documents import document
from resources.db.ledger import INSERT_ENTRIES
from resources.db.outbox import INSERT_NOTICES, Notice
from resources.db.transitions import INSERT_EVENTS, Event

Row = dict[str, Any]

_UPDATES = """
    with attempts as (
        update purchase_attempts a set state = w.state, provider_order_id = w.provider_order_id, cost = w.cost,
            cost_micros = w.cost_micros, finished_at = w.finished_at, latency_ms = w.latency_ms
        from jsonb_to_recordset(cast(:attempts as jsonb)) as w(
            attempt_id bigint, state text, provider_order_id text, cost numeric, cost_micros bigint,
            finished_at timestamptz, latency_ms int)
        where a.attempt_id = w.attempt_id
    ), units as (
        update esims e set status = w.status, updated_at = w.updated_at, lease_owner = null, lease_until = null,
            next_attempt_at = null, slot_wait_since = null, delivered_at = w.delivered_at, provider = w.provider,
            offer_id = w.offer_id, provider_order_id = w.provider_order_id, provider_esim_id = w.provider_esim_id,
            iccid_enc = decode(w.iccid_enc, 'hex'), iccid_hash = decode(w.iccid_hash, 'hex'),
            profile_enc = decode(w.profile_enc, 'hex'), cost_amount = w.cost_amount, cost_currency = w.cost_currency,
            cost_micros = w.cost_micros
        from jsonb_to_recordset(cast(:units as jsonb)) as w(
            esim_id uuid, status text, updated_at timestamptz, delivered_at timestamptz, provider text, offer_id text,
            provider_order_id text, provider_esim_id text, iccid_enc text, iccid_hash text, profile_enc text,
            cost_amount numeric, cost_currency text, cost_micros bigint)
        where e.esim_id = w.esim_id
    ), orders as (
        update orders o set status = w.status, updated_at = w.updated_at, attention_reason = null,
            completed_at = coalesce(o.completed_at, w.completed_at)
        from jsonb_to_recordset(cast(:orders as jsonb)) as w(
            order_id uuid, status text, updated_at timestamptz, completed_at timestamptz)
        where o.order_id = w.order_id
    )
"""
# The three inserts are spelt where every other writer has them.
_INSERTS = (", entries as (", INSERT_ENTRIES, "), events as (", INSERT_EVENTS, ")", INSERT_NOTICES)
_WRITE = text("".join((_UPDATES, *_INSERTS)))


@dataclass(slots=True)
class DeliveryWrites:
    """The rows of one batch; columns of units and orders that a delivery does not set are not written."""

    attempts: list[Row] = field(default_factory=list)
    units: list[Row] = field(default_factory=list)
    orders: list[Row] = field(default_factory=list)
    entries: list[Row] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    notices: Sequence[Notice] = ()

    def write(self, conn: Connection) -> None:
        """Write all of it."""
        conn.execute(_WRITE, {name: document(getattr(self, name)) for name in self.__slots__})
