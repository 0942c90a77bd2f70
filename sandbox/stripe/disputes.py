"""Disputes of a charge: the bank takes the money at once, a fee with it, and gives the money back when we win.

open -> withdrawn (amount and fee) -> won: reinstated (amount; the fee stays) | lost: nothing more moves
"""

from sandbox.stripe import events, payment_objects
from sandbox.stripe.errors import StripeError
from sandbox.stripe.session_objects import Json
from sandbox.stripe.state import StripeState

ENDS = ("won", "lost")


def open_dispute(
    state: StripeState, charge_id: str, amount: int | None = None, plan: events.Plan | None = None
) -> Json:
    """The customer's bank takes a charge back, what is left of it where no amount is given.

    Raises:
        StripeError: there is no such charge, or nothing to take.
    """
    charge = state.charges.get(charge_id)
    if charge is None:
        raise StripeError.missing("charge", charge_id, param="charge")
    asked = charge["amount"] - charge["amount_refunded"] if amount is None else amount
    if charge["disputed"] or charge["status"] != "succeeded" or not 0 < asked <= charge["amount"]:
        raise StripeError.refused(f"Charge {charge_id} cannot be disputed.", param="charge")
    dispute = payment_objects.dispute(charge, amount=asked, reason="fraudulent", now=state.now())
    _move(state, dispute, -asked, payment_objects.DISPUTE_FEE_MINOR)
    state.disputes[dispute["id"]] = dispute
    charge["disputed"] = True
    _tell(state, dispute, ("created", "funds_withdrawn"), plan)
    return dispute


def close_dispute(state: StripeState, dispute_id: str, outcome: str, plan: events.Plan | None = None) -> Json:
    """The bank decides.

    Raises:
        StripeError: there is no such dispute, it is closed already, or the outcome is none.
    """
    dispute = state.disputes.get(dispute_id)
    if dispute is None:
        raise StripeError.missing("dispute", dispute_id)
    if dispute["status"] in ENDS or outcome not in ENDS:
        raise StripeError.refused(f"Dispute {dispute_id} is {dispute['status']} and cannot be {outcome}.")
    dispute["status"] = outcome
    if outcome == "won":
        _move(state, dispute, dispute["amount"], 0)
    _tell(state, dispute, ("funds_reinstated", "closed") if outcome == "won" else ("closed",), plan)
    return dispute


def forbids_refunds(state: StripeState, charge: Json) -> bool:
    """Whether a bank has the money of a charge, or may get it."""
    return any(row["charge"] == charge["id"] and row["status"] != "won" for row in state.disputes.values())


def taken(state: StripeState, charge: Json) -> tuple[int, int]:
    """What disputes of a charge hold withdrawn now, and what they cost in fees."""
    moved = [
        movement
        for row in state.disputes.values()
        if row["charge"] == charge["id"]
        for movement in row["balance_transactions"]
    ]
    return -sum(one["amount"] for one in moved), sum(one["fee"] for one in moved)


def _move(state: StripeState, dispute: Json, amount: int, fee: int) -> None:
    kind = "dispute" if amount < 0 else "dispute_reversal"
    moved = payment_objects.balance_transaction(dispute, kind="adjustment", amount=amount, fee=fee, now=state.now())
    moved["reporting_category"] = kind
    state.transactions[moved["id"]] = moved
    dispute["balance_transactions"] = [*dispute["balance_transactions"], moved]


def _tell(state: StripeState, dispute: Json, kinds: tuple[str, ...], plan: events.Plan | None) -> None:
    events.send(state, [events.record(state, f"charge.dispute.{kind}", dispute) for kind in kinds], plan)
