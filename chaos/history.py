"""The whole history of one unit as text: what we noted, and what the others have on their books."""

from collections.abc import Container, Iterable, Iterator
from uuid import UUID

from chaos.invariants import Violation
from chaos.sides import Row, Sides

_ORDER = ("display_id", "order_id", "status", "payment_status", "amount_minor", "refunded_minor")
_ORDER_MORE = ("hold_reason", "deadline_at")
_UNIT = ("n", "status", "provider", "provider_order_id", "failures", "fence", "next_attempt_at")
_ATTEMPT = ("number", "provider", "provider_package_id", "state", "error_type", "error", "reference")
_ATTEMPT_MORE = ("provider_order_id", "cost", "started_at", "sent_at", "finished_at", "evidence")
_STOCK = ("provider", "provider_order_id", "reason")
_CHARGE = ("charge_id", "payment_intent", "amount_minor", "refunded_minor", "fee_minor", "status", "refunds")
_REFUND = ("refund_key", "amount_minor", "state", "attempts", "reason", "last_error")
_ENTRY = ("posting_key", "account", "amount_micros")
_NOTICE = ("key", "payload", "attempts", "sent_at", "last_error")


def story_of(violation: Violation, sides: Sides) -> str:
    """Return everything there is about a violation's unit or order, oldest first; ids and figures only."""
    head = f"VIOLATION of '{violation.rule}': {violation.text}"
    if violation.order_id is None:
        return head
    return "\n".join([head, *_lines(violation.order_id, violation.n, sides)])


def _lines(order_id: UUID, n: int | None, sides: Sides) -> Iterator[str]:
    order = sides.orders[order_id]
    units = [unit for unit in sides.units_of(order_id) if n in {None, unit["n"]}]
    ids = {unit["esim_id"] for unit in units}
    attempts = [attempt for attempt in sides.attempts if attempt["esim_id"] in ids]
    yield "  order"
    yield from _rows([order], (*_ORDER, *_ORDER_MORE))
    yield "  units"
    yield from _rows(units, _UNIT)
    yield "  history"
    yield from (_step(one) for one in sides.events if one["order_id"] == order_id and _concerns(one, n))
    yield "  purchases attempted"
    yield from _rows(attempts, (*_ATTEMPT, *_ATTEMPT_MORE))
    yield from _providers_side(attempts, sides)
    for title, rows, names in (
        ("in stock", _of(sides.stock, "attempt_id", {attempt["attempt_id"] for attempt in attempts}), _STOCK),
        ("the payment service", sides.charges_of(order_id), _CHARGE),
        ("refunds", _of(sides.refunds, "order_id", {order_id}), _REFUND),
        ("ledger", _of(sides.ledger, "order_id", {order_id}), _ENTRY),
        ("notices", _of(sides.outbox, "order_id", {order_id}), _NOTICE),
    ):
        yield f"  {title}"
        yield from _rows(rows, names)


def _step(event: Row) -> str:
    subject = "order " if event["esim_n"] is None else f"unit {event['esim_n']}"
    steps = f"{event['from_status']} -> {event['to_status']}"
    why = f"{event['reason']} ({event['actor']}) {event['details'] or ''}"
    return f"    {event['at']:%H:%M:%S.%f} {subject} {steps}: {why}"


def _concerns(event: Row, n: int | None) -> bool:
    return n is None or event["esim_n"] in {None, n}


def _of(rows: Iterable[Row], name: str, values: Container[object]) -> list[Row]:
    return [row for row in rows if row[name] in values]


def _providers_side(attempts: list[Row], sides: Sides) -> Iterator[str]:
    yield "  the providers (their rows for these purchases, and what they cannot be matched with)"
    ids, asked = {a["attempt_id"] for a in attempts}, {(a["provider"], a["provider_package_id"]) for a in attempts}
    for index, row in enumerate(sides.purchases):
        attempt = sides.attempt_of.get(index)
        is_ours = attempt is not None and attempt["attempt_id"] in ids
        may_be_ours = attempt is None and (row["provider"], row["package_id"]) in asked
        if is_ours or may_be_ours:
            whose = f"attempt {attempt['number']}" if attempt else "nobody's"
            sold = f"{row['provider']} order {row['order_id']} {row['package_id']} {row['state']} {row['cost']}"
            yield f"    {row['at']} {sold}: {whose}"


def _rows(rows: Iterable[Row], names: tuple[str, ...]) -> Iterator[str]:
    for row in rows:
        yield "    " + ", ".join(f"{name} {row[name]}" for name in names)
