"""Stripe's disputes and what they move, read into the port's records, pure."""

from collections.abc import Mapping

from esim.disputes import Dispute, DisputeMovement
from esim.errors import InvalidMoney, PaymentRejected
from resources.payments.stripe_objects import Json, id_of, moment, whole_money

CATEGORIES = frozenset({"dispute", "dispute_reversal"})


def read_dispute(found: Json) -> Dispute:
    """Read a dispute with its balance transactions.

    Raises:
        PaymentRejected: fields are missing or of another type.
    """
    try:
        answer_by = (found.get("evidence_details") or {}).get("due_by")
        return Dispute(
            dispute_id=str(found["id"]),
            payment_intent=_payment(found),
            amount=whole_money(found["amount"], found["currency"]),
            status=str(found.get("status") or "needs_response"),
            answer_by=None if answer_by is None else moment(answer_by),
            movements=tuple(read_movement(moved, found) for moved in found.get("balance_transactions") or ()),
        )
    except (KeyError, TypeError, AttributeError, InvalidMoney) as error:
        raise PaymentRejected(f"Stripe sent a dispute that cannot be read ({type(error).__name__}: {error})") from error


def read_movement(moved: Json, dispute: Json) -> DisputeMovement:
    """Read a balance transaction of a dispute.

    Raises:
        PaymentRejected: fields are missing or of another type.
    """
    try:
        return DisputeMovement(
            transaction_id=str(moved["id"]),
            dispute_id=str(dispute["id"]),
            payment_intent=_payment(dispute),
            amount=whole_money(moved["amount"], moved["currency"]),
            fee=whole_money(moved.get("fee", 0), moved["currency"]),
            made_at=moment(moved["created"]),
        )
    except (KeyError, TypeError, InvalidMoney) as error:
        raise PaymentRejected(f"Stripe sent a movement that cannot be read ({error})") from error


def listed_movement(moved: Json) -> DisputeMovement | None:
    """Read a row of the list of balance transactions, its source expanded; None for one that is of no dispute."""
    source = moved.get("source")
    if moved.get("reporting_category") not in CATEGORIES or not isinstance(source, Mapping):
        return None
    return read_movement(moved, source)


def _payment(dispute: Json) -> str:
    """A payment made without an intent is known by its charge, as in `read_charge`."""
    return id_of(dispute.get("payment_intent")) or id_of(dispute.get("charge"))
