"""Providers' health and history, offers that rest, alerts with a beginning and an end, and what retention looks for."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def _at(name: str, *, null: bool = False, now: bool = False) -> sa.Column[object]:
    default = sa.text("now()") if now else None
    return sa.Column(name, sa.DateTime(timezone=True), nullable=null, server_default=default)


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "provider_health",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("successes", sa.Integer(), server_default="0", nullable=False),
        sa.Column("p50_ms", sa.Integer()),
        sa.Column("p95_ms", sa.Integer()),
        _at("degraded_since", null=True),
        _at("computed_at", now=True),
        sa.PrimaryKeyConstraint("provider", name="pk_provider_health"),
    )
    op.create_table(
        "provider_events",
        sa.Column("event_id", sa.BigInteger(), autoincrement=True, nullable=False),
        _at("at", now=True),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name="pk_provider_events"),
    )
    op.create_index("ix_provider_events_provider_at", "provider_events", ["provider", "at"], unique=False)
    op.create_table(
        "offer_outages",
        sa.Column("offer_id", sa.Text(), nullable=False),
        _at("since"),
        _at("until"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("offer_id", name="pk_offer_outages"),
    )
    op.create_table(
        "alerts",
        sa.Column("alert_id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        _at("since"),
        _at("told_at", null=True),
        _at("ended_at", null=True),
        sa.PrimaryKeyConstraint("alert_id", name="pk_alerts"),
    )
    op.create_index(
        "uq_alerts_open", "alerts", ["kind", "subject"], unique=True, postgresql_where=sa.text("ended_at is null")
    )
    op.create_table(
        "heartbeats",
        sa.Column("name", sa.Text(), nullable=False),
        _at("at"),
        sa.PrimaryKeyConstraint("name", name="pk_heartbeats"),
    )
    op.add_column("providers", sa.Column("unfunded_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("providers", sa.Column("unfunded_micros", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_purchase_attempts_provider_attempt_id", "purchase_attempts", ["provider", "attempt_id"], unique=False
    )
    # Old rows are found by age once a day: block ranges cost the writers next to nothing.
    for table, column in (
        ("inbox_events", "received_at"),
        ("outbox", "created_at"),
        ("idempotency_keys", "created_at"),
    ):
        op.create_index(f"br_{table}_{column}", table, [column], unique=False, postgresql_using="brin")
