"""Refunds that were booked and did not reach the customer: the money is with us again, and a person must see to it."""

from typing import Any

from sqlalchemy import Connection, Row, select, update

from esim.money import Money
from esim.ports import Refund
from resources.db import ledger, notices
from resources.db.tables import ledger_entries, refunds
from resources.db.tellers import Teller, note_told
from resources.db.transitions import OrderRow

FAILED = frozenset({"failed", "canceled"})  # what the payment service calls them


def why_failed(told: Refund) -> str:
    """Return what is written down as the reason."""
    return f"the payment service reports it as {told.status}"


def take_back(conn: Connection, row: Row[Any], **values: object) -> None:
    """Mark a refund as failed, with other `values`, and post the reverse of what was booked for it."""
    r, entries, amount = refunds.c, ledger_entries.c, Money(int(row.amount_minor), row.currency)
    conn.execute(update(refunds).where(r.refund_key == row.refund_key).values(state="failed", **values))
    booked = select(entries.amount_micros).where(
        entries.posting_key == row.refund_key, entries.account == ledger.Account.REFUNDS
    )
    micros = int(conn.scalar(booked) or 0)
    if micros:  # a refund of a payment that was never booked is not booked either
        ledger.post(conn, f"{row.refund_key}:failed", row.order_id, ledger.refund(-amount, -micros), row.esim_n)


def tell_in_vain(conn: Connection, order: OrderRow, refund: str, told: Refund, teller: Teller) -> None:
    """Tell operations that a customer has not got a refund; hold its locked order where anything is left to do."""
    reason = f"{refund} did not reach the customer"
    if not notices.hold_and_tell(conn, order, reason=reason, actor=teller.actor, now=teller.now):
        note_told(conn, order, reason, {"refund": told.refund_id}, teller)
    text = f"Order {order.display_id} needs a person: {reason}. Pay it another way."
    notices.tell_operations(conn, order.order_id, "attention", f"refund_failed:{told.refund_id}", text)
