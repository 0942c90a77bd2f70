"""The tables of work to do once: events received, notices to send, answers to repeat, drains at work; and who acted."""

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, SmallInteger, Table, Text, text
from sqlalchemy.dialects.postgresql import UUID

from resources.db.columns import JSON_OR_NULL, at, metadata

inbox_events = Table(
    "inbox_events",
    metadata,
    Column("source", Text, primary_key=True),
    Column("event_id", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("order_id", UUID(as_uuid=True)),
    Column("handled", Text, nullable=False),  # what was done, or why nothing
    Column("work", JSON_OR_NULL),  # what a job still has to read again (provider events)
    at("received_at", now=True),
    at("next_work_at", null=True),  # somebody works it until then
    at("worked_at", null=True),
    Index("ix_inbox_events_open", "received_at", postgresql_where=text("work is not null and worked_at is null")),
    Index("br_inbox_events_received_at", "received_at", postgresql_using="brin"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("outbox_id", BigInteger, primary_key=True, autoincrement=True),
    Column("key", Text, nullable=False, unique=True),
    Column("channel", Text, nullable=False),  # mail, slack
    Column("kind", Text, nullable=False),
    Column("order_id", UUID(as_uuid=True)),
    Column("payload", JSON_OR_NULL, nullable=False, server_default="{}"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("last_error", Text),
    Column("carrier_id", Text),
    at("created_at", now=True),
    at("next_attempt_at", now=True),
    at("sent_at", null=True),
    Index(None, "order_id"),
    Index("ix_outbox_due", "next_attempt_at", postgresql_where=text("sent_at is null")),
    Index("br_outbox_created_at", "created_at", postgresql_using="brin"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("body_hash", LargeBinary, nullable=False),
    Column("order_id", UUID(as_uuid=True)),
    Column("status", SmallInteger),
    Column("response_enc", LargeBinary),  # it carries the order token
    Column("attempt", SmallInteger, nullable=False, server_default="1"),  # of opening the payment page
    at("created_at", now=True),
    Index("br_idempotency_keys_created_at", "created_at", postgresql_using="brin"),
)

drains = Table(
    "drains",
    metadata,
    Column("drain_id", Text, primary_key=True),  # the lease owner of its claims
    Column("run_id", Text),
    Column("capacity", Integer, nullable=False),
    Column("busy", Integer, nullable=False, server_default="0"),
    at("started_at", now=True),
    at("heartbeat_at", now=True),
    at("ended_at", null=True),
    Index("ix_drains_alive", "heartbeat_at", postgresql_where=text("ended_at is null")),
    Index(None, "run_id"),
)

audit_events = Table(
    "audit_events",
    metadata,
    Column("audit_id", BigInteger, primary_key=True, autoincrement=True),
    Column("actor", Text, nullable=False),  # operator:<name>
    Column("action", Text, nullable=False),  # order retry, provider disable, …
    Column("subject", Text, nullable=False),  # order OID001, provider airalo, …
    Column("order_id", UUID(as_uuid=True)),
    Column("reason", Text, nullable=False),
    Column("details", JSON_OR_NULL, nullable=False, server_default="{}"),
    Column("run_id", Text),
    at("at", now=True),
    Index(None, "at"),
    Index(None, "order_id"),
)
