"""What a unit needs of a person, if anything: a reason and the commands to type. A pure function of what is known.

`numnaroad order show` gives it for one order, `numnaroad attention` for every unit that waits for somebody.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from uuid import UUID

from esim.orders import UnitStatus

_WHY = '--reason "…"'
_MINUTES_MORE = 60
_WAITS_FOR_PROVIDER = frozenset({UnitStatus.PENDING, UnitStatus.UNKNOWN, UnitStatus.ATTENTION})
_PAID_BACK = frozenset({UnitStatus.FAILED, UnitStatus.REFUNDED})


class Urgency(IntEnum):
    """How long something may wait."""

    NOW = 1  # a customer waits for an eSIM or for money
    TODAY = 2
    SOMETIME = 3


@dataclass(frozen=True, slots=True)
class OpenPurchase:
    """A purchase that has no end yet."""

    number: int
    provider: str
    state: str
    reference: str
    provider_order_id: str | None
    error_type: str | None
    sent_at: datetime | None


@dataclass(frozen=True, slots=True)
class UnitFacts:
    """What decides what a unit needs."""

    order_id: UUID
    display_id: str
    n: int
    status: UnitStatus
    since: datetime
    deadline_at: datetime | None
    reason: str | None  # of its newest event
    refund_state: str | None
    refund_error: str | None
    purchase: OpenPurchase | None


@dataclass(frozen=True, slots=True)
class OrderState:
    """What a unit's order adds."""

    is_held: bool = False  # so that nothing is touched without saying that this is over
    is_paid_back: bool = False  # all of its payment is with the customer again


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do about one unit."""

    kind: str
    urgency: Urgency
    reason: str
    commands: tuple[str, ...]


def advise(unit: UnitFacts, now: datetime, order: OrderState) -> Advice | None:
    """Return what a unit needs of a person; None where the machine sees to it or nothing is left to do."""
    if unit.purchase is not None:
        return _of_open_purchase(unit, unit.purchase, now, order)
    if unit.status in _PAID_BACK:
        return _of_given_up(unit, now, order)
    if unit.status in {UnitStatus.ATTENTION, UnitStatus.PENDING, UnitStatus.UNKNOWN}:
        reason = unit.reason or f"it is {unit.status}"
        return Advice("attention", Urgency.NOW, reason, (_retry(unit, now, order), _refund(unit, order)))
    if unit.status is UnitStatus.QUEUED and _is_over(unit, now):
        reason = f"it waits past the customer's deadline: {unit.reason}"
        return Advice("stuck", Urgency.NOW, reason, (_retry(unit, now, order), _refund(unit, order)))
    return None


def command(words: str, *more: str) -> str:
    """Return a command as it is typed."""
    return " ".join(("numnaroad", words, *(word for word in more if word), _WHY))


def _of_open_purchase(unit: UnitFacts, purchase: OpenPurchase, now: datetime, order: OrderState) -> Advice | None:
    resolve = f"order resolve {unit.display_id} --unit {unit.n} --attempt {purchase.number}"
    hold = "--release-hold" if order.is_held else ""
    known = purchase.provider_order_id or "PROVIDER_ORDER_ID"
    bought, not_bought = command(resolve, f"--bought {known}"), command(resolve, "--not-bought")
    where = f"{purchase.provider} (our reference {purchase.reference}{_order(purchase)})"
    if unit.status in _PAID_BACK:
        reason = f"it was paid back while attempt {purchase.number} at {where} is still open"
        return Advice("open_purchase", Urgency.SOMETIME, reason, (not_bought, bought))
    if purchase.error_type == "duplicate_esim":
        reason = f"{where} names an eSIM that another order or the stock has; find out there what it sold for this one"
        return Advice("duplicate_esim", Urgency.NOW, reason, (not_bought, bought, command(resolve, "--abandon", hold)))
    if unit.status is not UnitStatus.ATTENTION and not _is_over(unit, now):
        return None
    if unit.status not in _WAITS_FOR_PROVIDER:
        return None
    reason = f"{unit.reason or 'unclear'}: look at {where}"
    return Advice("unclear_purchase", Urgency.NOW, reason, (bought, not_bought, command(resolve, "--abandon", hold)))


def _of_given_up(unit: UnitFacts, now: datetime, order: OrderState) -> Advice | None:
    if unit.refund_state == "failed":
        hows = ("--paid-elsewhere",) if order.is_paid_back else ("--again", "--paid-elsewhere")
        commands = tuple(_refund(unit, order, how) for how in hows)
        return Advice("refund_failed", Urgency.NOW, f"its refund failed: {unit.refund_error}", commands)
    if unit.status is UnitStatus.FAILED and unit.refund_state in {None, "called_off"}:
        reason = f"given up, and nobody asked for its refund: {unit.reason}"
        return Advice("not_refunded", Urgency.NOW, reason, (_refund(unit, order), _retry(unit, now, order)))
    return None


def _retry(unit: UnitFacts, now: datetime, order: OrderState) -> str:
    deadline = f"--extend-deadline {_MINUTES_MORE}" if _is_over(unit, now) else ""
    hold, gift = "--release-hold" if order.is_held else "", "--goodwill" if order.is_paid_back else ""
    return command(f"order retry {unit.display_id} --unit {unit.n}", deadline, hold, gift)


def _refund(unit: UnitFacts, order: OrderState, how: str = "") -> str:
    how = how or ("--paid-elsewhere" if order.is_paid_back else "")
    return command(f"order refund {unit.display_id} --unit {unit.n}", how, "--release-hold" if order.is_held else "")


def _is_over(unit: UnitFacts, now: datetime) -> bool:
    return unit.deadline_at is not None and unit.deadline_at <= now


def _order(purchase: OpenPurchase) -> str:
    return f", its order {purchase.provider_order_id}" if purchase.provider_order_id else ""
