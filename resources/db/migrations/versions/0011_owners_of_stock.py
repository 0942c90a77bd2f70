"""Every delivery asks whether its order or its eSIM is in stock."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_index("ix_stock_esims_provider_provider_order_id", "stock_esims", ["provider", "provider_order_id"])
    op.create_index("ix_stock_esims_iccid_hash", "stock_esims", ["iccid_hash"])
