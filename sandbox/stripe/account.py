"""The account itself, its balance, and what was really charged and refunded."""

from collections import defaultdict
from datetime import UTC, datetime

from sandbox.stripe import disputes
from sandbox.stripe.session_objects import Json
from sandbox.stripe.state import StripeState

AMOUNTS = ("amount_minor", "refunded_minor", "fee_minor", "disputed_minor", "dispute_fee_minor")
ACCOUNT_ID = "acct_1SandboxNumnaRoad0"


def balance(state: StripeState) -> Json:
    """GET /v1/balance: everything earned so far is pending, per currency."""
    sums: dict[str, int] = defaultdict(int)
    for moved in state.transactions.values():
        sums[moved["currency"]] += moved["net"]
    pending = [{"amount": sums[c], "currency": c, "source_types": {"card": sums[c]}} for c in sorted(sums)]
    return {
        "object": "balance",
        "available": [{"amount": 0, "currency": entry["currency"], "source_types": {"card": 0}} for entry in pending],
        "connect_reserved": [],
        "livemode": False,
        "pending": pending,
    }


def account(_state: StripeState) -> Json:
    """GET /v1/account: a shop that may take payments."""
    return {
        "id": ACCOUNT_ID,
        "object": "account",
        "business_profile": {"name": "Sandbox shop", "url": None, "mcc": "4814"},
        "business_type": "company",
        "capabilities": {"card_payments": "active", "transfers": "active"},
        "charges_enabled": True,
        "country": "US",
        "default_currency": "usd",
        "details_submitted": True,
        "email": "shop@example.com",
        "metadata": {},
        "payouts_enabled": True,
        "type": "standard",
    }


def charges(state: StripeState) -> Json:
    """What customers really paid and got back: one row per successful charge, newest first, and totals by currency."""
    rows = [_charge_row(state, c) for c in reversed(state.charges.values()) if c["status"] == "succeeded"]
    totals: dict[str, dict[str, int]] = {}
    for row in rows:
        total = totals.setdefault(row["currency"], dict.fromkeys(("charges", *AMOUNTS), 0))
        total["charges"] += 1
        for name in AMOUNTS:
            total[name] += row[name]
    return {"charges": rows, "totals": totals}


def _charge_row(state: StripeState, charge: Json) -> Json:
    session = state.session_of(charge["payment_intent"]) or {}
    moved = state.transactions.get(charge["balance_transaction"] or "") or {}
    disputed, dispute_fee = disputes.taken(state, charge)
    return {
        "charge_id": charge["id"],
        "payment_intent": charge["payment_intent"],
        "session_id": session.get("id"),
        "client_reference_id": session.get("client_reference_id"),
        "metadata": {**charge["metadata"], **session.get("metadata", {})},
        "amount_minor": charge["amount"],
        "refunded_minor": charge["amount_refunded"],
        "currency": charge["currency"].upper(),
        "fee_minor": moved.get("fee", 0),
        "disputed_minor": disputed,
        "dispute_fee_minor": dispute_fee,
        "status": _status(charge),
        "at": datetime.fromtimestamp(charge["created"], UTC).isoformat(),
        "refunds": [
            {"refund_id": r["id"], "amount_minor": r["amount"], "reason": r["reason"], "metadata": r["metadata"]}
            for r in state.refunds.values()
            if r["charge"] == charge["id"]
        ],
    }


def _status(charge: Json) -> str:
    if charge["disputed"]:
        return "disputed"
    if charge["refunded"]:
        return "refunded"
    return "partially_refunded" if charge["amount_refunded"] else "succeeded"
