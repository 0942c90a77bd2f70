"""Proof that ledger and payment service agree on disputes: each movement there beside its postings, both ways."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, text

from esim.disputes import DisputeMovement
from esim.money import exponent
from resources.db.book_rules import Rule
from resources.db.findings import Finding

_MOST = 500
_TABLE = text(
    """
    create temporary table stripe_disputed (
        transaction_id text not null, dispute_id text not null, payment_intent text not null, amount numeric not null,
        fee numeric not null, currency text not null, made_at timestamptz not null
    ) on commit drop
    """
)
_ROW = text(
    "insert into stripe_disputed"
    " values (:transaction_id, :dispute_id, :payment_intent, :amount, :fee, :currency, :made_at)"
)
# A payment settled in another currency than it was made in is booked in its own: only that it is booked is compared.
_UNBOOKED = Rule(
    "dispute_unbooked",
    "Dispute {dispute_id} moved {amount} {currency} less a fee of {fee} at Stripe ({subject}); the ledger has {booked} "
    "less {booked_fee} for it.",
    """
    select s.transaction_id as subject, s.dispute_id, s.amount, s.currency, s.fee, o.order_id,
        coalesce(l.original_amount, 0) as booked, coalesce(-f.original_amount, 0) as booked_fee
    from stripe_disputed s
        left join ledger_entries l on l.posting_key = 'dispute\\:' || s.transaction_id and l.account = 'cash'
        left join ledger_entries f on f.posting_key = 'dispute_fee\\:' || s.transaction_id and f.account = 'cash'
        left join orders o on o.payment_intent = s.payment_intent
    where s.made_at < :until and (
        l.entry_id is null or (l.original_currency = s.currency and l.original_amount <> s.amount)
        or coalesce(-f.original_amount, 0) <> s.fee
    )
    """,
)
_NOT_THERE = Rule(
    "dispute_not_at_stripe",
    "Movement {subject} of dispute {dispute_id} is in our books, and Stripe does not list it.",
    """
    select m.transaction_id as subject, d.order_id, m.dispute_id
    from dispute_movements m join disputes d using (dispute_id)
    where m.made_at >= :since and m.made_at < :until and m.booked_at is not null
        and not exists (select from stripe_disputed s where s.transaction_id = m.transaction_id)
    """,
)


def compare_disputes(
    conn: Connection, movements: Iterable[DisputeMovement], since: datetime, until: datetime
) -> list[Finding]:
    """Return what disagrees between this list and the ledger in a time window; the list must reach back to `since`."""
    conn.execute(_TABLE)
    for moved in movements:
        conn.execute(_ROW, _row(moved))
    values = {"since": since, "until": until, "limit": _MOST}
    return [Finding(**finding) for rule in (_UNBOOKED, _NOT_THERE) for finding in rule.broken(conn, values)]


def _row(moved: DisputeMovement) -> dict[str, object]:
    scale = -exponent(moved.amount.currency)
    return {
        "transaction_id": moved.transaction_id,
        "dispute_id": moved.dispute_id,
        "payment_intent": moved.payment_intent,
        "amount": Decimal(moved.amount.minor).scaleb(scale),
        "fee": Decimal(moved.fee.minor).scaleb(scale),
        "currency": moved.amount.currency,
        "made_at": moved.made_at,
    }
