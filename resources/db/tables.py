"""Every table of the operational store, gathered: whoever imports from here has the whole metadata.

Money columns end in `_minor` (with a `currency` beside them) or `_micros` (10^-6 USD); times are UTC timestamps.
`changed_xid` (set by a trigger to the writing transaction's id) lets the lake load changed rows without missing
transactions that commit late. Columns named `*_enc` hold AES-GCM ciphertext, `*_hash` a keyed look-up hash.
"""

from resources.db.catalogue_tables import (
    catalogue_versions,
    offers,
    packages,
    pricing_rules,
    provider_tokens,
    providers,
    rate_limits,
    reference_rates,
)
from resources.db.columns import metadata
from resources.db.health_tables import alerts, heartbeats, offer_outages, provider_events, provider_health
from resources.db.money_tables import dispute_movements, disputes, ledger_entries, refunds
from resources.db.order_tables import (
    OPEN_STATES,
    esims,
    order_events,
    order_items,
    orders,
    purchase_attempts,
    stock_esims,
)
from resources.db.reconciliation_tables import (
    balance_readings,
    reconciliation_findings,
    reconciliation_marks,
    statement_lines,
)
from resources.db.work_tables import audit_events, drains, idempotency_keys, inbox_events, outbox

__all__ = [
    "OPEN_STATES",
    "alerts",
    "audit_events",
    "balance_readings",
    "catalogue_versions",
    "dispute_movements",
    "disputes",
    "drains",
    "esims",
    "heartbeats",
    "idempotency_keys",
    "inbox_events",
    "ledger_entries",
    "metadata",
    "offer_outages",
    "offers",
    "order_events",
    "order_items",
    "orders",
    "outbox",
    "packages",
    "pricing_rules",
    "provider_events",
    "provider_health",
    "provider_tokens",
    "providers",
    "purchase_attempts",
    "rate_limits",
    "reconciliation_findings",
    "reconciliation_marks",
    "reference_rates",
    "refunds",
    "statement_lines",
    "stock_esims",
]
