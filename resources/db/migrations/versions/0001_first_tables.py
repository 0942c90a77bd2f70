"""First tables, change tracking, the five providers and pricing rules that make sense on day one."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from resources.db.columns import Xid8

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create everything."""
    _create_tables()
    _track_changes()
    _seed()


def _create_tables() -> None:
    op.create_table(
        "catalogue_versions",
        sa.Column("version", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("packages", sa.Integer(), nullable=False),
        sa.Column("offers", sa.Integer(), nullable=False),
        sa.Column("changed", sa.Integer(), nullable=False),
        sa.Column("rates_on", sa.Date(), nullable=True),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_catalogue_versions")),
    )
    op.create_table(
        "drains",
        sa.Column("drain_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("capacity", sa.Integer(), nullable=False),
        sa.Column("busy", sa.Integer(), server_default="0", nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("drain_id", name=op.f("pk_drains")),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(), nullable=False),
        sa.Column("order_id", sa.UUID(), nullable=True),
        sa.Column("status", sa.SmallInteger(), nullable=True),
        sa.Column("response_enc", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("scope", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_table(
        "inbox_events",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("order_id", sa.UUID(), nullable=True),
        sa.Column("handled", sa.Text(), nullable=False),
        sa.Column("work", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("worked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("source", "event_id", name=op.f("pk_inbox_events")),
    )
    op.create_index(
        "ix_inbox_events_open",
        "inbox_events",
        ["received_at"],
        unique=False,
        postgresql_where=sa.text("work is not null and worked_at is null"),
    )
    op.create_table(
        "ledger_entries",
        sa.Column("entry_id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("posting_key", sa.Text(), nullable=False),
        sa.Column("order_id", sa.UUID(), nullable=False),
        sa.Column("esim_n", sa.SmallInteger(), nullable=True),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("amount_micros", sa.BigInteger(), nullable=False),
        sa.Column("original_amount", sa.Numeric(precision=18, scale=6), nullable=False),
        sa.Column("original_currency", sa.String(length=3), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("changed_xid", Xid8(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_ledger_entries")),
        sa.UniqueConstraint("posting_key", "account", name=op.f("uq_ledger_entries_posting_key_account")),
    )
    op.create_index(op.f("ix_ledger_entries_changed_xid"), "ledger_entries", ["changed_xid"], unique=False)
    op.create_index(op.f("ix_ledger_entries_order_id"), "ledger_entries", ["order_id"], unique=False)
    op.create_table(
        "offers",
        sa.Column("offer_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("provider_package_id", sa.Text(), nullable=False),
        sa.Column("package_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("coverage_key", sa.Text(), nullable=False),
        sa.Column("allowance", sa.Text(), nullable=False),
        sa.Column("data_mb", sa.Integer(), nullable=True),
        sa.Column("validity_days", sa.Integer(), nullable=False),
        sa.Column("cost_amount", sa.Numeric(precision=18, scale=6), nullable=False),
        sa.Column("cost_currency", sa.String(length=3), nullable=False),
        sa.Column("landed_micros", sa.BigInteger(), nullable=False),
        sa.Column("min_retail_micros", sa.BigInteger(), nullable=True),
        sa.Column("stock", sa.Integer(), nullable=True),
        sa.Column("order_hints", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("is_best_price", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("is_enabled", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("auto_mode", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("on_offer", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("excluded_reason", sa.Text(), nullable=True),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("changed_xid", Xid8(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
        sa.PrimaryKeyConstraint("offer_id", name=op.f("pk_offers")),
        sa.UniqueConstraint("provider", "provider_package_id", name=op.f("uq_offers_provider_provider_package_id")),
    )
    op.create_index(op.f("ix_offers_changed_xid"), "offers", ["changed_xid"], unique=False)
    op.create_index(op.f("ix_offers_coverage_key_kind"), "offers", ["coverage_key", "kind"], unique=False)
    op.create_index(op.f("ix_offers_package_id"), "offers", ["package_id"], unique=False)
    op.create_table(
        "order_events",
        sa.Column("event_id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("order_id", sa.UUID(), nullable=False),
        sa.Column("esim_n", sa.SmallInteger(), nullable=True),
        sa.Column("from_status", sa.Text(), nullable=True),
        sa.Column("to_status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_order_events")),
    )
    op.create_index(op.f("ix_order_events_order_id"), "order_events", ["order_id"], unique=False)
    op.create_table(
        "orders",
        sa.Column("order_id", sa.UUID(), nullable=False),
        sa.Column("display_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("payment_status", sa.Text(), server_default="unpaid", nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("phone", sa.Text(), nullable=True),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("refunded_minor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("catalogue_version", sa.BigInteger(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("checkout_url", sa.Text(), nullable=True),
        sa.Column("payment_intent", sa.Text(), nullable=True),
        sa.Column("success_url", sa.Text(), nullable=False),
        sa.Column("cancel_url", sa.Text(), nullable=False),
        sa.Column("customer_country", sa.String(length=2), nullable=True),
        sa.Column("channel", sa.Text(), server_default="api", nullable=False),
        sa.Column("attention_reason", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("paid_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("changed_xid", Xid8(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_orders_amount_positive")),
        sa.CheckConstraint("refunded_minor between 0 and amount_minor", name=op.f("ck_orders_refund_within_amount")),
        sa.PrimaryKeyConstraint("order_id", name=op.f("pk_orders")),
        sa.UniqueConstraint("display_id", name=op.f("uq_orders_display_id")),
        sa.UniqueConstraint("payment_intent", name=op.f("uq_orders_payment_intent")),
        sa.UniqueConstraint("session_id", name=op.f("uq_orders_session_id")),
    )
    op.create_index(op.f("ix_orders_changed_xid"), "orders", ["changed_xid"], unique=False)
    op.create_index(op.f("ix_orders_status_created_at"), "orders", ["status", "created_at"], unique=False)
    op.create_table(
        "outbox",
        sa.Column("outbox_id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("order_id", sa.UUID(), nullable=True),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("carrier_id", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("outbox_id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("key", name=op.f("uq_outbox_key")),
    )
    op.create_index(
        "ix_outbox_due", "outbox", ["next_attempt_at"], unique=False, postgresql_where=sa.text("sent_at is null")
    )
    op.create_table(
        "packages",
        sa.Column("package_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("destination_code", sa.Text(), nullable=False),
        sa.Column("destination_name", sa.Text(), nullable=False),
        sa.Column("destination_type", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("coverage", postgresql.ARRAY(sa.String(length=2)), nullable=False),
        sa.Column("allowance", sa.Text(), nullable=False),
        sa.Column("data_mb", sa.Integer(), nullable=True),
        sa.Column("daily_mb", sa.Integer(), nullable=True),
        sa.Column("throttle_kbps", sa.Integer(), nullable=True),
        sa.Column("validity_days", sa.Integer(), nullable=False),
        sa.Column("voice_minutes", sa.Integer(), server_default="0", nullable=False),
        sa.Column("sms", sa.Integer(), server_default="0", nullable=False),
        sa.Column("networks", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("supports_top_up", sa.Boolean(), nullable=True),
        sa.Column("price_minor_usd", sa.BigInteger(), nullable=False),
        sa.Column("prices", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("floor_micros", sa.BigInteger(), nullable=False),
        sa.Column("rule_id", sa.BigInteger(), nullable=True),
        sa.Column("best_offer_id", sa.Text(), nullable=False),
        sa.Column("best_landed_micros", sa.BigInteger(), nullable=False),
        sa.Column("offer_count", sa.Integer(), nullable=False),
        sa.Column("on_sale", sa.Boolean(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("changed_xid", Xid8(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
        sa.PrimaryKeyConstraint("package_id", name=op.f("pk_packages")),
    )
    op.create_index(op.f("ix_packages_changed_xid"), "packages", ["changed_xid"], unique=False)
    op.create_index(
        op.f("ix_packages_destination_code"),
        "packages",
        ["destination_code"],
        unique=False,
        postgresql_where=sa.text("on_sale"),
    )
    op.create_table(
        "pricing_rules",
        sa.Column("rule_id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("markup_bp", sa.Integer(), server_default="0", nullable=False),
        sa.Column("markup_micros", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("min_margin_micros", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("payment_fee_bp", sa.Integer(), server_default="0", nullable=False),
        sa.Column("payment_fee_micros", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("ending", sa.Text(), server_default="99", nullable=False),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("created_by", sa.Text(), server_default="migration", nullable=False),
        sa.Column("valid_from", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("rule_id", name=op.f("pk_pricing_rules")),
    )
    op.create_table(
        "provider_tokens",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("token_enc", sa.LargeBinary(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("provider", name=op.f("pk_provider_tokens")),
    )
    op.create_table(
        "providers",
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("order_fee_micros", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("open_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("probe_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("last_error_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_success_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("balance_amount", sa.Numeric(precision=18, scale=6), nullable=True),
        sa.Column("balance_currency", sa.String(length=3), nullable=True),
        sa.Column("balance_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("held_reason", sa.Text(), nullable=True),
        sa.Column("held_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("synced_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("slug", name=op.f("pk_providers")),
    )
    op.create_table(
        "rate_limits",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("theoretical_arrival_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_rate_limits")),
    )
    op.create_table(
        "reference_rates",
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("quoted_on", sa.Date(), nullable=False),
        sa.Column("usd_micros", sa.BigInteger(), nullable=False),
        sa.Column("fetched_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("currency", "quoted_on", name=op.f("pk_reference_rates")),
    )
    op.create_table(
        "order_items",
        sa.Column("item_id", sa.UUID(), nullable=False),
        sa.Column("order_id", sa.UUID(), nullable=False),
        sa.Column("line", sa.SmallInteger(), nullable=False),
        sa.Column("package_id", sa.Text(), nullable=False),
        sa.Column("package", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("unit_price_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("unit_price_micros_usd", sa.BigInteger(), nullable=False),
        sa.Column("expected_landed_micros", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("changed_xid", Xid8(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
        sa.CheckConstraint("quantity between 1 and 30", name=op.f("ck_order_items_quantity_sane")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.order_id"], name=op.f("fk_order_items_order_id_orders")),
        sa.PrimaryKeyConstraint("item_id", name=op.f("pk_order_items")),
        sa.UniqueConstraint("order_id", "line", name=op.f("uq_order_items_order_id_line")),
    )
    op.create_index(op.f("ix_order_items_changed_xid"), "order_items", ["changed_xid"], unique=False)
    op.create_index(op.f("ix_order_items_order_id"), "order_items", ["order_id"], unique=False)
    op.create_table(
        "refunds",
        sa.Column("refund_key", sa.Text(), nullable=False),
        sa.Column("order_id", sa.UUID(), nullable=False),
        sa.Column("esim_n", sa.SmallInteger(), nullable=True),
        sa.Column("payment_intent", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="requested", nullable=False),
        sa.Column("stripe_refund_id", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("changed_xid", Xid8(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
        sa.ForeignKeyConstraint(["order_id"], ["orders.order_id"], name=op.f("fk_refunds_order_id_orders")),
        sa.PrimaryKeyConstraint("refund_key", name=op.f("pk_refunds")),
        sa.UniqueConstraint("stripe_refund_id", name=op.f("uq_refunds_stripe_refund_id")),
    )
    op.create_index(op.f("ix_refunds_changed_xid"), "refunds", ["changed_xid"], unique=False)
    op.create_index(op.f("ix_refunds_order_id"), "refunds", ["order_id"], unique=False)
    op.create_table(
        "esims",
        sa.Column("esim_id", sa.UUID(), nullable=False),
        sa.Column("order_id", sa.UUID(), nullable=False),
        sa.Column("item_id", sa.UUID(), nullable=False),
        sa.Column("n", sa.SmallInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("fence", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("offer_id", sa.Text(), nullable=True),
        sa.Column("provider_order_id", sa.Text(), nullable=True),
        sa.Column("provider_esim_id", sa.Text(), nullable=True),
        sa.Column("iccid_enc", sa.LargeBinary(), nullable=True),
        sa.Column("iccid_hash", sa.LargeBinary(), nullable=True),
        sa.Column("profile_enc", sa.LargeBinary(), nullable=True),
        sa.Column("cost_amount", sa.Numeric(precision=18, scale=6), nullable=True),
        sa.Column("cost_currency", sa.String(length=3), nullable=True),
        sa.Column("cost_micros", sa.BigInteger(), nullable=True),
        sa.Column("last_error_type", sa.Text(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refunded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("changed_xid", Xid8(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["order_items.item_id"], name=op.f("fk_esims_item_id_order_items")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.order_id"], name=op.f("fk_esims_order_id_orders")),
        sa.PrimaryKeyConstraint("esim_id", name=op.f("pk_esims")),
        sa.UniqueConstraint("order_id", "n", name=op.f("uq_esims_order_id_n")),
        sa.UniqueConstraint(
            "provider", "provider_order_id", "iccid_hash", name=op.f("uq_esims_provider_provider_order_id_iccid_hash")
        ),
    )
    op.create_index(op.f("ix_esims_changed_xid"), "esims", ["changed_xid"], unique=False)
    op.create_index(
        "ix_esims_claimable", "esims", ["next_attempt_at"], unique=False, postgresql_where=sa.text("status = 'queued'")
    )
    op.create_index(op.f("ix_esims_iccid_hash"), "esims", ["iccid_hash"], unique=False)
    op.create_index(
        "ix_esims_leased", "esims", ["lease_until"], unique=False, postgresql_where=sa.text("status = 'working'")
    )
    op.create_index(
        "ix_esims_open",
        "esims",
        ["next_attempt_at"],
        unique=False,
        postgresql_where=sa.text("status in ('pending', 'unknown')"),
    )
    op.create_index(op.f("ix_esims_order_id"), "esims", ["order_id"], unique=False)
    op.create_table(
        "purchase_attempts",
        sa.Column("attempt_id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("esim_id", sa.UUID(), nullable=False),
        sa.Column("order_id", sa.UUID(), nullable=False),
        sa.Column("number", sa.SmallInteger(), nullable=False),
        sa.Column("failover_step", sa.SmallInteger(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("offer_id", sa.Text(), nullable=False),
        sa.Column("provider_package_id", sa.Text(), nullable=False),
        sa.Column("package_name", sa.Text(), server_default="", nullable=False),
        sa.Column("order_hints", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("expected_cost", sa.Numeric(precision=18, scale=6), nullable=False),
        sa.Column("ceiling_cost", sa.Numeric(precision=18, scale=6), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("slot", sa.Text(), nullable=True),
        sa.Column("evidence", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("provider_order_id", sa.Text(), nullable=True),
        sa.Column("cost", sa.Numeric(precision=18, scale=6), nullable=True),
        sa.Column("cost_micros", sa.BigInteger(), nullable=True),
        sa.Column("error_type", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("latency_ms", sa.Integer(), nullable=True),
        sa.Column("changed_xid", Xid8(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
        sa.ForeignKeyConstraint(["esim_id"], ["esims.esim_id"], name=op.f("fk_purchase_attempts_esim_id_esims")),
        sa.PrimaryKeyConstraint("attempt_id", name=op.f("pk_purchase_attempts")),
        sa.UniqueConstraint("esim_id", "number", name=op.f("uq_purchase_attempts_esim_id_number")),
        sa.UniqueConstraint("reference", name=op.f("uq_purchase_attempts_reference")),
    )
    op.create_index(op.f("ix_purchase_attempts_changed_xid"), "purchase_attempts", ["changed_xid"], unique=False)
    op.create_index(op.f("ix_purchase_attempts_esim_id"), "purchase_attempts", ["esim_id"], unique=False)
    op.create_index(
        op.f("ix_purchase_attempts_provider_provider_order_id"),
        "purchase_attempts",
        ["provider", "provider_order_id"],
        unique=False,
    )
    op.create_index(
        "uq_purchase_attempts_one_live",
        "purchase_attempts",
        ["esim_id"],
        unique=True,
        postgresql_where=sa.text("state in ('intent', 'prepared', 'pending', 'unknown', 'provisioned')"),
    )
    op.create_index(
        "uq_purchase_attempts_slot",
        "purchase_attempts",
        ["slot"],
        unique=True,
        postgresql_where=sa.text("slot is not null and state in ('intent', 'prepared', 'unknown')"),
    )
    op.create_table(
        "stock_esims",
        sa.Column("stock_id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("attempt_id", sa.BigInteger(), nullable=True),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("offer_id", sa.Text(), nullable=False),
        sa.Column("provider_order_id", sa.Text(), nullable=False),
        sa.Column("iccid_hash", sa.LargeBinary(), nullable=True),
        sa.Column("profile_enc", sa.LargeBinary(), nullable=True),
        sa.Column("cost_micros", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="stock", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["purchase_attempts.attempt_id"], name=op.f("fk_stock_esims_attempt_id_purchase_attempts")
        ),
        sa.PrimaryKeyConstraint("stock_id", name=op.f("pk_stock_esims")),
        sa.UniqueConstraint("attempt_id", name=op.f("uq_stock_esims_attempt_id")),
    )


_TRACKED = ("packages", "offers", "orders", "order_items", "esims", "purchase_attempts", "ledger_entries", "refunds")
_TRIGGER = """
create function numnaroad_changed() returns trigger language plpgsql as $$
begin
    new.changed_xid := pg_current_xact_id();
    return new;
end $$
"""

# A paid unit wakes the sensor and lingering drains; a published catalogue wakes the APIs; a notice wakes the sender.
_NOTIFY = """
create function numnaroad_notify() returns trigger language plpgsql as $$
begin
    perform pg_notify(tg_argv[0], '');
    return null;
end $$
"""


def _track_changes() -> None:
    op.execute(_TRIGGER)
    for table in _TRACKED:
        op.execute(
            f"create trigger changed before insert or update on {table} "
            "for each row execute function numnaroad_changed()"
        )
    op.execute(_NOTIFY)
    op.execute(
        "create trigger queued after insert or update of status on esims for each row "
        "when (new.status = 'queued') execute function numnaroad_notify('paid_units')"
    )
    op.execute(
        "create trigger published after insert on catalogue_versions "
        "for each row execute function numnaroad_notify('catalogue')"
    )
    op.execute("create trigger written after insert on outbox for each row execute function numnaroad_notify('outbox')")
    op.execute(_ORDER_NOTIFY)
    op.execute(
        "create trigger moved after insert on order_events for each row execute function numnaroad_order_notify()"
    )
    op.execute("create sequence order_display_ids start 1")
    op.execute("create sequence user_display_ids start 1")


_ORDER_NOTIFY = """
create function numnaroad_order_notify() returns trigger language plpgsql as $$
begin
    perform pg_notify('orders', new.order_id::text);
    return null;
end $$
"""


def _seed() -> None:
    op.execute(
        "insert into providers (slug, priority) values ('airalo', 1), ('esim_access', 2), ('esim_go', 3), "
        "('mobimatter', 4), ('esim_card', 5)"
    )
    # 2.9 % and 30 cents is Stripe's usual fee. Small plans need a margin in cents, large ones less in per cent.
    op.execute(
        "insert into pricing_rules"
        " (scope, target, markup_bp, min_margin_micros, payment_fee_bp, payment_fee_micros, ending, note) values"
        " ('global', '*', 3000, 750000, 290, 300000, '99', 'default: 30 %, at least USD 0.75, fee covered'),"
        " ('data_band', '-999', 4000, 500000, 290, 300000, '99', 'small plans: 40 %, at least USD 0.50'),"
        " ('data_band', '20000-', 2200, 1500000, 290, 300000, '99', 'large, unlimited: 22 %, at least USD 1.50')"
    )
