"""The units and orders that wait for a person, read from the store; `order_advice` says what each needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

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
"""
_FACTS = """
    select e.order_id, o.display_id, e.n, e.status, e.updated_at as since, o.deadline_at, o.hold_reason,
        v.reason, r.state as refund_state, r.last_error as refund_error,
        a.number, a.provider, a.state as attempt_state, a.reference, a.provider_order_id, a.error_type, a.sent_at
    from esims e
    join orders o using (order_id)
    left join purchase_attempts a on a.esim_id = e.esim_id and a.state in ('intent', 'prepared', 'pending', 'unknown')
    left join lateral (
        select state, last_error from refunds f where f.order_id = e.order_id and f.esim_n = e.n
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
_OF_ORDER = text(_FACTS.format(condition="e.order_id = :order_id"))
_ORDERS = text(
    """
    select o.order_id, o.display_id, o.hold_reason, o.attention_reason, o.updated_at as since
    from orders o
    where o.status = 'attention' and (o.hold_reason is not null or not exists (
        select 1 from esims e where e.order_id = o.order_id and e.status = 'attention'))
    order by o.updated_at
    """
)


@dataclass(frozen=True, slots=True)
class WaitingOrder:
    """An order that waits for a person as a whole: held, or paid in a way that does not fit."""

    order_id: UUID
    display_id: str
    since: datetime
    reason: str
    is_held: bool


def waiting_units(conn: Connection, now: datetime) -> list[tuple[UnitFacts, bool]]:
    """Return the units of the shop that may need a person, each with whether its order is held."""
    return _facts(conn.execute(_OF_SHOP, {"now": now}).all())


def units_of_order(conn: Connection, order_id: UUID) -> list[tuple[UnitFacts, bool]]:
    """Return the units of one order, each with whether the order is held."""
    return sorted(_facts(conn.execute(_OF_ORDER, {"order_id": order_id}).all()), key=lambda pair: pair[0].n)


def waiting_orders(conn: Connection) -> list[WaitingOrder]:
    """Return the orders that wait for a person as a whole, oldest first."""
    return [
        WaitingOrder(
            row.order_id,
            row.display_id,
            row.since,
            row.hold_reason or row.attention_reason or "nobody wrote down why",
            row.hold_reason is not None,
        )
        for row in conn.execute(_ORDERS)
    ]


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
