"""Rounds of attempts and waits for a slot on units; a provider's webhook wakes whoever works units."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Units a person looks at are read again too while their purchase is open, so they belong to the index of open units.
_OPEN_BEFORE = "status in ('pending', 'unknown')"
_OPEN_NOW = "status in ('pending', 'unknown', 'attention')"


def upgrade() -> None:
    """Apply."""
    op.add_column("esims", sa.Column("round_from", sa.SmallInteger(), server_default="0", nullable=False))
    op.add_column("esims", sa.Column("slot_wait_since", sa.DateTime(timezone=True), nullable=True))
    op.drop_index("ix_esims_open", table_name="esims", postgresql_where=sa.text(_OPEN_BEFORE))
    op.create_index("ix_esims_open", "esims", ["next_attempt_at"], unique=False, postgresql_where=sa.text(_OPEN_NOW))
    op.create_index(
        "ix_refunds_due",
        "refunds",
        ["next_attempt_at"],
        unique=False,
        postgresql_where=sa.text("state in ('requested', 'sent')"),
    )
    op.execute(
        "create trigger received after insert on inbox_events for each row "
        "when (new.work is not null) execute function numnaroad_notify('paid_units')"
    )
    op.execute(
        "create trigger requested after insert on refunds for each row execute function numnaroad_notify('refunds')"
    )
