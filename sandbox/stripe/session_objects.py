"""Checkout Session and line item JSON, with the fields that API version 2026-10-28 documents for payment mode.

Builders are pure: ids and times come in as arguments, money is integer minor units.
"""

from typing import Any

from sandbox.stripe import ids

Json = dict[str, Any]

API_VERSION = "2026-10-28.endive"
NULL_SESSION_FIELDS = (
    "after_expiration allow_promotion_codes billing_address_collection branding_settings client_secret "
    "collected_information consent consent_collection currency_conversion customer customer_account invoice "
    "origin_context payment_intent payment_link payment_method_configuration_details permissions "
    "presentment_details recovered_from saved_payment_method_options setup_intent shipping_address_collection "
    "shipping_cost submit_type subscription wallet_options"
)
NULL_INVOICE_FIELDS = "account_tax_ids custom_fields description footer issuer rendering_options"
CUSTOM_TEXTS = "after_submit shipping_address submit terms_of_service_acceptance"


def nulls(names: str) -> Json:
    """The fields named in one line, all null."""
    return dict.fromkeys(names.split())


def line_item(name: str, unit_amount: int, quantity: int, currency: str) -> Json:
    """One line of a session; its price is created inline and belongs to this session only."""
    total = unit_amount * quantity
    return {
        "id": ids.new_id("li"),
        "object": "item",
        "adjustable_quantity": None,
        "amount_discount": 0,
        "amount_subtotal": total,
        "amount_tax": 0,
        "amount_total": total,
        "currency": currency,
        "description": name,
        "metadata": {},
        "price": _inline_price(unit_amount, currency),
        "quantity": quantity,
    }


def _inline_price(unit_amount: int, currency: str) -> Json:
    return {
        "id": ids.new_id("price"),
        "object": "price",
        "active": False,
        "billing_scheme": "per_unit",
        "currency": currency,
        "livemode": False,
        "lookup_key": None,
        "metadata": {},
        "nickname": None,
        "product": ids.new_id("prod"),
        "recurring": None,
        "tax_behavior": "unspecified",
        "type": "one_time",
        "unit_amount": unit_amount,
        "unit_amount_decimal": str(unit_amount),
    }


def checkout_session(params: Json, *, url_prefix: str, now: int, amount: int) -> Json:
    """An open session in payment mode; the payment intent comes with the first attempt to pay."""
    session_id = ids.session_id()
    return {
        "id": session_id,
        "object": "checkout.session",
        **nulls(NULL_SESSION_FIELDS),
        **_switched_off(),
        "amount_subtotal": amount,
        "amount_total": amount,
        "cancel_url": params["cancel_url"],
        "client_reference_id": params["client_reference_id"],
        "created": now,
        "currency": params["currency"],
        "custom_fields": [],
        "custom_text": nulls(CUSTOM_TEXTS),
        "customer_creation": "if_required",
        "customer_details": customer_details(params["customer_email"]),
        "customer_email": params["customer_email"],
        "discounts": [],
        "expires_at": params["expires_at"],
        "livemode": False,
        "locale": params["locale"],
        "metadata": params["metadata"],
        "mode": "payment",
        "payment_method_collection": "if_required",
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": params["payment_method_types"],
        "payment_status": "unpaid",
        "shipping_options": [],
        "status": "open",
        "success_url": params["success_url"],
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "ui_mode": "hosted_page",
        "url": f"{url_prefix}{session_id}",
    }


def _switched_off() -> Json:
    """The features this shop does not use."""
    return {
        "adaptive_pricing": {"enabled": False},
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "invoice_creation": {"enabled": False, "invoice_data": {**nulls(NULL_INVOICE_FIELDS), "metadata": {}}},
        "phone_number_collection": {"enabled": False},
    }


def customer_details(email: str | None) -> Json | None:
    """What is known of the customer; none before an e-mail address is."""
    if email is None:
        return None
    unknown = nulls("address business_name individual_name name phone tax_ids")
    return {**unknown, "email": email, "tax_exempt": "none"}
