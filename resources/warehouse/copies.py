"""Which columns of the operational store reach the lake: an allow-list per table, with the type they have there.

What is not named here stays in Postgres: e-mail, phone, ICCIDs, activation data, tokens, addresses of pages, payloads
and free texts of other systems. Ids are text, times are UTC without a zone, money is BIGINT or DECIMAL.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CopiedColumn:
    """A column of the lake: its DuckDB type, its meaning, and the Postgres expression it comes from."""

    name: str
    type: str
    description: str
    expression: str


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """A table of the operational store as it is copied to `raw`; `key` identifies a row."""

    name: str
    key: str
    description: str
    columns: tuple[CopiedColumn, ...]


def _text(name: str, description: str) -> CopiedColumn:
    return CopiedColumn(name, "VARCHAR", description, f"{name}::text")


def _whole(name: str, description: str) -> CopiedColumn:
    return CopiedColumn(name, "BIGINT", description, name)


def _flag(name: str, description: str) -> CopiedColumn:
    return CopiedColumn(name, "BOOLEAN", description, f"{name}::text")


def _exact(name: str, description: str) -> CopiedColumn:
    return CopiedColumn(name, "DECIMAL(18,6)", description, name)


def _time(name: str, description: str) -> CopiedColumn:
    return CopiedColumn(name, "TIMESTAMP", f"{description} (UTC)", f"{name} at time zone 'UTC'")


def _list(name: str, description: str) -> CopiedColumn:
    return CopiedColumn(name, "VARCHAR", f"{description}, comma separated", f"array_to_string({name}, ',')")


COPIES: tuple[CopiedTable, ...] = (
    CopiedTable(
        "orders",
        "order_id",
        "One row per order, without anything personal.",
        (
            _text("order_id", "the order"),
            _text("display_id", "the order's id as people read it"),
            _text("status", "pending, paid, processing, completed, failed, refunded, cancelled or attention"),
            _text("payment_status", "unpaid, paid, failed, refunded or partially_refunded"),
            _whole("amount_minor", "what the customer pays, in minor units of currency"),
            _text("currency", "currency the customer pays in (ISO 4217)"),
            _whole("refunded_minor", "what was paid back, in minor units of currency"),
            _whole("catalogue_version", "version of the catalogue it was sold from"),
            _text("customer_country", "country of the customer (ISO 3166-1 alpha-2)"),
            _text("channel", "where it was sold"),
            _time("created_at", "checkout opened"),
            _time("paid_at", "payment received"),
            _time("deadline_at", "delivered or refunded by then"),
            _time("completed_at", "delivered"),
        ),
    ),
    CopiedTable(
        "order_items",
        "item_id",
        "One row per order line: a package and a quantity.",
        (
            _text("item_id", "the order line"),
            _text("order_id", "its order"),
            _whole("line", "1, 2, … within the order"),
            _text("package_id", "the package sold"),
            _whole("quantity", "units sold"),
            _whole("unit_price_minor", "price of one unit, in minor units of currency"),
            _text("currency", "currency of the price (ISO 4217)"),
            _whole("unit_price_micros_usd", "price of one unit in micro-USD at the rate it was sold at"),
            _whole("expected_landed_micros", "landed cost of one unit expected when it was sold, in micro-USD"),
            _time("created_at", "checkout opened"),
        ),
    ),
    CopiedTable(
        "esims",
        "esim_id",
        "One row per unit bought, without what identifies the eSIM to a network.",
        (
            _text("esim_id", "the unit"),
            _text("order_id", "its order"),
            _text("item_id", "its order line"),
            _whole("n", "1, 2, … within the order"),
            _text("status", "unpaid, queued, working, pending, unknown, delivered, failed, refunded, …"),
            _whole("failures", "rounds over all offers that ended retryable"),
            _text("provider", "provider that delivered it"),
            _text("offer_id", "offer it was bought from"),
            _exact("cost_amount", "wholesale cost in cost_currency"),
            _text("cost_currency", "currency of cost_amount (ISO 4217)"),
            _whole("cost_micros", "wholesale cost in micro-USD at the day's rate"),
            _text("last_error_type", "kind of the last failure"),
            _time("created_at", "checkout opened"),
            _time("delivered_at", "handed to the customer"),
            _time("refunded_at", "money paid back"),
        ),
    ),
    CopiedTable(
        "purchase_attempts",
        "attempt_id",
        "One row per attempt to buy a unit from a provider.",
        (
            _whole("attempt_id", "the attempt"),
            _text("esim_id", "the unit it was for"),
            _text("order_id", "its order"),
            _whole("number", "1, 2, … for the unit"),
            _whole("failover_step", "0 for the first offer tried, then 1, 2, …"),
            _text("provider", "provider asked"),
            _text("offer_id", "offer asked for"),
            _exact("expected_cost", "cost the catalogue told, in currency"),
            _exact("cost", "cost the provider charged, in currency"),
            _text("currency", "currency of the costs (ISO 4217)"),
            _whole("cost_micros", "cost charged in micro-USD at the day's rate"),
            _text("state", "intent, prepared, pending, provisioned, rejected, unknown or stocked"),
            _text("error_type", "kind of the failure"),
            _text("run_id", "Dagster run that made it"),
            _time("started_at", "intent written"),
            _time("sent_at", "request sent"),
            _time("finished_at", "outcome known"),
            _whole("latency_ms", "milliseconds the provider took"),
        ),
    ),
    CopiedTable(
        "packages",
        "package_id",
        "One row per package, on sale or not any more.",
        (
            _text("package_id", "the package"),
            _text("name", "its name"),
            _text("destination_code", "country code, region slug or global"),
            _text("destination_name", "name of the destination"),
            _text("destination_type", "country, region or global"),
            _text("kind", "plan or top_up"),
            _list("coverage", "countries covered (ISO 3166-1 alpha-2)"),
            _text("allowance", "total, daily or unlimited"),
            _whole("data_mb", "nominal megabytes; per day for daily plans; null for unlimited"),
            _whole("validity_days", "days it is valid"),
            _whole("voice_minutes", "minutes of calls"),
            _whole("sms", "text messages"),
            _whole("price_minor_usd", "retail price in US cents"),
            _whole("floor_micros", "lowest price allowed, in micro-USD"),
            _text("best_offer_id", "offer with the lowest landed cost"),
            _whole("best_landed_micros", "its landed cost in micro-USD"),
            _whole("offer_count", "offers of the package"),
            _flag("on_sale", "customers can buy it"),
            _whole("version", "catalogue version that changed it last"),
            _time("updated_at", "changed last"),
        ),
    ),
    CopiedTable(
        "offers",
        "offer_id",
        "One row per provider's plan as the last good catalogue told it.",
        (
            _text("offer_id", "the offer, <provider>:<provider_package_id>"),
            _text("provider", "who sells it to us"),
            _text("provider_package_id", "the provider's id"),
            _text("package_id", "package it is an offer for"),
            _text("name", "the provider's name for it"),
            _text("kind", "plan or top_up"),
            _text("allowance", "total, daily or unlimited"),
            _whole("data_mb", "nominal megabytes; per day for daily plans; null for unlimited"),
            _whole("validity_days", "days it is valid"),
            _exact("cost_amount", "wholesale cost in cost_currency"),
            _text("cost_currency", "currency of cost_amount (ISO 4217)"),
            _whole("landed_micros", "landed cost in micro-USD: wholesale, rate and per-order fee"),
            _whole("min_retail_micros", "lowest retail price the provider allows, in micro-USD"),
            _whole("stock", "units in stock where the provider tells it"),
            _flag("is_best_price", "lowest landed cost of its package"),
            _flag("is_enabled", "may be bought"),
            _flag("auto_mode", "the sync decides is_enabled"),
            _flag("on_offer", "in the provider's last good catalogue"),
            _text("excluded_reason", "why it is not bought"),
            _time("seen_at", "in a catalogue last"),
            _time("updated_at", "changed last"),
        ),
    ),
    CopiedTable(
        "ledger_entries",
        "entry_id",
        "One row per side of a posting in the double-entry ledger.",
        (
            _whole("entry_id", "the entry"),
            _text("posting_key", "the posting; its entries sum to zero"),
            _text("order_id", "order it belongs to"),
            _whole("esim_n", "unit of the order it belongs to; null for the whole order"),
            _text("account", "account booked"),
            _whole("amount_micros", "micro-USD at the day's rate; debit positive, credit negative"),
            _exact("original_amount", "amount in original_currency"),
            _text("original_currency", "currency the money moved in (ISO 4217)"),
            CopiedColumn("booked_at", "TIMESTAMP", "booked (UTC)", "at at time zone 'UTC'"),
        ),
    ),
    CopiedTable(
        "refunds",
        "refund_key",
        "One row per refund asked of the payment service.",
        (
            _text("refund_key", "the refund"),
            _text("order_id", "its order"),
            _whole("esim_n", "unit it pays back; null for the whole order"),
            _whole("amount_minor", "amount in minor units of currency"),
            _text("currency", "currency (ISO 4217)"),
            _text("reason", "why"),
            _text("state", "requested, sent, succeeded, failed, called_off or elsewhere"),
            _time("created_at", "asked for"),
            _time("finished_at", "settled"),
        ),
    ),
)
