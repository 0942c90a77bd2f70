"""Proof that the ledger and the payment service agree: its charges and refunds beside our postings, in one transaction.

The service's lists are put into temporary tables, then compared as sets, both ways. Whatever is younger than the
look's end is left out on either side: its webhook may be on the way.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, text

from esim.money import exponent
from esim.ports import Charge, ListedRefund
from resources.db.book_rules import Rule
from resources.db.findings import Finding
from resources.db.refunds import paid_back

SIDE = "payments:ledger"
_AT_ONCE = 500
_T = TypeVar("_T")

_TABLES = (
    """
    create temporary table stripe_charges (
        payment_intent text not null, charge_id text not null, amount numeric not null, currency text not null,
        made_at timestamptz not null
    ) on commit drop
    """,
    """
    create temporary table stripe_refunds (
        refund_id text not null, payment_intent text not null, minor bigint not null, amount numeric not null,
        currency text not null, made_at timestamptz not null
    ) on commit drop
    """,
)
_CHARGE = "insert into stripe_charges values (:payment_intent, :charge_id, :amount, :currency, :made_at)"
_REFUND = "insert into stripe_refunds values (:refund_id, :payment_intent, :minor, :amount, :currency, :made_at)"

_UNBOOKED = Rule(
    "payment_unbooked",
    "Payment {subject} of {amount} {currency} is at Stripe, the ledger has {booked} for it.",
    """
    select s.payment_intent as subject, (array_agg(distinct l.order_id))[1] as order_id, s.amount, s.currency,
        coalesce(sum(l.original_amount), 0) as booked
    from stripe_charges s left join ledger_entries l
        on l.posting_key = 'payment:' || s.payment_intent and l.account = 'cash' and l.original_currency = s.currency
    where s.made_at < :until
    group by s.payment_intent, s.charge_id, s.amount, s.currency
    having coalesce(sum(l.original_amount), 0) <> s.amount
    """,
)
_NOT_THERE = Rule(
    "payment_not_at_stripe",
    "Payment {subject} of {amount_minor} {currency} is in our books, and Stripe does not list it.",
    """
    select o.payment_intent as subject, o.order_id, o.amount_minor, o.currency
    from orders o
    where o.payment_intent is not null and o.paid_at >= :since and o.paid_at < :until
        and not exists (select from stripe_charges s where s.payment_intent = o.payment_intent)
    """,
)
# Refunds made by hand have one row for what they add up to, without an id of Stripe's.
_REFUND_UNBOOKED = Rule(
    "refund_not_here",
    "Refunds of payment {subject} of {amount_minor} (minor units) are at Stripe, {booked_minor} of them here.",
    """
    with theirs as (
        select s.payment_intent, sum(s.minor)::bigint as minor from stripe_refunds s
        where s.made_at < :until and not exists (
            select from refunds r where r.stripe_refund_id = s.refund_id and r.amount_minor = s.minor
        )
        group by 1
    )
    select t.payment_intent as subject, (select o.order_id from orders o where o.payment_intent = t.payment_intent)
        as order_id, t.minor as amount_minor, coalesce(b.minor, 0) as booked_minor
    from theirs t left join lateral (
        select sum(r.amount_minor)::bigint as minor from refunds r
        where r.payment_intent = t.payment_intent and r.stripe_refund_id is null and r.state in ('sent', 'succeeded')
    ) b on true
    where t.minor > coalesce(b.minor, 0)
    """,
)
_REFUND_NOT_THERE = Rule(
    "refund_not_at_stripe",
    "Refund {subject} of {amount_minor} {currency} is in our books, and Stripe does not list it.",
    """
    select r.refund_key as subject, r.order_id, r.amount_minor, r.currency
    from refunds r
    where r.state in ('sent', 'succeeded') and r.stripe_refund_id is not null
        and r.finished_at >= :since and r.finished_at < :until
        and not exists (select from stripe_refunds s where s.refund_id = r.stripe_refund_id)
    """,
)
_RULES = (_UNBOOKED, _NOT_THERE, _REFUND_UNBOOKED, _REFUND_NOT_THERE)

_DAYS = text(
    """
    with moved as (
        select (s.made_at at time zone 'UTC')::date as day, s.currency, s.amount as paid, 0::numeric as refunded,
            (select coalesce(sum(l.original_amount), 0) from ledger_entries l
             where l.posting_key = 'payment:' || s.payment_intent and l.account = 'cash'
                 and l.original_currency = s.currency) as booked_paid, 0::numeric as booked_refunded
        from stripe_charges s where s.made_at < :until
        union all
        select (s.made_at at time zone 'UTC')::date, s.currency, 0, s.amount, 0,
            (select coalesce(sum(l.original_amount), 0) from refunds r join ledger_entries l
                on l.posting_key = r.refund_key and l.account = 'refunds'
             where r.stripe_refund_id = s.refund_id)
        from stripe_refunds s where s.made_at < :until
        union all
        select (r.finished_at at time zone 'UTC')::date, r.currency, 0, 0, 0, l.original_amount
        from refunds r join ledger_entries l on l.posting_key = r.refund_key and l.account = 'refunds'
        where r.stripe_refund_id is null and r.state in ('sent', 'succeeded')
            and r.finished_at >= :since and r.finished_at < :until
    )
    select day, currency, sum(paid) as paid, sum(booked_paid) as booked_paid, sum(refunded) as refunded,
        sum(booked_refunded) as booked_refunded
    from moved group by day, currency order by day, currency
    """
)


@dataclass(frozen=True, slots=True)
class Day:
    """One day's money in one currency, in major units: what the service lists and what the ledger has for it."""

    day: Any
    currency: str
    paid: Any
    booked_paid: Any
    refunded: Any
    booked_refunded: Any


def compare_payments(
    conn: Connection,
    charges: Iterable[Charge],
    refunds: Iterable[ListedRefund],
    since: datetime,
    until: datetime,
) -> tuple[list[Finding], list[Day]]:
    """Return what disagrees between these lists and the ledger in a time window, and the totals of each day.

    The lists must reach back to before `since` by as much as clocks may differ.
    """
    for statement in _TABLES:
        conn.execute(text(statement))
    for batch in _batches(charges):
        conn.execute(text(_CHARGE), [_charge_row(charge) for charge in batch])
    for listed in _batches(refund for refund in refunds if paid_back(refund.refund)):
        conn.execute(text(_REFUND), [_refund_row(refund) for refund in listed])
    values = {"since": since, "until": until, "limit": _AT_ONCE}
    found = [Finding(**finding) for rule in _RULES for finding in rule.broken(conn, values)]
    return found, [Day(*row) for row in conn.execute(_DAYS, {"since": since, "until": until})]


def _charge_row(charge: Charge) -> dict[str, object]:
    return {
        "payment_intent": charge.payment_intent,
        "charge_id": charge.charge_id,
        "amount": _major(charge.amount.minor, charge.amount.currency),
        "currency": charge.amount.currency,
        "made_at": charge.created_at,
    }


def _refund_row(listed: ListedRefund) -> dict[str, object]:
    refund = listed.refund
    return {
        "refund_id": refund.refund_id,
        "payment_intent": refund.payment_intent,
        "minor": refund.amount.minor,
        "amount": _major(refund.amount.minor, refund.amount.currency),
        "currency": refund.amount.currency,
        "made_at": listed.created_at,
    }


def _major(minor: int, currency: str) -> Decimal:
    return Decimal(minor).scaleb(-exponent(currency))


def _batches(rows: Iterable[_T]) -> Iterator[Sequence[_T]]:
    left = iter(rows)
    while batch := list(islice(left, _AT_ONCE)):
        yield batch
