"""Payments that a customer's bank takes back: kept, booked as they move, and their orders held, once each.

Every event of a dispute carries the whole of it, so any of them may come first or alone: what moved and is not booked
is booked, each movement under its own key; older news does not undo newer. The money stands in the account `disputes`
until the end: won, it comes back; lost, an operator says which eSIMs it paid back, and what is beyond them is a loss.
"""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import Connection, case, func, select, update
from sqlalchemy.dialects.postgresql import insert

from esim.disputes import Dispute, DisputeMovement
from esim.money import Cost, Money
from esim.orders import UnitStatus
from resources.db import hold_reasons, ledger, notices
from resources.db.order_money import is_all_back
from resources.db.tables import dispute_movements, disputes, ledger_entries, orders
from resources.db.tellers import Teller
from resources.db.transitions import Event, OrderRow, lock_order, lock_orders, lock_units, note
from resources.db.valuation import share_of_payment, usd_micros

WITHDRAWN = frozenset({"needs_response", "under_review"})
INQUIRY = frozenset({"warning_needs_response", "warning_under_review"})
OPEN = WITHDRAWN | INQUIRY
LOST = "lost"
REASON = "the customer's bank opened a dispute"
_ENDED = frozenset({UnitStatus.REFUNDED, UnitStatus.CANCELLED})
_IN_WORDS = {
    "won": "was won: the bank gives the money back",
    "lost": "was lost: the customer has the money",
    "warning_closed": "was only an inquiry and is closed",
    "prevented": "was prevented",
}


def dispute_told(conn: Connection, order_id: UUID | None, told: Dispute, at: datetime, teller: Teller) -> str:
    """Apply news of a dispute; return in a few words what was done. The same news again changes nothing.

    Without an order (nobody told us of the payment yet) it is kept for `take_up_disputes`.
    """
    if order_id is None:
        _keep(conn, None, told, at)
        return "kept until its payment is heard of"
    order = lock_order(conn, order_id)
    changed = _keep(conn, order_id, told, at)
    booked = _book(conn, order, told.dispute_id)
    held = _call_a_person(conn, order, told.dispute_id, teller)
    if changed:
        _tell_end(conn, order, told.dispute_id, teller)
    write_off_lost(conn, order)
    return "a person must look" if held else f"dispute {told.status}" if changed or booked else "known already"


def take_up_disputes(conn: Connection, order: OrderRow, payment_intent: str, teller: Teller) -> bool:
    """Apply the disputes of a payment that were told before the payment was; return whether its order is held now."""
    d = disputes.c
    early = update(disputes).where(d.payment_intent == payment_intent, d.order_id.is_(None))
    held = False
    for dispute_id in conn.scalars(early.values(order_id=order.order_id).returning(d.dispute_id)).all():
        _book(conn, order, dispute_id)
        held |= _call_a_person(conn, order, dispute_id, teller)
    return held


def take_up_overlooked(conn: Connection, teller: Teller) -> int:
    """Do for every dispute without an order whose payment is known now what `take_up_disputes` does; return how many.

    Also books what could not be booked when it was told, for want of a rate.
    """
    d, m = disputes.c, dispute_movements.c
    late = select(orders.c.order_id, d.payment_intent).join(disputes, d.payment_intent == orders.c.payment_intent)
    found = conn.execute(late.where(d.order_id.is_(None))).all()
    unbooked = select(d.order_id, d.dispute_id).join(dispute_movements, m.dispute_id == d.dispute_id)
    unbooked = unbooked.where(m.booked_at.is_(None), d.order_id.is_not(None)).distinct()
    waiting = conn.execute(unbooked).all()
    locked = lock_orders(conn, {row.order_id for row in (*found, *waiting)})
    for row in found:
        take_up_disputes(conn, locked[row.order_id], row.payment_intent, teller)
    booked = [_book(conn, lock_order(conn, row.order_id), row.dispute_id) for row in waiting]
    return len(found) + sum(booked)


def keep_movement(conn: Connection, moved: DisputeMovement) -> bool:
    """Book a movement of a known dispute that no event told of; return False where there is nothing to book."""
    row = conn.execute(select(disputes.c.order_id).where(disputes.c.dispute_id == moved.dispute_id)).one_or_none()
    if row is None or row.order_id is None:
        return False
    order = lock_order(conn, row.order_id)
    _keep_movements(conn, (moved,))
    return _book(conn, order, moved.dispute_id) > 0


def standing_dispute(conn: Connection, payment_intent: str | None) -> tuple[str, str] | None:
    """Return the id and status of a dispute for which the bank has a payment, or may get it; None without one.

    Of several it is one that is open yet.
    """
    d = disputes.c
    standing = (d.payment_intent == payment_intent, d.status.in_([*WITHDRAWN, LOST]))
    found = select(d.dispute_id, d.status).where(*standing).order_by(d.status == LOST, d.told_at.desc())
    row = conn.execute(found).first()
    return None if row is None else (str(row.dispute_id), str(row.status))


def taken_by_bank(conn: Connection, order: OrderRow) -> tuple[str, str] | None:
    """Return the id and status of a dispute that keeps money of an order; None where it is ours.

    A lost dispute keeps nothing any more when all that it took is counted as paid back for some eSIMs: the others are
    paid for.
    """
    standing = standing_dispute(conn, order.payment_intent)
    if standing is None or standing[1] != LOST:
        return standing
    m = dispute_movements.c
    moved = select(func.count(), func.count(m.booked_at)).where(m.dispute_id == standing[0])
    movements, booked = conn.execute(moved).one()
    is_written_down = movements > 0 and movements == booked and lost_micros(conn, order.order_id) <= 0
    return None if is_written_down else standing


def lost_micros(conn: Connection, order_id: UUID) -> int:
    """Return what disputes of an order took, in micro-USD, that no eSIM was counted as paid back with."""
    return ledger.balance(conn, order_id).get(ledger.Account.DISPUTES, 0)


def write_off_lost(conn: Connection, order: OrderRow) -> None:
    """Book as a loss what a lost dispute took of a locked order of which every eSIM was paid back otherwise."""
    d = disputes.c
    rows = conn.execute(select(d.dispute_id, d.status).where(d.order_id == order.order_id).order_by(d.told_at)).all()
    lost = [row.dispute_id for row in rows if row.status == LOST]
    if not lost or any(row.status in OPEN for row in rows):
        return
    left = lost_micros(conn, order.order_id)
    if left > 0 and all(unit.status in _ENDED for unit in lock_units(conn, order.order_id)):
        cost = Cost(Decimal(left).scaleb(-6), "USD")
        ledger.post(conn, f"dispute_lost:{lost[-1]}", order.order_id, ledger.dispute_lost(cost, left))


def _keep(conn: Connection, order_id: UUID | None, told: Dispute, at: datetime) -> bool:
    """Keep a dispute as it is told of; return whether its status is news."""
    d = disputes.c
    old = conn.execute(select(d.status).where(d.dispute_id == told.dispute_id).with_for_update()).one_or_none()
    row: dict[str, object] = {
        "dispute_id": told.dispute_id,
        "payment_intent": told.payment_intent,
        "order_id": order_id,
    }
    row |= {"amount_minor": told.amount.minor, "currency": told.amount.currency, "status": told.status}
    kept = insert(disputes).values(**row, answer_by=told.answer_by, told_at=at)
    news: dict[str, object] = {name: kept.excluded[name] for name in ("amount_minor", "status", "answer_by", "told_at")}
    # What was a mere inquiry calls a person anew when money is withdrawn for it.
    grown = d.status.startswith("warning_") & kept.excluded.status.in_(WITHDRAWN)
    news["seen_at"] = case((grown, None), else_=d.seen_at)
    # Events of one second come in any order: an end is later than what it ends.
    later = (d.told_at < at) | ((d.told_at == at) & d.status.in_(OPEN))
    kept = kept.on_conflict_do_update(index_elements=[d.dispute_id], set_=news, where=later)
    conn.execute(kept)
    named = update(disputes).where(d.dispute_id == told.dispute_id, d.order_id.is_(None))
    if order_id is not None:
        conn.execute(named.values(order_id=order_id))
    _keep_movements(conn, told.movements)
    status = conn.scalar(select(d.status).where(d.dispute_id == told.dispute_id))
    return old is None or old.status != status


def _keep_movements(conn: Connection, movements: tuple[DisputeMovement, ...]) -> None:
    for moved in movements:
        row = {"transaction_id": moved.transaction_id, "dispute_id": moved.dispute_id, "made_at": moved.made_at}
        row |= {"amount_minor": moved.amount.minor, "fee_minor": moved.fee.minor, "currency": moved.amount.currency}
        conn.execute(insert(dispute_movements).values(**row).on_conflict_do_nothing())


def _book(conn: Connection, order: OrderRow, dispute_id: str) -> int:
    """Book what a dispute moved and is not booked yet; return how many movements were."""
    m, d = dispute_movements.c, disputes.c
    due = select(m.transaction_id, m.amount_minor, m.fee_minor, m.currency, d.payment_intent)
    due = due.add_columns(d.amount_minor.label("disputed_minor"), d.currency.label("disputed_currency"))
    due = due.join_from(dispute_movements, disputes, m.dispute_id == d.dispute_id)
    booked = 0
    for row in conn.execute(due.where(m.dispute_id == dispute_id, m.booked_at.is_(None)).order_by(m.made_at)).all():
        moved, fee = Money(int(row.amount_minor), row.currency), Money(int(row.fee_minor), row.currency)
        amount = moved
        if not _is_paid_in(conn, row.payment_intent, moved.currency):  # settled in another currency than paid in
            sign = -1 if moved.minor < 0 else 1
            amount = Money(sign * int(row.disputed_minor), row.disputed_currency)
        micros = _micros(conn, order.order_id, row.payment_intent, amount)
        fee_micros = usd_micros(conn, order.order_id, fee) if fee.minor else 0
        if micros is None or fee_micros is None:
            text = f"Dispute {dispute_id} moved {moved} less {fee}, which has no reference rate: not booked."
            notices.tell_operations(
                conn, order.order_id, "fee_not_booked", f"fee_not_booked:{row.transaction_id}", text
            )
            continue
        key = row.transaction_id
        ledger.post(conn, f"dispute:{key}", order.order_id, ledger.dispute_moved(amount, micros))
        if fee.minor:
            ledger.post(conn, f"dispute_fee:{key}", order.order_id, ledger.payment_fee(fee, fee_micros))
        done = update(dispute_movements).where(m.transaction_id == row.transaction_id)
        conn.execute(done.values(booked_at=func.now()))
        booked += 1
    return booked


def _is_paid_in(conn: Connection, payment_intent: str, currency: str) -> bool:
    e = ledger_entries.c
    booked = select(e.original_currency).where(
        e.posting_key == f"payment:{payment_intent}", e.account == ledger.Account.CASH
    )
    paid_in = conn.scalar(booked)
    return paid_in is None or paid_in == currency


def _micros(conn: Connection, order_id: UUID, payment_intent: str, amount: Money) -> int | None:
    """Value a withdrawal as its payment was booked, so that all of it taken back leaves nothing behind."""
    share = share_of_payment(conn, payment_intent, amount)
    return share if share is not None else usd_micros(conn, order_id, amount)


def _call_a_person(conn: Connection, order: OrderRow, dispute_id: str, teller: Teller) -> bool:
    """Hold an order the first time its dispute is seen, unless it is over by then without harm."""
    d = disputes.c
    row = conn.execute(select(d.status, d.seen_at, d.amount_minor, d.currency).where(d.dispute_id == dispute_id)).one()
    if row.seen_at is not None or row.status not in {*OPEN, LOST}:
        return False
    conn.execute(update(disputes).where(d.dispute_id == dispute_id).values(seen_at=teller.now))
    if not notices.hold_and_tell(conn, order, reason=REASON, actor=teller.actor, now=teller.now):
        event = Event(order.order_id, order.status, order.status, REASON, teller.actor, teller.now)
        note(conn, [event])
    amount = Money(int(row.amount_minor), row.currency)
    back = Money(order.refunded_minor, order.currency)
    paid_back = f" {back} of it went back already: say so in the answer." if order.refunded_minor else ""
    text = f"Order {order.display_id}: {REASON} ({dispute_id}, {amount}).{paid_back}"
    key = f"dispute:{dispute_id}:inquiry" if row.status in INQUIRY else f"dispute:{dispute_id}"
    answer = "Answer it in Stripe before its deadline."
    notices.tell_operations(conn, order.order_id, "dispute", key, f"{text} {answer}")
    return True


def _tell_end(conn: Connection, order: OrderRow, dispute_id: str, teller: Teller) -> None:
    status = conn.scalar(select(disputes.c.status).where(disputes.c.dispute_id == dispute_id))
    words = _IN_WORDS.get(str(status))
    if words is None:
        return
    text = f"dispute {dispute_id} {words}. {_next_step(conn, order, str(status))}".strip()
    event = Event(order.order_id, order.status, order.status, text, teller.actor, teller.now)
    note(conn, [event])
    key = f"dispute:{dispute_id}:{status}"
    notices.tell_operations(conn, order.order_id, "dispute", key, f"Order {order.display_id}: {text}")


def _next_step(conn: Connection, order: OrderRow, status: str) -> str:
    """Return what is left to do about an order whose dispute is over; empty where it is nothing."""
    if status == LOST:
        return "Write it down, never pay it back as well."
    if order.hold_reason is None:
        return ""
    if taken_by_bank(conn, order) is not None:
        return "Another dispute of its payment stands: leave the order held."
    if is_all_back(conn, order.order_id):
        return "All of its payment went back to the customer: write it down, or release the order as goodwill."
    if others := hold_reasons.besides(order.hold_reason, REASON):
        return f"It is held for more: {others}. Release it when that is settled too."
    return "Release the order."
