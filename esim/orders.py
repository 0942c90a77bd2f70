"""States of orders and of their units, and the only way from one to another.

An order has items (package x quantity); every unit bought is one eSIM row with a state of its own, so partial
delivery and partial refund are normal. `advance` is the transition table; stores call it under a row lock and append
an event for every change.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from esim.errors import IllegalTransition


class OrderStatus(StrEnum):
    """Where an order stands."""

    PENDING = "pending"  # checkout open
    PAID = "paid"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"  # given up, or the bank refused the payment
    REFUNDED = "refunded"
    CANCELLED = "cancelled"  # checkout expired
    ATTENTION = "attention"  # a person must look


class UnitStatus(StrEnum):
    """Where one eSIM of an order stands."""

    UNPAID = "unpaid"
    QUEUED = "queued"  # paid and waiting for a worker, from `next_attempt_at` on
    WORKING = "working"  # claimed: a lease and a fencing number say by whom
    PENDING = "pending"  # a provider accepted it and will deliver later
    UNKNOWN = "unknown"  # sent to a provider without a clear answer: nobody else is asked until it is resolved
    DELIVERED = "delivered"
    FAILED = "failed"  # given up; the refund follows
    REFUNDED = "refunded"
    CANCELLED = "cancelled"
    ATTENTION = "attention"


_P = OrderStatus
TRANSITIONS: Mapping[OrderStatus, frozenset[OrderStatus]] = {
    _P.PENDING: frozenset({_P.PAID, _P.FAILED, _P.CANCELLED, _P.ATTENTION}),
    # A payment that arrives after the checkout was closed is money all the same: it is never lost.
    _P.CANCELLED: frozenset({_P.PAID, _P.ATTENTION}),
    _P.PAID: frozenset({_P.PROCESSING, _P.COMPLETED, _P.FAILED, _P.REFUNDED, _P.ATTENTION}),
    _P.PROCESSING: frozenset({_P.COMPLETED, _P.FAILED, _P.REFUNDED, _P.ATTENTION}),
    _P.COMPLETED: frozenset({_P.REFUNDED, _P.ATTENTION}),
    _P.FAILED: frozenset({_P.PAID, _P.PROCESSING, _P.COMPLETED, _P.REFUNDED, _P.ATTENTION}),
    _P.ATTENTION: frozenset({_P.PROCESSING, _P.COMPLETED, _P.FAILED, _P.REFUNDED, _P.PAID, _P.CANCELLED}),
    _P.REFUNDED: frozenset(),
}
FINAL_FOR_CUSTOMERS = frozenset({_P.COMPLETED, _P.FAILED, _P.REFUNDED, _P.CANCELLED})

_U = UnitStatus
UNIT_TRANSITIONS: Mapping[UnitStatus, frozenset[UnitStatus]] = {
    # Paid, but never queued: an amount that does not fit waits for a person, who may have it paid back.
    _U.UNPAID: frozenset({_U.QUEUED, _U.CANCELLED, _U.FAILED, _U.REFUNDED, _U.ATTENTION}),
    _U.CANCELLED: frozenset({_U.QUEUED}),
    _U.QUEUED: frozenset({_U.WORKING, _U.FAILED, _U.ATTENTION}),
    _U.WORKING: frozenset({_U.QUEUED, _U.PENDING, _U.UNKNOWN, _U.DELIVERED, _U.FAILED, _U.ATTENTION}),
    _U.PENDING: frozenset({_U.QUEUED, _U.UNKNOWN, _U.DELIVERED, _U.FAILED, _U.ATTENTION}),
    _U.UNKNOWN: frozenset({_U.QUEUED, _U.PENDING, _U.DELIVERED, _U.FAILED, _U.ATTENTION}),
    _U.FAILED: frozenset({_U.QUEUED, _U.REFUNDED, _U.ATTENTION}),
    _U.ATTENTION: frozenset({_U.QUEUED, _U.PENDING, _U.DELIVERED, _U.FAILED, _U.REFUNDED}),
    _U.DELIVERED: frozenset({_U.REFUNDED, _U.ATTENTION}),
    _U.REFUNDED: frozenset(),
}


def advance(current: OrderStatus, target: OrderStatus) -> bool:
    """Return whether moving from `current` to `target` changes anything; the same state is a no-op.

    Raises:
        IllegalTransition: the table has no such step.
    """
    if current is target:
        return False
    if target not in TRANSITIONS[current]:
        raise IllegalTransition(f"an order that is {current} cannot become {target}")
    return True


def advance_unit(current: UnitStatus, target: UnitStatus) -> bool:
    """Return whether moving a unit from `current` to `target` changes anything; the same state is a no-op.

    Raises:
        IllegalTransition: the table has no such step.
    """
    if current is target:
        return False
    if target not in UNIT_TRANSITIONS[current]:
        raise IllegalTransition(f"a unit that is {current} cannot become {target}")
    return True


def status_from_units(units: Iterable[UnitStatus]) -> OrderStatus:
    """Return what a paid order's state is, given its units.

    A unit that needs a person makes the order need one; work left makes it processing; then anything delivered makes
    it completed (refunded units beside it are a partial refund), all refunded makes it refunded, the rest is failed.
    """
    states = set(units)
    if UnitStatus.ATTENTION in states:
        return OrderStatus.ATTENTION
    if states & {_U.UNPAID, _U.QUEUED, _U.WORKING, _U.PENDING, _U.UNKNOWN}:
        return OrderStatus.PROCESSING
    if UnitStatus.FAILED in states:
        return OrderStatus.FAILED
    if UnitStatus.DELIVERED in states:
        return OrderStatus.COMPLETED
    return OrderStatus.REFUNDED if UnitStatus.REFUNDED in states else OrderStatus.CANCELLED
