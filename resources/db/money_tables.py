"""The tables of money after the sale: the ledger, refunds and disputes."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import UUID

from resources.db.columns import at, changed, metadata

ledger_entries = Table(
    "ledger_entries",
    metadata,
    Column("entry_id", BigInteger, primary_key=True, autoincrement=True),
    Column("posting_key", Text, nullable=False),  # one posting is booked once
    Column("order_id", UUID(as_uuid=True), nullable=False, index=True),
    Column("esim_n", SmallInteger),
    Column("account", Text, nullable=False),  # see `resources.db.ledger.Account`
    Column("amount_micros", BigInteger, nullable=False),  # debit positive, credit negative, in USD at the day's rate
    Column("original_amount", Numeric(18, 6), nullable=False),
    Column("original_currency", String(3), nullable=False),
    at("at", now=True),
    changed(),
    UniqueConstraint("posting_key", "account"),
    Index(None, "changed_xid"),
)

refunds = Table(
    "refunds",
    metadata,
    Column("refund_key", Text, primary_key=True),  # also the payment service's idempotency key
    Column("order_id", ForeignKey("orders.order_id"), nullable=False, index=True),
    Column("esim_n", SmallInteger),
    Column("payment_intent", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("reason", Text, nullable=False),
    # requested, sent, succeeded, failed, called_off, elsewhere (an operator paid it another way)
    Column("state", Text, nullable=False, server_default="requested"),
    Column("asked_by", Text),  # the operator who asked; null when the machine did
    Column("as_it_stands", Boolean, nullable=False, server_default="false"),  # delivered or paid back in vain
    Column("stripe_refund_id", Text, unique=True),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("faults", SmallInteger, nullable=False, server_default="0"),  # answers that the payment service failed
    Column("last_error", Text),
    at("created_at", now=True),
    at("next_attempt_at", now=True),
    at("finished_at", null=True),
    changed(),
    Index(None, "changed_xid"),
    Index(None, "payment_intent"),
    Index("ix_refunds_due", "next_attempt_at", postgresql_where=text("state in ('requested', 'sent')")),
)

disputes = Table(
    "disputes",
    metadata,
    Column("dispute_id", Text, primary_key=True),
    Column("payment_intent", Text, nullable=False, index=True),
    Column("order_id", ForeignKey("orders.order_id"), index=True),  # null while nobody has told us of its payment
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("status", Text, nullable=False),  # see `esim.ports.Dispute`
    at("answer_by", null=True),
    at("told_at"),  # when the payment service said so: older news changes nothing
    at("seen_at", null=True),  # when its order was held for it
)

dispute_movements = Table(
    "dispute_movements",
    metadata,
    Column("transaction_id", Text, primary_key=True),
    Column("dispute_id", ForeignKey("disputes.dispute_id"), nullable=False, index=True),
    Column("amount_minor", BigInteger, nullable=False),  # what it added to our balance: withdrawn is negative
    Column("fee_minor", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    at("made_at"),
    at("booked_at", null=True),
)
