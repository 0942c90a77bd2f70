"""Open purchases of units that have an end already say themselves when they are looked up next."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("purchase_attempts", sa.Column("look_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_purchase_attempts_look_at",
        "purchase_attempts",
        ["look_at"],
        unique=False,
        postgresql_where=sa.text("look_at is not null"),
    )
