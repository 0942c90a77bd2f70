"""The daily proof: findings that close themselves, providers' statements, balances, and how far was looked."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "reconciliation_findings",
        sa.Column("finding_id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("side", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("order_id", sa.UUID(), nullable=True),
        sa.Column("details", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("first_seen", _MOMENT, nullable=False),
        sa.Column("last_seen", _MOMENT, nullable=False),
        sa.Column("resolved_at", _MOMENT, nullable=True),
        sa.Column("accepted_by", sa.Text(), nullable=True),
        sa.Column("accepted_reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("finding_id", name="pk_reconciliation_findings"),
        sa.UniqueConstraint("side", "kind", "subject", name="uq_reconciliation_findings_side_kind_subject"),
    )
    op.create_index(
        "ix_reconciliation_findings_open",
        "reconciliation_findings",
        ["side"],
        unique=False,
        postgresql_where=sa.text("resolved_at is null"),
    )
    op.create_index("ix_reconciliation_findings_order_id", "reconciliation_findings", ["order_id"], unique=False)
    op.create_table(
        "statement_lines",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("provider_order_id", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), server_default="", nullable=False),
        sa.Column("package_id", sa.Text(), server_default="", nullable=False),
        sa.Column("package_name", sa.Text(), server_default="", nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("cost", sa.Numeric(18, 6), nullable=True),
        sa.Column("currency", sa.String(3), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("iccid_hashes", postgresql.ARRAY(postgresql.BYTEA()), nullable=False),
        sa.Column("attempt_id", sa.BigInteger(), nullable=True),
        sa.Column("bought_at", _MOMENT, nullable=False),
        sa.Column("read_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("provider", "provider_order_id", name="pk_statement_lines"),
    )
    op.create_index("ix_statement_lines_attempt_id", "statement_lines", ["attempt_id"], unique=False)
    op.create_index("ix_statement_lines_provider_bought_at", "statement_lines", ["provider", "bought_at"], unique=False)
    op.create_table(
        "balance_readings",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("read_at", _MOMENT, nullable=False),
        sa.Column("amount", sa.Numeric(18, 6), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.PrimaryKeyConstraint("provider", name="pk_balance_readings"),
    )
    op.create_table(
        "reconciliation_marks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("until", _MOMENT, nullable=False),
        sa.Column("position", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_reconciliation_marks"),
    )
