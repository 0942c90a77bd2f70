"""An operator gives units up and has their price paid back: exactly their share, once, never more than was paid.

A unit that was not delivered is given up first, so that it can never be bought after. A delivered one stays delivered
until its money is on its way. What a purchase that is still open turns out to have bought goes to stock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, func, select

from esim.errors import Refused
from esim.money import Money, exponent
from esim.orders import UnitStatus
from resources.db.audit import Operator
from resources.db.disputes import LOST, standing_dispute
from resources.db.ledger import Account
from resources.db.operator_actions import (
    Done,
    OrderCase,
    check_paid,
    chosen,
    close_case,
    in_work,
    open_case,
    purchase_in_the_way,
    release_hold,
)
from resources.db.overdue import look_on
from resources.db.refunds import STANDING, request_unit_refund, unit_price, unit_refund_key
from resources.db.tables import ledger_entries, refunds
from resources.db.transitions import OrderRow, UnitRow

ASKED = "an operator asked for it"  # in the payment service and in the lake: the operator's words stay in the store
_COUNTED = ("requested", "sent", "succeeded", "elsewhere")


@dataclass(frozen=True, slots=True)
class RefundOptions:
    """Which units (none means all), and what the operator says in so many words.

    `even_if_open`: give a unit up although a purchase of it is open. `again`: ask again for a refund that the payment
    service refused for good, under a new key; somebody must have seen there that the first was not paid.
    """

    units: tuple[int, ...] = ()
    even_if_open: bool = False
    release_hold: bool = False
    again: bool = False


def refund_units(conn: Connection, order_id: UUID, who: Operator, options: RefundOptions) -> Done:
    """Ask for the price of units to go back; it is paid after the commit.

    Raises:
        NotFound: there is no such order.
        Refused: one of the units cannot be paid back now; nothing was changed.
    """
    case = open_case(conn, order_id, who)
    asked = ask_for_refunds(case, chosen(case, options.units), options)
    return close_case(case, "order refund", {"units": asked})


def ask_for_refunds(case: OrderCase, wanted: Sequence[UnitRow], options: RefundOptions) -> list[int]:
    """Give up and ask for the refund of units of an open case; return their numbers."""
    check_paid(case)
    open_ones = [unit for unit in wanted if not case.is_settled(unit)]
    due = [unit for unit in open_ones if not _is_asked_for(case, unit)]
    case.left_alone.extend(_under_way(case, unit) for unit in open_ones if unit not in due)
    refused = [why for unit in due if (why := _why_not(case, unit, options)) is not None]
    if refused:
        raise Refused(f"order {case.order.display_id}: {'; '.join(refused)}")
    if due:
        _check_undisputed(case)
        release_hold(case, options.release_hold)
        _check_amount(case, due)
    for unit in due:
        _ask(case, unit)
    return [unit.n for unit in due]


def give_up(case: OrderCase, unit: UnitRow) -> None:
    """Fail a unit that was not delivered: nobody can work it any more, but an open purchase of it is looked up on."""
    look_on(case.conn, unit, case.who.now)
    case.move(unit, UnitStatus.FAILED, {"next_attempt_at": None, "slot_wait_since": None})


def paid_minor(case: OrderCase) -> int:
    """Return what was paid for an order in its currency's minor units, as it was booked.

    Raises:
        Refused: it is not what the order costs, so no unit has a share of it.
    """
    order, e = case.order, ledger_entries.c
    booked = select(e.original_amount, e.original_currency).where(
        e.posting_key == f"payment:{order.payment_intent}", e.account == Account.CASH
    )
    row = case.conn.execute(booked).one_or_none()
    scale = exponent(order.currency)
    if row is None or (row.original_currency, row.original_amount.scaleb(scale)) != (
        order.currency,
        order.amount_minor,
    ):
        raise Refused(
            f"what was paid for order {order.display_id} is not its price: pay the payment back in Stripe's dashboard, "
            f"then write it down: numnaroad order refund {order.display_id} --all --paid-elsewhere --release-hold"
        )
    return order.amount_minor


def _is_asked_for(case: OrderCase, unit: UnitRow) -> bool:
    """Return whether a unit's refund is under way and will be paid as the unit stands."""
    row = case.refunds.get(unit.n)
    if row is None or row.state != "requested":
        return False
    return unit.status is UnitStatus.FAILED or (unit.status in STANDING and bool(row.as_it_stands))


def _under_way(case: OrderCase, unit: UnitRow) -> str:
    row, order = case.refunds[unit.n], case.order.display_id
    if not row.last_error:
        return f"the refund of {case.named(unit)} is under way"
    return (
        f"the refund of {case.named(unit)} is under way ({row.last_error}): numnaroad refunds retry --order {order} "
        "tries it at once"
    )


def _why_not(case: OrderCase, unit: UnitRow, options: RefundOptions) -> str | None:
    if busy := in_work(case, unit):
        return busy
    if not options.even_if_open and (open_one := purchase_in_the_way(case, unit)):
        return (
            f"{open_one}; or pay it back, and what turns up later goes to stock: {_command(case, unit)} --even-if-open"
        )
    row, elsewhere = case.refunds.get(unit.n), f"{_command(case, unit)} --paid-elsewhere"
    if row is not None and row.state in {"sent", "succeeded"}:
        return f"the money for {case.named(unit)} went back already; write that down: {elsewhere}"
    if row is not None and row.state == "failed" and not options.again:
        return (
            f"the refund of {case.named(unit)} failed ({row.last_error}): look at {row.payment_intent} in Stripe, then "
            f"ask again: {_command(case, unit)} --again, or pay it another way and write that down: {elsewhere}"
        )
    return None


def _command(case: OrderCase, unit: UnitRow) -> str:
    """Return the whole command that pays a unit back: who reads it may have typed another one."""
    hold = " --release-hold" if case.order.hold_reason is not None else ""
    return f"numnaroad order refund {case.order.display_id} --unit {unit.n}{hold}"


def _check_undisputed(case: OrderCase) -> None:
    """Refuse to pay a payment back that the bank takes back already: the customer would have it twice."""
    standing = standing_dispute(case.conn, case.order.payment_intent)
    if standing is None:
        return
    (dispute, status), name = standing, case.order.display_id
    if status == LOST:
        raise Refused(
            f"order {name}: the customer has the money by the lost dispute {dispute}; write that down: "
            f"numnaroad order refund {name} --all --paid-elsewhere --release-hold"
        )
    raise Refused(
        f"order {name}: the bank has the payment for dispute {dispute} ({status}), and Stripe pays nothing back until "
        "it is over; accept or answer it in Stripe"
    )


def _check_amount(case: OrderCase, due: Sequence[UnitRow]) -> None:
    order = case.order
    left = paid_minor(case) - _asked_minor(case.conn, order, [unit.n for unit in due])
    wanted = sum(unit_price(case.conn, unit) for unit in due)
    if wanted > left:
        asked, most = Money(wanted, order.currency), Money(max(left, 0), order.currency)
        raise Refused(
            f"order {order.display_id}: only {most} of its payment is left, not {asked}; what was paid back by hand is "
            "written down per eSIM with --paid-elsewhere"
        )


def _asked_minor(conn: Connection, order: OrderRow, besides: Sequence[int]) -> int:
    """Return what was paid back of an order's payment or is about to be, without the refunds of `besides`."""
    r = refunds.c
    of_payment = (r.order_id == order.order_id, r.payment_intent == order.payment_intent, r.state.in_(_COUNTED))
    total = select(func.coalesce(func.sum(r.amount_minor), 0)).where(*of_payment)
    return int(conn.scalar(total.where(r.esim_n.is_(None) | r.esim_n.not_in(besides))) or 0)


def _ask(case: OrderCase, unit: UnitRow) -> None:
    if unit.status in STANDING:
        case.remark(f"refund asked for: {case.who.reason}", esim_n=unit.n)
    else:
        give_up(case, unit)
    before = case.refunds.get(unit.n)
    again = before is not None and before.state == "failed"
    key = _next_key(case, unit) if again else None
    request_unit_refund(case.conn, case.order, unit, ASKED, asked_by=case.who.actor, key=key)
    price = Money(unit_price(case.conn, unit), case.order.currency)
    case.changes.append(f"{price} for {case.named(unit)} goes back to the customer")


def _next_key(case: OrderCase, unit: UnitRow) -> str:
    """Return the key of the next refund of a unit whose refunds so far were refused for good."""
    r = refunds.c
    so_far = select(func.count()).select_from(refunds).where(r.order_id == unit.order_id, r.esim_n == unit.n)
    return f"{unit_refund_key(unit.order_id, unit.n)}:{int(case.conn.scalar(so_far) or 0) + 1}"
