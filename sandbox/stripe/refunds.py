"""Refunds of a charge, with the movements of balance and the events they make."""

import itertools

from sandbox.stripe import disputes, events, payment_objects
from sandbox.stripe.errors import StripeError
from sandbox.stripe.params import Params
from sandbox.stripe.session_objects import Json
from sandbox.stripe.sessions import shown
from sandbox.stripe.state import StripeState

REFUND_PARAMS = ("amount", "charge", "expand", "instructions_email", "metadata", "payment_intent", "reason")
REASONS = ("duplicate", "fraudulent", "requested_by_customer")


def create_refund(state: StripeState, params: Params, request: Json | None = None) -> Json:
    """Refund a charge in part or whole; raises StripeError when more is asked for than is left."""
    params.allow(REFUND_PARAMS)
    charge = _charge_to_refund(state, params)
    reason, metadata = params.choice("reason", REASONS), params.metadata()
    amount = params.integer("amount", least=1)
    left = charge["amount"] - charge["amount_refunded"]
    if disputes.forbids_refunds(state, charge):
        message = f"Charge {charge['id']} has been charged back; cannot issue a refund."
        raise StripeError.refused(message, code="charge_disputed")
    if left == 0:
        raise StripeError.refused(f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded")
    if amount is not None and amount > left:
        asked, rest = shown(amount, charge["currency"]), shown(left, charge["currency"])
        message = f"Refund amount ({asked}) is greater than unrefunded amount on charge ({rest})"
        raise StripeError.refused(message, param="amount")
    return _refund(state, charge, amount or left, reason, metadata, request)


def _charge_to_refund(state: StripeState, params: Params) -> Json:
    charge_id, intent_id = params.text("charge"), params.text("payment_intent")
    if charge_id is None and intent_id is None:
        message = "One of the following params should be provided for this request: payment_intent or charge."
        raise StripeError.invalid(message, code="parameter_missing")
    if intent_id is not None:
        intent = state.intents.get(intent_id)
        if intent is None:
            raise StripeError.missing("payment_intent", intent_id, param="payment_intent")
        if charge_id not in {None, intent["latest_charge"]}:
            raise StripeError.invalid("This charge does not belong to this PaymentIntent.", param="charge")
        charge_id = intent["latest_charge"]
    charge = state.charges.get(charge_id or "")
    if charge is None and intent_id is None:
        raise StripeError.missing("charge", charge_id or "", param="charge")
    if charge is None or charge["status"] != "succeeded":
        message = f"This PaymentIntent ({intent_id or 'none'}) does not have a successful charge to refund."
        raise StripeError.refused(message, param="payment_intent")
    return charge


def _refund(
    state: StripeState, charge: Json, amount: int, reason: str | None, metadata: Json, request: Json | None
) -> Json:
    refund = payment_objects.refund(charge, amount=amount, reason=reason, metadata=metadata, now=state.now())
    moved = payment_objects.balance_transaction(refund, kind="refund", amount=-amount, fee=0, now=state.now())
    state.transactions[moved["id"]] = moved
    refund["balance_transaction"] = moved["id"]
    state.refunds[refund["id"]] = refund
    before = {"amount_refunded": charge["amount_refunded"], "refunded": charge["refunded"]}
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount"]
    made = [
        events.record(state, "refund.created", refund, request=request),
        events.record(state, "charge.refunded", charge, previous=before, request=request),
    ]
    earlier = {"destination_details": {"card": {"reference_status": "pending"}}}
    refund["destination_details"]["card"] |= {"reference": "".join(_digits(refund)), "reference_status": "available"}
    made.append(events.record(state, "refund.updated", refund, previous=earlier))
    events.send(state, made)
    return refund


def _digits(refund: Json) -> list[str]:
    """A bank reference made of the refund's id."""
    return list(itertools.islice((str(ord(letter) % 10) for letter in refund["id"][4:]), 16))
