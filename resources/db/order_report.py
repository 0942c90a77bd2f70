"""Everything operations may see of one order, with nothing personal in it: ids, states, costs, events, bookings.

With it goes what the order waits for, and the commands that mend it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Table, select

from esim.errors import NotFound
from resources.db import ledger, tables

Row = Mapping[str, Any]

_ORDER = ("order_id", "display_id", "status", "payment_status", "amount_minor", "refunded_minor", "currency")
_ORDER_TIMES = ("created_at", "paid_at", "deadline_at", "completed_at", "attention_reason", "hold_reason")
_UNIT = ("n", "status", "provider", "offer_id", "provider_order_id", "cost_amount", "cost_currency", "failures")
_UNIT_MORE = ("fence", "next_attempt_at", "delivered_at", "last_error_type", "last_error")
_ATTEMPT = ("number", "provider", "provider_package_id", "state", "error_type", "error", "latency_ms", "reference")
_ATTEMPT_MORE = ("cost", "currency", "started_at", "finished_at", "run_id", "failover_step")


@dataclass(frozen=True, slots=True)
class OrderReport:
    """One order with its items, units, purchase attempts, events, ledger entries, notices and refunds."""

    order: Row
    items: Sequence[Row]
    units: Sequence[Row]
    attempts: Sequence[Row]
    events: Sequence[Row]
    ledger: Sequence[Row]
    notices: Sequence[Row]
    refunds: Sequence[Row]
    balance: Mapping[str, int]  # micro-USD per account; together zero


def find_order_id(connection: Connection, reference: str) -> UUID:
    """Return the order meant by an order id or a display id such as `OID001`.

    Raises:
        NotFound: there is none.
    """
    orders = tables.orders
    try:
        condition = orders.c.order_id == UUID(reference)
    except ValueError:
        condition = orders.c.display_id == reference.upper()
    found: UUID | None = connection.execute(select(orders.c.order_id).where(condition)).scalar_one_or_none()
    if found is None:
        raise NotFound(f"no order {reference!r}; give an order id or a display id such as OID001")
    return found


def order_report(connection: Connection, order_id: UUID) -> OrderReport:
    """Return everything about an order that holds no personal data.

    Raises:
        NotFound: there is no such order.
    """
    order = _rows(connection, tables.orders, (*_ORDER, *_ORDER_TIMES), order_id)
    if not order:
        raise NotFound(f"no order {order_id}")
    events = ("at", "esim_n", "from_status", "to_status", "reason", "actor", "run_id")
    entries = ("posting_key", "account", "amount_micros", "original_amount", "original_currency", "esim_n", "at")
    notices = ("key", "channel", "kind", "attempts", "sent_at", "last_error")
    refunds = ("refund_key", "esim_n", "amount_minor", "currency", "reason", "state", "asked_by", "attempts")
    more = ("created_at", "finished_at", "stripe_refund_id", "last_error")
    items = ("line", "package_id", "quantity", "unit_price_minor", "currency", "expected_landed_micros")
    return OrderReport(
        order=order[0],
        items=_rows(connection, tables.order_items, items, order_id, "line"),
        units=_rows(connection, tables.esims, (*_UNIT, *_UNIT_MORE), order_id, "n"),
        attempts=_attempts(connection, order_id),
        events=_rows(connection, tables.order_events, events, order_id, "event_id"),
        ledger=_rows(connection, tables.ledger_entries, entries, order_id, "entry_id"),
        notices=_rows(connection, tables.outbox, notices, order_id, "outbox_id"),
        refunds=_rows(connection, tables.refunds, (*refunds, *more), order_id, "created_at"),
        balance=ledger.balance(connection, order_id),
    )


def _attempts(connection: Connection, order_id: UUID) -> list[Row]:
    """Return an order's purchases, each with the number of its eSIM: attempts are counted for every eSIM anew."""
    a, e = tables.purchase_attempts, tables.esims
    columns = (e.c.n, *(a.c[name] for name in (*_ATTEMPT, *_ATTEMPT_MORE)))
    query = select(*columns).join_from(a, e, a.c.esim_id == e.c.esim_id).where(a.c.order_id == order_id)
    return [dict(row) for row in connection.execute(query.order_by(a.c.attempt_id)).mappings()]


def _rows(
    connection: Connection, table: Table, names: Sequence[str], order_id: UUID, sort: str | None = None
) -> list[Row]:
    query = select(*(table.c[name] for name in names)).where(table.c.order_id == order_id)
    if sort:
        query = query.order_by(table.c[sort])
    return [dict(row) for row in connection.execute(query).mappings()]
