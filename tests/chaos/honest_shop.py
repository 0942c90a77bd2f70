"""A small shop in which everything is right, as all sides tell it: each test spoils one thing and sees what is noticed.

Order 1 has three eSIMs: 1 and 3 were delivered, 2 was paid back and what it bought went to stock. Order 2 is unpaid.
"""

from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

from chaos.sides import Sides

Record = dict[str, Any]
PAID, UNPAID = UUID(int=1), UUID(int=2)
PRICE, FEE = 1_000, 117
START = Decimal(1_000_000)
MICROS = 10_000


def hash_of(iccid: str) -> bytes:
    return f"hash of {iccid}".encode()


def honest() -> Sides:
    units = {n: _unit(PAID, n, "delivered") for n in (1, 2, 3)}
    units[2] |= {"status": "refunded", "provider": None, "provider_order_id": None, "iccid_hash": None}
    waiting = _unit(UNPAID, 1, "unpaid") | {"provider": None, "provider_order_id": None, "iccid_hash": None}
    attempts = [_attempt(units[n], state) for n, state in ((1, "provisioned"), (2, "stocked"), (3, "provisioned"))]
    sides = Sides(
        orders={each["order_id"]: each for each in (_order(PAID, "completed"), _order(UNPAID, "pending"))},
        units={each["esim_id"]: each for each in (*units.values(), waiting)},
        items={UUID(int=7): {"unit_price_minor": PRICE}},
        attempts=list(attempts),
        stock=[{"provider": "airalo", "provider_order_id": "A-2", "iccid_hash": hash_of("8902"), "state": "stock"}],
        events=[],
        ledger=[],
        refunds=[],
        outbox=[],
        purchases=[purchase(n) for n in (1, 2, 3)],
        balances={"airalo": str(START - 6), "esim_go": str(START)},
        charges=[charge(PAID, "pi_1", 3 * PRICE)],
        mails=[],
        hash_of=hash_of,
        attempt_of=dict(enumerate(attempts)),
    )
    sides.orders[PAID]["payment_intent"] = "pi_1"  # type: ignore[index]  # a record here
    for n, status in ((1, "delivered"), (2, "refunded"), (3, "delivered")):
        live(sides, PAID, n, "unpaid", "queued", "working", status)
        post(sides, f"cost:{n}", PAID, "provider_balance", -2_000_000, "cost_of_sales")
    live(sides, PAID, None, None, "pending", "completed")
    live(sides, UNPAID, None, None, "pending")
    post(sides, "payment:pi_1", PAID, "cash", 3 * PRICE * MICROS, "customer_payment")
    post(sides, "fee:pi_1", PAID, "cash", -FEE * MICROS, "payment_fees")
    pay_back(sides, 2, PRICE)
    mail(sides, "order_confirmation", 1, 3)
    mail(sides, "order_failed_refunded", 2)
    sides.outbox.append(_notice("slack:completed:1", "slack", "order_completed", {}))
    return sides


def live(sides: Sides, order_id: UUID, n: int | None, *states: str | None) -> None:
    """Write down a history."""
    for before, after in pairwise(states):
        step = {"order_id": order_id, "esim_n": n, "from_status": before, "to_status": after, "reason": "so it went"}
        sides.events.append(step)


def post(sides: Sides, key: str, order_id: UUID, account: str, micros: int, against: str) -> None:
    """Book an amount and the same against it."""
    for name, amount in ((account, micros), (against, -micros)):
        sides.ledger.append({"posting_key": key, "order_id": order_id, "account": name, "amount_micros": amount})


def pay_back(sides: Sides, n: int, minor: int) -> None:
    """Pay money back for a unit, and book it on every side."""
    row: Any = sides.charges[0]
    row["refunds"].append({"amount_minor": minor, "metadata": {"refund_key": f"refund:{PAID}:{n}"}})
    row["refunded_minor"] += minor
    of(sides, PAID)["refunded_minor"] += minor
    post(sides, f"refund:{PAID}:{n}:{len(row['refunds'])}", PAID, "cash", -minor * MICROS, "refunds")


def mail(sides: Sides, kind: str, *units: int) -> None:
    """Send a mail that names units."""
    sides.outbox.append(_notice(f"{kind}:{len(sides.outbox)}", "mail", kind, {"esims": list(units)}))
    sides.mails.append({"to": ["1@example.com"]})


def of(sides: Sides, order_id: UUID, n: int | None = None) -> Any:
    """Return an order, or one of its units, to be spoilt."""
    return sides.orders[order_id] if n is None else sides.units_of(order_id)[n - 1]


def sell(sides: Sides, n: int, attempt: Record | None) -> None:
    """Have a provider sell one more, for an attempt or for nobody."""
    sides.purchases.append(purchase(n))
    spend(sides, 2)
    if attempt is not None:
        sides.attempts.append(attempt)
        sides.attempt_of[len(sides.purchases) - 1] = attempt  # type: ignore[index]  # a dict here


def spend(sides: Sides, dollars: float) -> None:
    """Take money from our balance at the provider."""
    left: Any = sides.balances
    left["airalo"] = str(Decimal(left["airalo"]) - Decimal(str(dollars)))


def another_attempt(sides: Sides, n: int, state: str) -> Record:
    """Return one more attempt for a unit."""
    return _attempt(of(sides, PAID, n), state) | {"attempt_id": 9, "number": 2}


def purchase(n: int) -> Record:
    """Return a provider's row."""
    names = {"order_id": f"A-{n}", "iccid": f"890{n}", "reference": f"r-{n}"}
    return {"provider": "airalo", "package_id": "plan", "state": "delivered", "cost": "2", **names}


def charge(order_id: UUID, intent: str, minor: int) -> Record:
    """Return the payment service's row."""
    moved = {"refunded_minor": 0, "fee_minor": FEE, "disputed_minor": 0, "dispute_fee_minor": 0, "refunds": []}
    return {"client_reference_id": str(order_id), "payment_intent": intent, "amount_minor": minor, **moved}


def _order(order_id: UUID, status: str) -> Record:
    reasons = {"hold_reason": None, "attention_reason": None, "payment_intent": None, "refunded_minor": 0}
    return {"order_id": order_id, "status": status, "email": f"{order_id.int}@example.com", **reasons}


def _unit(order_id: UUID, n: int, status: str) -> Record:
    names = {"esim_id": UUID(int=10 * order_id.int + n), "order_id": order_id, "n": n, "item_id": UUID(int=7)}
    got = {"provider": "airalo", "provider_order_id": f"A-{n}", "iccid_hash": hash_of(f"890{n}")}
    return {**names, "status": status, **got}


def _attempt(unit: Record, state: str) -> Record:
    cost = {"cost": Decimal(2), "expected_cost": Decimal(2), "error_type": None}
    named = {"attempt_id": unit["n"], "number": 1, "esim_id": unit["esim_id"], "state": state}
    return {**named, "provider": "airalo", "provider_package_id": "plan", **cost}


def _notice(key: str, channel: str, kind: str, payload: Record) -> Record:
    sent = {"sent_at": "today", "last_error": None, "order_id": PAID}
    return {"key": key, "channel": channel, "kind": kind, "payload": payload, **sent}
