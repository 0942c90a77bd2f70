"""The whole history of one unit as text: what we noted, what the provider and the payment service have on their books."""

from collections.abc import Iterable, Iterator
from uuid import UUID

from chaos.invariants import Violation
from chaos.sides import Row, Sides


def story_of(violation: Violation, sides: Sides) -> str:
    """Return everything there is about a violation's unit or order, oldest first; ids and figures only."""
    head = f"VIOLATION of '{violation.rule}': {violation.text}"
    if violation.order_id is None:
        return head
    return "\n".join([head, *_lines(violation.order_id, violation.n, sides)])


def _lines(order_id: UUID, n: int | None, sides: Sides) -> Iterator[str]:
    order = sides.orders[order_id]
    yield f"  order {order['display_id']} {order_id}: {order['status']}, {order['payment_status']}, hold: {order['hold_reason']}"
    yield f"    {order['amount_minor']} {order['currency']}, refunded {order['refunded_minor']}, deadline {order['deadline_at']}"
    units = [unit for unit in sides.units_of(order_id) if n in {None, unit["n"]}]
    ids = {unit["esim_id"] for unit in units}
    for unit in units:
        yield f"  unit {unit['n']}: {unit['status']}, {unit['provider']}, order {unit['provider_order_id']}, due {unit['next_attempt_at']}"
    yield "  history"
    for event in sides.events:
        if event["order_id"] == order_id and (n is None or event["esim_n"] in {None, n}):
            subject = "order " if event["esim_n"] is None else f"unit {event['esim_n']}"
            steps = f"{event['from_status']} -> {event['to_status']}"
            yield f"    {event['at']:%H:%M:%S.%f} {subject} {steps}: {event['reason']} ({event['actor']}) {event['details'] or ''}"
    attempts = [attempt for attempt in sides.attempts if attempt["esim_id"] in ids]
    yield "  purchases attempted"
    for a in attempts:
        yield (
            f"    unit's {a['number']}: {a['provider']} {a['provider_package_id']} {a['state']} {a['error_type'] or ''} "
            f"{a['error'] or ''} reference {a['reference']} order {a['provider_order_id']} cost {a['cost']} "
            f"started {a['started_at']:%H:%M:%S.%f} sent {a['sent_at'] and format(a['sent_at'], '%H:%M:%S.%f')} "
            f"evidence {a['evidence']}"
        )
    yield from _providers_side(attempts, sides)
    yield "  in stock"
    numbers = {attempt["attempt_id"] for attempt in attempts}
    yield from _rows(
        (row for row in sides.stock if row["attempt_id"] in numbers), ("provider", "provider_order_id", "reason")
    )
    yield "  the payment service"
    yield from _rows(
        sides.charges_of(order_id),
        ("charge_id", "payment_intent", "amount_minor", "refunded_minor", "fee_minor", "status", "refunds"),
    )
    yield "  refunds"
    refunds = [row for row in sides.refunds if row["order_id"] == order_id]
    yield from _rows(refunds, ("refund_key", "amount_minor", "state", "attempts", "reason", "last_error"))
    yield "  ledger"
    entries = [row for row in sides.ledger if row["order_id"] == order_id]
    yield from _rows(entries, ("posting_key", "account", "amount_micros"))
    yield "  notices"
    notices = [row for row in sides.outbox if row["order_id"] == order_id]
    yield from _rows(notices, ("key", "payload", "attempts", "sent_at", "last_error"))


def _providers_side(attempts: list[Row], sides: Sides) -> Iterator[str]:
    yield "  the providers (their rows for these purchases, and what they cannot be matched with)"
    ids, asked = {a["attempt_id"] for a in attempts}, {(a["provider"], a["provider_package_id"]) for a in attempts}
    for index, row in enumerate(sides.purchases):
        attempt = sides.attempt_of.get(index)
        if (attempt and attempt["attempt_id"] in ids) or (
            attempt is None and (row["provider"], row["package_id"]) in asked
        ):
            whose = f"attempt {attempt['number']}" if attempt else "nobody's"
            yield f"    {row['at']} {row['provider']} order {row['order_id']} {row['package_id']} {row['state']} {row['cost']}: {whose}"


def _rows(rows: Iterable[Row], names: tuple[str, ...]) -> Iterator[str]:
    for row in rows:
        yield "    " + ", ".join(f"{name} {row[name]}" for name in names)
