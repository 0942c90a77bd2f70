"""Paying a session: what each button of the pay page makes of it, objects and events.

open session -- pay --> intent -> charge -> balance transaction; events go out in the background
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from sandbox.stripe import events, payment_objects
from sandbox.stripe.errors import StripeError
from sandbox.stripe.session_objects import Json, customer_details
from sandbox.stripe.sessions import find_session
from sandbox.stripe.state import StripeState

OUTCOMES = ("succeed", "fail", "async_succeed", "async_fail")


@dataclass(frozen=True)
class Attempt:
    """One press of a button on the pay page."""

    outcome: str
    email: str = "customer@example.com"
    plan: events.Plan = field(default_factory=events.Plan)
    after_s: float = 1.0


def pay(state: StripeState, session_id: str, attempt: Attempt) -> Json:
    """Make one attempt to pay; raises StripeError when the session takes none any more."""
    session = find_session(state, session_id)
    if session["status"] != "open":
        message = f"This Checkout Session has a status of {session['status']} and cannot be paid."
        raise StripeError.refused(message, param="session")
    intent = _intent(state, session)
    if attempt.outcome == "fail":
        events.send(state, _decline(state, intent, attempt.email), attempt.plan)
    elif attempt.outcome == "succeed":
        events.send(state, _succeed(state, session, intent, attempt.email), attempt.plan)
    else:
        _process(state, session, intent, attempt)
    return session


def _intent(state: StripeState, session: Json) -> Json:
    known = state.intents.get(session["payment_intent"] or "")
    if known is not None:
        return known
    intent = payment_objects.payment_intent(session, state.intent_data[session["id"]], now=state.now())
    state.intents[intent["id"]] = intent
    session["payment_intent"] = intent["id"]
    return intent


def _charge(state: StripeState, intent: Json, status: str, email: str, method: str) -> Json:
    charge = payment_objects.charge(intent, now=state.now(), status=status, email=email, method=method)
    state.charges[charge["id"]] = charge
    intent |= {"latest_charge": charge["id"], "payment_method": charge["payment_method"]}
    return charge


def _decline(state: StripeState, intent: Json, email: str) -> list[Json]:
    charge = _charge(state, intent, "failed", email, "card")
    intent |= {"last_payment_error": payment_objects.decline(charge), "payment_method": None}
    return [
        events.record(state, "charge.failed", charge),
        events.record(state, "payment_intent.payment_failed", intent),
    ]


def _succeed(state: StripeState, session: Json, intent: Json, email: str) -> list[Json]:
    charge = _charge(state, intent, "succeeded", email, "card")
    settle(state, charge, intent, session)
    _complete(session, email, "paid")
    return [
        events.record(state, "charge.succeeded", charge),
        events.record(state, "payment_intent.succeeded", intent),
        events.record(state, "checkout.session.completed", session),
    ]


def _complete(session: Json, email: str, payment_status: str) -> None:
    session |= {"status": "complete", "payment_status": payment_status, "url": None}
    session["customer_details"] = customer_details(email)


def settle(state: StripeState, charge: Json, intent: Json, session: Json) -> None:
    """Book the money of a charge that went through."""
    amount = charge["amount"]
    kind = "charge" if charge["id"].startswith("ch_") else "payment"
    moved = payment_objects.balance_transaction(
        charge, kind=kind, amount=amount, fee=payment_objects.fee_minor(amount), now=state.now()
    )
    state.transactions[moved["id"]] = moved
    charge |= {"status": "succeeded", "paid": True, "balance_transaction": moved["id"]}
    intent |= {"status": "succeeded", "amount_received": amount, "last_payment_error": None}
    session["payment_status"] = "paid"


def _process(state: StripeState, session: Json, intent: Json, attempt: Attempt) -> None:
    """Start a payment that settles later; held back whole when its events are to arrive out of order."""
    charge = _charge(state, intent, "pending", attempt.email, "us_bank_account")
    intent["status"] = "processing"
    _complete(session, attempt.email, "unpaid")
    made = [
        events.record(state, "charge.pending", charge),
        events.record(state, "payment_intent.processing", intent),
        events.record(state, "checkout.session.completed", session),
    ]
    reordered = attempt.plan.reorder or state.faults.strike("webhook_reorder", type="") is not None
    plan = events.Plan(**{**vars(attempt.plan), "reorder": reordered})
    first = None if reordered else events.prepare(state, made, plan)

    async def settle_later() -> None:
        if first is not None:
            await first
        await asyncio.sleep(attempt.after_s)
        ended = _finish(state, session, intent, charge, attempt.outcome)
        events.send(state, ended if first is not None else [*made, *ended], plan)

    state.world.spawn(settle_later(), "stripe async payment")


def _finish(state: StripeState, session: Json, intent: Json, charge: Json, outcome: str) -> list[Json]:
    if outcome == "async_succeed":
        settle(state, charge, intent, session)
        kinds: dict[str, Any] = {"charge.succeeded": charge, "payment_intent.succeeded": intent}
        kinds["checkout.session.async_payment_succeeded"] = session
    else:
        charge |= {"status": "failed", "captured": False, "failure_code": "insufficient_funds"}
        charge["failure_message"] = "The customer's account has insufficient funds."
        intent |= {"status": "requires_payment_method", "last_payment_error": payment_objects.decline(charge)}
        kinds = {"charge.failed": charge, "payment_intent.payment_failed": intent}
        kinds["checkout.session.async_payment_failed"] = session
    return [events.record(state, kind, subject) for kind, subject in kinds.items()]
