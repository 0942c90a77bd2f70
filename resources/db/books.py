"""Proof that our own books agree with themselves: every posting, every order's money, every unit's history.

A look takes either all orders or those that changed since the last one (by `changed_xid`, so that a transaction that
commits late is not missed), and always those that have an open finding. Each rule is one set-based statement over the
orders looked at; what it returns is a disagreement. See `resources.db.book_rules` for the rules.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

from esim.money import EXPONENTS
from resources.db.book_rules import RULES
from resources.db.findings import Finding

SIDE = "books"
MARK = "books"
MOST_PER_RULE = 500  # a fault of the whole shop needs no million findings

_WANTED = """
create temporary table checked_orders on commit drop as
"""
_ALL = "select order_id from orders union select order_id from ledger_entries"
_CHANGED = """
select order_id from orders where changed_xid >= cast(:since as xid8)
union select order_id from esims where changed_xid >= cast(:since as xid8)
union select order_id from ledger_entries where changed_xid >= cast(:since as xid8)
union select order_id from refunds where changed_xid >= cast(:since as xid8)
union select order_id from purchase_attempts where changed_xid >= cast(:since as xid8)
union select order_id from reconciliation_findings where resolved_at is null and side = 'books' and order_id is not null
"""
_TOTAL = "select account, sum(amount_micros)::bigint as micros, count(*) from ledger_entries group by 1 order by 1"


@dataclass(frozen=True, slots=True)
class BooksLook:
    """What one look at the books found, how many orders it looked at, and from where the next one goes on."""

    findings: tuple[Finding, ...]
    orders: int
    position: str


def check_books(conn: Connection, since: str = "") -> BooksLook:
    """Look at the orders that changed since a position (all of them without one), in a transaction of its own.

    The transaction must see one state of the store: `repeatable read`.
    """
    position = str(conn.scalar(text("select pg_snapshot_xmin(pg_current_snapshot())::text")))
    conn.execute(text(_WANTED + (_CHANGED if since else _ALL)), {"since": since} if since else {})
    conn.execute(text("analyze checked_orders"))
    count = int(conn.scalar(text("select count(*) from checked_orders")) or 0)
    values = {"exponents": json.dumps(EXPONENTS), "limit": MOST_PER_RULE}
    found = [Finding(**finding) for rule in RULES for finding in rule.broken(conn, values)]
    return BooksLook((*found, *_unbalanced(conn)), count, position)


def account_totals(conn: Connection, order_id: object = None) -> list[tuple[str, int, int]]:
    """Return each account's total in micro-USD and its number of entries, of one order or of all."""
    if order_id is None:
        rows = conn.execute(text(_TOTAL))
    else:
        rows = conn.execute(
            text(_TOTAL.replace("group by", "where order_id = :order_id group by")), {"order_id": order_id}
        )
    return [(str(account), int(micros), int(count)) for account, micros, count in rows]


def check_order(conn: Connection, order_id: object) -> tuple[Finding, ...]:
    """Apply every rule to one order."""
    conn.execute(text(_WANTED + "select cast(:order_id as uuid) as order_id"), {"order_id": order_id})
    values = {"exponents": json.dumps(EXPONENTS), "limit": MOST_PER_RULE}
    return tuple(Finding(**finding) for rule in RULES for finding in rule.broken(conn, values))


def _unbalanced(conn: Connection) -> list[Finding]:
    off = sum(micros for _, micros, _ in account_totals(conn))
    if not off:
        return []
    details: Mapping[str, object] = {"micros_usd": off}
    return [
        Finding("ledger_unbalanced", "all accounts", f"The ledger as a whole is off by {off} micro-USD.", None, details)
    ]
