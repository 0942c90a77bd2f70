"""An operator writes down that a customer has the money back already: by hand at Stripe, by bank, by a lost dispute.

Nothing is paid here. What Stripe lists as refunded comes first: what nobody heard of yet is booked as its event would
be, so that the late event changes nothing. Money that is booked without a unit (`refunds`) only gets its unit; the rest
went another way and is booked now. The unit then counts as paid back, which it never leaves again.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.postgresql import insert

from esim.errors import Refused
from esim.money import Money
from esim.orders import UnitStatus
from esim.ports import Refund
from resources.db import ledger
from resources.db.audit import Operator
from resources.db.disputes import LOST, lost_micros, standing_dispute, write_off_lost
from resources.db.hand_refunds import hold_if_paid_back
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
from resources.db.operator_refunds import RefundOptions, give_up
from resources.db.order_money import money_of
from resources.db.refund_events import hear_listed
from resources.db.refunded import count_refunded, not_attributed
from resources.db.refunds import STANDING, unit_price, unit_refund_key
from resources.db.tables import order_items, refunds
from resources.db.tellers import Teller
from resources.db.transitions import UnitRow, lock_order


def note_paid_elsewhere(
    conn: Connection, order_id: UUID, who: Operator, options: RefundOptions, listed: Sequence[Refund] = ()
) -> Done:
    """Count units as paid back, and book what was not booked yet; nothing is paid.

    `listed` are all refunds of the order's payment as the payment service has them now.

    Raises:
        NotFound: there is no such order.
        Refused: one of the units is being worked on, bought or paid back just now; nothing was changed.
    """
    teller = Teller(who.actor, who.now)
    heard = hear_listed(conn, lock_order(conn, order_id), listed, teller, hold=False)
    case = open_case(conn, order_id, who)
    check_paid(case)
    case.changes.extend(heard)
    wanted = chosen(case, options.units)
    due = [unit for unit in wanted if not case.is_settled(unit)]
    in_vain = _paid_in_vain(case, wanted)
    refused = [why for unit in due if (why := _why_not(case, unit, options)) is not None]
    if refused:
        raise Refused(f"order {case.order.display_id}: {'; '.join(refused)}")
    if due:
        _check_decided(case)
    if due or ((heard or in_vain) and options.release_hold):
        release_hold(case, options.release_hold)
    for unit in due:
        _settle(case, unit)
    for unit in in_vain:
        _make_good(case, unit)
    if due:
        write_off_lost(conn, case.order)
    done = close_case(case, "order paid elsewhere", {"units": [unit.n for unit in (*due, *in_vain)]})
    if heard:
        hold_if_paid_back(conn, case.order, teller)
    return done


def _check_decided(case: OrderCase) -> None:
    standing = standing_dispute(case.conn, case.order.payment_intent)
    if standing is not None and standing[1] != LOST:
        raise Refused(
            f"order {case.order.display_id}: dispute {standing[0]} is {standing[1]}, so nobody knows yet who has the "
            "money; accept or answer it in Stripe, and write it down when it is lost"
        )


def _why_not(case: OrderCase, unit: UnitRow, options: RefundOptions) -> str | None:
    if busy := in_work(case, unit):
        return busy
    if not options.even_if_open and (open_one := purchase_in_the_way(case, unit)):
        return f"{open_one}; or add --even-if-open: what turns up later goes to stock"
    if case.refund_state(unit) == "requested":
        return f"the refund of {case.named(unit)} is under way; see what comes of it first"
    return None


def _settle(case: OrderCase, unit: UnitRow) -> None:
    price, order = unit_price(case.conn, unit), case.order
    missing = min(max(0, price - not_attributed(case.conn, order)), _left_of_payment(case))
    if unit.status not in {*STANDING, UnitStatus.FAILED}:
        give_up(case, unit)
    case.move(unit, UnitStatus.REFUNDED, {"refunded_at": case.who.now})
    before = case.refunds.get(unit.n)
    if missing:
        _book(case, unit, missing)
    elif before is not None and before.state == "failed":
        change = update(refunds).where(refunds.c.refund_key == before.refund_key)
        case.conn.execute(change.values(state="called_off", last_error="paid back by hand", finished_at=case.who.now))
    booked = f", {Money(missing, order.currency)} of it booked now" if missing else ", booked when it was paid"
    case.changes.append(f"{case.named(unit)} counts as paid back{booked}")


def _paid_in_vain(case: OrderCase, wanted: Sequence[UnitRow]) -> list[UnitRow]:
    """Return units that count as paid back by a refund by hand that did not reach the customer."""
    if not_attributed(case.conn, case.order) >= 0 or _left_of_payment(case) == 0:
        return []
    return [unit for unit in wanted if unit.status is UnitStatus.REFUNDED and case.refund_state(unit) is None]


def _make_good(case: OrderCase, unit: UnitRow) -> None:
    owed = max(0, -not_attributed(case.conn, case.order))
    missing = min(unit_price(case.conn, unit), owed, _left_of_payment(case))
    if missing:
        _book(case, unit, missing)
        case.changes.append(f"{case.named(unit)}: {Money(missing, case.order.currency)} of it booked now")


def _left_of_payment(case: OrderCase) -> int:
    """Return how much of the payment has not gone back yet: less was paid for some orders than they cost."""
    [money] = money_of(case.conn, [case.order.order_id])
    return max(0, money.paid.minor - money.back.minor)


def _book(case: OrderCase, unit: UnitRow, minor: int) -> None:
    order, amount = case.order, Money(minor, case.order.currency)
    key, before = unit_refund_key(order.order_id, unit.n), case.refunds.get(unit.n)
    row = {"refund_key": key if before is None else before.refund_key, "order_id": order.order_id, "esim_n": unit.n}
    row |= {"payment_intent": order.payment_intent, "amount_minor": minor, "currency": order.currency}
    row |= {"reason": "paid back another way", "asked_by": case.who.actor}
    row |= {"state": "elsewhere", "finished_at": case.who.now, "as_it_stands": False}
    kept = insert(refunds).values(**row)
    changed = {name: kept.excluded[name] for name in ("amount_minor", "reason", "asked_by", "state", "finished_at")}
    case.conn.execute(kept.on_conflict_do_update(index_elements=[refunds.c.refund_key], set_=changed))
    entries = ledger.refund_by_dispute(amount, _micros(case, unit, minor), lost_micros(case.conn, order.order_id))
    ledger.post(case.conn, f"elsewhere:{key}", order.order_id, entries, unit.n)
    count_refunded(case.conn, order, case.who.now)


def _micros(case: OrderCase, unit: UnitRow, minor: int) -> int:
    """Return the value of a part of a unit's price in micro-USD, at the rate the unit was sold at."""
    i = order_items.c
    sold = case.conn.execute(select(i.unit_price_minor, i.unit_price_micros_usd).where(i.item_id == unit.item_id)).one()
    return int(sold.unit_price_micros_usd) * minor // int(sold.unit_price_minor)
