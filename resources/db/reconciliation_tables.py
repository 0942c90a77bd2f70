"""The tables of the daily proof: what others say they sold to us, what disagrees, and how far was looked."""

from sqlalchemy import BigInteger, Column, Index, Integer, Numeric, String, Table, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, UUID

from resources.db.columns import JSON_OR_NULL, at, metadata

reconciliation_findings = Table(
    "reconciliation_findings",
    metadata,
    Column("finding_id", BigInteger, primary_key=True, autoincrement=True),
    Column("side", Text, nullable=False),  # payments, books, providers:<slug>
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),  # what it is about: a payment, a posting, a unit, a provider's order
    Column("order_id", UUID(as_uuid=True)),
    Column("details", JSON_OR_NULL, nullable=False, server_default="{}"),  # ids and figures, nothing personal
    at("first_seen"),
    at("last_seen"),
    at("resolved_at", null=True),
    Column("accepted_by", Text),  # who said that it is known and right as it is
    Column("accepted_reason", Text),
    UniqueConstraint("side", "kind", "subject"),  # told once, however often it is found
    Index("ix_reconciliation_findings_open", "side", postgresql_where=text("resolved_at is null")),
    Index(None, "order_id"),
)

statement_lines = Table(
    "statement_lines",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("provider_order_id", Text, primary_key=True),
    Column("reference", Text, nullable=False, server_default=""),
    Column("package_id", Text, nullable=False, server_default=""),
    Column("package_name", Text, nullable=False, server_default=""),
    Column("quantity", Integer, nullable=False),
    Column("cost", Numeric(18, 6)),  # of all its units; null where the list tells none
    Column("currency", String(3)),
    Column("state", Text, nullable=False),  # see `esim.purchase.SaleState`
    Column("iccid_hashes", ARRAY(BYTEA), nullable=False),
    Column("attempt_id", BigInteger),  # the purchase of ours it is; null while there is none
    at("bought_at"),
    at("read_at"),  # when the provider last listed it
    Index(None, "attempt_id"),
    Index(None, "provider", "bought_at"),
)

balance_readings = Table(
    "balance_readings",
    metadata,
    Column("provider", Text, primary_key=True),
    at("read_at"),
    Column("amount", Numeric(18, 6), nullable=False),
    Column("currency", String(3), nullable=False),
)

reconciliation_marks = Table(
    "reconciliation_marks",
    metadata,
    Column("name", Text, primary_key=True),  # what was looked through: stripe, books, provider:<slug>
    at("until"),
    Column("position", Text, nullable=False, server_default=""),
)
