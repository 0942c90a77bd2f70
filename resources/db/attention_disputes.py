"""What each dispute needs of a person: an answer, patience, or its end written down."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, text

from esim.money import Money
from resources.db.disputes import INQUIRY, LOST, REASON, WITHDRAWN
from resources.db.order_advice import Advice, Urgency, command

_DISPUTES = text(
    """
    select d.order_id, o.display_id, d.dispute_id, d.status, d.amount_minor, d.currency, d.answer_by,
        d.told_at as since, o.refunded_minor, o.currency as order_currency,
        coalesce(o.hold_reason = :reason, false) as is_held, o.hold_reason is not null as waits,
        exists (select from refunds r where r.payment_intent = d.payment_intent and r.state = 'failed') as refund_failed
    from disputes d join orders o using (order_id)
    where d.status = any(:open) or (o.hold_reason = :reason)
        or (d.status = 'lost' and d.payment_intent = o.payment_intent and o.status <> 'refunded' and (
            select sum(l.amount_micros) from ledger_entries l where l.order_id = o.order_id and l.account = 'disputes'
        ) > 0)
    order by d.told_at
    """
)


@dataclass(frozen=True, slots=True)
class DisputeFacts:
    """One dispute as the queue shows it."""

    order_id: UUID
    display_id: str
    dispute_id: str
    status: str
    amount: Money
    answer_by: datetime | None
    since: datetime
    refunded: Money
    is_held: bool  # its order, for a dispute
    waits: bool  # its order, for whatever reason
    refund_failed: bool

    @property
    def stops_refunds(self) -> bool:
        """Whether the bank has the money, or may get it."""
        return self.status in {*WITHDRAWN, LOST}


def disputes_that_wait(conn: Connection) -> list[DisputeFacts]:
    """Return the disputes of the shop that need a person, oldest first."""
    known = {"reason": REASON, "open": [*WITHDRAWN, *INQUIRY]}
    return [
        DisputeFacts(
            order_id=row.order_id,
            display_id=row.display_id,
            dispute_id=row.dispute_id,
            status=row.status,
            amount=Money(int(row.amount_minor), row.currency),
            answer_by=row.answer_by,
            since=row.since,
            refunded=Money(int(row.refunded_minor), row.order_currency),
            is_held=row.is_held,
            waits=row.waits,
            refund_failed=row.refund_failed,
        )
        for row in conn.execute(_DISPUTES, known)
    ]


def advise_dispute(facts: DisputeFacts, release: str | None = None) -> Advice:
    """Return what one dispute needs; `release` is the command that lets its order go on, if another than the usual."""
    name, what = facts.display_id, f"dispute {facts.dispute_id} over {facts.amount}"
    show, hold = f"numnaroad order show {name}", "--release-hold" if facts.waits else ""
    if facts.status == LOST:
        reason = f"{what} is lost: the customer has the money. Write it down, and pay nothing back"
        return Advice(
            "dispute", Urgency.NOW, reason, (show, command(f"order refund {name} --all --paid-elsewhere", hold))
        )
    if facts.status in WITHDRAWN | INQUIRY:
        reason = f"{what} is {facts.status}: {'; '.join(_while_open(facts))}"
        urgency = Urgency.NOW if facts.status.endswith("needs_response") else Urgency.SOMETIME
        return Advice("dispute", urgency, reason, (show,))
    release = release or command(f"order retry {name}", "--release-hold")
    return Advice("dispute", Urgency.NOW, f"{what} is {facts.status}: the money is ours", (show, release))


def _while_open(facts: DisputeFacts) -> Iterator[str]:
    if facts.status.endswith("needs_response"):
        yield (
            f"answer it in Stripe by {facts.answer_by:%Y-%m-%d %H:%M} UTC" if facts.answer_by else "answer it in Stripe"
        )
    else:
        yield "the bank decides"
    if facts.refunded.minor:
        yield f"{facts.refunded} went back to the customer before, which the answer must say"
    if facts.refund_failed and facts.stops_refunds:
        yield "its refund was refused because of it: do not pay it another way, the end of the dispute decides"
