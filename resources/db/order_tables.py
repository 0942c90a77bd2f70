"""The tables of an order: what was asked, its units, what was tried for them, and every step it took."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import UUID

from resources.db.columns import JSON_OR_NULL, at, changed, metadata

OPEN_STATES = ("intent", "prepared", "pending", "unknown")  # of a purchase attempt without an end

orders = Table(
    "orders",
    metadata,
    Column("order_id", UUID(as_uuid=True), primary_key=True),
    Column("display_id", Text, nullable=False, unique=True),
    Column("status", Text, nullable=False),
    # unpaid, paid, failed, refunded, partially_refunded
    Column("payment_status", Text, nullable=False, server_default="unpaid"),
    Column("email", Text, nullable=False),
    Column("phone", Text),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("refunded_minor", BigInteger, nullable=False, server_default="0"),
    Column("token_hash", LargeBinary, nullable=False),
    Column("catalogue_version", BigInteger, nullable=False),
    Column("session_id", Text, unique=True),
    Column("checkout_url", Text),
    Column("payment_intent", Text, unique=True),
    Column("success_url", Text, nullable=False),
    Column("cancel_url", Text, nullable=False),
    Column("customer_country", String(2)),
    Column("channel", Text, nullable=False, server_default="api"),
    Column("attention_reason", Text),
    Column("hold_reason", Text),  # why a person must decide before anything more is bought; null when nobody must
    at("expires_at"),
    at("created_at", now=True),
    at("updated_at", now=True),
    at("paid_at", null=True),
    at("deadline_at", null=True),  # the customer has the eSIM or the money back by then
    at("completed_at", null=True),
    at("fee_due_at", null=True),  # when the payment service is asked what it kept; null when that is booked
    changed(),
    CheckConstraint("amount_minor > 0", name="amount_positive"),
    CheckConstraint("refunded_minor between 0 and amount_minor", name="refund_within_amount"),
    Index(None, "status", "created_at"),
    Index(None, "changed_xid"),
    Index("ix_orders_fee_due", "fee_due_at", postgresql_where=text("fee_due_at is not null")),
)

order_items = Table(
    "order_items",
    metadata,
    Column("item_id", UUID(as_uuid=True), primary_key=True),
    Column("order_id", ForeignKey("orders.order_id"), nullable=False, index=True),
    Column("line", SmallInteger, nullable=False),
    Column("package_id", Text, nullable=False),
    Column("package", JSON_OR_NULL, nullable=False),  # the package as it was sold
    Column("quantity", Integer, nullable=False),
    Column("unit_price_minor", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("unit_price_micros_usd", BigInteger, nullable=False),
    Column("expected_landed_micros", BigInteger, nullable=False),
    at("created_at", now=True),
    changed(),
    UniqueConstraint("order_id", "line"),
    CheckConstraint("quantity between 1 and 30", name="quantity_sane"),
    Index(None, "changed_xid"),
)

esims = Table(
    "esims",
    metadata,
    Column("esim_id", UUID(as_uuid=True), primary_key=True),
    Column("order_id", ForeignKey("orders.order_id"), nullable=False, index=True),
    Column("item_id", ForeignKey("order_items.item_id"), nullable=False),
    Column("n", SmallInteger, nullable=False),  # 1, 2, … within the order
    Column("status", Text, nullable=False),
    Column("failures", Integer, nullable=False, server_default="0"),  # rounds over all offers that ended retryable
    Column("round_from", SmallInteger, nullable=False, server_default="0"),  # attempts up to this one are past rounds
    at("slot_wait_since", null=True),  # since when a serialising provider's slot was busy
    Column("fence", BigInteger, nullable=False, server_default="0"),
    Column("lease_owner", Text),
    at("lease_until", null=True),
    at("next_attempt_at", null=True),
    Column("provider", Text),
    Column("offer_id", Text),
    Column("provider_order_id", Text),
    Column("provider_esim_id", Text),
    Column("iccid_enc", LargeBinary),
    Column("iccid_hash", LargeBinary, index=True),  # not unique: a provider reuses ICCIDs over the years
    Column("profile_enc", LargeBinary),  # the activation data, one JSON_OR_NULL document
    Column("cost_amount", Numeric(18, 6)),
    Column("cost_currency", String(3)),
    Column("cost_micros", BigInteger),
    Column("last_error_type", Text),
    Column("last_error", Text),
    at("created_at", now=True),
    at("updated_at", now=True),
    at("delivered_at", null=True),
    at("refunded_at", null=True),
    changed(),
    UniqueConstraint("order_id", "n"),
    UniqueConstraint("provider", "provider_order_id", "iccid_hash"),  # one purchase never serves two units
    Index("ix_esims_claimable", "next_attempt_at", postgresql_where=text("status = 'queued'")),
    Index("ix_esims_leased", "lease_until", postgresql_where=text("status = 'working'")),
    Index("ix_esims_failed", "order_id", postgresql_where=text("status = 'failed'")),
    Index("ix_esims_open", "next_attempt_at", postgresql_where=text("status in ('pending', 'unknown', 'attention')")),
    Index(None, "changed_xid"),
)

purchase_attempts = Table(
    "purchase_attempts",
    metadata,
    Column("attempt_id", BigInteger, primary_key=True, autoincrement=True),
    Column("esim_id", ForeignKey("esims.esim_id"), nullable=False, index=True),
    Column("order_id", UUID(as_uuid=True), nullable=False),
    Column("number", SmallInteger, nullable=False),
    Column("failover_step", SmallInteger, nullable=False),
    Column("provider", Text, nullable=False),
    Column("offer_id", Text, nullable=False),
    Column("provider_package_id", Text, nullable=False),
    Column("package_name", Text, nullable=False, server_default=""),
    Column("order_hints", JSON_OR_NULL, nullable=False, server_default="{}"),
    Column("reference", Text, nullable=False, unique=True),
    Column("fence", BigInteger, nullable=False),
    Column("expected_cost", Numeric(18, 6), nullable=False),
    Column("ceiling_cost", Numeric(18, 6), nullable=False),
    Column("currency", String(3), nullable=False),
    Column("state", Text, nullable=False),  # intent, prepared, pending, provisioned, rejected, unknown, stocked
    Column("slot", Text),  # what serialises it, while it is open
    Column("evidence", JSON_OR_NULL),
    Column("provider_order_id", Text),
    Column("cost", Numeric(18, 6)),
    Column("cost_micros", BigInteger),
    Column("error_type", Text),
    Column("error", Text),
    Column("run_id", Text),
    at("started_at"),
    at("sent_at", null=True),
    at("finished_at", null=True),
    at("look_at", null=True),  # when it is looked up next, while it is open and its unit has an end already
    Column("latency_ms", Integer),
    changed(),
    UniqueConstraint("esim_id", "number"),
    # The rule against buying twice, held by the database: one open or successful attempt per unit.
    Index(
        "uq_purchase_attempts_one_live",
        "esim_id",
        unique=True,
        postgresql_where=text("state in ('intent', 'prepared', 'pending', 'unknown', 'provisioned')"),
    ),
    Index(
        "uq_purchase_attempts_slot",
        "slot",
        unique=True,
        postgresql_where=text("slot is not null and state in ('intent', 'prepared', 'pending', 'unknown')"),
    ),
    Index(None, "provider", "provider_order_id"),
    Index("ix_purchase_attempts_look_at", "look_at", postgresql_where=text("look_at is not null")),
    Index(None, "provider", "attempt_id"),  # a provider's newest attempts, for its health
    Index(None, "changed_xid"),
)

stock_esims = Table(
    "stock_esims",
    metadata,
    Column("stock_id", BigInteger, primary_key=True, autoincrement=True),
    Column("attempt_id", ForeignKey("purchase_attempts.attempt_id"), unique=True),
    Column("provider", Text, nullable=False),
    Column("offer_id", Text, nullable=False),
    Column("provider_order_id", Text, nullable=False),
    Column("iccid_hash", LargeBinary, index=True),
    Column("profile_enc", LargeBinary),
    Column("cost_micros", BigInteger),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="stock"),  # stock, cancelled, written_off, used
    at("created_at", now=True),
    Index(None, "provider", "provider_order_id"),
)

order_events = Table(
    "order_events",
    metadata,
    Column("event_id", BigInteger, primary_key=True, autoincrement=True),
    Column("order_id", UUID(as_uuid=True), nullable=False, index=True),
    Column("esim_n", SmallInteger),
    Column("from_status", Text),
    Column("to_status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("run_id", Text),
    Column("details", JSON_OR_NULL, nullable=False, server_default="{}"),
    at("at", now=True),
)
