"""A payment that a customer's bank takes back, as the payment service tells of it."""

from dataclasses import dataclass
from datetime import datetime

from esim.money import Money


@dataclass(frozen=True, slots=True)
class DisputeMovement:
    """Money that a dispute moved: `amount` is what it adds to our balance (withdrawn is negative), less `fee`."""

    transaction_id: str
    dispute_id: str
    payment_intent: str
    amount: Money
    fee: Money
    made_at: datetime


@dataclass(frozen=True, slots=True)
class Dispute:
    """A payment that the customer's bank questions, as the payment service knows it, with what moved so far."""

    dispute_id: str
    payment_intent: str
    amount: Money
    status: str  # needs_response, under_review, won, lost; warning_...: an inquiry, nothing is withdrawn
    answer_by: datetime | None
    movements: tuple[DisputeMovement, ...] = ()
