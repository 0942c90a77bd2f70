"""An operator cancels an order: an unpaid one is closed, what a paid one still waits for is given up and paid back."""

from uuid import UUID

from sqlalchemy import Connection

from esim.errors import Refused
from esim.orders import OrderStatus, UnitStatus
from resources.db.audit import Operator
from resources.db.operator_actions import Done, OrderCase, close_case, open_case
from resources.db.operator_refunds import RefundOptions, ask_for_refunds
from resources.db.transitions import OrderRow, lock_order, move_order

_CLOSED = "the checkout is closed and the order cancelled; nothing was paid"


def unpaid_order(conn: Connection, order_id: UUID) -> OrderRow | None:
    """Return an order whose payment page has to be closed before it is cancelled; None when it is paid or over.

    Raises:
        NotFound: there is no such order.
    """
    order = lock_order(conn, order_id)
    return None if _is_over(order) or order.payment_intent is not None else order


def cancel_order(
    conn: Connection, order_id: UUID, who: Operator, *, release_hold: bool = False, page_closed: bool = False
) -> Done:
    """Cancel what is left of an order; delivered eSIMs are left alone and named.

    `page_closed`: its payment page was closed for this just now, whose webhook may have cancelled the order already.

    Raises:
        NotFound: there is no such order.
        Refused: everything is delivered, or a purchase is open.
    """
    case = open_case(conn, order_id, who)
    if _is_over(case.order):
        if page_closed:
            case.changes.append(_CLOSED)
        return close_case(case, "order cancel")
    if case.order.payment_intent is None:
        return _cancel_unpaid(case)
    delivered = [unit for unit in case.units if unit.status is UnitStatus.DELIVERED]
    rest = [unit for unit in case.units if unit not in delivered]
    if delivered and all(unit.status in {UnitStatus.REFUNDED, UnitStatus.CANCELLED} for unit in rest):
        raise Refused(
            f"every eSIM of order {case.order.display_id} is delivered or paid back; delivered ones are paid back with "
            f"numnaroad order refund {case.order.display_id} --unit N"
        )
    case.left_alone.extend(f"{case.named(unit)} is delivered" for unit in delivered)
    ask_for_refunds(case, rest, RefundOptions(release_hold=release_hold))
    return close_case(case, "order cancel", {"units": [unit.n for unit in rest]})


def _is_over(order: OrderRow) -> bool:
    """Return whether nothing of an order is left to cancel: also when it failed because its payment did."""
    never_paid = order.status is OrderStatus.FAILED and order.payment_intent is None
    return never_paid or order.status in {OrderStatus.CANCELLED, OrderStatus.REFUNDED}


def _cancel_unpaid(case: OrderCase) -> Done:
    for unit in case.units:
        case.move(unit, UnitStatus.CANCELLED)
    who = case.who
    move_order(
        case.conn,
        case.order,
        OrderStatus.CANCELLED,
        reason=who.reason,
        actor=who.actor,
        now=who.now,
        run_id=who.run_id,
    )
    case.changes.append(_CLOSED)
    return close_case(case, "order cancel")
