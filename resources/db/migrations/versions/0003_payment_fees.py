"""Payment fees become known after the payment: an order remembers when to ask for its fee."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_DUE = """
create function numnaroad_fee_due() returns trigger language plpgsql as $$
begin
    new.fee_due_at := now();
    return new;
end $$
"""


def upgrade() -> None:
    """Apply."""
    op.add_column("orders", sa.Column("fee_due_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_orders_fee_due", "orders", ["fee_due_at"], unique=False, postgresql_where=sa.text("fee_due_at is not null")
    )
    op.execute(_DUE)
    op.execute(
        "create trigger paid before update of payment_intent on orders for each row "
        "when (old.payment_intent is null and new.payment_intent is not null) execute function numnaroad_fee_due()"
    )
