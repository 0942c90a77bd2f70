"""The daily proof: our books agree with themselves, and with what the payment service took and paid back."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from resources.db import books, payment_statement
from resources.db.dispute_statement import compare_disputes
from resources.db.findings import Settled, open_findings, settle_findings
from resources.db.marks import looked_position, looked_until, note_looked
from resources.db.payment_statement import Day, compare_payments
from resources.order_operations import OrderTools

PAYMENTS_MARK = "ledger against stripe"
LOOKED_FROM = "looked_from"
FIRST_LOOK = timedelta(days=30)
OVERLAP = timedelta(days=2)  # findings of the last days are looked at again before they count as gone
GRACE = timedelta(minutes=10)
CLOCKS = timedelta(hours=1)  # the lists reach back so much further than the window


@dataclass(frozen=True, slots=True)
class BooksReport:
    """What the proof looked at and what it found."""

    orders: int
    totals: tuple[tuple[str, int, int], ...]  # account, micro-USD, entries
    days: tuple[Day, ...]
    books: Settled
    payments: Settled


def prove_books(tools: OrderTools, *, since: datetime | None = None, full: bool = False) -> BooksReport:
    """Prove that orders, events and ledger agree, and that the ledger agrees with the payment service.

    Looks at what changed since the last proof; `full` looks at every order, and at a month of Stripe where `since` does
    not say otherwise.

    Raises:
        PaymentError: the payment service broke off; our own books are proven by then, the comparison is not.
    """
    now = tools.clock()
    orders, totals, own = _prove_own(tools, now, full=full)
    days, theirs = _prove_payments(tools, now, since, full=full)
    return BooksReport(orders, totals, days, own, theirs)


def _prove_own(
    tools: OrderTools, now: datetime, *, full: bool
) -> tuple[int, tuple[tuple[str, int, int], ...], Settled]:
    with tools.engine.connect() as reader:
        mark = "" if full else looked_position(reader, books.MARK)
    # One state of the store for all rules: an order that is being written is seen whole or not at all.
    with tools.engine.connect().execution_options(isolation_level="REPEATABLE READ") as reader, reader.begin():
        look = books.check_books(reader, mark)
        totals = tuple(books.account_totals(reader))
    with tools.engine.begin() as conn:
        settled = settle_findings(conn, books.SIDE, look.findings, now)
        note_looked(conn, books.MARK, now, look.position)
    return look.orders, totals, settled


def _prove_payments(
    tools: OrderTools, now: datetime, since: datetime | None, *, full: bool
) -> tuple[tuple[Day, ...], Settled]:
    with tools.engine.connect() as conn:
        until = None if full else looked_until(conn, PAYMENTS_MARK)
        start = since or (until - OVERLAP if until else now - FIRST_LOOK)
        start = min([start, *_looked_from(conn)])
    gateway, end = tools.gateway, now - GRACE
    charges, refunds = gateway.charges_since(start - CLOCKS), gateway.refunds_since(start - CLOCKS)
    movements = gateway.dispute_movements_since(start - CLOCKS)
    with tools.engine.begin() as conn:
        compared, days = compare_payments(conn, charges, refunds, start, end)
        compared += compare_disputes(conn, movements, start, end)
        found = [replace(one, details={**one.details, LOOKED_FROM: start.isoformat()}) for one in compared]
        settled = settle_findings(conn, payment_statement.SIDE, found, now)
        if since is None:  # what lies between the last look and `since` was not looked at
            note_looked(conn, PAYMENTS_MARK, end)
    return tuple(days), settled


def _looked_from(conn: Connection) -> list[datetime]:
    """Return from where open findings were seen: a shorter look would take them for gone."""
    known = open_findings(conn, [payment_statement.SIDE], with_accepted=True)
    return [datetime.fromisoformat(str(one.details[LOOKED_FROM])) for one in known]
