"""Which notices a change of an order calls for, queued in the same transaction.

A customer is written to when nothing of the order is being worked on any more: once about what was delivered, once
about what was refunded, naming only units no mail has named before. Operations hear of every end, and of everything
that needs a person. Texts for Slack carry ids and reasons, never personal data.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, text

from esim.orders import OrderStatus, UnitStatus
from resources.db.outbox import Channel, Notice, enqueue_many
from resources.db.transitions import OrderRow, UnitRow, hold_order, lock_units

COMPLETED = "order_completed"
CONFIRMATION = "order_confirmation"
REFUNDED = "order_failed_refunded"
_Told = Mapping[tuple[UUID, str], set[int]]  # order and kind of mail -> the units such mails have named
_NOTICES_OF = text("select order_id, kind, payload from outbox where order_id = any(:ids)")
_RETRY_IS_FAR = timedelta(minutes=2)
_IN_WORK = frozenset({UnitStatus.UNPAID, UnitStatus.WORKING, UnitStatus.PENDING, UnitStatus.UNKNOWN})


def tell_of_changes(conn: Connection, order: OrderRow, units: Sequence[UnitRow], now: datetime) -> None:
    """Queue what a changed order calls for; the caller holds the order's lock and passes its units as they are now."""
    tell_of_many(conn, [(order, units)], now)


def tell_of_many(conn: Connection, changed: Sequence[tuple[OrderRow, Sequence[UnitRow]]], now: datetime) -> None:
    """Do what `tell_of_changes` does for many orders, in two statements."""
    enqueue_many(conn, called_for(conn, changed, now))


def hold_and_tell(conn: Connection, order: OrderRow, *, reason: str, actor: str, now: datetime) -> bool:
    """Hold a locked order as `hold_order` does, and tell its customer of what is delivered: a hold may last for weeks.

    What waited in the queue waits for a person from now on, so that nothing of the order may be in work any more.
    """
    held = hold_order(conn, order, reason=reason, actor=actor, now=now)
    if held:
        tell_of_changes(conn, order, lock_units(conn, order.order_id), now)
    return held


def called_for(conn: Connection, changed: Sequence[tuple[OrderRow, Sequence[UnitRow]]], now: datetime) -> list[Notice]:
    """Return what changed orders call for, for the caller to queue; see `tell_of_changes`."""
    ended = [(order, units) for order, units in changed if not any(_is_in_work(unit, now) for unit in units)]
    if not ended:
        return []
    told = _told(conn, [order.order_id for order, _ in ended])
    return [notice for order, units in ended for notice in _called_for(order, units, told)]


def _called_for(order: OrderRow, units: Sequence[UnitRow], told: _Told) -> Iterator[Notice]:
    delivered = [unit.n for unit in units if unit.status is UnitStatus.DELIVERED]
    yield from _to_customer(order, CONFIRMATION, "confirmation", delivered, told)
    if not any(unit.status is UnitStatus.FAILED for unit in units):
        refunded = [unit.n for unit in units if unit.status is UnitStatus.REFUNDED]
        yield from _to_customer(order, REFUNDED, "refunded", refunded, told)
    if order.status is OrderStatus.COMPLETED:
        text = f"Order {order.display_id} is complete: {len(delivered)} of {len(units)} eSIMs delivered."
        yield _to_operations(order.order_id, COMPLETED, f"completed:{order.order_id}", text)


def tell_operations(conn: Connection, order_id: UUID | None, kind: str, key: str, text: str) -> None:
    """Queue one note for Slack, once per key; `text` carries ids and reasons only."""
    enqueue_many(conn, [_to_operations(order_id, kind, key, text)])


def tell_unit_failed(conn: Connection, order: OrderRow, unit: UnitRow, reason: str) -> None:
    """Tell operations that a unit was given up."""
    text = f"Order {order.display_id}, eSIM {unit.n}: given up: {reason.removeprefix('given up: ')}"
    tell_operations(conn, order.order_id, "order_failed", f"failed:{order.order_id}:{unit.n}:{unit.fence}", text)


def tell_attention(conn: Connection, order: OrderRow, unit: UnitRow, reason: str) -> None:
    """Tell operations that a person must look at a unit."""
    text = f"Order {order.display_id}, eSIM {unit.n} needs a person: {reason}"
    tell_operations(conn, order.order_id, "attention", f"attention:{order.order_id}:{unit.n}:{unit.fence}", text)


def _is_in_work(unit: UnitRow, now: datetime) -> bool:
    if unit.status is UnitStatus.QUEUED:
        return unit.next_attempt_at is None or unit.next_attempt_at - now < _RETRY_IS_FAR
    return unit.status in _IN_WORK


def _to_operations(order_id: UUID | None, kind: str, key: str, text: str) -> Notice:
    return Notice(f"slack:{key}", Channel.SLACK, kind, order_id, {"text": text})


def _to_customer(order: OrderRow, kind: str, prefix: str, units: Sequence[int], told: _Told) -> Iterator[Notice]:
    """Yield the mail about units no mail of this kind has named; the first of an order has the order's plain key."""
    before = told.get((order.order_id, kind), set())
    if news := sorted(set(units) - before):
        key = f"{prefix}:{order.order_id}" + (f":{'-'.join(map(str, news))}" if before else "")
        yield Notice(key, Channel.MAIL, kind, order.order_id, {"esims": news})


def _told(conn: Connection, order_ids: Sequence[UUID]) -> _Told:
    told = dict[tuple[UUID, str], set[int]]()
    for row in conn.execute(_NOTICES_OF, {"ids": order_ids}):
        told.setdefault((row.order_id, row.kind), set()).update(int(n) for n in row.payload.get("esims", ()))
    return told
