"""What the payment service answered with a fault of its own is asked under another key of the payment service."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("idempotency_keys", sa.Column("attempt", sa.SmallInteger(), server_default="1", nullable=False))
    op.add_column("refunds", sa.Column("faults", sa.SmallInteger(), server_default="0", nullable=False))
