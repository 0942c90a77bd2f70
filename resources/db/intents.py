"""Intents and clearances of purchases, many in one statement each.

An intent is written only while its unit is still its worker's; two unique indexes are the last line of defence (one
open or successful attempt per unit, one open attempt per slot), and what they refuse is simply not written. Slots are
taken in the order of their names, since whoever wants one that another batch has just written waits for that batch. A
clearance moves an intent to `prepared` only while the lease runs. Neither is given for an order that is held: whoever
holds an order waits for no worker, so an intent may slip past a hold of the same moment, and the clearance stops it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import Connection, text

from resources.db.documents import document

_WRITE = text(
    """
    with wanted as (
        select * from jsonb_to_recordset(cast(:rows as jsonb)) as w(
            esim_id uuid, order_id uuid, fence bigint, owner text, failover_step smallint, provider text,
            offer_id text, provider_package_id text, package_name text, order_hints jsonb, reference text,
            expected_cost numeric, ceiling_cost numeric, currency text, slot text, run_id text, started_at timestamptz)
    ), mine as (
        select e.esim_id
        from esims e join wanted w on w.esim_id = e.esim_id join orders o on o.order_id = e.order_id
        where e.status = 'working' and e.fence = w.fence and e.lease_owner = w.owner and o.hold_reason is null
        for update of e skip locked
    )
    insert into purchase_attempts (esim_id, order_id, number, failover_step, provider, offer_id, provider_package_id,
        package_name, order_hints, reference, fence, expected_cost, ceiling_cost, currency, state, slot, run_id,
        started_at)
    select w.esim_id, w.order_id,
        (select coalesce(max(a.number), 0) + 1 from purchase_attempts a where a.esim_id = w.esim_id),
        w.failover_step, w.provider, w.offer_id, w.provider_package_id, w.package_name, w.order_hints, w.reference,
        w.fence, w.expected_cost, w.ceiling_cost, w.currency, 'intent', w.slot, w.run_id, w.started_at
    from wanted w join mine on mine.esim_id = w.esim_id
    order by w.slot
    on conflict do nothing
    returning reference, attempt_id
    """
)
_CLEAR = text(
    """
    update purchase_attempts a
    set state = 'prepared', evidence = w.evidence, sent_at = w.now
    from jsonb_to_recordset(cast(:rows as jsonb)) as w(
            reference text, fence bigint, owner text, now timestamptz, evidence jsonb)
        join purchase_attempts b on b.reference = w.reference
        join esims e on e.esim_id = b.esim_id
        join orders o on o.order_id = e.order_id
    where a.attempt_id = b.attempt_id and a.state = 'intent' and e.status = 'working'
        and e.fence = w.fence and e.lease_owner = w.owner and e.lease_until > w.now
        and o.hold_reason is null
    returning a.reference
    """
)


@dataclass(frozen=True, slots=True)
class Intent:
    """One purchase that is about to be prepared, and the claim it is made under."""

    esim_id: UUID
    order_id: UUID
    fence: int
    owner: str
    failover_step: int
    provider: str
    offer_id: str
    provider_package_id: str
    package_name: str
    order_hints: Mapping[str, str]
    reference: str
    expected_cost: Decimal
    ceiling_cost: Decimal
    currency: str
    slot: str | None
    run_id: str | None
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Clearance:
    """One prepared purchase that wants to be sent, with what its preparation found."""

    reference: str
    fence: int
    owner: str
    now: datetime
    evidence: Mapping[str, object]


def write_intents(conn: Connection, intents: Sequence[Intent]) -> list[int | None]:
    """Write intents; return their attempts' ids, None for each that could not be written.

    That is one whose unit is not its worker's any more or is locked just now, has an open purchase, wants a slot that
    is taken, or whose order is held.
    """
    written = {row.reference: int(row.attempt_id) for row in conn.execute(_WRITE, {"rows": document(intents)})}
    return [written.get(intent.reference) for intent in intents]


def clear_intents(conn: Connection, clearances: Sequence[Clearance]) -> list[bool]:
    """Clear intents for sending; return for each whether its worker holds unit and lease, and nobody its order."""
    cleared = set(conn.scalars(_CLEAR, {"rows": document(clearances)}))
    return [clearance.reference in cleared for clearance in clearances]
