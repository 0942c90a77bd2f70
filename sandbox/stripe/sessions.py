"""Checkout Sessions: open one from parameters, find it, end it by hand or when its time is over."""

import asyncio

from sandbox.stripe import events
from sandbox.stripe.errors import StripeError
from sandbox.stripe.params import Params
from sandbox.stripe.session_objects import Json, checkout_session, line_item
from sandbox.stripe.state import StripeState

SHORTEST_S, LONGEST_S = 30 * 60, 24 * 3600
SWEEP_EVERY_S = 1.0
SESSION_PARAMS = (
    "automatic_tax billing_address_collection cancel_url client_reference_id currency customer_creation "
    "customer_email expand expires_at invoice_creation line_items locale metadata mode payment_intent_data "
    "payment_method_types phone_number_collection submit_type success_url ui_mode"
)
INTENT_PARAMS = (
    "capture_method description metadata receipt_email statement_descriptor statement_descriptor_suffix transfer_group"
)
ZERO_DECIMAL = "bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf"
LEAST_CHARGE = {"usd": 50, "eur": 50, "gbp": 30, "jpy": 50, "krw": 100, "hkd": 400, "mxn": 1000, "thb": 1000}


def create_session(state: StripeState, params: Params, url_prefix: str) -> Json:
    """Open a session; raises StripeError for parameters that the real service refuses."""
    params.allow(SESSION_PARAMS.split()).require("line_items")
    mode = params.choice("mode", ("payment", "setup", "subscription")) or "payment"
    if mode != "payment":
        raise StripeError.invalid(f"This sandbox takes payments only, not mode={mode}.", param="mode")
    params.require("success_url")
    lines = [_line(entry) for entry in params.children("line_items")]
    if not lines or len(lines) > 100:
        raise StripeError.invalid("A session has 1 to 100 line items.", param="line_items")
    currencies = {line["currency"] for line in lines}
    if len(currencies) > 1:
        raise StripeError.invalid("All line items must have the same currency.", param="line_items")
    amount, currency = sum(line["amount_total"] for line in lines), currencies.pop()
    _check_amount(amount, currency)
    fields = _session_fields(params, currency, state.now())
    intent = params.child("payment_intent_data").allow(INTENT_PARAMS.split())
    data = {"metadata": intent.metadata(), **{n: intent.text(n) for n in ("description", "receipt_email")}}
    session = checkout_session(fields, url_prefix=url_prefix, now=state.now(), amount=amount)
    state.sessions[session["id"]] = session
    state.line_items[session["id"]] = lines
    state.intent_data[session["id"]] = data
    return session


def _session_fields(params: Params, currency: str, now: int) -> Json:
    expires_at = params.integer("expires_at", least=0, most=10**11)
    if expires_at is not None and not now + SHORTEST_S - 30 <= expires_at <= now + LONGEST_S + 30:
        message = "The `expires_at` timestamp must be between 30 minutes and 24 hours from Checkout Session creation."
        raise StripeError.invalid(message, param="expires_at")
    return {
        "currency": currency,
        "success_url": params.url("success_url"),
        "cancel_url": params.url("cancel_url"),
        "client_reference_id": params.text("client_reference_id", longest=200),
        "customer_email": params.email("customer_email"),
        "locale": params.text("locale", longest=10),
        "metadata": params.metadata(),
        "payment_method_types": params.words("payment_method_types") or ["card"],
        "expires_at": expires_at or now + LONGEST_S,
    }


def _line(entry: Params) -> Json:
    entry.allow(
        ("price", "price_data", "quantity", "adjustable_quantity", "dynamic_tax_rates", "tax_rates", "metadata")
    )
    if entry.has("price"):
        name = entry.name_of("price")
        raise StripeError.missing("price", entry.text("price") or "", param=name, status=400)
    entry.require("price_data")
    quantity = entry.integer("quantity", least=1, most=999_999) or 1
    price = entry.child("price_data").allow(("currency", "product_data", "tax_behavior", "unit_amount", "product"))
    for needed in ("currency", "product_data", "unit_amount"):
        price.require(needed)
    currency = (price.text("currency") or "").lower()
    if len(currency) != 3 or not currency.isalpha():
        raise StripeError.invalid(f"Invalid currency: {currency}.", param=price.name_of("currency"))
    product = price.child("product_data").allow(("name", "description", "images", "metadata", "tax_code", "unit_label"))
    product.require("name")
    return line_item(product.text("name") or "", price.integer("unit_amount", least=0) or 0, quantity, currency)


def _check_amount(amount: int, currency: str) -> None:
    least = LEAST_CHARGE.get(currency, 1)
    if amount < least:
        message = f"The Checkout Session's total amount due must add up to at least {shown(least, currency)}"
        raise StripeError.invalid(message, code="amount_too_small")
    if amount > 99_999_999:
        raise StripeError.invalid("The Checkout Session's total amount is too large.", code="amount_too_large")


def shown(amount: int, currency: str) -> str:
    """An amount in words, for messages and pages."""
    if currency in ZERO_DECIMAL.split():
        return f"{amount:,} {currency.upper()}"
    return f"{amount // 100:,}.{amount % 100:02d} {currency.upper()}"


def find_session(state: StripeState, session_id: str) -> Json:
    """The session of this id, expired first if its time is over; raises StripeError when there is none."""
    session = state.sessions.get(session_id)
    if session is None:
        raise StripeError.missing("checkout.session", session_id, param="session")
    expire_due(state)
    return session


def expire_session(state: StripeState, session_id: str, request: Json | None = None) -> Json:
    """End an open session by hand; raises StripeError when it is not open."""
    session = find_session(state, session_id)
    if session["status"] != "open":
        message = (
            'Only Checkout Sessions with a status in ["open"] can be expired. '
            f"This Checkout Session has a status of {session['status']}."
        )
        raise StripeError.refused(message, param="session")
    _expire(state, session, request)
    return session


def expire_due(state: StripeState) -> None:
    """Expire the open sessions whose time is over."""
    now = state.now()
    for session in state.sessions.values():
        if session["status"] == "open" and session["expires_at"] <= now:
            _expire(state, session, None)


async def watch_expiry(state: StripeState) -> None:
    """Expire sessions as their time comes, until cancelled."""
    while True:
        expire_due(state)
        await asyncio.sleep(SWEEP_EVERY_S)


def _expire(state: StripeState, session: Json, request: Json | None) -> None:
    session |= {"status": "expired", "url": None}
    events.send(state, [events.record(state, "checkout.session.expired", session, request=request)])
