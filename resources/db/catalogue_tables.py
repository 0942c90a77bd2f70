"""The catalogue's tables: published packages, offers, rules and rates; providers and what is shared about them."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from resources.db.columns import JSON_OR_NULL, at, changed, metadata

catalogue_versions = Table(
    "catalogue_versions",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=True),
    at("published_at", now=True),
    Column("packages", Integer, nullable=False),
    Column("offers", Integer, nullable=False),
    Column("changed", Integer, nullable=False),
    Column("rates_on", Date),
    Column("run_id", Text),
)

packages = Table(
    "packages",
    metadata,
    Column("package_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("destination_code", Text, nullable=False),
    Column("destination_name", Text, nullable=False),
    Column("destination_type", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("coverage", ARRAY(String(2)), nullable=False),
    Column("allowance", Text, nullable=False),
    Column("data_mb", Integer),
    Column("daily_mb", Integer),
    Column("throttle_kbps", Integer),
    Column("validity_days", Integer, nullable=False),
    Column("voice_minutes", Integer, nullable=False, server_default="0"),
    Column("sms", Integer, nullable=False, server_default="0"),
    Column("networks", ARRAY(Text), nullable=False),
    Column("supports_top_up", Boolean),
    Column("price_minor_usd", BigInteger, nullable=False),
    Column("prices", JSON_OR_NULL, nullable=False),  # {"USD": 499, "EUR": 479}: minor units per sold currency
    Column("floor_micros", BigInteger, nullable=False),
    Column("rule_id", BigInteger),
    Column("best_offer_id", Text, nullable=False),
    Column("best_landed_micros", BigInteger, nullable=False),
    Column("offer_count", Integer, nullable=False),
    Column("on_sale", Boolean, nullable=False),
    Column("version", BigInteger, nullable=False),
    at("updated_at", now=True),
    changed(),
    Index(None, "destination_code", postgresql_where=text("on_sale")),
    Index(None, "changed_xid"),
)

offers = Table(
    "offers",
    metadata,
    Column("offer_id", Text, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("provider_package_id", Text, nullable=False),
    Column("package_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("coverage_key", Text, nullable=False),
    Column("allowance", Text, nullable=False),
    Column("data_mb", Integer),
    Column("validity_days", Integer, nullable=False),
    Column("cost_amount", Numeric(18, 6), nullable=False),
    Column("cost_currency", String(3), nullable=False),
    Column("landed_micros", BigInteger, nullable=False),
    Column("min_retail_micros", BigInteger),
    Column("stock", Integer),
    Column("order_hints", JSON_OR_NULL, nullable=False, server_default="{}"),
    Column("is_best_price", Boolean, nullable=False, server_default="false"),
    Column("is_enabled", Boolean, nullable=False, server_default="false"),
    Column("auto_mode", Boolean, nullable=False, server_default="true"),
    Column("on_offer", Boolean, nullable=False, server_default="true"),  # in the provider's last good catalogue
    Column("excluded_reason", Text),
    at("seen_at", now=True),
    at("updated_at", now=True),
    changed(),
    UniqueConstraint("provider", "provider_package_id"),
    Index(None, "package_id"),
    Index(None, "coverage_key", "kind"),
    Index(None, "changed_xid"),
)

pricing_rules = Table(
    "pricing_rules",
    metadata,
    Column("rule_id", BigInteger, primary_key=True, autoincrement=True),
    Column("scope", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("markup_bp", Integer, nullable=False, server_default="0"),
    Column("markup_micros", BigInteger, nullable=False, server_default="0"),
    Column("min_margin_micros", BigInteger, nullable=False, server_default="0"),
    Column("payment_fee_bp", Integer, nullable=False, server_default="0"),
    Column("payment_fee_micros", BigInteger, nullable=False, server_default="0"),
    Column("ending", Text, nullable=False, server_default="99"),
    Column("note", Text, nullable=False, server_default=""),
    Column("created_by", Text, nullable=False, server_default="migration"),
    at("valid_from", now=True),
    at("valid_to", null=True),  # rules are never changed: a change ends one and adds the next
)

reference_rates = Table(
    "reference_rates",
    metadata,
    Column("currency", String(3), primary_key=True),
    Column("quoted_on", Date, primary_key=True),
    Column("usd_micros", BigInteger, nullable=False),  # micro-USD per one unit of currency
    at("fetched_at", now=True),
)

providers = Table(
    "providers",
    metadata,
    Column("slug", Text, primary_key=True),
    Column("enabled", Boolean, nullable=False, server_default="true"),
    Column("priority", Integer, nullable=False),
    Column("order_fee_micros", BigInteger, nullable=False, server_default="0"),
    Column("failures", Integer, nullable=False, server_default="0"),  # in a row, for the circuit breaker
    at("open_until", null=True),
    at("probe_at", null=True),
    Column("last_error", Text),
    at("last_error_at", null=True),
    at("last_success_at", null=True),
    Column("balance_amount", Numeric(18, 6)),
    Column("balance_currency", String(3)),
    at("balance_at", null=True),
    at("unfunded_at", null=True),  # a purchase was refused for want of balance, and no reading says otherwise yet
    Column("unfunded_micros", BigInteger),  # what that purchase was expected to cost
    Column("held_reason", Text),  # why the last good catalogue stays on sale
    at("held_at", null=True),
    at("synced_at", null=True),
)

rate_limits = Table(
    "rate_limits",
    metadata,
    Column("key", Text, primary_key=True),
    at("theoretical_arrival_at"),  # GCRA
)

provider_tokens = Table(
    "provider_tokens",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("token_enc", LargeBinary, nullable=False),
    Column("token_hash", LargeBinary, nullable=False),
    at("expires_at"),
)
