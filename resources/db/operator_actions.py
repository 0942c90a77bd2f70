"""What every operator's action on an order shares: its lock, what may not be touched, and how it is written down.

An action is one transaction: `open_case` locks the order and reads its units and their live purchases, the action
changes what may be changed or raises `Refused` with a sentence that says what to do instead, and `close_case` settles
the order, queues its notices and writes the audit event. Repeated, it finds nothing to do. Rolled back, it is a
preview of exactly what it would have done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, select, update

from esim.errors import Refused
from esim.orders import OrderStatus, UnitStatus
from resources.db import notices
from resources.db.audit import Operator, record_action
from resources.db.tables import OPEN_STATES, orders, purchase_attempts, refunds
from resources.db.transitions import Event, OrderRow, UnitRow, lock_order, lock_units, move_unit, note, settle_locked

REFUND_UNDER_WAY = frozenset({"requested", "sent", "succeeded"})


@dataclass(frozen=True, slots=True)
class Done:
    """What an action changed, in sentences; without any there was nothing to do. `left_alone` says what was not."""

    subject: str
    changes: tuple[str, ...] = ()
    left_alone: tuple[str, ...] = ()
    order_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class OrderCase:
    """One locked order with its units, their live purchases and their newest refunds; `changes` is what was done."""

    conn: Connection
    who: Operator
    order: OrderRow
    units: Sequence[UnitRow]
    purchases: Mapping[UUID, Row[Any]]  # by unit: the one attempt that is open, or that bought it
    refunds: Mapping[int, Row[Any]]  # by unit number
    changes: list[str] = field(default_factory=list)
    left_alone: list[str] = field(default_factory=list)

    @property
    def subject(self) -> str:
        """What is acted on."""
        return f"order {self.order.display_id}"

    def named(self, unit: UnitRow) -> str:
        """Return how sentences call a unit."""
        return f"eSIM {unit.n}"

    def refund_state(self, unit: UnitRow) -> str | None:
        """Return the state of a unit's newest refund."""
        row = self.refunds.get(unit.n)
        return None if row is None else str(row.state)

    def is_settled(self, unit: UnitRow) -> bool:
        """Return whether nothing more can happen to a unit: it never cost anything, or its money has gone back."""
        gone_back = unit.status is UnitStatus.REFUNDED and self.refund_state(unit) not in {"failed", "requested"}
        return gone_back or unit.status is UnitStatus.CANCELLED

    def open_purchase(self, unit: UnitRow) -> Row[Any] | None:
        """Return a unit's purchase that has no end yet."""
        attempt = self.purchases.get(unit.esim_id)
        return attempt if attempt is not None and attempt.state in OPEN_STATES else None

    def move(self, unit: UnitRow, target: UnitStatus, values: Mapping[str, object] | None = None) -> None:
        """Move a unit in the operator's name and for the operator's reason."""
        who = self.who
        move_unit(
            self.conn,
            unit,
            target,
            reason=who.reason,
            actor=who.actor,
            now=who.now,
            run_id=who.run_id,
            values=values,
        )

    def remark(self, text: str, *, esim_n: int | None = None, details: Mapping[str, object] | None = None) -> None:
        """Append to the order's history what changes no state."""
        who, status = self.who, self.order.status
        unit = next((one for one in self.units if one.n == esim_n), None)
        state = status if unit is None else unit.status
        event = Event(self.order.order_id, state, state, text, who.actor, who.now, esim_n, who.run_id, details or {})
        note(self.conn, [event])


def open_case(conn: Connection, order_id: UUID, who: Operator) -> OrderCase:
    """Lock an order and read what an action on it must know.

    Raises:
        NotFound: there is no such order.
    """
    order = lock_order(conn, order_id)
    units = lock_units(conn, order_id)
    a, r = purchase_attempts, refunds
    live = select(a).where(a.c.order_id == order_id, a.c.state.in_((*OPEN_STATES, "provisioned")))
    of_units = (
        select(r).where(r.c.order_id == order_id, r.c.esim_n.is_not(None)).order_by(r.c.created_at, r.c.refund_key)
    )
    return OrderCase(
        conn,
        who,
        order,
        units,
        {row.esim_id: row for row in conn.execute(live)},
        {int(row.esim_n): row for row in conn.execute(of_units.with_for_update())},
    )


def close_case(case: OrderCase, action: str, details: Mapping[str, object] | None = None) -> Done:
    """Settle the order, queue what it calls for and write the audit event, if anything was done."""
    order, who = case.order, case.who
    if case.changes:
        settle_locked(case.conn, order, case.units, reason=who.reason, actor=who.actor, now=who.now, run_id=who.run_id)
        notices.tell_of_changes(case.conn, order, case.units, who.now)
        told = {"changes": list(case.changes), **(details or {})}
        record_action(case.conn, who, action, case.subject, order_id=order.order_id, details=told)
    return Done(case.subject, tuple(case.changes), tuple(case.left_alone), order.order_id)


def chosen(case: OrderCase, numbers: Sequence[int]) -> list[UnitRow]:
    """Return the units meant by their numbers; all of the order's when none is given.

    Raises:
        Refused: there is no such unit.
    """
    if unknown := sorted(set(numbers) - {unit.n for unit in case.units}):
        raise Refused(f"order {case.order.display_id} has eSIMs 1 to {len(case.units)}; there is no eSIM {unknown[0]}")
    return [unit for unit in case.units if not numbers or unit.n in numbers]


def check_paid(case: OrderCase) -> None:
    """Refuse an order that nobody has paid.

    Raises:
        Refused: it has no payment.
    """
    order = case.order
    if order.payment_intent is None:
        raise Refused(
            f"order {order.display_id} is {order.status} and not paid; there is nothing to deliver or pay back"
        )


def release_hold(case: OrderCase, released: bool) -> None:
    """Take the hold off an order that waits for a person's decision; that must be said.

    Raises:
        Refused: the order is held and `released` is False.
    """
    order = case.order
    why = order.hold_reason or (order.attention_reason if is_undecided(case) else None)
    if why is None:
        return
    if not released:
        raise Refused(
            f"order {order.display_id} waits for a person's decision: {why}. "
            "Where that is settled, say so with --release-hold"
        )
    if order.hold_reason is not None:
        values = {"hold_reason": None, "updated_at": case.who.now}
        case.conn.execute(update(orders).where(orders.c.order_id == order.order_id).values(**values))
        order.hold_reason = None
        case.remark(f"hold released: {case.who.reason}", details={"held_for": why})
        case.changes.append(f"the hold is released ({why})")


def is_undecided(case: OrderCase) -> bool:
    """Return whether an order's payment came in, but nobody has decided yet whether it is delivered."""
    waits = any(unit.status is UnitStatus.UNPAID for unit in case.units)
    return case.order.status is OrderStatus.ATTENTION and case.order.payment_intent is not None and waits


def in_work(case: OrderCase, unit: UnitRow) -> str | None:
    """Return why nobody may touch a unit just now, if a worker has it."""
    if unit.status is not UnitStatus.WORKING:
        return None
    return f"{case.named(unit)} is being worked on right now; try again in a minute"


def purchase_in_the_way(case: OrderCase, unit: UnitRow) -> str | None:
    """Return what to say of a unit that has an open purchase."""
    attempt = case.open_purchase(unit)
    if attempt is None:
        return None
    return (
        f"a purchase of {case.named(unit)} at {attempt.provider} is open ({attempt.state}); wait until it is "
        f"looked up, or say what became of it: numnaroad order resolve {case.order.display_id} --unit {unit.n} "
        f"--attempt {attempt.number}"
    )
