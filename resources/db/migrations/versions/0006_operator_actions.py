"""What operators did, for good; and refunds that say who asked, and whether the unit stays as it is."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_APPEND_ONLY = """
create function numnaroad_append_only() returns trigger language plpgsql as $$
begin
    raise exception 'rows of % are written once and stay', tg_table_name;
end $$
"""


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "audit_events",
        sa.Column("audit_id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("order_id", sa.UUID(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("audit_id", name=op.f("pk_audit_events")),
    )
    op.create_index(op.f("ix_audit_events_at"), "audit_events", ["at"], unique=False)
    op.create_index(op.f("ix_audit_events_order_id"), "audit_events", ["order_id"], unique=False)
    op.execute(_APPEND_ONLY)
    op.execute(
        "create trigger written_once before update or delete on audit_events "
        "for each row execute function numnaroad_append_only()"
    )
    op.add_column("refunds", sa.Column("asked_by", sa.Text(), nullable=True))
    op.add_column("refunds", sa.Column("as_it_stands", sa.Boolean(), server_default="false", nullable=False))
