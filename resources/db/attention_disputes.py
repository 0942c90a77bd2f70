"""What each dispute needs of a person: an answer, patience, or its end written down."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, text

from esim.money import Money
from resources.db import hold_reasons
from resources.db.disputes import INQUIRY, LOST, REASON, WITHDRAWN
from resources.db.order_advice import Advice, Urgency, command

_DISPUTES = text(
    """
    select d.order_id, o.display_id, d.dispute_id, d.status, d.amount_minor, d.currency, d.answer_by,
        d.told_at as since, o.refunded_minor, o.currency as order_currency,
        o.hold_reason,
        exists (select from refunds r where r.payment_intent = d.payment_intent and r.state = 'failed') as refund_failed
    from disputes d join orders o using (order_id)
    where d.status = any(:open) or (:reason = any(string_to_array(o.hold_reason, :separator)))
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
    held_for: str | None  # its order
    refund_failed: bool

    @property
    def stops_refunds(self) -> bool:
        """Whether the bank has the money, or may get it."""
        return self.status in {*WITHDRAWN, LOST}

    @property
    def tells_all(self) -> bool:
        """Whether its order is held for disputes only."""
        return self.held_for == REASON


def disputes_that_wait(conn: Connection) -> list[DisputeFacts]:
    """Return the disputes of the shop that need a person, oldest first."""
    known = {"reason": REASON, "open": [*WITHDRAWN, *INQUIRY], "separator": hold_reasons.SEPARATOR}
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
            held_for=row.hold_reason,
            refund_failed=row.refund_failed,
        )
        for row in conn.execute(_DISPUTES, known)
    ]


def advise_dispute(
    facts: DisputeFacts, release: str | None = None, *, bank_has_it: bool = False, paid_back: bool = False
) -> Advice:
    """Return what one dispute needs; `release` is the command that lets its order go on, if another than the usual.

    The bank may have its order's money for another dispute, or the customer all of it.
    """
    name, what = facts.display_id, f"dispute {facts.dispute_id} over {facts.amount}"
    show, hold = f"numnaroad order show {name}", "--release-hold" if facts.held_for else ""
    elsewhere = command(f"order refund {name} --all --paid-elsewhere", hold)
    if facts.status == LOST:
        reason = f"{what} is lost: the customer has the money. Write it down, and pay nothing back"
        return Advice("dispute", Urgency.NOW, reason, (show, elsewhere))
    if facts.status in WITHDRAWN | INQUIRY:
        reason = f"{what} is {facts.status}: {'; '.join(_while_open(facts))}"
        urgency = Urgency.NOW if facts.status.endswith("needs_response") else Urgency.SOMETIME
        return Advice("dispute", urgency, reason, (show,))
    if bank_has_it:
        reason = f"{what} is {facts.status}, but another one of its payment stands: leave the order held"
        return Advice("dispute", Urgency.SOMETIME, reason, (show,))
    if paid_back:
        reason = f"{what} is {facts.status}, and all of the payment went back: write it down, or deliver it as a gift"
        gift = command(f"order retry {name}", "--release-hold --goodwill")
        return Advice("dispute", Urgency.NOW, reason, (show, elsewhere, gift))
    reason = f"{what} is {facts.status}: the money is ours"
    if others := hold_reasons.besides(facts.held_for, REASON):
        return Advice("dispute", Urgency.NOW, f"{reason}; the order is held for more: {others}", (show,))
    release = release or command(f"order retry {name}", "--release-hold")
    return Advice("dispute", Urgency.NOW, reason, (show, release))


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
