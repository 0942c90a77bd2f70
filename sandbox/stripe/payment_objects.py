"""Payment intent, charge, refund, dispute, balance transaction and event JSON of API version 2026-10-28.

Builders are pure: times come in as arguments, money is integer minor units.
"""

from sandbox.stripe import ids
from sandbox.stripe.session_objects import API_VERSION, Json, nulls

DISPUTE_FEE_MINOR = 1500
FIXED_FEE_MINOR = 30
FEE_PER_MILLE = 29
DECLINED = "Your card was declined."
NULL_INTENT_FIELDS = (
    "application application_fee_amount automatic_payment_methods canceled_at cancellation_reason customer "
    "customer_account excluded_payment_method_types last_payment_error latest_charge next_action on_behalf_of "
    "payment_method payment_method_configuration_details processing review setup_future_usage shipping source "
    "statement_descriptor statement_descriptor_suffix transfer_data transfer_group"
)
NULL_CHARGE_FIELDS = (
    "application application_fee application_fee_amount balance_transaction customer "
    "failure_balance_transaction failure_code failure_message on_behalf_of receipt_number receipt_url review "
    "shipping source source_transfer statement_descriptor statement_descriptor_suffix transfer_data transfer_group"
)
ADDRESS_FIELDS = "city country line1 line2 postal_code state"


def fee_minor(amount_minor: int) -> int:
    """2.9 % rounded half up, plus 30 minor units."""
    return (amount_minor * FEE_PER_MILLE + 500) // 1000 + FIXED_FEE_MINOR


def payment_intent(session: Json, data: Json, *, now: int) -> Json:
    """The payment intent of a session's first attempt, not yet confirmed."""
    intent_id = ids.new_id("pi")
    return {
        "id": intent_id,
        "object": "payment_intent",
        **nulls(NULL_INTENT_FIELDS),
        "amount": session["amount_total"],
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "capture_method": "automatic_async",
        "client_secret": f"{intent_id}_secret_{ids.request_id()[4:]}",
        "confirmation_method": "automatic",
        "created": now,
        "currency": session["currency"],
        "description": data["description"],
        "livemode": False,
        "metadata": data["metadata"],
        "payment_details": {"customer_reference": None, "order_reference": session["id"]},
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": session["payment_method_types"],
        "receipt_email": data["receipt_email"],
        "status": "requires_payment_method",
    }


def charge(intent: Json, *, now: int, status: str, email: str, method: str) -> Json:
    """One attempt to take the money: `succeeded`, `pending` or `failed`."""
    failed = status == "failed"
    address = nulls(ADDRESS_FIELDS)
    return {
        "id": ids.new_id("ch" if method == "card" else "py"),
        "object": "charge",
        **nulls(NULL_CHARGE_FIELDS),
        "amount": intent["amount"],
        "amount_captured": 0 if failed else intent["amount"],
        "amount_refunded": 0,
        "billing_details": {"address": address, "email": email, "name": None, "phone": None, "tax_id": None},
        "calculated_statement_descriptor": "NUMNAROAD SANDBOX",
        "captured": not failed,
        "created": now,
        "currency": intent["currency"],
        "description": intent["description"],
        "disputed": False,
        "failure_code": "card_declined" if failed else None,
        "failure_message": DECLINED if failed else None,
        "fraud_details": {},
        "livemode": False,
        "metadata": dict(intent["metadata"]),
        "outcome": _outcome(failed),
        "paid": status == "succeeded",
        "payment_intent": intent["id"],
        "payment_method": ids.new_id("pm"),
        "payment_method_details": _method_details(method),
        "radar_options": {},
        "receipt_email": intent["receipt_email"],
        "refunded": False,
        "status": status,
    }


def _outcome(failed: bool) -> Json:
    return {
        "advice_code": "try_again_later" if failed else None,
        "network_advice_code": None,
        "network_decline_code": "01" if failed else None,
        "network_status": "declined_by_network" if failed else "approved_by_network",
        "reason": "generic_decline" if failed else None,
        "risk_level": "normal",
        "seller_message": "The bank gave no further details." if failed else "Payment complete.",
        "type": "issuer_declined" if failed else "authorized",
    }


def _method_details(method: str) -> Json:
    if method == "card":
        return {"type": "card", "card": {"brand": "visa", "country": "US", "funding": "credit", "network": "visa"}}
    return {"type": method, method: {}}


def decline(charge_object: Json) -> Json:
    """`last_payment_error` of an intent whose payment was declined."""
    return {
        "charge": charge_object["id"],
        "code": "card_declined",
        "decline_code": "generic_decline",
        "doc_url": "https://stripe.com/docs/error-codes/card-declined",
        "message": DECLINED,
        "type": "card_error",
    }


def balance_transaction(source: Json, *, kind: str, amount: int, fee: int, now: int) -> Json:
    """A movement of the account's balance; refunds and disputes are negative."""
    detail = {"amount": fee, "application": None, "currency": source["currency"], "type": "stripe_fee"}
    return {
        "id": ids.new_id("txn"),
        "object": "balance_transaction",
        "amount": amount,
        "available_on": now + 2 * 86400,
        "balance_type": "payments",
        "created": now,
        "currency": source["currency"],
        "description": source.get("description"),
        "exchange_rate": None,
        "fee": fee,
        "fee_details": [{**detail, "description": "Stripe processing fees"}] if fee else [],
        "net": amount - fee,
        "reporting_category": {"payment": "charge"}.get(kind, kind),
        "source": source["id"],
        "status": "pending",
        "type": kind,
    }


def refund(charge_object: Json, *, amount: int, reason: str | None, metadata: Json, now: int) -> Json:
    """A refund to the card, done at once."""
    return {
        "id": ids.new_id("re"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": None,
        "charge": charge_object["id"],
        "created": now,
        "currency": charge_object["currency"],
        "destination_details": {"card": {"reference_status": "pending", "type": "refund"}, "type": "card"},
        "metadata": metadata,
        "payment_intent": charge_object["payment_intent"],
        "reason": reason,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "succeeded",
        "transfer_reversal": None,
    }


def dispute(charge_object: Json, *, amount: int, reason: str, now: int) -> Json:
    """A chargeback of a charge; it waits for an answer."""
    evidence_details = {"due_by": now + 7 * 86400, "has_evidence": False, "past_due": False, "submission_count": 0}
    return {
        "id": ids.new_id("du"),
        "object": "dispute",
        "amount": amount,
        "balance_transactions": [],
        "charge": charge_object["id"],
        "created": now,
        "currency": charge_object["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {"customer_email_address": charge_object["billing_details"]["email"]},
        "evidence_details": evidence_details,
        "is_charge_refundable": False,
        "livemode": False,
        "metadata": {},
        "network_reason_code": "10.4",
        "payment_intent": charge_object["payment_intent"],
        "payment_method_details": {"card": {"brand": "visa", "case_type": "chargeback"}, "type": "card"},
        "reason": reason,
        "status": "needs_response",
    }


def event(kind: str, data: Json, *, previous: Json | None, request: Json, now: int) -> Json:
    """A snapshot event about one object."""
    payload: Json = {"object": data}
    if previous is not None:
        payload["previous_attributes"] = previous
    return {
        "id": ids.new_id("evt"),
        "object": "event",
        "api_version": API_VERSION,
        "created": now,
        "data": payload,
        "livemode": False,
        "pending_webhooks": 1,
        "request": request,
        "type": kind,
    }
