"""What must agree between a provider's statement and our purchases, and each day's totals of both."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from resources.db.book_rules import Rule
from resources.db.findings import Finding

MOST_PER_RULE = 500

_UNMATCHED = Rule(
    "unmatched_purchase",
    "{provider} sold us order {subject} ({package}) at {bought_at}, and no purchase of ours is it.",
    """
    select s.provider_order_id as subject, null::uuid as order_id, s.provider, s.quantity, s.cost, s.currency,
        coalesce(nullif(s.package_id, ''), s.package_name) as package,
        to_char(s.bought_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI') as bought_at
    from statement_lines s
    where s.provider = :provider and s.state in ('sold', 'open') and s.attempt_id is null and s.bought_at < :until
    """,
)
_NOT_KEPT = Rule(
    "purchase_not_kept",
    "{provider} sold us order {subject}; our purchase of it ended as {state}, and the look-up does not find it.",
    """
    select s.provider_order_id as subject, a.order_id, s.provider, a.state
    from statement_lines s join purchase_attempts a using (attempt_id)
    where s.provider = :provider and s.state in ('sold', 'open') and a.state = 'rejected' and s.bought_at < :until
    """,
)
_TWICE = Rule(
    "bought_twice",
    "TWO PURCHASES for one eSIM at {provider}: orders {orders} are {quantity} eSIMs for one unit.",
    """
    select a.esim_id::text as subject, a.order_id, s.provider, sum(s.quantity)::int as quantity,
        string_agg(s.provider_order_id, ', ' order by s.bought_at) as orders
    from statement_lines s join purchase_attempts a using (attempt_id)
        left join stock_esims t on t.attempt_id = a.attempt_id
    where s.provider = :provider and s.state in ('sold', 'open') and coalesce(t.state, 'stock') = 'stock'
    group by a.esim_id, a.order_id, s.provider having sum(s.quantity) > 1
    """,
)
_NOT_LISTED = Rule(
    "delivered_not_listed",
    "Our purchase {subject} at {provider} ({number}) has its eSIM, and the provider's statement does not list it.",
    """
    select a.attempt_id::text as subject, a.order_id, a.provider, coalesce(a.provider_order_id, t.provider_order_id)
        as number
    from purchase_attempts a left join stock_esims t on t.attempt_id = a.attempt_id
    where a.provider = :provider and a.state in ('provisioned', 'stocked')
        and a.sent_at < :until
        and (a.sent_at >= :since or a.attempt_id::text in (
            select f.subject from reconciliation_findings f
            where f.side = 'providers:' || a.provider and f.kind = 'delivered_not_listed' and f.resolved_at is null
        ))
        and not exists (select from statement_lines s where s.attempt_id = a.attempt_id)
    """,
)
_GIVEN_BACK = Rule(
    "given_back_there",
    "Order {subject} at {provider} is {there} there, and its eSIM is delivered here.",
    """
    select s.provider_order_id as subject, a.order_id, s.provider, s.state as there
    from statement_lines s join purchase_attempts a using (attempt_id) join esims e on e.esim_id = a.esim_id
    where s.provider = :provider and s.state in ('given_back', 'failed') and a.state = 'provisioned'
        and e.status = 'delivered'
        and not exists (
            select from statement_lines o where o.attempt_id = a.attempt_id and o.state in ('sold', 'open')
        )
    """,
)
_COST = Rule(
    "cost_differs",
    "Order {subject} cost {cost} {currency} by the statement of {provider}; we booked {booked}.",
    """
    select s.provider_order_id as subject, a.order_id, s.provider, s.cost, s.currency,
        case when a.state = 'provisioned' then e.cost_amount else a.cost end as booked
    from statement_lines s join purchase_attempts a using (attempt_id) join esims e on e.esim_id = a.esim_id
    where s.provider = :provider and s.state = 'sold' and s.quantity = 1 and s.cost is not null
        and a.state in ('provisioned', 'stocked')
        and s.currency = case when a.state = 'provisioned' then e.cost_currency else a.currency end
        and s.cost is distinct from case when a.state = 'provisioned' then e.cost_amount else a.cost end
    """,
)
_RULES = (_UNMATCHED, _NOT_KEPT, _TWICE, _NOT_LISTED, _GIVEN_BACK, _COST)
_DAYS = text(
    """
    with days as (
        select (bought_at at time zone 'UTC')::date as day, sum(quantity) as theirs, sum(cost) as their_cost,
            0::bigint as ours, null::numeric as our_cost
        from statement_lines
        where provider = :provider and state in ('sold', 'open') and bought_at >= :since group by 1
        union all
        select (sent_at at time zone 'UTC')::date, 0, null, count(*), sum(cost)
        from purchase_attempts
        where provider = :provider and state in ('pending', 'provisioned', 'stocked') and sent_at >= :since group by 1
    )
    select day, sum(theirs)::int as theirs, sum(their_cost) as their_cost, sum(ours)::int as ours,
        sum(our_cost) as our_cost
    from days group by day order by day
    """
)


@dataclass(frozen=True, slots=True)
class StatementDay:
    """One day at one provider: how many eSIMs and what they cost, by its statement (where told) and by our books."""

    day: Any
    theirs: int
    their_cost: Any
    ours: int
    our_cost: Any


def compare_statement(conn: Connection, provider: str, since: datetime, until: datetime) -> list[Finding]:
    """Return what disagrees between a provider's kept statement and our purchases.

    Lines are judged however old they are; purchases of ours must be listed when they left in the time window.
    """
    values = {"provider": provider, "since": since, "until": until, "limit": MOST_PER_RULE}
    return [Finding(**finding) for rule in _RULES for finding in rule.broken(conn, values)]


def statement_days(conn: Connection, provider: str, since: datetime) -> list[StatementDay]:
    """Return each day's totals of a provider's statement and of our purchases there."""
    return [StatementDay(*row) for row in conn.execute(_DAYS, {"provider": provider, "since": since})]
