"""Clear deliveries of many units in one transaction: what nearly every purchase ends in, at a tenth of the statements.

Only what needs no thought goes this way: an open attempt of a unit that takes delivery, an order nobody holds, an eSIM
that nobody else has and that is not in stock, a cost within its ceiling. Everything else is left to
`resources.db.settlement`, which knows all cases. Locks are taken in one order (orders by id, then attempts, then units,
then eSIMs), so two batches cannot block each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, text

from esim.orders import OrderStatus, UnitStatus, status_from_units
from esim.purchase import Provisioned
from resources.db import ledger, notices
from resources.db.costs import Booked, CostBook
from resources.db.delivery_writes import DeliveryWrites
from resources.db.esim_owners import Named, taken
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
_QUIET = frozenset({*TAKES_DELIVERY, UnitStatus.QUEUED, UnitStatus.DELIVERED}) - {UnitStatus.ATTENTION}
_LOCK_ATTEMPTS = text(
    "select a.*, p.order_fee_micros from purchase_attempts a join providers p on p.slug = a.provider"
    " where a.attempt_id = any(:ids) order by a.attempt_id for update of a"
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
    booked: Booked


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
    vault: Vault, attempt: Row[Any], outcome: Provisioned, booked: Booked, now: datetime
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
        "cost_amount": booked.cost.amount,
        "cost_currency": booked.cost.currency,
        "cost_micros": booked.micros,
        "delivered_at": now,
        "next_attempt_at": None,
        "slot_wait_since": None,
    }


def delivered_attempt(outcome: Provisioned, booked: Booked, now: datetime, latency_ms: int | None) -> dict[str, object]:
    """Return what an attempt's row says of a purchase that was delivered."""
    values: dict[str, object] = {"state": "provisioned", "provider_order_id": outcome.provider_order_id}
    values |= {"cost": booked.cost.amount, "cost_micros": booked.micros, "finished_at": now}
    return values | ({} if latency_ms is None else {"latency_ms": latency_ms})


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
        hashed = vault.lookup_hash(delivery.outcome.profile.iccid)
        unit, order = by_unit[attempt.esim_id], orders[attempt.order_id]
        booked = book.booked(attempt, delivery.outcome.cost)
        case = _Case(delivery, attempt, unit, order, hashed, booked)
        if _is_plain(case, units[attempt.order_id]):
            cases.append(case)
    others = taken(conn, [_named(case) for case in cases])
    return [case for case in cases if case.delivery.attempt_id not in others], units


def _is_plain(case: _Case, siblings: Sequence[UnitRow]) -> bool:
    attempt, order = case.attempt, case.order
    booked = case.booked
    within = booked.cost.currency == attempt.currency and not booked.above_ceiling and booked.unconverted is None
    undisturbed = order.status is OrderStatus.PROCESSING and order.hold_reason is None
    takes = attempt.state in OPEN_STATES and case.unit.status in TAKES_DELIVERY
    quiet = all(unit.status in _QUIET for unit in siblings)
    return within and undisturbed and takes and quiet and bool(case.delivery.outcome.profile.iccid)


def _named(case: _Case) -> Named:
    delivery, attempt = case.delivery, case.attempt
    return Named(delivery.attempt_id, attempt.provider, delivery.outcome.provider_order_id, case.iccid_hash)


def _writes(
    conn: Connection, vault: Vault, cases: Sequence[_Case], units: Mapping[UUID, list[UnitRow]]
) -> DeliveryWrites:
    writes = DeliveryWrites()
    for case in cases:
        delivery, attempt_id = case.delivery, case.delivery.attempt_id
        values = delivered_attempt(delivery.outcome, case.booked, delivery.now, delivery.latency_ms)
        writes.attempts.append({"attempt_id": attempt_id, **values})
        cost = ledger.provider_cost(case.booked.cost, case.booked.micros)
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
    columns = delivered_columns(vault, attempt, delivery.outcome, case.booked, delivery.now)
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
