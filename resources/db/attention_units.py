"""The units that wait for a person, read from the store; `order_advice` says what each needs."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from esim.orders import UnitStatus
from resources.db.order_advice import OpenPurchase, UnitFacts

# Every arm has an index of its own: a shop with a million orders has few that wait.
_WAITING = """
    select e.esim_id from esims e where e.status in ('pending', 'unknown', 'attention')
    union select e.esim_id from esims e where e.status = 'failed'
    union select e.esim_id from esims e join orders o using (order_id)
        where e.status = 'queued' and o.deadline_at <= :now
    union select e.esim_id from refunds f join esims e on e.order_id = f.order_id and e.n = f.esim_n
        where f.state = 'failed'
    union select a.esim_id from purchase_attempts a join esims e using (esim_id)
        where a.state in ('intent', 'prepared', 'pending', 'unknown') and e.status in ('failed', 'refunded')
    union select e.esim_id from refunds f join esims e using (order_id)
        where f.state = 'failed' and f.refund_key like 'external\\:%' and e.status = 'refunded'
"""
_FACTS = """
    select e.order_id, o.display_id, e.n, e.status, e.updated_at as since, o.deadline_at, o.hold_reason,
        v.reason, r.state as refund_state, r.last_error as refund_error,
        coalesce(r.as_it_stands, false) as refund_as_it_stands, o.refunded_minor >= o.amount_minor as is_paid_back,
        o.refunded_minor < least(o.amount_minor, (
            select sum(i.unit_price_minor) from esims u join order_items i on i.item_id = u.item_id
            where u.order_id = e.order_id and u.status = 'refunded'
        )) as lacks_money,
        a.number, a.provider, a.state as attempt_state, a.reference, a.provider_order_id, a.error_type, a.sent_at
    from esims e
    join orders o using (order_id)
    left join purchase_attempts a on a.esim_id = e.esim_id and a.state in ('intent', 'prepared', 'pending', 'unknown')
    left join lateral (
        select state, last_error, as_it_stands from refunds f where f.order_id = e.order_id and f.esim_n = e.n
        order by f.created_at desc, f.refund_key desc limit 1
    ) r on true
    left join lateral (
        select reason from order_events w where w.order_id = e.order_id and w.esim_n = e.n
        order by w.event_id desc limit 1
    ) v on true
    where {condition}
    order by e.updated_at, e.order_id, e.n
"""
_OF_SHOP = text(_FACTS.format(condition=f"e.esim_id in ({_WAITING})"))  # constants of this module only


def waiting_units(conn: Connection, now: datetime) -> list[tuple[UnitFacts, bool]]:
    """Return the units of the shop that may need a person, each with whether its order is held."""
    return _facts(conn.execute(_OF_SHOP, {"now": now}).all())


def _facts(rows: Sequence[Row[Any]]) -> list[tuple[UnitFacts, bool]]:
    return [
        (
            UnitFacts(
                order_id=row.order_id,
                display_id=row.display_id,
                n=row.n,
                status=UnitStatus(row.status),
                since=row.since,
                deadline_at=row.deadline_at,
                reason=row.reason,
                refund_state=row.refund_state,
                refund_error=row.refund_error,
                refund_as_it_stands=row.refund_as_it_stands,
                is_paid_back=row.is_paid_back,
                is_in_vain=row.status == UnitStatus.REFUNDED and row.refund_state is None and bool(row.lacks_money),
                purchase=_purchase(row),
            ),
            row.hold_reason is not None,
        )
        for row in rows
    ]


def _purchase(row: Row[Any]) -> OpenPurchase | None:
    if row.number is None:
        return None
    return OpenPurchase(
        row.number,
        row.provider,
        row.attempt_state,
        row.reference,
        row.provider_order_id,
        row.error_type,
        row.sent_at,
    )
