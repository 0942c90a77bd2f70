"""Control routes of the Stripe sandbox: pay without a browser, faults, disputes, and what was really charged."""

from collections.abc import Callable
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from sandbox.stripe import account, checkout, disputes, events
from sandbox.stripe.errors import StripeError
from sandbox.stripe.params import EMAIL
from sandbox.stripe.session_objects import Json
from sandbox.stripe.state import StripeState, state_of
from sandbox.switches import fault_routes
from sandbox.world import World

PLAN_FIELDS = ("lost", "copies", "reorder", "delay_s")


class BadRequestError(ValueError):
    """A control request that cannot be used; the message says what is allowed."""


def build(world: World) -> APIRouter:
    """The routes /sandbox/stripe/... and /sandbox/charges."""
    router = APIRouter(tags=["control"])
    router.include_router(_money(state_of(world)))
    router.include_router(fault_routes("/sandbox/stripe/faults", state_of(world).faults))
    return router


def _money(state: StripeState) -> APIRouter:
    router = APIRouter()

    @router.post("/sandbox/stripe/pay/{session_id}", response_model=None)
    async def pay(request: Request, session_id: str) -> Response:
        return await _acted(request, lambda asked: checkout.pay(state, session_id, _attempt(asked)))

    @router.post("/sandbox/stripe/disputes", response_model=None)
    async def dispute(request: Request) -> Response:
        return await _acted(request, lambda asked: _dispute(state, asked))

    @router.post("/sandbox/stripe/disputes/{dispute_id}/close", response_model=None)
    async def close(request: Request, dispute_id: str) -> Response:
        return await _acted(request, lambda asked: _close(state, dispute_id, asked))

    @router.get("/sandbox/charges", response_model=None)
    async def charges() -> Response:
        return JSONResponse(account.charges(state))

    @router.get("/sandbox/stripe/events", response_model=None)
    async def delivered() -> Response:
        rows = [
            {"id": event["id"], "type": event["type"], "created": event["created"], **vars(state.deliveries[event_id])}
            for event_id, event in reversed(state.events.items())
        ]
        return JSONResponse({"events": rows})

    @router.post("/sandbox/stripe/events/{event_id}/resend", response_model=None)
    async def resend(event_id: str) -> Response:
        if event_id not in state.events:
            return JSONResponse({"detail": f"No such event: {event_id}"}, 404)
        events.resend(state, event_id)
        return JSONResponse({"id": event_id}, 202)

    return router


async def _acted(request: Request, action: Callable[[Json], Json]) -> Response:
    try:
        return JSONResponse(action(await _json(request)))
    except BadRequestError as error:
        return JSONResponse({"detail": str(error)}, 422)
    except StripeError as error:
        return JSONResponse({"detail": error.message}, error.status)


async def _json(request: Request) -> Json:
    try:
        asked = orjson.loads(await request.body() or b"{}")
    except orjson.JSONDecodeError as error:
        raise BadRequestError(f"the body is not JSON: {error}") from None
    if not isinstance(asked, dict):
        raise BadRequestError("the body must be a JSON object")
    return asked


def _attempt(asked: Json) -> checkout.Attempt:
    outcome, email = asked.get("outcome", "succeed"), asked.get("email", "customer@example.com")
    if outcome not in checkout.OUTCOMES:
        raise BadRequestError(f"unknown outcome {outcome!r}; allowed: {', '.join(checkout.OUTCOMES)}")
    if not isinstance(email, str) or not EMAIL.fullmatch(email):
        raise BadRequestError(f"email={email!r} is not an e-mail address")
    return checkout.Attempt(outcome, email, _plan(asked.get("webhooks") or {}), _number(asked, "after_s", 1.0))


def _dispute(state: StripeState, asked: Json) -> Json:
    amount = asked.get("amount")
    if amount is not None and type(amount) is not int:
        raise BadRequestError(f"amount={amount!r} is not a whole number of minor units")
    return disputes.open_dispute(state, str(asked.get("charge")), amount, _plan(asked.get("webhooks") or {}))


def _close(state: StripeState, dispute_id: str, asked: Json) -> Json:
    outcome = asked.get("outcome")
    if outcome not in disputes.ENDS:
        raise BadRequestError(f"unknown outcome {outcome!r}; allowed: {', '.join(disputes.ENDS)}")
    return disputes.close_dispute(state, dispute_id, outcome, _plan(asked.get("webhooks") or {}))


def _plan(asked: Any) -> events.Plan:
    if not isinstance(asked, dict) or set(asked) - set(PLAN_FIELDS):
        raise BadRequestError(f"webhooks must be an object of {', '.join(PLAN_FIELDS)}; not {asked!r}")
    return events.Plan(
        lost=bool(asked.get("lost", False)),
        copies=int(_number(asked, "copies", 1)),
        reorder=bool(asked.get("reorder", False)),
        delay_s=_number(asked, "delay_s", 0.0),
    )


def _number(asked: Json, name: str, default: float) -> float:
    value = asked.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 86_400:
        raise BadRequestError(f"{name}={value!r} must be a number between 0 and 86400")
    return float(value)
