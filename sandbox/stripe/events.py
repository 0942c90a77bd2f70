"""Events and their webhooks: kept for `GET /v1/events`, signed as Stripe signs, sent in the background, retried.

operation -> record(...)* -> send(events) -> POST {api_url}/webhooks/stripe until 2xx
"""

import asyncio
import copy
import hashlib
import hmac
import json
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx

from sandbox.faults import Fault
from sandbox.stripe.payment_objects import event
from sandbox.stripe.session_objects import Json
from sandbox.stripe.state import Delivery, StripeState

FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 60.0
NO_REQUEST: Json = {"id": None, "idempotency_key": None}


@dataclass(frozen=True)
class Plan:
    """How the webhooks of one operation go out, faults in force apart."""

    lost: bool = False
    copies: int = 1
    reorder: bool = False
    delay_s: float = 0.0


def record(
    state: StripeState, kind: str, subject: Json, *, previous: Json | None = None, request: Json | None = None
) -> Json:
    """Keep an event about an object as it is now."""
    made = event(kind, copy.deepcopy(subject), previous=previous, request=request or NO_REQUEST, now=state.now())
    state.events[made["id"]] = made
    state.deliveries[made["id"]] = Delivery()
    return made


def signature(payload: bytes, secret: str, timestamp: int) -> str:
    """The `Stripe-Signature` header: HMAC-SHA256 over `timestamp.payload`."""
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + payload, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


def send(state: StripeState, events: Sequence[Json], plan: Plan | None = None) -> None:
    """Deliver the events of one operation in the background, in order unless the plan or a fault says otherwise."""
    state.world.spawn(prepare(state, events, plan), "stripe webhooks")


def prepare(state: StripeState, events: Sequence[Json], plan: Plan | None = None) -> Coroutine[Any, Any, None]:
    """Let the faults in force strike now; what is returned makes the first attempts, delayed events apart."""
    plan = plan or Plan()
    batch = list(events)
    if plan.reorder or state.faults.strike("webhook_reorder", type=""):
        batch.reverse()
    prompt: list[tuple[Json, int]] = []
    for one in batch:
        if plan.lost or _strikes(state, "webhook_lost", one):
            state.deliveries[one["id"]].state = "lost"
            continue
        delay, copies = _delay(state, plan, one), _copies(state, plan, one)
        if delay:
            state.world.later(delay, partial(_send_in_order, state, [(one, copies)]), "stripe webhook")
        else:
            prompt.append((one, copies))
    return _send_in_order(state, prompt)


def _delay(state: StripeState, plan: Plan, one: Json) -> float:
    fault = _strikes(state, "webhook_delay", one)
    return plan.delay_s + (fault.number("seconds", 2) if fault else 0.0)


def _copies(state: StripeState, plan: Plan, one: Json) -> int:
    fault = _strikes(state, "webhook_duplicate", one)
    return max(plan.copies, int(fault.number("copies", 2)) if fault else 1)


def _strikes(state: StripeState, kind: str, one: Json) -> Fault | None:
    return state.faults.strike(kind, type=one["type"])


async def _send_in_order(state: StripeState, jobs: Sequence[tuple[Json, int]]) -> None:
    """One first attempt after the other; what fails is retried on its own, so it holds up nothing."""
    for one, copies in jobs:
        taken = await asyncio.gather(*(_attempt(state, one) for _ in range(copies)))
        if not any(taken):
            state.world.spawn(_retry(state, one), "stripe webhook retry")


async def _retry(state: StripeState, one: Json) -> None:
    delivery, delay = state.deliveries[one["id"]], FIRST_DELAY_S
    for _ in range(state.webhook_retries):
        delivery.next_in = delay
        await asyncio.sleep(delay)
        if await _attempt(state, one):
            return
        delay = min(delay * 2, LONGEST_DELAY_S)
    delivery.state, delivery.next_in = "failed", None


async def _attempt(state: StripeState, one: Json) -> bool:
    """Post one event once, freshly signed; true when the receiver took it."""
    payload = json.dumps(one, indent=2, ensure_ascii=False).encode()
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        "Stripe-Signature": signature(payload, state.webhook_secret, state.now()),
    }
    delivery = state.deliveries[one["id"]]
    delivery.attempts += 1
    try:
        answer = await state.world.http.post(
            f"{state.world.config.api_url}/webhooks/stripe", content=payload, headers=headers
        )
    except httpx.HTTPError as error:
        delivery.last_result = type(error).__name__
        return False
    delivery.last_result = str(answer.status_code)
    if not answer.is_success:
        return False
    delivery.state, delivery.next_in = "delivered", None
    one["pending_webhooks"] = 0
    return True


def resend(state: StripeState, event_id: str) -> None:
    """Send one event again, whatever became of it."""
    state.world.spawn(_send_in_order(state, [(state.events[event_id], 1)]), "stripe webhook resend")


def resume(state: StripeState) -> None:
    """After a restart, go on with the events that were still waiting."""
    for event_id, delivery in state.deliveries.items():
        if delivery.state == "waiting":
            resend(state, event_id)
