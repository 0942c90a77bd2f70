"""A payment service whose pages, events, charges and refunds are written down by a test; it breaks off on demand."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from esim.disputes import DisputeMovement
from esim.errors import PaymentError, PaymentRejected
from esim.money import Money
from esim.ports import Charge, CheckoutSession, ListedRefund, PaymentEvent, Refund
from tests.pipelines.actors import RefundingGateway


@dataclass
class Account(RefundingGateway):
    """What the payment service knows; `breaks_after` yields so many rows of a list and then no answer."""

    events: list[PaymentEvent] = field(default_factory=list)
    pages: list[CheckoutSession] = field(default_factory=list)
    charges: list[Charge] = field(default_factory=list)
    refunds: list[ListedRefund] = field(default_factory=list)
    movements: list[DisputeMovement] = field(default_factory=list)
    breaks_after: int | None = None
    asked_since: list[datetime] = field(default_factory=list)

    def __post_init__(self) -> None:
        RefundingGateway.__init__(self)

    def events_since(self, since: datetime, types: Sequence[str]) -> Iterator[PaymentEvent]:
        self.asked_since.append(since)
        found = [event for event in self.events if event.created_at >= since and event.type in types]
        return self._listed(list(reversed(found)))

    def sessions_since(self, since: datetime) -> Iterator[CheckoutSession]:
        return self._listed([page for page in reversed(self.pages) if page.created_at >= since])

    def session(self, session_id: str) -> CheckoutSession:
        for page in self.pages:
            if page.session_id == session_id:
                return page
        raise PaymentRejected(f"there is no session {session_id}")

    def charges_since(self, since: datetime) -> Iterator[Charge]:
        return self._listed([charge for charge in reversed(self.charges) if charge.created_at >= since])

    def refunds_since(self, since: datetime) -> Iterator[ListedRefund]:
        return self._listed([listed for listed in reversed(self.refunds) if listed.created_at >= since])

    def refunds_of(self, payment_intent: str) -> list[Refund]:
        listed = [one.refund for one in self.refunds if one.refund.payment_intent == payment_intent]
        return [*reversed(listed), *super().refunds_of(payment_intent)]

    def dispute_movements_since(self, since: datetime) -> Iterator[DisputeMovement]:
        return self._listed([moved for moved in reversed(self.movements) if moved.made_at >= since])

    def _listed(self, rows: Sequence[Any]) -> Iterator[Any]:
        for place, row in enumerate(rows):
            if place == self.breaks_after:
                raise PaymentError("Stripe is away")
            yield row

    def pays(self, order_id: UUID | str, at: datetime, *, minor: int = 499, intent: str = "") -> PaymentEvent:
        """Let a customer pay a page, and keep the event that tells of it."""
        intent = intent or f"pi_{str(order_id)[:8]}"
        session_id, amount = f"cs_{intent}", Money(minor, "USD")
        opened = at - timedelta(minutes=5)
        page = CheckoutSession(session_id, None, "complete", "paid", intent, amount, str(order_id), opened)
        self.pages.append(page)
        self.charges.append(Charge(f"ch_{intent}", intent, amount, str(order_id), at))
        return self.tells("checkout.session.completed", at, order_id, intent, amount, session_id=session_id)

    def tells(
        self,
        kind: str,
        at: datetime,
        order_id: UUID | str = "",
        intent: str = "",
        amount: Money | None = None,
        *,
        session_id: str = "",
        **raw: Any,
    ) -> PaymentEvent:
        """Keep one event."""
        event_id = f"evt_{len(self.events) + 1}"
        event = PaymentEvent(event_id, kind, at, str(order_id), session_id, intent, amount, "paid", raw)
        self.events.append(event)
        return event

    def pays_back(self, intent: str, minor: int, at: datetime, status: str = "succeeded") -> str:
        """Make a refund as somebody does in the dashboard; return its id."""
        refund_id = f"re_hand_{len(self.refunds) + 1}"
        self.refunds.append(ListedRefund(Refund(refund_id, Money(minor, "USD"), status, intent), at))
        return refund_id
