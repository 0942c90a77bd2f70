"""Orders a person holds, slots that stay taken until delivery, late arrivals that are looked up until they answer."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SLOT_TAKEN = "slot is not null and state in ('intent', 'prepared', 'pending', 'unknown')"


def upgrade() -> None:
    """Apply."""
    op.add_column("orders", sa.Column("hold_reason", sa.Text(), nullable=True))
    op.add_column("inbox_events", sa.Column("next_work_at", sa.DateTime(timezone=True), nullable=True))
    # Purchases accepted before this rule may overlap: they keep no slot, and the next ones do.
    op.execute("update purchase_attempts set slot = null where state = 'pending'")
    op.drop_index("uq_purchase_attempts_slot", "purchase_attempts")
    op.create_index(
        "uq_purchase_attempts_slot", "purchase_attempts", ["slot"], unique=True, postgresql_where=sa.text(_SLOT_TAKEN)
    )
    op.create_index("ix_outbox_order_id", "outbox", ["order_id"], unique=False)
    op.create_index("ix_refunds_payment_intent", "refunds", ["payment_intent"], unique=False)
    op.create_index(
        "ix_esims_failed", "esims", ["order_id"], unique=False, postgresql_where=sa.text("status = 'failed'")
    )
    op.create_index(
        "ix_drains_alive", "drains", ["heartbeat_at"], unique=False, postgresql_where=sa.text("ended_at is null")
    )
    op.create_index("ix_drains_run_id", "drains", ["run_id"], unique=False)
