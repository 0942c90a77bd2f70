"""What a unit needs of a person, if anything: a reason and the commands to type. A pure function of what is known.

`numnaroad order show` gives it for one order, `numnaroad attention` for every unit that waits for somebody.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from uuid import UUID

from esim.orders import UnitStatus

_WHY = '--reason "…"'
MINUTES_MORE = 60
_GRACE = timedelta(minutes=3)  # what ends at the deadline by itself takes a moment
_WAITS_FOR_PROVIDER = frozenset({UnitStatus.PENDING, UnitStatus.UNKNOWN, UnitStatus.ATTENTION})
_PAID_BACK = frozenset({UnitStatus.FAILED, UnitStatus.REFUNDED})
_GONE_BACK = frozenset({"sent", "succeeded"})


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
    refund_as_it_stands: bool  # an operator asked for it, of an eSIM that was delivered
    is_paid_back: bool  # its order, as a whole
    is_in_vain: bool  # it counts as paid back by a refund by hand, and not all of that money went back
    purchase: OpenPurchase | None


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do about one unit."""

    kind: str
    urgency: Urgency
    reason: str
    commands: tuple[str, ...]


def advise(unit: UnitFacts, now: datetime, *, held: bool = False) -> Advice | None:
    """Return what a unit needs of a person; None where the machine sees to it or nothing is left to do.

    `held` orders are not touched without saying that the hold is over.
    """
    if unit.purchase is not None:
        return _of_open_purchase(unit, unit.purchase, now, held)
    if unit.status in _PAID_BACK or (unit.status is UnitStatus.DELIVERED and unit.refund_as_it_stands):
        return _of_given_up(unit, now, held)
    if unit.status in {UnitStatus.ATTENTION, UnitStatus.PENDING, UnitStatus.UNKNOWN}:
        reason = unit.reason or f"it is {unit.status}"
        return Advice("attention", Urgency.NOW, reason, _retry_or_refund(unit, now, held))
    if unit.status is UnitStatus.QUEUED and _is_overdue(unit, now, held):
        reason = f"it waits past the customer's deadline: {unit.reason}"
        return Advice("stuck", Urgency.NOW, reason, _retry_or_refund(unit, now, held))
    return None


def command(words: str, *more: str) -> str:
    """Return a command as it is typed."""
    return " ".join(("numnaroad", words, *(word for word in more if word), _WHY))


def _of_open_purchase(unit: UnitFacts, purchase: OpenPurchase, now: datetime, held: bool) -> Advice | None:
    resolve = f"order resolve {unit.display_id} --unit {unit.n} --attempt {purchase.number}"
    hold = "--release-hold" if held else ""
    known = purchase.provider_order_id or "PROVIDER_ORDER_ID"
    bought, not_bought = command(resolve, f"--bought {known}"), command(resolve, "--not-bought")
    where = f"{purchase.provider} (our reference {purchase.reference}{_order(purchase)})"
    if unit.status in _PAID_BACK:
        reason = f"it was paid back while attempt {purchase.number} at {where} is still open"
        return Advice("open_purchase", Urgency.SOMETIME, reason, (not_bought, bought))
    if purchase.error_type == "duplicate_esim":
        reason = f"{where} names an eSIM that another order or the stock has; find out there what it sold for this one"
        return Advice("duplicate_esim", Urgency.NOW, reason, (not_bought, bought, command(resolve, "--abandon", hold)))
    if unit.status is not UnitStatus.ATTENTION and not _is_overdue(unit, now, held):
        return None
    if unit.status not in _WAITS_FOR_PROVIDER:
        return None
    reason = f"{unit.reason or 'unclear'}: look at {where}"
    return Advice("unclear_purchase", Urgency.NOW, reason, (bought, not_bought, command(resolve, "--abandon", hold)))


def _of_given_up(unit: UnitFacts, now: datetime, held: bool) -> Advice | None:
    if unit.refund_state == "failed":
        commands = (_refund(unit, held, "--again"), _refund(unit, held, "--paid-elsewhere"))
        return Advice("refund_failed", Urgency.NOW, f"its refund failed: {unit.refund_error}", commands)
    if unit.is_in_vain:
        reason = "the refund by hand that paid it back failed: pay it another way, then write it down"
        return Advice("refund_failed", Urgency.NOW, reason, (_refund(unit, held, "--paid-elsewhere"),))
    if unit.status is UnitStatus.FAILED and unit.refund_state in {None, "called_off"}:
        reason = f"given up, and nobody asked for its refund: {unit.reason}"
        return Advice("not_refunded", Urgency.NOW, reason, _retry_or_refund(unit, now, held)[::-1])
    return None


def _retry_or_refund(unit: UnitFacts, now: datetime, held: bool) -> tuple[str, ...]:
    """Return what may be done with a unit that is not delivered; one whose money went back is not bought."""
    if unit.refund_state in _GONE_BACK:
        return (_refund(unit, held, "--paid-elsewhere"),)
    how = "--again" if unit.refund_state == "failed" else "--paid-elsewhere" if unit.is_paid_back else ""
    return _retry(unit, now, held), _refund(unit, held, how)


def _retry(unit: UnitFacts, now: datetime, held: bool) -> str:
    deadline = f"--extend-deadline {MINUTES_MORE}" if _is_over(unit, now) else ""
    hold, gift = "--release-hold" if held else "", "--goodwill" if unit.is_paid_back else ""
    return command(f"order retry {unit.display_id} --unit {unit.n}", deadline, hold, gift)


def _refund(unit: UnitFacts, held: bool, how: str = "") -> str:
    return command(f"order refund {unit.display_id} --unit {unit.n}", how, "--release-hold" if held else "")


def _is_over(unit: UnitFacts, now: datetime) -> bool:
    return unit.deadline_at is not None and unit.deadline_at <= now


def _is_overdue(unit: UnitFacts, now: datetime, held: bool) -> bool:
    """Return whether the machine should have ended a unit by now; in a held order it ends none."""
    return unit.deadline_at is not None and unit.deadline_at + (timedelta() if held else _GRACE) <= now


def _order(purchase: OpenPurchase) -> str:
    return f", its order {purchase.provider_order_id}" if purchase.provider_order_id else ""
