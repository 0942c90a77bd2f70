"""The rules our books must keep, each one statement that returns what breaks it among `checked_orders`.

Columns of a rule: `subject` (unique within the rule), `order_id`, and figures that become the finding's details.
`{name}` in a rule's sentence is one of its columns. Payments and refunds are compared in the currency they were made
in; `:exponents` tells the currencies whose minor unit is not a hundredth.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: the finding's kind, its sentence, and the statement that finds what breaks it."""

    kind: str
    sentence: str
    statement: str

    def broken(self, conn: Connection, values: Mapping[str, object]) -> Iterator[dict[str, Any]]:
        """Yield the fields of a finding for everything that breaks this rule."""
        used = {name: value for name, value in values.items() if f":{name}" in self.statement}
        for row in conn.execute(text(f"{self.statement} limit :limit"), {**used, "limit": values["limit"]}).mappings():
            details = {name: _plain(value) for name, value in row.items() if name not in {"subject", "order_id"}}
            sentence = self.sentence.format(subject=row["subject"], **details)
            yield {
                "kind": self.kind,
                "subject": str(row["subject"]),
                "text": sentence,
                "order_id": row["order_id"],
                "details": details,
            }


def _plain(value: Any) -> Any:
    return str(value.normalize()) if isinstance(value, Decimal) else value


# Minor units of an amount in major ones.
_MINOR = "* power(10::numeric, coalesce((cast(:exponents as jsonb) ->> {currency})::int, 2))"


def _minor(amount: str, currency: str) -> str:
    return f"(({amount}) {_MINOR.format(currency=currency)})::bigint"


_POSTING = Rule(
    "posting_unbalanced",
    "Posting {subject} does not sum to zero ({micros} micro-USD).",
    """
    select posting_key as subject, (array_agg(order_id))[1] as order_id, sum(amount_micros)::bigint as micros
    from ledger_entries join checked_orders using (order_id)
    group by posting_key
    having sum(amount_micros) <> 0 or count(distinct order_id) > 1
        or (count(distinct original_currency) = 1 and sum(original_amount) <> 0)
    """,
)
_STRANGER = Rule(
    "posting_without_order",
    "Posting {subject} is booked for an order that does not exist.",
    """
    select distinct l.posting_key as subject, l.order_id
    from ledger_entries l join checked_orders using (order_id)
    where not exists (select from orders o where o.order_id = l.order_id)
    """,
)
_UNTOLD = Rule(
    "posting_without_event",
    "Posting {subject} is explained by no event of its order.",
    """
    select distinct l.posting_key as subject, l.order_id
    from ledger_entries l join checked_orders using (order_id)
    where not exists (
        select from order_events e where e.order_id = l.order_id and case
            when l.posting_key like 'payment:%' then e.details ->> 'payment_intent' = substr(l.posting_key, 9)
            when l.posting_key like 'cost:%' then e.esim_n = l.esim_n and e.to_status = 'delivered'
            when l.esim_n is not null then e.esim_n = l.esim_n
            else true end
    )
    """,
)
# Another amount than the order's was noted as that when it came, and an operator decided about the order after it.
_ACCEPTED = f"""
    select from order_events e
        join audit_events d on d.order_id = e.order_id and d.action like 'order %' and d.at >= e.at
        join ledger_entries l on l.posting_key = 'payment\\:' || o.payment_intent and l.account = 'cash'
    where e.order_id = o.order_id and e.details ->> 'payment_intent' = o.payment_intent
        and e.details ->> 'currency' = l.original_currency
        and (e.details ->> 'amount_minor')::bigint = {_minor("l.original_amount", "l.original_currency")}
"""
_PAYMENT = Rule(
    "payment_differs",
    "Payment {subject}: the order is for {amount_minor}, the ledger has {booked_minor}.",
    f"""
    select o.payment_intent as subject, o.order_id, o.amount_minor, coalesce(b.minor, 0) as booked_minor
    from orders o join checked_orders using (order_id) left join lateral (
        select {_minor("sum(l.original_amount)", "o.currency")} as minor from ledger_entries l
        where l.posting_key = 'payment:' || o.payment_intent and l.account = 'cash' and l.original_currency = o.currency
    ) b on true
    where o.payment_intent is not null and o.status not in ('attention', 'refunded')
        and coalesce(b.minor, 0) <> o.amount_minor and not exists ({_ACCEPTED})
    """,  # noqa: S608 - constants only
)
_PAYMENT_OF_NONE = Rule(
    "payment_unexplained",
    "{subject} is booked, but is neither its order's payment nor one that is paid back.",
    """
    select distinct l.posting_key as subject, l.order_id
    from ledger_entries l join checked_orders using (order_id) join orders o using (order_id)
    where l.posting_key like 'payment:%' and substr(l.posting_key, 9) is distinct from o.payment_intent
        and not exists (
            select from refunds r where r.order_id = l.order_id and r.payment_intent = substr(l.posting_key, 9)
        )
    """,
)
_REFUND_MISSING = Rule(
    "refund_unbooked",
    "Refund {subject} was paid, and no posting tells of it.",
    """
    select r.refund_key as subject, r.order_id, r.amount_minor
    from refunds r join checked_orders using (order_id)
    where r.state in ('sent', 'succeeded')
        and exists (select from ledger_entries l where l.posting_key = 'payment:' || r.payment_intent)
        and not exists (select from ledger_entries l where l.posting_key = r.refund_key)
    """,
)
_REFUND_OF_NONE = Rule(
    "refund_unexplained",
    "Posting {subject} books a refund that nobody made.",
    """
    select distinct l.posting_key as subject, l.order_id
    from ledger_entries l join checked_orders using (order_id)
    where l.account = 'refunds' and not exists (
        select from refunds r where r.order_id = l.order_id and (
            (r.refund_key = l.posting_key and r.state in ('sent', 'succeeded', 'failed', 'called_off', 'elsewhere'))
            or (r.refund_key || '\\:failed' = l.posting_key and r.state in ('failed', 'called_off', 'elsewhere'))
            or ('elsewhere\\:' || r.refund_key = l.posting_key and r.state = 'elsewhere')
        )
    )
    """,
)
_DISPUTE_OF_NONE = Rule(
    "dispute_unexplained",
    "Posting {subject} books money of a dispute that nobody told of.",
    """
    select distinct l.posting_key as subject, l.order_id
    from ledger_entries l join checked_orders using (order_id)
    where l.posting_key like 'dispute%' and not exists (
        select from disputes d left join dispute_movements m using (dispute_id)
        where d.order_id = l.order_id and l.posting_key in (
            'dispute\\:' || m.transaction_id, 'dispute_fee\\:' || m.transaction_id, 'dispute_lost\\:' || d.dispute_id
        )
    )
    """,
)
_REFUNDED = Rule(
    "refunds_differ",
    "The order says {refunded_minor} were paid back, the ledger {booked_minor}.",
    f"""
    select o.order_id::text as subject, o.order_id, o.refunded_minor,
        least(coalesce(b.minor, 0), o.amount_minor) as booked_minor
    from orders o join checked_orders using (order_id) left join lateral (
        select {_minor("sum(l.original_amount)", "o.currency")} as minor
        from refunds r join ledger_entries l
            on l.posting_key in (r.refund_key, r.refund_key || '\\:failed', 'elsewhere\\:' || r.refund_key)
            and l.account = 'refunds'
        where r.order_id = o.order_id and r.payment_intent = o.payment_intent and l.original_currency = o.currency
    ) b on true
    where o.refunded_minor <> least(coalesce(b.minor, 0), o.amount_minor)
        and exists (select from ledger_entries l where l.posting_key = 'payment:' || o.payment_intent)
    """,  # noqa: S608 - constants only
)
_PAID_BACK_OVER = Rule(
    "paid_back_over",
    "{back_minor} (minor units of {currency}) went back of payment {subject}, which was of {paid_minor}.",
    f"""
    select r.payment_intent as subject, r.order_id, r.currency, sum(r.amount_minor)::bigint as back_minor,
        {_minor("max(l.original_amount)", "r.currency")} as paid_minor
    from refunds r join checked_orders using (order_id)
        join ledger_entries l on l.posting_key = 'payment:' || r.payment_intent and l.account = 'cash'
            and l.original_currency = r.currency
    where r.state in ('sent', 'succeeded', 'elsewhere')
    group by r.payment_intent, r.order_id, r.currency
    having sum(r.amount_minor) > {_minor("max(l.original_amount)", "r.currency")}
    """,  # noqa: S608 - constants only
)
_COST = Rule(
    "cost_differs",
    "eSIM {n} is {status} with {postings} cost postings of {booked_micros} micro-USD; its purchase cost {cost_micros}.",
    """
    select e.order_id::text || '/' || e.n as subject, e.order_id, e.n, e.status,
        coalesce(e.cost_micros, 0) as cost_micros, coalesce(c.postings, 0) as postings,
        coalesce(c.micros, 0) as booked_micros
    from esims e join checked_orders using (order_id) left join lateral (
        select count(distinct l.posting_key) filter (where l.posting_key like 'cost\\:%') as postings,
            sum(l.amount_micros)::bigint as micros
        from ledger_entries l
        where l.order_id = e.order_id and l.esim_n = e.n and l.account = 'cost_of_sales'
            and (l.posting_key like 'cost\\:%' or l.posting_key like 'returned\\:%')
    ) c on true
    where (e.delivered_at is not null or e.status = 'delivered' or coalesce(c.postings, 0) > 0)
        and (
            coalesce(c.postings, 0) <> 1 or (e.delivered_at is null and e.status <> 'delivered')
            or c.micros is distinct from e.cost_micros
        )
    """,
)
_STOCK = Rule(
    "stock_unbooked",
    "Stock {subject} ({provider}) has {postings} postings instead of one.",
    """
    select s.stock_id::text as subject, a.order_id, s.provider, count(distinct l.posting_key) as postings
    from stock_esims s join purchase_attempts a using (attempt_id) join checked_orders c on c.order_id = a.order_id
        left join ledger_entries l on l.posting_key = 'stock:' || s.attempt_id and l.account = 'stock'
    group by s.stock_id, a.order_id, s.provider having count(distinct l.posting_key) <> 1
    """,
)
_UNIT_REFUND = Rule(
    "unit_refund_differs",
    "eSIM {n} is {status} and was paid back {postings} times.",
    # A refund by hand has no eSIM: it explains the order's eSIMs that have no refund, as far as its money goes.
    """
    with paid_back as materialized (
        select e.order_id, e.n, e.status, e.item_id, coalesce(r.postings, 0) as postings, exists (
            select from refunds f where f.order_id = e.order_id and f.esim_n = e.n and f.state = 'elsewhere'
        ) as elsewhere
        from esims e join checked_orders using (order_id) left join lateral (
            select count(distinct l.posting_key) as postings from ledger_entries l
            where l.order_id = e.order_id and l.esim_n = e.n and l.account = 'refunds'
                and l.posting_key not like '%\\:failed' and not exists (
                    select from ledger_entries b where b.posting_key = l.posting_key || '\\:failed'
                )
        ) r on true
    )
    select e.order_id::text || '/' || e.n as subject, e.order_id, e.n, e.status, e.postings
    from paid_back e
    where (e.status = 'refunded' and e.postings = 0 and not e.elsewhere and (
            select sum(i.unit_price_minor) from paid_back u join order_items i on i.item_id = u.item_id
            where u.order_id = e.order_id and u.status = 'refunded' and u.postings = 0 and not u.elsewhere
        ) > (
            select coalesce(sum(f.amount_minor), 0)
            from refunds f join orders o on o.order_id = f.order_id and o.payment_intent = f.payment_intent
            where f.order_id = e.order_id and f.refund_key like 'external\\:%' and f.state in ('sent', 'succeeded')
        ) and exists (  -- nothing more can have gone back than was paid, be that less than the price
            select from ledger_entries l where l.order_id = e.order_id and l.account in ('customer_payment', 'refunds')
            having coalesce(sum(l.amount_micros), 0) < 0
        ))
        or e.postings > 1
        or (e.status in ('delivered', 'queued', 'working', 'pending', 'unknown') and exists (
            select from refunds f where f.order_id = e.order_id and f.esim_n = e.n and f.state in ('sent', 'succeeded')
        ))
    """,
)
_LEFT_BEHIND = Rule(
    "unit_left_behind",
    "The order is {order_status}, and eSIM {n} is {status}: nobody works on it.",
    """
    select e.order_id::text || '/' || e.n as subject, e.order_id, e.n, e.status, o.status as order_status
    from esims e join checked_orders using (order_id) join orders o using (order_id)
    where o.status in ('paid', 'processing', 'completed', 'failed') and e.status in ('unpaid', 'cancelled')
        and not (o.status = 'failed' and o.payment_intent is null)  -- its payment failed: nothing is owed
    """,
)
_BOUGHT_TWICE = Rule(
    "bought_twice",
    "TWO PURCHASES for eSIM {n}: {purchases} were paid for at {providers}.",
    """
    select a.esim_id::text as subject, a.order_id, max(e.n) as n, count(*) as purchases,
        string_agg(a.provider || ' ' || coalesce(a.provider_order_id, s.provider_order_id, '?'), ', ' order by a.number)
            as providers
    from purchase_attempts a join checked_orders c on c.order_id = a.order_id join esims e on e.esim_id = a.esim_id
        left join stock_esims s on s.attempt_id = a.attempt_id
    where a.state = 'provisioned' or (a.state = 'stocked' and coalesce(s.state, 'stock') = 'stock')
    group by a.esim_id, a.order_id having count(*) > 1
    """,
)
_CHAIN = Rule(
    "chain_broken",
    "Event {subject}: it says from {from_status}, the event before it ended in {before}.",
    """
    select event_id::text as subject, order_id, coalesce(from_status, 'nothing') as from_status, before, esim_n from (
        select e.event_id, e.order_id, e.esim_n, e.from_status, coalesce(
            lag(e.to_status) over (partition by e.order_id, e.esim_n order by e.event_id),
            case when e.esim_n is null then 'pending' else 'unpaid' end
        ) as before, row_number() over (partition by e.order_id, e.esim_n order by e.event_id) as place
        from order_events e join checked_orders using (order_id)
    ) steps
    where from_status is distinct from before and not (place = 1 and from_status is null)
    """,
)
_ORDER_STATE = Rule(
    "state_unexplained",
    "The order is {status}, its last event ended in {last}.",
    """
    select o.order_id::text as subject, o.order_id, o.status, coalesce(l.to_status, 'pending') as last
    from orders o join checked_orders using (order_id) left join lateral (
        select e.to_status from order_events e where e.order_id = o.order_id and e.esim_n is null
        order by e.event_id desc limit 1
    ) l on true
    where o.status <> coalesce(l.to_status, 'pending')
    """,
)
_UNIT_STATE = Rule(
    "unit_state_unexplained",
    "eSIM {n} is {status}, its last event ended in {last}.",
    """
    select u.order_id::text || '/' || u.n as subject, u.order_id, u.n, u.status, coalesce(l.to_status, 'unpaid') as last
    from esims u join checked_orders using (order_id) left join lateral (
        select e.to_status from order_events e where e.order_id = u.order_id and e.esim_n = u.n
        order by e.event_id desc limit 1
    ) l on true
    where u.status <> coalesce(l.to_status, 'unpaid')
    """,
)

RULES = (
    _POSTING,
    _STRANGER,
    _UNTOLD,
    _PAYMENT,
    _PAYMENT_OF_NONE,
    _REFUND_MISSING,
    _REFUND_OF_NONE,
    _DISPUTE_OF_NONE,
    _REFUNDED,
    _PAID_BACK_OVER,
    _COST,
    _STOCK,
    _UNIT_REFUND,
    _LEFT_BEHIND,
    _BOUGHT_TWICE,
    _CHAIN,
    _ORDER_STATE,
    _UNIT_STATE,
)
