"""The pay page that a person or a browser clicks, and the dashboard of what happened."""

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from sandbox.pages import render
from sandbox.stripe import checkout, disputes, events, form, refunds
from sandbox.stripe.errors import StripeError
from sandbox.stripe.params import EMAIL, Params
from sandbox.stripe.session_objects import Json
from sandbox.stripe.sessions import find_session, shown
from sandbox.stripe.state import StripeState, state_of
from sandbox.world import World

ROWS = 100


def build(world: World) -> APIRouter:
    """The pages below /stripe."""
    state = state_of(world)
    router = APIRouter()
    router.include_router(_pay_pages(state))
    router.include_router(_dashboard(state))
    return router


def _pay_pages(state: StripeState) -> APIRouter:
    router = APIRouter(prefix="/pay")

    @router.get("/{session_id}", response_model=None)
    async def show(session_id: str, declined: bool = False) -> Response:
        return _pay_page(state, session_id, declined=declined)

    @router.post("/{session_id}", response_model=None)
    async def press(request: Request, session_id: str) -> Response:
        try:
            fields = form.decode((await request.body()).decode(errors="replace"))
            session = checkout.pay(state, session_id, _attempt(fields))
        except StripeError:
            return _pay_page(state, session_id, declined=False)
        if session["status"] == "open":
            return RedirectResponse(f"/stripe/pay/{session_id}?declined=1", 303)
        return RedirectResponse(_success_url(session), 303)

    return router


def _attempt(fields: Json) -> checkout.Attempt:
    outcome, email = str(fields.get("outcome")), str(fields.get("email", ""))
    if outcome not in checkout.OUTCOMES:
        raise StripeError.invalid(f"Unknown outcome {outcome!r}", param="outcome")
    return checkout.Attempt(outcome, email if EMAIL.fullmatch(email) else "customer@example.com", after_s=2.0)


def _success_url(session: Json) -> str:
    return str(session["success_url"]).replace("{CHECKOUT_SESSION_ID}", session["id"])


def _pay_page(state: StripeState, session_id: str, *, declined: bool) -> Response:
    try:
        session = find_session(state, session_id)
    except StripeError:
        text = "This payment page does not exist. Go back to the shop and start again."
        return render("stripe_closed.html", 404, heading="Something went wrong", text=text, link=None)
    if session["status"] == "complete":
        text = "You have already paid for this. Nothing more will be charged."
        return render("stripe_closed.html", heading="You're all done here", text=text, link=_success_url(session))
    if session["status"] == "expired":
        text = "This payment page has expired. Go back to the shop and start again."
        return render("stripe_closed.html", 410, heading="Expired", text=text, link=session["cancel_url"])
    currency = session["currency"]
    lines = [
        {
            "name": line["description"],
            "quantity": line["quantity"],
            "unit": shown(line["price"]["unit_amount"], currency),
            "total": shown(line["amount_total"], currency),
        }
        for line in state.line_items[session_id]
    ]
    return render(
        "stripe_pay.html",
        session=session,
        lines=lines,
        total=shown(session["amount_total"], currency),
        declined=declined,
        expires=_moment(session["expires_at"]),
    )


def _dashboard(state: StripeState) -> APIRouter:
    router = APIRouter()

    @router.get("/", response_model=None)
    async def dashboard(notice: str = "") -> Response:
        return render("stripe_dashboard.html", **_tables(state), notice=notice)

    @router.post("/charges/{charge_id}/refund", response_model=None)
    async def refund(request: Request, charge_id: str) -> Response:
        fields = form.decode((await request.body()).decode(errors="replace"))
        asked = {"charge": charge_id, "amount": fields.get("amount", ""), "reason": "requested_by_customer"}
        return _acted(lambda: refunds.create_refund(state, Params(asked)))

    @router.post("/charges/{charge_id}/dispute", response_model=None)
    async def dispute(charge_id: str) -> Response:
        return _acted(lambda: disputes.open_dispute(state, charge_id))

    @router.post("/events/{event_id}/resend", response_model=None)
    async def resend(event_id: str) -> Response:
        return _acted(lambda: events.resend(state, event_id)) if event_id in state.events else _acted(lambda: None)

    return router


def _acted(action: Any) -> Response:
    """Do what a button asks for and show the dashboard again, with the refusal if there was one."""
    try:
        action()
    except StripeError as error:
        return RedirectResponse(f"/stripe/?{urlencode({'notice': error.message})}", 303)
    return RedirectResponse("/stripe/", 303)


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _latest(table: dict[str, Json]) -> Iterable[Json]:
    return islice(reversed(table.values()), ROWS)


def _tables(state: StripeState) -> Json:
    return {
        "charges": [_charge_row(state, charge) for charge in _latest(state.charges)],
        "refunds": [_refund_row(refund) for refund in _latest(state.refunds)],
        "sessions": [_session_row(session) for session in _latest(state.sessions)],
        "events": [_event_row(state, event) for event in _latest(state.events)],
        "faults": state.faults.as_json(),
        "webhook_url": f"{state.world.config.api_url}/webhooks/stripe",
        "shown_rows": ROWS,
    }


def _charge_row(state: StripeState, charge: Json) -> Json:
    session = state.session_of(charge["payment_intent"]) or {}
    return {
        "id": charge["id"],
        "at": _moment(charge["created"]),
        "reference": session.get("client_reference_id") or "",
        "amount": shown(charge["amount"], charge["currency"]),
        "refunded": shown(charge["amount_refunded"], charge["currency"]) if charge["amount_refunded"] else "",
        "state": "disputed" if charge["disputed"] else charge["status"],
        "refundable": charge["status"] == "succeeded" and not charge["refunded"] and not charge["disputed"],
    }


def _refund_row(refund: Json) -> Json:
    return {
        "id": refund["id"],
        "at": _moment(refund["created"]),
        "charge": refund["charge"],
        "amount": shown(refund["amount"], refund["currency"]),
        "reason": refund["reason"] or "",
        "state": refund["status"],
    }


def _session_row(session: Json) -> Json:
    return {
        "short": f"{session['id'][:18]}…",
        "url": session["url"],
        "at": _moment(session["created"]),
        "reference": session["client_reference_id"] or "",
        "amount": shown(session["amount_total"], session["currency"]),
        "state": session["status"],
        "payment": session["payment_status"],
    }


def _event_row(state: StripeState, event: Json) -> Json:
    delivery = state.deliveries[event["id"]]
    return {
        "id": event["id"],
        "at": _moment(event["created"]),
        "type": event["type"],
        "state": delivery.state,
        "attempts": delivery.attempts,
        "last": delivery.last_result,
    }
