"""Clear deliveries of many units in one transaction: what nearly every purchase ends in, at a tenth of the statements.

Only what needs no thought goes this way: an open attempt of a unit that takes delivery, an order nobody holds, an eSIM
nobody else has, a cost within its ceiling. Everything else is left to `resources.db.settlement`, which knows all cases.
Locks are taken in one order (orders by id, then attempts, then units, then ICCIDs), so two batches cannot block
each other.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, text

from esim.money import Cost
from esim.orders import OrderStatus, UnitStatus, status_from_units
from esim.purchase import Provisioned
from resources.db import ledger, notices
from resources.db.costs import CostBook
from resources.db.delivery_writes import DeliveryWrites
from resources.db.tables import OPEN_STATES
from resources.db.transitions import (
    OrderMove,
    OrderRow,
    UnitMove,
    UnitRow,
    lock_orders,
    lock_units_of,
    step_order,
    step_unit,
)
from resources.db.vault import ICCID, Vault

TAKES_DELIVERY = frozenset({UnitStatus.WORKING, UnitStatus.PENDING, UnitStatus.UNKNOWN, UnitStatus.ATTENTION})
SAME_ESIM = timedelta(days=90)  # providers use ICCIDs again, but not while the eSIM they named is young
_QUIET = frozenset({*TAKES_DELIVERY, UnitStatus.QUEUED, UnitStatus.DELIVERED}) - {UnitStatus.ATTENTION}
_LOCK_ATTEMPTS = text(
    "select a.*, p.order_fee_micros from purchase_attempts a join providers p on p.slug = a.provider"
    " where a.attempt_id = any(:ids) order by a.attempt_id for update of a"
)
_KNOWN_ICCIDS = text("select iccid_hash from esims where iccid_hash = any(:hashes)")
_LOCK_ICCIDS = text(
    "select pg_advisory_xact_lock(key) from (select key from unnest(cast(:keys as bigint[])) key order by key) sorted"
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A purchase that ended well, as its worker tells it."""

    attempt_id: int
    outcome: Provisioned
    order_id: UUID
    actor: str
    now: datetime
    run_id: str | None
    latency_ms: int


@dataclass(frozen=True, slots=True)
class _Case:
    """One delivery with its locked attempt, unit and order, and what it is booked at."""

    delivery: Delivery
    attempt: Row[Any]
    unit: UnitRow
    order: OrderRow
    iccid_hash: bytes
    cost: Cost
    micros: int


def deliver_together(engine: Engine, vault: Vault, deliveries: Sequence[Delivery]) -> list[bool]:
    """Deliver what can be delivered without a second thought; return for each whether it was.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: nothing was written.
    """
    with engine.begin() as conn:
        cases, units = _cases(conn, vault, deliveries)
        if cases:
            _writes(conn, vault, cases, units).write(conn)
    done = {case.delivery.attempt_id for case in cases}
    return [delivery.attempt_id in done for delivery in deliveries]


def delivered_columns(
    vault: Vault, attempt: Row[Any], outcome: Provisioned, cost: Cost, micros: int, now: datetime
) -> Mapping[str, object]:
    """Return what a unit's row says of the eSIM that was delivered."""
    profile = outcome.profile
    return {
        "provider": attempt.provider,
        "offer_id": attempt.offer_id,
        "provider_order_id": outcome.provider_order_id,
        "provider_esim_id": profile.provider_esim_id,
        "iccid_enc": vault.encrypt(profile.iccid.encode(), ICCID),
        "iccid_hash": vault.lookup_hash(profile.iccid),
        "profile_enc": vault.encrypt_profile(profile),
        "cost_amount": cost.amount,
        "cost_currency": cost.currency,
        "cost_micros": micros,
        "delivered_at": now,
        "next_attempt_at": None,
        "slot_wait_since": None,
    }


def delivered_attempt(
    outcome: Provisioned, cost: Cost, micros: int, now: datetime, latency_ms: int | None
) -> dict[str, object]:
    """Return what an attempt's row says of a purchase that was delivered."""
    values: dict[str, object] = {"state": "provisioned", "provider_order_id": outcome.provider_order_id}
    values |= {"cost": cost.amount, "cost_micros": micros, "finished_at": now}
    return values | ({} if latency_ms is None else {"latency_ms": latency_ms})


def iccid_lock(iccid_hash: bytes) -> int:
    """Return the advisory lock that whoever delivers this ICCID holds until the transaction ends."""
    return int.from_bytes(iccid_hash[:8], signed=True)


def _cases(
    conn: Connection, vault: Vault, deliveries: Sequence[Delivery]
) -> tuple[list[_Case], Mapping[UUID, list[UnitRow]]]:
    order_ids = {delivery.order_id for delivery in deliveries}
    orders = lock_orders(conn, order_ids)
    attempt_ids = [delivery.attempt_id for delivery in deliveries]
    attempts = {row.attempt_id: row for row in conn.execute(_LOCK_ATTEMPTS, {"ids": attempt_ids})}
    units = lock_units_of(conn, order_ids)
    by_unit = {unit.esim_id: unit for of_order in units.values() for unit in of_order}
    book = CostBook(conn, {row.provider: int(row.order_fee_micros) for row in attempts.values()})
    cases = []
    for delivery in deliveries:
        attempt = attempts[delivery.attempt_id]
        cost, micros = book.booked(attempt, delivery.outcome.cost)
        hashed = vault.lookup_hash(delivery.outcome.profile.iccid)
        unit, order = by_unit[attempt.esim_id], orders[attempt.order_id]
        case = _Case(delivery, attempt, unit, order, hashed, cost, micros)
        if _is_plain(case, units[attempt.order_id]):
            cases.append(case)
    taken = _taken(conn, cases)
    return [case for case in cases if case.delivery.attempt_id not in taken], units


def _is_plain(case: _Case, siblings: Sequence[UnitRow]) -> bool:
    attempt, order = case.attempt, case.order
    within = case.cost.currency == attempt.currency and case.cost.amount <= attempt.ceiling_cost
    undisturbed = order.status is OrderStatus.PROCESSING and order.hold_reason is None
    takes = attempt.state in OPEN_STATES and case.unit.status in TAKES_DELIVERY
    quiet = all(unit.status in _QUIET for unit in siblings)
    return within and undisturbed and takes and quiet and bool(case.delivery.outcome.profile.iccid)


def _taken(conn: Connection, cases: Sequence[_Case]) -> set[int]:
    """Return the attempts whose eSIM another unit has, or whose ICCID comes twice in this batch.

    Holds a lock on every ICCID until the transaction ends, so that of two at once one sees the other.
    """
    if not cases:
        return set()
    hashes = Counter(case.iccid_hash for case in cases)
    conn.execute(_LOCK_ICCIDS, {"keys": [iccid_lock(hashed) for hashed in hashes]})
    known = {bytes(other) for other in conn.scalars(_KNOWN_ICCIDS, {"hashes": list(hashes)})}
    return {case.delivery.attempt_id for case in cases if hashes[case.iccid_hash] > 1 or case.iccid_hash in known}


def _writes(
    conn: Connection, vault: Vault, cases: Sequence[_Case], units: Mapping[UUID, list[UnitRow]]
) -> DeliveryWrites:
    writes = DeliveryWrites()
    for case in cases:
        delivery, attempt_id = case.delivery, case.delivery.attempt_id
        values = delivered_attempt(delivery.outcome, case.cost, case.micros, delivery.now, delivery.latency_ms)
        writes.attempts.append({"attempt_id": attempt_id, **values})
        cost = ledger.provider_cost(case.cost, case.micros)
        writes.entries += ledger.rows_of(ledger.Posting(f"cost:{attempt_id}", case.unit.order_id, cost, case.unit.n))
        if step := step_unit(_unit_move(case, vault)):
            writes.units.append({"esim_id": case.unit.esim_id, **step[0]})
            writes.events.append(step[1])
    last = {case.order.order_id: case for case in cases}
    for order_id, case in last.items():
        if step := step_order(_order_move(case, units[order_id])):
            writes.orders.append({"order_id": order_id, **step[0]})
            writes.events.append(step[1])
    changed = [(case.order, units[order_id]) for order_id, case in last.items()]
    writes.notices = notices.called_for(conn, changed, max(case.delivery.now for case in cases))
    return writes


def _unit_move(case: _Case, vault: Vault) -> UnitMove:
    delivery, attempt = case.delivery, case.attempt
    details = {"provider": attempt.provider, "offer_id": attempt.offer_id, "attempt": attempt.number}
    columns = delivered_columns(vault, attempt, delivery.outcome, case.cost, case.micros, delivery.now)
    return UnitMove(
        case.unit,
        UnitStatus.DELIVERED,
        "eSIM delivered",
        delivery.actor,
        delivery.now,
        delivery.run_id,
        details,
        columns,
    )


def _order_move(case: _Case, units: Sequence[UnitRow]) -> OrderMove:
    delivery, target = case.delivery, status_from_units(unit.status for unit in units)
    reason = f"eSIM {case.unit.n} is {case.unit.status}"
    return OrderMove(case.order, target, reason, delivery.actor, delivery.now, delivery.run_id)
