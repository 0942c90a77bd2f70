"""The tables of what operations watch: providers' health and history, offers that rest, alerts, signs of life."""

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text, text

from resources.db.columns import at, metadata

provider_health = Table(
    "provider_health",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("attempts", Integer, nullable=False, server_default="0"),  # that speak for or against it, in the window
    Column("successes", Integer, nullable=False, server_default="0"),
    Column("p50_ms", Integer),
    Column("p95_ms", Integer),
    at("degraded_since", null=True),  # too few of its purchases succeed: its offers are nobody's best price
    at("computed_at", now=True),
)

provider_events = Table(
    "provider_events",
    metadata,
    Column("event_id", BigInteger, primary_key=True, autoincrement=True),
    at("at", now=True),
    Column("provider", Text, nullable=False),
    Column("event", Text, nullable=False),  # see `resources.db.provider_events.Event`
    Column("reason", Text, nullable=False, server_default=""),
    Column("actor", Text, nullable=False),
    Index(None, "provider", "at"),
)

offer_outages = Table(
    "offer_outages",
    metadata,
    Column("offer_id", Text, primary_key=True),
    at("since"),
    at("until"),
    Column("reason", Text, nullable=False),
)

alerts = Table(
    "alerts",
    metadata,
    Column("alert_id", BigInteger, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),  # what it is about: a provider, an offer, a job; empty for the whole shop
    Column("text", Text, nullable=False),
    at("since"),
    at("told_at", null=True),
    at("ended_at", null=True),
    Index("uq_alerts_open", "kind", "subject", unique=True, postgresql_where=text("ended_at is null")),
)

heartbeats = Table(
    "heartbeats",
    metadata,
    Column("name", Text, primary_key=True),
    at("at"),
)
