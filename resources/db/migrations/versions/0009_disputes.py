"""Payments that banks took back, and what each dispute moved at the payment service."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def _at(name: str, *, null: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=null)


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "disputes",
        sa.Column("dispute_id", sa.Text(), nullable=False),
        sa.Column("payment_intent", sa.Text(), nullable=False),
        sa.Column("order_id", postgresql.UUID(as_uuid=True)),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        _at("answer_by", null=True),
        _at("told_at"),
        _at("seen_at", null=True),
        sa.PrimaryKeyConstraint("dispute_id", name="pk_disputes"),
        sa.ForeignKeyConstraint(["order_id"], ["orders.order_id"], name="fk_disputes_order_id_orders"),
    )
    op.create_index("ix_disputes_order_id", "disputes", ["order_id"], unique=False)
    op.create_index("ix_disputes_payment_intent", "disputes", ["payment_intent"], unique=False)
    op.create_table(
        "dispute_movements",
        sa.Column("transaction_id", sa.Text(), nullable=False),
        sa.Column("dispute_id", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("fee_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        _at("made_at"),
        _at("booked_at", null=True),
        sa.PrimaryKeyConstraint("transaction_id", name="pk_dispute_movements"),
        sa.ForeignKeyConstraint(
            ["dispute_id"], ["disputes.dispute_id"], name="fk_dispute_movements_dispute_id_disputes"
        ),
    )
    op.create_index("ix_dispute_movements_dispute_id", "dispute_movements", ["dispute_id"], unique=False)
