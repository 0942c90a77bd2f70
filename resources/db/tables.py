"""Every table of the operational store, as SQLAlchemy Core; the one place that names columns.

Money columns end in `_minor` (with a `currency` beside them) or `_micros` (10^-6 USD); times are UTC timestamps.
`changed_xid` (set by a trigger to the writing transaction's id) lets the lake load changed rows without missing
transactions that commit late. Columns named `*_enc` hold AES-GCM ciphertext, `*_hash` a keyed look-up hash.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID
from sqlalchemy.types import UserDefinedType

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Xid8(UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction id."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """Return the type's SQL name."""
        return "xid8"


# Without none_as_null, None is stored as JSON's null, which is not null to SQL: unread work nobody can read.
_JSON = JSONB(none_as_null=True)


def _at(name: str, *, null: bool = False, now: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=null, server_default=func.now() if now else None)


def _changed() -> Column[int]:
    return Column("changed_xid", Xid8(), nullable=False, server_default=text("pg_current_xact_id()"))


# --- catalogue ------------------------------------------------------------------------------------------------------

catalogue_versions = Table(
    "catalogue_versions",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=True),
    _at("published_at", now=True),
    Column("packages", Integer, nullable=False),
    Column("offers", Integer, nullable=False),
    Column("changed", Integer, nullable=False),
    Column("rates_on", Date),
    Column("run_id", Text),
)

packages = Table(
    "packages",
    metadata,
    Column("package_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("destination_code", Text, nullable=False),
    Column("destination_name", Text, nullable=False),
    Column("destination_type", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("coverage", ARRAY(String(2)), nullable=False),
    Column("allowance", Text, nullable=False),
    Column("data_mb", Integer),
    Column("daily_mb", Integer),
    Column("throttle_kbps", Integer),
    Column("validity_days", Integer, nullable=False),
    Column("voice_minutes", Integer, nullable=False, server_default="0"),
    Column("sms", Integer, nullable=False, server_default="0"),
    Column("networks", ARRAY(Text), nullable=False),
    Column("supports_top_up", Boolean),
    Column("price_minor_usd", BigInteger, nullable=False),
    Column("prices", _JSON, nullable=False),  # {"USD": 499, "EUR": 479}: minor units per sold currency
    Column("floor_micros", BigInteger, nullable=False),
    Column("rule_id", BigInteger),
    Column("best_offer_id", Text, nullable=False),
    Column("best_landed_micros", BigInteger, nullable=False),
    Column("offer_count", Integer, nullable=False),
    Column("on_sale", Boolean, nullable=False),
    Column("version", BigInteger, nullable=False),
    _at("updated_at", now=True),
    _changed(),
    Index(None, "destination_code", postgresql_where=text("on_sale")),
    Index(None, "changed_xid"),
)

offers = Table(
    "offers",
    metadata,
    Column("offer_id", Text, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("provider_package_id", Text, nullable=False),
    Column("package_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("coverage_key", Text, nullable=False),
    Column("allowance", Text, nullable=False),
    Column("data_mb", Integer),
    Column("validity_days", Integer, nullable=False),
    Column("cost_amount", Numeric(18, 6), nullable=False),
    Column("cost_currency", String(3), nullable=False),
    Column("landed_micros", BigInteger, nullable=False),
    Column("min_retail_micros", BigInteger),
    Column("stock", Integer),
    Column("order_hints", _JSON, nullable=False, server_default="{}"),
    Column("is_best_price", Boolean, nullable=False, server_default="false"),
    Column("is_enabled", Boolean, nullable=False, server_default="false"),
    Column("auto_mode", Boolean, nullable=False, server_default="true"),
    Column("on_offer", Boolean, nullable=False, server_default="true"),  # in the provider's last good catalogue
    Column("excluded_reason", Text),
    _at("seen_at", now=True),
    _at("updated_at", now=True),
    _changed(),
    UniqueConstraint("provider", "provider_package_id"),
    Index(None, "package_id"),
    Index(None, "coverage_key", "kind"),
    Index(None, "changed_xid"),
)

pricing_rules = Table(
    "pricing_rules",
    metadata,
    Column("rule_id", BigInteger, primary_key=True, autoincrement=True),
    Column("scope", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("markup_bp", Integer, nullable=False, server_default="0"),
    Column("markup_micros", BigInteger, nullable=False, server_default="0"),
    Column("min_margin_micros", BigInteger, nullable=False, server_default="0"),
    Column("payment_fee_bp", Integer, nullable=False, server_default="0"),
    Column("payment_fee_micros", BigInteger, nullable=False, server_default="0"),
    Column("ending", Text, nullable=False, server_default="99"),
    Column("note", Text, nullable=False, server_default=""),
    Column("created_by", Text, nullable=False, server_default="migration"),
    _at("valid_from", now=True),
    _at("valid_to", null=True),  # rules are never changed: a change ends one and adds the next
)

reference_rates = Table(
    "reference_rates",
    metadata,
    Column("currency", String(3), primary_key=True),
    Column("quoted_on", Date, primary_key=True),
    Column("usd_micros", BigInteger, nullable=False),  # micro-USD per one unit of currency
    _at("fetched_at", now=True),
)

# --- providers ------------------------------------------------------------------------------------------------------

providers = Table(
    "providers",
    metadata,
    Column("slug", Text, primary_key=True),
    Column("enabled", Boolean, nullable=False, server_default="true"),
    Column("priority", Integer, nullable=False),
    Column("order_fee_micros", BigInteger, nullable=False, server_default="0"),
    Column("failures", Integer, nullable=False, server_default="0"),  # in a row, for the circuit breaker
    _at("open_until", null=True),
    _at("probe_at", null=True),
    Column("last_error", Text),
    _at("last_error_at", null=True),
    _at("last_success_at", null=True),
    Column("balance_amount", Numeric(18, 6)),
    Column("balance_currency", String(3)),
    _at("balance_at", null=True),
    Column("held_reason", Text),  # why the last good catalogue stays on sale
    _at("held_at", null=True),
    _at("synced_at", null=True),
)

rate_limits = Table(
    "rate_limits",
    metadata,
    Column("key", Text, primary_key=True),
    _at("theoretical_arrival_at"),  # GCRA
)

provider_tokens = Table(
    "provider_tokens",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("token_enc", LargeBinary, nullable=False),
    Column("token_hash", LargeBinary, nullable=False),
    _at("expires_at"),
)

# --- orders ---------------------------------------------------------------------------------------------------------

orders = Table(
    "orders",
    metadata,
    Column("order_id", UUID(as_uuid=True), primary_key=True),
    Column("display_id", Text, nullable=False, unique=True),
    Column("status", Text, nullable=False),
    Column(
        "payment_status", Text, nullable=False, server_default="unpaid"
    ),  # unpaid, paid, failed, refunded, partially_refunded
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
    _at("expires_at"),
    _at("created_at", now=True),
    _at("updated_at", now=True),
    _at("paid_at", null=True),
    _at("deadline_at", null=True),  # the customer has the eSIM or the money back by then
    _at("completed_at", null=True),
    _at("fee_due_at", null=True),  # when the payment service is asked what it kept; null when that is booked
    _changed(),
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
    Column("package", _JSON, nullable=False),  # the package as it was sold
    Column("quantity", Integer, nullable=False),
    Column("unit_price_minor", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("unit_price_micros_usd", BigInteger, nullable=False),
    Column("expected_landed_micros", BigInteger, nullable=False),
    _at("created_at", now=True),
    _changed(),
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
    _at("slot_wait_since", null=True),  # since when a serialising provider's slot was busy
    Column("fence", BigInteger, nullable=False, server_default="0"),
    Column("lease_owner", Text),
    _at("lease_until", null=True),
    _at("next_attempt_at", null=True),
    Column("provider", Text),
    Column("offer_id", Text),
    Column("provider_order_id", Text),
    Column("provider_esim_id", Text),
    Column("iccid_enc", LargeBinary),
    Column("iccid_hash", LargeBinary, index=True),  # not unique: a provider reuses ICCIDs over the years
    Column("profile_enc", LargeBinary),  # the activation data, one JSON document
    Column("cost_amount", Numeric(18, 6)),
    Column("cost_currency", String(3)),
    Column("cost_micros", BigInteger),
    Column("last_error_type", Text),
    Column("last_error", Text),
    _at("created_at", now=True),
    _at("updated_at", now=True),
    _at("delivered_at", null=True),
    _at("refunded_at", null=True),
    _changed(),
    UniqueConstraint("order_id", "n"),
    UniqueConstraint("provider", "provider_order_id", "iccid_hash"),  # one purchase never serves two units
    Index("ix_esims_claimable", "next_attempt_at", postgresql_where=text("status = 'queued'")),
    Index("ix_esims_leased", "lease_until", postgresql_where=text("status = 'working'")),
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
    Column("order_hints", _JSON, nullable=False, server_default="{}"),
    Column("reference", Text, nullable=False, unique=True),
    Column("fence", BigInteger, nullable=False),
    Column("expected_cost", Numeric(18, 6), nullable=False),
    Column("ceiling_cost", Numeric(18, 6), nullable=False),
    Column("currency", String(3), nullable=False),
    Column("state", Text, nullable=False),  # intent, prepared, pending, provisioned, rejected, unknown, stocked
    Column("slot", Text),  # what serialises it, while it is open
    Column("evidence", _JSON),
    Column("provider_order_id", Text),
    Column("cost", Numeric(18, 6)),
    Column("cost_micros", BigInteger),
    Column("error_type", Text),
    Column("error", Text),
    Column("run_id", Text),
    _at("started_at"),
    _at("sent_at", null=True),
    _at("finished_at", null=True),
    Column("latency_ms", Integer),
    _changed(),
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
        postgresql_where=text("slot is not null and state in ('intent', 'prepared', 'unknown')"),
    ),
    Index(None, "provider", "provider_order_id"),
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
    Column("iccid_hash", LargeBinary),
    Column("profile_enc", LargeBinary),
    Column("cost_micros", BigInteger),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="stock"),  # stock, cancelled, used
    _at("created_at", now=True),
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
    Column("details", _JSON, nullable=False, server_default="{}"),
    _at("at", now=True),
)

ledger_entries = Table(
    "ledger_entries",
    metadata,
    Column("entry_id", BigInteger, primary_key=True, autoincrement=True),
    Column("posting_key", Text, nullable=False),  # one posting is booked once
    Column("order_id", UUID(as_uuid=True), nullable=False, index=True),
    Column("esim_n", SmallInteger),
    # customer, revenue, cash, provider_balance, cost_of_sales, payment_fees, refunds, loss, stock
    Column("account", Text, nullable=False),
    Column("amount_micros", BigInteger, nullable=False),  # debit positive, credit negative, in USD at the day's rate
    Column("original_amount", Numeric(18, 6), nullable=False),
    Column("original_currency", String(3), nullable=False),
    _at("at", now=True),
    _changed(),
    UniqueConstraint("posting_key", "account"),
    Index(None, "changed_xid"),
)

inbox_events = Table(
    "inbox_events",
    metadata,
    Column("source", Text, primary_key=True),
    Column("event_id", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("order_id", UUID(as_uuid=True)),
    Column("handled", Text, nullable=False),  # what was done, or why nothing
    Column("work", _JSON),  # what a job still has to read again (provider events)
    _at("received_at", now=True),
    _at("worked_at", null=True),
    Index("ix_inbox_events_open", "received_at", postgresql_where=text("work is not null and worked_at is null")),
)

outbox = Table(
    "outbox",
    metadata,
    Column("outbox_id", BigInteger, primary_key=True, autoincrement=True),
    Column("key", Text, nullable=False, unique=True),
    Column("channel", Text, nullable=False),  # mail, slack
    Column("kind", Text, nullable=False),
    Column("order_id", UUID(as_uuid=True)),
    Column("payload", _JSON, nullable=False, server_default="{}"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("last_error", Text),
    Column("carrier_id", Text),
    _at("created_at", now=True),
    _at("next_attempt_at", now=True),
    _at("sent_at", null=True),
    Index("ix_outbox_due", "next_attempt_at", postgresql_where=text("sent_at is null")),
)

refunds = Table(
    "refunds",
    metadata,
    Column("refund_key", Text, primary_key=True),  # also the payment service's idempotency key
    Column("order_id", ForeignKey("orders.order_id"), nullable=False, index=True),
    Column("esim_n", SmallInteger),
    Column("payment_intent", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="requested"),  # requested, sent, succeeded, failed
    Column("stripe_refund_id", Text, unique=True),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("last_error", Text),
    _at("created_at", now=True),
    _at("next_attempt_at", now=True),
    _at("finished_at", null=True),
    _changed(),
    Index(None, "changed_xid"),
    Index("ix_refunds_due", "next_attempt_at", postgresql_where=text("state in ('requested', 'sent')")),
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
    _at("created_at", now=True),
)

drains = Table(
    "drains",
    metadata,
    Column("drain_id", Text, primary_key=True),  # the lease owner of its claims
    Column("run_id", Text),
    Column("capacity", Integer, nullable=False),
    Column("busy", Integer, nullable=False, server_default="0"),
    _at("started_at", now=True),
    _at("heartbeat_at", now=True),
    _at("ended_at", null=True),
)
