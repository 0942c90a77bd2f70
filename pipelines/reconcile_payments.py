"""Find what the payment service knows and we do not: lost webhooks lose nothing.

events since the mark, oldest first -> the webhook's own handlers -> payment pages of the last day, and of orders that
wait for long -> the same `record_payment` and `cancel_unpaid`. What the webhook brings meanwhile changes nothing here,
and the other way round: the inbox's key and the order's lock decide. The mark moves only after a whole look; what
happened in the last two minutes is left to its webhook.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Connection, select

from esim.errors import NumnaRoadError, PaymentRejected
from esim.orders import OrderStatus
from esim.ports import CheckoutSession, PaymentEvent
from resources.db import notices
from resources.db.disputes import keep_movement, take_up_overlooked
from resources.db.findings import Finding, Settled, note_finding, open_findings, settle_findings
from resources.db.marks import looked_until, note_looked
from resources.db.payments import Booking, Payment, PaymentResult, cancel_unpaid, record_payment
from resources.db.refunds import paid_back
from resources.db.tables import inbox_events, orders, refunds
from resources.db.tellers import Teller
from resources.db.together import STORE_AWAY
from resources.order_operations import OrderTools
from resources.payment_events import DUPLICATE, HANDLERS, SOURCE, UNKNOWN_ORDER, TakenEvent, take_event_asking

ACTOR = "reconciler"
MARK = "stripe"
SIDE = "payments:webhooks"
APPLYING = "payments:applying"
OVERLAP = timedelta(hours=1)
GRACE = timedelta(minutes=2)  # what is younger may have its webhook on the way
PAGE_LIFE = timedelta(hours=25)  # a payment page lives a day at most, so one opened before may still be paid now
EVENTS_KEPT = timedelta(days=30)
LONG_PENDING = timedelta(minutes=10)
ASK_ABOUT = 200  # orders that wait for long are asked about one by one
_AT_ONCE = 100
_CHANGES_NOTHING = (
    "known already",
    "nothing to cancel",
    "paid meanwhile",
    "not a refund of ours",
    "no amount",
    "noted",
)
_T = TypeVar("_T")
_log = logging.getLogger("numnaroad.reconcile")


@dataclass(slots=True)
class PaymentsReport:
    """What one look found: what was mended in words, what could not be, and who paid for nothing of ours."""

    since: datetime
    events: int = 0
    sessions: int = 0
    lost: int = 0  # events that never arrived, whether or not they still changed anything
    mended: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    unapplied: list[Finding] = field(default_factory=list)
    orphans: list[Finding] = field(default_factory=list)
    settled: Settled | None = None


def reconcile_payments(
    tools: OrderTools, since: datetime | None = None, mended: list[str] | None = None
) -> PaymentsReport:
    """Apply what is at the payment service and missing here, and say what was found.

    What is mended is put into `mended` as it is, for who must know of it also when the look breaks off.

    Raises:
        PaymentError: the payment service broke off; what was applied until then stays, and the mark has not moved.
    """
    now = tools.clock()
    report = PaymentsReport(since or _start(tools, now), mended=[] if mended is None else mended)
    young = _apply_events(tools, report, now)
    _apply_sessions(tools, _sessions(tools, report.since), report, now - GRACE, young)
    _apply_sessions(tools, _overdue_sessions(tools, now), report, now - GRACE, young)
    _apply_movements(tools, report, now - GRACE)
    known = _known_orphans(tools, report)
    with tools.engine.begin() as conn:
        report.settled = settle_findings(conn, SIDE, [*report.orphans, *known], now)
        if since is None:
            settle_findings(conn, APPLYING, report.unapplied, now)
            if not report.failed:
                note_looked(conn, MARK, now - GRACE)
    return report


def _start(tools: OrderTools, now: datetime) -> datetime:
    with tools.engine.connect() as conn:
        until = looked_until(conn, MARK)
    return max(until - OVERLAP, now - EVENTS_KEPT) if until else now - EVENTS_KEPT


def _apply_events(tools: OrderTools, report: PaymentsReport, now: datetime) -> set[str]:
    """Apply the events that never arrived, oldest first; return the pages and payments whose webhooks may be coming."""
    missing: list[PaymentEvent] = []
    young: set[str] = set()
    for batch in _batches(tools.gateway.events_since(report.since, list(HANDLERS))):
        report.events += len(batch)
        young |= {name for e in batch if e.created_at > now - GRACE for name in (e.session_id, e.payment_intent)}
        missing += _unknown(tools, [event for event in batch if event.created_at <= now - GRACE])
    # Their times are whole seconds: within one, the list's own order tells which came first.
    for event in sorted(reversed(missing), key=lambda event: event.created_at):
        _apply_event(tools, event, report)
    return young - {""}


def _unknown(tools: OrderTools, events: list[PaymentEvent]) -> list[PaymentEvent]:
    i = inbox_events.c
    ids = [event.event_id for event in events]
    with tools.engine.connect() as conn:
        known = set(conn.scalars(select(i.event_id).where(i.source == SOURCE, i.event_id.in_(ids))))
    return [event for event in events if event.event_id not in known]


def _apply_event(tools: OrderTools, event: PaymentEvent, report: PaymentsReport) -> None:
    """Apply one lost event."""

    def tell(conn: Connection, taken: TakenEvent) -> None:
        if _changed(taken):
            _tell(conn, taken.order_id, event.event_id, f"{event.type} never arrived; applied: {taken.handled}")

    with _by_itself(tools, report, f"event {event.event_id} ({event.type})", event.event_id):
        taken = take_event_asking(tools.engine, tools.gateway, event, _booking(tools), tell)
        report.lost += taken.handled != DUPLICATE
        if taken.handled == UNKNOWN_ORDER:
            report.mended.append(f"{event.type}: for no order of ours, operations were told")
        elif _changed(taken):
            report.mended.append(f"{event.type}: {taken.handled}")


@contextmanager
def _by_itself(tools: OrderTools, report: PaymentsReport, what: str, subject: str) -> Iterator[None]:
    """Keep what cannot be applied as a finding and go on: it is tried again with the next look."""
    try:
        yield
    except STORE_AWAY:
        raise
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one, the next must be applied
        why = str(error) if isinstance(error, NumnaRoadError) else type(error).__name__
        report.failed.append(f"{what}: {why}")
        _log.warning("%s cannot be applied: %s", what, why)
        finding = Finding("reconcile_failed", subject, f"Stripe's {what} cannot be applied: {why}")
        report.unapplied.append(finding)
        with tools.engine.begin() as conn:
            note_finding(conn, APPLYING, finding, tools.clock())


def _changed(taken: TakenEvent) -> bool:
    quiet = taken.handled in {DUPLICATE, UNKNOWN_ORDER} or taken.handled.startswith(_CHANGES_NOTHING)
    return not quiet


def _apply_movements(tools: OrderTools, report: PaymentsReport, before: datetime) -> None:
    """Book what disputes moved and no event told of, and disputes told before their payment was."""
    for moved in tools.gateway.dispute_movements_since(report.since):
        if moved.made_at > before:
            continue
        what = f"movement {moved.transaction_id}"
        with _by_itself(tools, report, what, moved.transaction_id), tools.engine.begin() as conn:
            if keep_movement(conn, moved):
                report.mended.append(f"dispute {moved.dispute_id} moved {moved.amount}: booked")
    with tools.engine.begin() as conn:
        overlooked = take_up_overlooked(conn, Teller(ACTOR, tools.clock()))
    if overlooked:
        report.mended.append(f"disputes: {overlooked} taken up late")


def _sessions(tools: OrderTools, since: datetime) -> Iterator[CheckoutSession]:
    return tools.gateway.sessions_since(since - PAGE_LIFE)


def _overdue_sessions(tools: OrderTools, now: datetime) -> Iterator[CheckoutSession]:
    """Ask about orders that have waited for longer than their page lived: no list has them any more."""
    o = orders.c
    waiting = select(o.session_id).where(o.status == OrderStatus.PENDING, o.expires_at < now - LONG_PENDING)
    waiting = waiting.where(o.session_id.is_not(None)).order_by(o.expires_at.desc()).limit(ASK_ABOUT)
    with tools.engine.connect() as conn:
        asked = list(conn.scalars(waiting))
    for session_id in asked:
        try:
            yield tools.gateway.session(session_id)
        except PaymentRejected:
            _log.warning("payment page %s is not known at the payment service", session_id)


def _apply_sessions(
    tools: OrderTools, sessions: Iterable[CheckoutSession], report: PaymentsReport, before: datetime, young: set[str]
) -> None:
    for batch in _batches(sessions):
        report.sessions += len(batch)
        news = [s for s in batch if s.created_at <= before and s.session_id not in young]
        with tools.engine.connect() as conn:
            heads = _heads(conn, news)
        for session in news:
            order_id = _uuid(session.order_id)
            head = heads.get(order_id) if order_id else None
            if head is None:
                _orphan(session, report)
            elif order_id is not None and _has_news(session, *head):
                with _by_itself(tools, report, f"payment page {session.session_id}", session.session_id):
                    _apply_session(tools, order_id, session, report)


def _heads(conn: Connection, sessions: list[CheckoutSession]) -> dict[UUID, tuple[OrderStatus, set[str]]]:
    """Return each order's state and the payments known for it: its own, and second ones that are paid back."""
    ids = [found for session in sessions if (found := _uuid(session.order_id))]
    o, r = orders.c, refunds.c
    rows = conn.execute(select(o.order_id, o.status, o.payment_intent).where(o.order_id.in_(ids)))
    heads = {row.order_id: (OrderStatus(row.status), {row.payment_intent or ""}) for row in rows}
    for order_id, intent in conn.execute(select(r.order_id, r.payment_intent).where(r.order_id.in_(ids))):
        heads[order_id][1].add(intent)
    return heads


def _has_news(session: CheckoutSession, status: OrderStatus, known: set[str]) -> bool:
    if session.payment_status == "paid" and session.payment_intent:
        return session.payment_intent not in known
    return session.status == "expired" and status is OrderStatus.PENDING


def _apply_session(tools: OrderTools, order_id: UUID, session: CheckoutSession, report: PaymentsReport) -> None:
    booking = _booking(tools)
    with tools.engine.begin() as conn:
        if session.payment_status == "paid" and session.payment_intent:
            payment = Payment(order_id, session.payment_intent, session.session_id, session.amount, ACTOR)
            result = record_payment(conn, payment, booking)
            if result is PaymentResult.KNOWN:
                return
            what, key = f"payment {session.payment_intent} never arrived; {result}", session.payment_intent
        else:
            reason = "the checkout expired"
            if not cancel_unpaid(conn, order_id, reason=reason, actor=ACTOR, now=booking.now):
                return
            what, key = "the end of its checkout never arrived; cancelled", session.session_id
        _tell(conn, order_id, key, what)
    report.mended.append(what)


def _orphan(session: CheckoutSession, report: PaymentsReport) -> None:
    if session.payment_status != "paid" or not session.payment_intent:
        return
    text = (
        f"Payment {session.payment_intent} of {session.amount} is for an order that is not ours. Look it up in Stripe."
    )
    details = {"session_id": session.session_id, "amount": str(session.amount)}
    report.orphans.append(Finding("money_for_nobody", session.payment_intent, text, None, details))


def _known_orphans(tools: OrderTools, report: PaymentsReport) -> list[Finding]:
    """Return money for nobody that was found before and was not paid back since: this look may be too short for it."""
    seen = {finding.subject for finding in report.orphans}
    with tools.engine.connect() as conn:
        known = [finding for finding in open_findings(conn, [SIDE], with_accepted=True) if finding.subject not in seen]
    if not known:
        return []
    refunded = tools.gateway.refunds_since(min(finding.first_seen for finding in known) - PAGE_LIFE)
    gone = {listed.refund.payment_intent for listed in refunded if paid_back(listed.refund)}
    return [
        Finding(one.kind, one.subject, str(one.details["text"]), None, one.details)
        for one in known
        if one.subject not in gone
    ]


def _booking(tools: OrderTools) -> Booking:
    return Booking(ACTOR, tools.clock(), tools.settings.customer_deadline_minutes)


def _tell(conn: Connection, order_id: UUID | None, key: str, what: str) -> None:
    display_id = conn.scalar(select(orders.c.display_id).where(orders.c.order_id == order_id))
    text = f"Order {display_id}: {what}. Its webhook was lost: check the endpoint in Stripe's dashboard."
    notices.tell_operations(conn, order_id, "reconciled", f"reconciled:{key}", text)


def _uuid(value: str) -> UUID | None:
    try:
        return UUID(value)
    except ValueError:
        return None


def _batches(rows: Iterable[_T]) -> Iterator[list[_T]]:
    left = iter(rows)
    while batch := list(islice(left, _AT_ONCE)):
        yield batch
