"""What must hold when all is quiet, whatever was done to the shop before: each rule is a function of all sides.

The rules know nothing of how the shop works inside: they count what providers sold, what the payment service took and
gave back and what mails went out, and compare that with the store.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from typing import Any
from uuid import UUID

from chaos.sides import COSTING, Row, Sides

_MICROS_PER_MINOR = 10_000  # everything is sold in USD here
_STARTING_BALANCE = Decimal(1_000_000)

# The only reasons for which a paid unit may be left to a person: the protocol names them. Everything else must end.
WAITS: tuple[tuple[str, str], ...] = (
    ("a dispute", "opened a dispute"),
    ("paid with the wrong amount", "was paid instead of"),
    ("refund refused by the payment service", "was refused by the payment service"),
    ("paid back by hand, nobody knows for which eSIM", "may be paid back already"),
    ("all of it paid back by hand before it was delivered", "by hand, all of it"),
    ("a provider named an eSIM that another order has", "names an eSIM that another order has"),
    ("a provider named an eSIM that is in stock", "names an eSIM that is in stock"),
)


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise; `order_id` and `n` say whose, where it is somebody's."""

    rule: str
    text: str
    order_id: UUID | None = None
    n: int | None = None


def check(sides: Sides) -> tuple[list[Violation], Counter[str]]:
    """Return every broken rule, and how many units wait for a person, by reason."""
    violations = [violation for rule in RULES for violation in rule(sides)]
    return violations, Counter(why for unit in sides.units.values() if (why := waits_for_person(sides, unit)))


def waits_for_person(sides: Sides, unit: Row) -> str:
    """Return why a paid unit legitimately waits for a person; empty when it has an end, or has no such reason."""
    order = sides.orders[unit["order_id"]]
    if unit["status"] in {"delivered", "refunded", "unpaid", "cancelled"} and not _is_held_unpaid(sides, unit):
        return ""
    reasons = [order["hold_reason"] or "", order["attention_reason"] or ""]
    reasons += [e["reason"] for e in sides.events if e["order_id"] == unit["order_id"] and e["esim_n"] == unit["n"]][
        -1:
    ]
    return next((why for why, words in WAITS if any(words in reason for reason in reasons)), "")


def every_paid_unit_ends_once(sides: Sides) -> Iterator[Violation]:
    """A unit that was paid is delivered, or refunded, or waits for a person for a reason that has a name."""
    for unit in sides.units.values():
        order = sides.orders[unit["order_id"]]
        if not sides.is_paid(unit["order_id"]):
            if unit["status"] not in {"unpaid", "cancelled"}:
                yield _of(unit, "unpaid means untouched", f"nothing was paid, but the unit is {unit['status']}")
        elif unit["status"] not in {"delivered", "refunded"} and not waits_for_person(sides, unit):
            text = f"paid, but it is {unit['status']} (order {order['status']})"
            yield _of(unit, "every paid unit ends once", text)


def no_unit_is_bought_twice(sides: Sides) -> Iterator[Violation]:
    """Of a unit's purchases on the providers' books, one at most is its own; every other is in stock."""
    own: dict[UUID, list[Row]] = defaultdict(list)
    for row, attempt in _bought(sides):
        if attempt is not None and attempt["state"] != "stocked":
            own[attempt["esim_id"]].append(row)
    for esim_id, rows in own.items():
        unit = sides.units[esim_id]
        if len(rows) > 1:
            yield _of(unit, "no unit is bought twice", f"the providers sold {len(rows)} eSIMs for it: {_names(rows)}")
        if unit["status"] == "refunded" and any(_attempt_state(sides, row) == "provisioned" for row in rows):
            yield _of(unit, "never delivered and refunded", "it was refunded, and its purchase is not in stock")


def nothing_is_sold_behind_our_back(sides: Sides) -> Iterator[Violation]:
    """Every eSIM on a provider's books is delivered, in stock, or the subject of a purchase that is still open.

    Or operations were told of a closed purchase that is doubted again, where the provider cannot be asked for certain.
    """
    doubted = {notice["key"] for notice in sides.outbox if notice["kind"] == "late_doubt"}
    open_ones = Counter(
        (a["provider"], a["provider_package_id"])
        for a in sides.attempts
        if a["state"] in _DOUBTFUL or f"slack:late_doubt:{a['attempt_id']}" in doubted
    )
    for row, attempt in _bought(sides):
        if attempt is None:
            key = (row["provider"], row["package_id"])
            open_ones[key] -= 1
            if open_ones[key] < 0:
                yield Violation("nothing is sold unseen", f"nobody here knows of this purchase: {_names([row])}")
        elif attempt["state"] in {"rejected", "intent"}:
            unit = sides.units[attempt["esim_id"]]
            text = f"attempt {attempt['number']} is {attempt['state']}, but it was sold: {_names([row])}"
            yield _of(unit, "nothing is sold unseen", text)
        else:
            open_ones[(attempt["provider"], attempt["provider_package_id"])] -= attempt["state"] in _DOUBTFUL


def nothing_is_booked_that_was_not_sold(sides: Sides) -> Iterator[Violation]:
    """Every purchase that we booked is on the provider's books, at the cost that we booked."""
    rows = {attempt["attempt_id"]: row for row, attempt in _bought(sides) if attempt is not None}
    for attempt in sides.attempts:
        if attempt["state"] not in {"provisioned", "stocked"}:
            continue
        unit, row = sides.units[attempt["esim_id"]], rows.get(attempt["attempt_id"])
        if row is None:
            yield _of(
                unit, "what is booked was sold", f"{attempt['provider']} has not sold attempt {attempt['number']}"
            )
        elif Decimal(row["cost"]) != attempt["cost"] and not _is_cost_unknowable(attempt):
            text = f"{attempt['provider']} charged {row['cost']}, booked is {attempt['cost']}"
            yield _of(unit, "booked at what it cost", text)


def no_esim_has_two_owners(sides: Sides) -> Iterator[Violation]:
    """What a customer was given is an eSIM that the provider sold, and no other customer was given it."""
    sold = {(row["provider"], sides.hash_of(row["iccid"])) for row in sides.purchases if row["iccid"]}
    given: Counter[tuple[str, bytes]] = Counter()
    for unit in sides.units.values():
        if unit["status"] == "delivered":
            key = (unit["provider"], bytes(unit["iccid_hash"]))
            given[key] += 1
            if key not in sold:
                yield _of(unit, "delivered is what was sold", f"{unit['provider']} never sold the eSIM it was given")
            if given[key] > 1:
                yield _of(unit, "no eSIM has two owners", "another unit was given the same eSIM")


def stock_is_nobodys(sides: Sides) -> Iterator[Violation]:
    """An eSIM in stock is no customer's, neither by its ICCID nor by the provider's order."""
    delivered = [unit for unit in sides.units.values() if unit["status"] == "delivered"]
    by_iccid = {(unit["provider"], bytes(unit["iccid_hash"])): unit for unit in delivered}
    by_order = {(unit["provider"], unit["provider_order_id"]): unit for unit in delivered}
    for row in (row for row in sides.stock if row["state"] == "stock"):
        unit = by_order.get((row["provider"], row["provider_order_id"]))
        if unit is None and row["iccid_hash"] is not None:
            unit = by_iccid.get((row["provider"], bytes(row["iccid_hash"])))
        if unit is not None:
            yield _of(
                unit, "stock is nobody's", f"its {row['provider']} order {row['provider_order_id']} is in stock too"
            )


def refunds_are_paid_once(sides: Sides) -> Iterator[Violation]:
    """A refunded unit's price went back exactly once, a delivered unit's not at all."""
    made: dict[str, list[Row]] = defaultdict(list)
    for charge in sides.charges:
        for refund in charge["refunds"]:
            made[refund["metadata"].get("refund_key", "")].append(refund)
    for unit in sides.units.values():
        paid = made.get(f"refund:{unit['order_id']}:{unit['n']}", [])
        price = sides.items[unit["item_id"]]["unit_price_minor"]
        amounts = [refund["amount_minor"] for refund in paid]
        if amounts != ([price] if unit["status"] == "refunded" else []):
            yield _of(
                unit, "refunded once with the right amount", f"it is {unit['status']}; Stripe paid back {amounts}"
            )


def refunds_agree_with_stripe(sides: Sides) -> Iterator[Violation]:
    """What the order says went back of its payment did, and a second payment went back whole."""
    for order in sides.orders.values():
        first = [row for row in sides.charges if row["payment_intent"] == order["payment_intent"]]
        total = sum(row["refunded_minor"] for row in first)
        if order["refunded_minor"] != total:
            text = f"the order says {order['refunded_minor']} went back, Stripe says {total}"
            yield Violation("refunds agree with Stripe", text, order["order_id"])
        for row in sides.charges_of(order["order_id"]):
            second = row["payment_intent"] != order["payment_intent"]
            if second and row["refunded_minor"] != row["amount_minor"]:
                text = f"of a second payment of {row['amount_minor']}, {row['refunded_minor']} went back"
                yield Violation("a second payment goes back", text, order["order_id"])


def the_ledger_balances(sides: Sides) -> Iterator[Violation]:
    """Every posting and every order sums to zero; cash is what Stripe holds, costs are what providers charged."""
    postings, cash, provider = Counter[str](), Counter[UUID](), 0
    for entry in sides.ledger:
        postings[entry["posting_key"]] += entry["amount_micros"]
        if entry["account"] == "cash":
            cash[entry["order_id"]] += entry["amount_micros"]
        provider -= entry["amount_micros"] if entry["account"] == "provider_balance" else 0
    for key, total in postings.items():
        if total:
            yield Violation("the ledger sums to zero", f"posting {key} sums to {total}")
    for order_id in sides.orders:
        left = sum(_kept_minor(row) for row in sides.charges_of(order_id)) * _MICROS_PER_MINOR
        if cash[order_id] != left:
            yield Violation("cash is what Stripe has", f"the ledger has {cash[order_id]}, Stripe {left}", order_id)
    booked = sum((a["cost"] for a in sides.attempts if a["state"] in {"provisioned", "stocked"}), Decimal(0))
    if provider != int(booked * 1_000_000):
        yield Violation("costs are booked", f"the ledger has {provider} micros of purchases, the attempts {booked}")


def providers_are_paid_for_what_they_sold(sides: Sides) -> Iterator[Violation]:
    """What left our balance at each provider is the cost of what is on its books."""
    for slug, balance in sides.balances.items():
        rows = [row for row in sides.purchases if row["provider"] == slug and row["state"] in {*COSTING, "reserved"}]
        spent, cost = _STARTING_BALANCE - Decimal(balance), sum((Decimal(row["cost"]) for row in rows), Decimal(0))
        if spent != cost:
            yield Violation("balances agree", f"{slug} took {spent} for purchases of {cost}")


def events_explain_every_state(sides: Sides) -> Iterator[Violation]:
    """Each order's and each unit's history leads, step by step, from its beginning to where it is now."""
    history: dict[tuple[UUID, int | None], list[Row]] = defaultdict(list)
    for entry in sides.events:
        history[(entry["order_id"], entry["esim_n"])].append(entry)
    wanted: list[tuple[UUID, int | None, str, str | None]] = [
        (order["order_id"], None, order["status"], None) for order in sides.orders.values()
    ]
    wanted += [(unit["order_id"], unit["n"], unit["status"], "unpaid") for unit in sides.units.values()]
    for order_id, n, status, beginning in wanted:
        state = beginning
        for entry in history[(order_id, n)]:
            if entry["from_status"] != state:
                text = f"a step begins at {entry['from_status']}, but it was {state}: {entry['reason']}"
                yield Violation("events explain every state", text, order_id, n)
            state = entry["to_status"]
        if state != status:
            yield Violation("events explain every state", f"it is {status}, its history ends at {state}", order_id, n)


def customers_are_told_once(sides: Sides) -> Iterator[Violation]:
    """Every mail was sent once, and names each delivered or refunded unit once and no unit both ways.

    Of an order that is still being worked on the customer need not have been told yet, and of one that a person holds
    not of refunds.
    """
    sent = Counter(address for mail in sides.mails for address in mail["to"])
    queued: dict[UUID, list[Row]] = defaultdict(list)
    for notice in sides.outbox:
        if notice["sent_at"] is None:
            yield Violation(
                "every notice is sent", f"{notice['key']} was not: {notice['last_error']}", notice["order_id"]
            )
        if notice["channel"] == "mail":
            queued[notice["order_id"]].append(notice)
    for order in sides.orders.values():
        mails = queued[order["order_id"]]
        if sent[order["email"]] != len(mails):
            text = f"{len(mails)} mails were to be sent, {sent[order['email']]} arrived"
            yield Violation("nobody is told twice", text, order["order_id"])
        named = {kind: Counter(n for m in mails if m["kind"] == kind for n in m["payload"]["esims"]) for kind in _MAILS}
        for unit in sides.units_of(order["order_id"]):
            told = {kind: named[kind][unit["n"]] for kind in _MAILS}
            expected = {kind: int(unit["status"] == state) for kind, state in _MAILS.items()}
            held_back = order["hold_reason"] and unit["status"] != "delivered"
            may_wait = not any(told.values()) and (held_back or _is_still_in_work(sides, order))
            if told != expected and not may_wait:
                yield _of(unit, "told what is true, once", f"it is {unit['status']}, mails said {told}")


def slack_hears_once(sides: Sides) -> Iterator[Violation]:
    """No notice has the same key as another."""
    for key, notices in groupby(sorted(notice["key"] for notice in sides.outbox)):
        if len(list(notices)) > 1:
            yield Violation("nobody is told twice", f"{key} is queued twice")


RULES: tuple[Callable[[Sides], Iterator[Violation]], ...] = (
    every_paid_unit_ends_once,
    no_unit_is_bought_twice,
    nothing_is_sold_behind_our_back,
    nothing_is_booked_that_was_not_sold,
    no_esim_has_two_owners,
    stock_is_nobodys,
    refunds_are_paid_once,
    refunds_agree_with_stripe,
    the_ledger_balances,
    providers_are_paid_for_what_they_sold,
    events_explain_every_state,
    customers_are_told_once,
    slack_hears_once,
)
_MAILS = {"order_confirmation": "delivered", "order_failed_refunded": "refunded"}
_DOUBTFUL = frozenset({"prepared", "pending", "unknown"})


def _bought(sides: Sides) -> Iterator[tuple[Row, Row | None]]:
    for index, row in enumerate(sides.purchases):
        if row["state"] in COSTING:
            yield row, sides.attempt_of.get(index)


def _attempt_state(sides: Sides, row: Row) -> Any:
    attempt = sides.attempt_of.get(sides.purchases.index(row))
    return attempt["state"] if attempt else None


def _kept_minor(charge: Row) -> int:
    """What is left of a payment at Stripe."""
    gone = ("refunded_minor", "fee_minor", "disputed_minor", "dispute_fee_minor")
    return int(charge["amount_minor"] - sum(charge[name] for name in gone))


def _is_cost_unknowable(attempt: Row) -> bool:
    """Whether a price moved between its reading and the purchase, and the answer was lost: look-ups do not tell it.

    Then the expected cost is booked, and the provider's statement shows the difference.
    """
    return attempt["error_type"] is not None and attempt["cost"] == attempt["expected_cost"]


def _is_still_in_work(sides: Sides, order: Row) -> bool:
    """Whether something of an order is open: the customer is written to when nothing is."""
    return any(unit["status"] in {"working", "pending", "unknown"} for unit in sides.units_of(order["order_id"]))


def _is_held_unpaid(sides: Sides, unit: Row) -> bool:
    return unit["status"] in {"unpaid", "cancelled"} and sides.is_paid(unit["order_id"])


def _names(rows: list[Row]) -> str:
    return ", ".join(f"{row['provider']} order {row['order_id']} ({row['package_id']}, {row['state']})" for row in rows)


def _of(unit: Row, rule: str, text: str) -> Violation:
    return Violation(rule, text, unit["order_id"], unit["n"])
