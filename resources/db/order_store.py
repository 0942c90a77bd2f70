"""Who works on which unit: claims with a lease and a fencing number, taken without waiting for anybody.

`claim_units` gives queued units to a worker; `resources.db.leases` takes them back when it stops beating.
`claim_open_units` gives purchases without an end (pending, unknown) to whoever looks them up next.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, Engine, select, text, update

from esim.provisioning import Refusal
from esim.purchase import ErrorType
from resources.db.candidates import UnitSale
from resources.db.databases import at_once
from resources.db.tables import esims, purchase_attempts

LEASE_SECONDS = 60.0
POLL_LEASE_SECONDS = 180.0  # a look-up may wait for rate limits and repeat itself; two at once may disturb each other


@dataclass(frozen=True, slots=True)
class Claim:
    """One unit given to one worker; `fence` and `owner` must still stand in its row for every later write."""

    esim_id: UUID
    order_id: UUID
    n: int
    fence: int
    owner: str
    failures: int
    paid_at: datetime
    deadline_at: datetime
    slot_wait_since: datetime | None
    sale: UnitSale
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenUnit:
    """One unit whose purchase has no end yet, given to whoever looks it up."""

    esim_id: UUID
    order_id: UUID
    n: int
    attempt_id: int
    provider: str


# Units whose order is being changed right now are skipped, not waited for: they come with the next claim. Holding
# both rows without ever waiting cannot deadlock with those who lock the order first. One statement, because a customer
# waits: it claims, starts the orders, notes both, and reads what was sold and what refused it in this round.
CLAIM = text(
    """
    with due as (
        select e.esim_id, o.order_id, o.status as order_status
        from esims e join orders o on o.order_id = e.order_id
        where e.status = 'queued' and e.next_attempt_at <= :now
        order by e.next_attempt_at, e.esim_id
        limit :limit
        for update of e, o skip locked
    ), taken as (
        update esims e set status = 'working', fence = e.fence + 1, lease_owner = :owner, lease_until = :until,
            updated_at = :now
        from due where e.esim_id = due.esim_id
        returning e.esim_id, e.order_id, e.item_id, e.n, e.fence, e.failures, e.slot_wait_since, e.round_from
    ), started as (
        update orders o set status = 'processing', updated_at = :now
        from (select distinct order_id, order_status from due) d
        where o.order_id = d.order_id and d.order_status in ('paid', 'failed')
        returning o.order_id, d.order_status
    ), noted as (
        insert into order_events (order_id, esim_n, from_status, to_status, reason, actor, run_id, at)
        select order_id, cast(null as smallint), order_status, 'processing', 'a worker started', cast(:owner as text),
            cast(:run_id as text), cast(:now as timestamptz) from started
        union all
        select order_id, n, 'queued', 'working', 'claimed by a worker', :owner, :run_id, :now from taken
    )
    select t.esim_id, t.order_id, t.n, t.fence, t.failures, t.slot_wait_since,
        coalesce(o.paid_at, o.created_at) as paid_at, o.deadline_at, i.package_id, i.unit_price_micros_usd,
        (select sum(j.quantity) from order_items j where j.order_id = t.order_id) as units,
        (
            select jsonb_agg(jsonb_build_array(a.offer_id, a.error_type, coalesce(a.error, '')) order by a.number)
            from purchase_attempts a
            where a.esim_id = t.esim_id and a.number > t.round_from and a.state = 'rejected'
                and not (a.error_type = 'not_bought' and a.sent_at is null)
        ) as refusals
    from taken t join orders o on o.order_id = t.order_id join order_items i on i.item_id = t.item_id
    """
)
_OPEN = text(
    """
    with due as (
        select esim_id from esims where status in ('pending', 'unknown', 'attention') and next_attempt_at <= :now
        order by next_attempt_at limit :limit for update skip locked
    )
    update esims e set next_attempt_at = :until from due where e.esim_id = due.esim_id returning e.esim_id
    """
)
_ORPHANS = text(
    """
    with due as (
        select attempt_id from purchase_attempts where look_at <= :now
        order by look_at limit :limit for update skip locked
    )
    update purchase_attempts a set look_at = :until
    from due, esims e where a.attempt_id = due.attempt_id and e.esim_id = a.esim_id
    returning e.esim_id, e.order_id, e.n, a.attempt_id, a.provider
    """
)


def claim_units(
    engine: Engine, owner: str, limit: int, now: datetime, *, deadline_minutes: int, run_id: str | None = None
) -> list[Claim]:
    """Give at most `limit` waiting units to `owner` for a lease, and move their orders to processing.

    `deadline_minutes` after payment is the deadline of an order that carries none.
    """
    values = {"now": now, "limit": limit, "owner": owner, "run_id": run_id}
    with at_once(engine).connect() as conn:
        rows = conn.execute(CLAIM, values | {"until": now + timedelta(seconds=LEASE_SECONDS)}).all()
    return [
        Claim(
            esim_id=row.esim_id,
            order_id=row.order_id,
            n=row.n,
            fence=row.fence,
            owner=owner,
            failures=row.failures,
            paid_at=row.paid_at,
            deadline_at=row.deadline_at or row.paid_at + timedelta(minutes=deadline_minutes),
            slot_wait_since=row.slot_wait_since,
            sale=UnitSale(row.package_id, int(row.unit_price_micros_usd), int(row.units)),
            refusals=tuple(Refusal(offer, ErrorType(kind), error) for offer, kind, error in row.refusals or ()),
        )
        for row in rows
    ]


def claim_open_units(engine: Engine, limit: int, now: datetime) -> list[OpenUnit]:
    """Give out at most `limit` open purchases that are due to be looked up; nobody else gets them for three minutes.

    Those whose unit has an end already (refunded at its deadline, say) come after those whose customer waits.
    """
    units = _claim_waiting_units(engine, limit, now)
    return [*units, *_claim_orphans(engine, limit - len(units), now)] if len(units) < limit else units


def _claim_orphans(engine: Engine, limit: int, now: datetime) -> list[OpenUnit]:
    values = {"now": now, "limit": limit, "until": now + timedelta(seconds=POLL_LEASE_SECONDS)}
    with at_once(engine).connect() as conn:
        return [OpenUnit(*row) for row in conn.execute(_ORPHANS, values)]


def _claim_waiting_units(engine: Engine, limit: int, now: datetime) -> list[OpenUnit]:
    attempt, unit = purchase_attempts.c, esims.c
    values = {"now": now, "limit": limit, "until": now + timedelta(seconds=POLL_LEASE_SECONDS)}
    with engine.begin() as conn:
        taken = list(conn.scalars(_OPEN, values))
        if not taken:
            return []
        found = (
            select(unit.esim_id, unit.order_id, unit.n, attempt.attempt_id, attempt.provider)
            .join_from(esims, purchase_attempts, attempt.esim_id == unit.esim_id)
            .where(unit.esim_id.in_(taken), attempt.state.in_(("prepared", "pending", "unknown")))
        )
        given = [OpenUnit(*row) for row in conn.execute(found)]
        # A unit that waits for a person and has no open purchase needs no look-up.
        idle = set(taken) - {one.esim_id for one in given}
        if idle:
            conn.execute(update(esims).where(unit.esim_id.in_(idle)).values(next_attempt_at=None))
        return given


def due_in_seconds(conn: Connection, now: datetime) -> tuple[float | None, float | None]:
    """Return the seconds until a queued unit and until an open purchase is due; None where there is none."""
    due = text(
        "select (select min(next_attempt_at) from esims where status = 'queued'),"
        " least((select min(next_attempt_at) from esims where status in ('pending', 'unknown', 'attention')),"
        " (select min(look_at) from purchase_attempts where look_at is not null))"
    )
    queued, open_ = conn.execute(due).one()
    return _seconds_until(queued, now), _seconds_until(open_, now)


def waiting_units(conn: Connection, now: datetime) -> int:
    """Return how many units want work now, with the providers' events that speak of some and nobody has heeded yet.

    Units want work that are queued, whose open purchase is to be looked up, or whose worker is gone.
    """
    counts = text(
        "select (select count(*) from esims where status = 'queued' and next_attempt_at <= :now)"
        " + (select count(*) from esims where status in ('pending', 'unknown') and next_attempt_at <= :now)"
        " + (select count(*) from esims where status = 'working' and lease_until < :now)"
        " + (select count(*) from inbox_events where work is not null and worked_at is null"
        " and (next_work_at is null or next_work_at <= :now))"
    )
    return int(conn.scalar(counts, {"now": now}) or 0)


def _seconds_until(due: datetime | None, now: datetime) -> float | None:
    return None if due is None else max(0.0, (due - now).total_seconds())
