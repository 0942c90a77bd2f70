"""Orders that wait for a person as a whole, held or paid in a way that does not fit, and what may be done with each.

What is offered goes by where the money is: nothing of an order that was paid back by hand is paid back again, a payment
that is not the order's price goes back at the payment service only, and what is delivered is left alone.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import Connection, text

from esim.money import Money, exponent
from resources.db.disputes import LOST
from resources.db.order_advice import MINUTES_MORE, Advice, Urgency, command

_ORDERS = text(
    """
    select o.order_id, o.display_id, o.hold_reason, o.attention_reason, o.updated_at as since, o.deadline_at,
        o.payment_intent is not null as is_paid, o.amount_minor, o.refunded_minor, o.currency,
        (select l.original_amount from ledger_entries l where l.posting_key = 'payment:' || o.payment_intent
            and l.account = 'cash' and l.original_currency = o.currency) as paid,
        exists (select from refunds r where r.order_id = o.order_id and r.payment_intent = o.payment_intent
            and r.esim_n is null and r.state in ('sent', 'succeeded')) as by_hand,
        array(select e.n from esims e where e.order_id = o.order_id and e.status not in (
            'delivered', 'refunded', 'cancelled') order by e.n) as waiting,
        (select count(*) from esims e where e.order_id = o.order_id) as units,
        exists (select from purchase_attempts a where a.order_id = o.order_id
            and a.state in ('intent', 'prepared', 'pending', 'unknown')) as is_open
    from orders o
    where o.status = 'attention' and (o.hold_reason is not null or not exists (
        select 1 from esims e where e.order_id = o.order_id and e.status = 'attention'))
    order by o.updated_at
    """
)


@dataclass(frozen=True, slots=True)
class WaitingOrder:
    """An order that waits as a whole; `waiting` are its eSIMs that are neither delivered nor paid back."""

    order_id: UUID
    display_id: str
    since: datetime
    reason: str
    deadline_at: datetime | None
    is_held: bool
    is_paid: bool
    fits: bool  # what was paid is its price
    refunded: Money
    by_hand: bool  # some of its payment went back, and nobody said for which eSIM
    waiting: tuple[int, ...]
    units: int
    is_open: bool  # a purchase of it has no end yet


def waiting_orders(conn: Connection) -> dict[UUID, WaitingOrder]:
    """Return the orders that wait for a person as a whole, oldest first."""
    found = {}
    for row in conn.execute(_ORDERS):
        scale = exponent(row.currency)
        found[row.order_id] = WaitingOrder(
            order_id=row.order_id,
            display_id=row.display_id,
            since=row.since,
            reason=row.hold_reason or row.attention_reason or "nobody wrote down why",
            deadline_at=row.deadline_at,
            is_held=row.hold_reason is not None,
            is_paid=row.is_paid,
            fits=row.paid is not None and Decimal(row.paid).scaleb(scale) == row.amount_minor,
            refunded=Money(int(row.refunded_minor), row.currency),
            by_hand=row.by_hand,
            waiting=tuple(row.waiting),
            units=int(row.units),
            is_open=row.is_open,
        )
    return found


def advise_order(order: WaitingOrder, now: datetime, dispute: str | None = None) -> Advice:
    """Return what to do with an order that waits as a whole; `dispute` is the status of the one that stops refunds."""
    kind = "held" if order.is_held else "undecided"
    show, back = f"numnaroad order show {order.display_id}", _pay_back(order, dispute)
    if not order.is_paid:  # of a payment that nobody can pay back, or nothing was paid at all
        return Advice(kind, Urgency.NOW, order.reason, (show,))
    release = release_command(order, now, lost=dispute == LOST)
    commands = (show, *back, release) if order.by_hand or dispute == LOST else (show, release, *back)
    if dispute is not None and dispute != LOST:
        commands = (show,)
    return Advice(kind, Urgency.NOW, "; ".join((order.reason, *_notes(order, dispute))), commands)


def release_command(order: WaitingOrder, now: datetime, *, lost: bool = False) -> str:
    """Return the command that lets an order go on: as a gift, where its money went back or a bank took it for good."""
    over = order.waiting and order.deadline_at is not None and order.deadline_at <= now
    deadline = f"--extend-deadline {MINUTES_MORE}" if over else ""
    gift = "--goodwill" if order.waiting and (order.by_hand or lost) else ""
    return command(f"order retry {order.display_id}", deadline, "--release-hold", gift)


def _pay_back(order: WaitingOrder, dispute: str | None) -> tuple[str, ...]:
    if not order.waiting or (dispute is not None and dispute != LOST):
        return ()
    all_of_it = len(order.waiting) == order.units
    which = "--all" if all_of_it else " ".join(f"--unit {n}" for n in order.waiting)
    how = "--paid-elsewhere" if order.by_hand or not order.fits or dispute == LOST else ""
    even = "--even-if-open" if order.is_open else ""
    return (command(f"order refund {order.display_id} {which}", how, even, "--release-hold"),)


def _notes(order: WaitingOrder, dispute: str | None) -> tuple[str, ...]:
    notes = []
    if not order.fits:
        notes.append("to pay it back, pay it back in Stripe's dashboard first")
    elif order.by_hand and order.refunded.minor:
        notes.append(f"{order.refunded} of its price went back already")
    if order.is_open:
        notes.append("a purchase of it is open: what it bought goes to stock where it is paid back")
    if dispute is not None and dispute != LOST:
        notes.append("the bank has its payment: nothing can be paid back")
    return tuple(notes)
