"""Which notices a change of an order calls for, queued in the same transaction.

A customer is written to when nothing of the order is being worked on any more: once about what was delivered, once
about what was refunded, naming only units no mail has named before. Operations hear of every end, and of everything
that needs a person. Texts for Slack carry ids and reasons, never personal data.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, select

from esim.orders import OrderStatus, UnitStatus
from resources.db.outbox import Channel, enqueue
from resources.db.tables import outbox
from resources.db.transitions import OrderRow, UnitRow

CONFIRMATION = "order_confirmation"
REFUNDED = "order_failed_refunded"
_RETRY_IS_FAR = timedelta(minutes=2)
_IN_WORK = frozenset({UnitStatus.UNPAID, UnitStatus.WORKING, UnitStatus.PENDING, UnitStatus.UNKNOWN})


def tell_of_changes(conn: Connection, order: OrderRow, units: Sequence[UnitRow], now: datetime) -> None:
    """Queue what a changed order calls for; the caller holds the order's lock and passes its units as they are now."""
    if any(_is_in_work(unit, now) for unit in units):
        return
    delivered = [unit.n for unit in units if unit.status is UnitStatus.DELIVERED]
    _tell_customer(conn, order, CONFIRMATION, "confirmation", delivered)
    if not any(unit.status is UnitStatus.FAILED for unit in units):
        _tell_customer(conn, order, REFUNDED, "refunded", [u.n for u in units if u.status is UnitStatus.REFUNDED])
    if order.status is OrderStatus.COMPLETED:
        text = f"Order {order.display_id} is complete: {len(delivered)} of {len(units)} eSIMs delivered."
        tell_operations(conn, order.order_id, "order_completed", f"completed:{order.order_id}", text)


def tell_operations(conn: Connection, order_id: UUID | None, kind: str, key: str, text: str) -> None:
    """Queue one note for Slack, once per key; `text` carries ids and reasons only."""
    enqueue(conn, key=f"slack:{key}", channel=Channel.SLACK, kind=kind, order_id=order_id, payload={"text": text})


def tell_unit_failed(conn: Connection, order: OrderRow, unit: UnitRow, reason: str) -> None:
    """Tell operations that a unit was given up."""
    text = f"Order {order.display_id}, eSIM {unit.n}: given up. {reason}"
    tell_operations(conn, order.order_id, "order_failed", f"failed:{order.order_id}:{unit.n}:{unit.fence}", text)


def tell_attention(conn: Connection, order: OrderRow, unit: UnitRow, reason: str) -> None:
    """Tell operations that a person must look at a unit."""
    text = f"Order {order.display_id}, eSIM {unit.n} needs a person: {reason}"
    tell_operations(conn, order.order_id, "attention", f"attention:{order.order_id}:{unit.n}:{unit.fence}", text)


def _is_in_work(unit: UnitRow, now: datetime) -> bool:
    if unit.status is UnitStatus.QUEUED:
        return unit.next_attempt_at is None or unit.next_attempt_at - now < _RETRY_IS_FAR
    return unit.status in _IN_WORK


def _tell_customer(conn: Connection, order: OrderRow, kind: str, prefix: str, units: Iterable[int]) -> None:
    news = sorted(set(units) - _told(conn, order.order_id, kind))
    if not news:
        return
    first = enqueue(
        conn,
        key=f"{prefix}:{order.order_id}",
        channel=Channel.MAIL,
        kind=kind,
        order_id=order.order_id,
        payload={"esims": news},
    )
    if not first:
        key = f"{prefix}:{order.order_id}:{'-'.join(map(str, news))}"
        enqueue(conn, key=key, channel=Channel.MAIL, kind=kind, order_id=order.order_id, payload={"esims": news})


def _told(conn: Connection, order_id: UUID, kind: str) -> set[int]:
    written = select(outbox.c.payload).where(outbox.c.order_id == order_id, outbox.c.kind == kind)
    return {int(n) for payload in conn.scalars(written) for n in payload.get("esims", ())}
