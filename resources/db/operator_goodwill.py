"""Before an operator lets more be bought: is it still paid for? A gift to who has the money already must be said so."""

from collections.abc import Sequence

from esim.errors import Refused
from esim.money import Money
from esim.orders import UnitStatus
from resources.db.disputes import LOST, taken_by_bank
from resources.db.operator_actions import OrderCase
from resources.db.order_money import money_of
from resources.db.refunds import unit_price
from resources.db.transitions import UnitRow

_PAID_BACK = frozenset({"sent", "succeeded", "elsewhere"})


def check_is_paid_for(case: OrderCase, meant: Sequence[UnitRow], *, goodwill: bool) -> None:
    """Refuse to deliver `meant` where the bank or the customer has their money, unless it is a gift; note that it is.

    Raises:
        Refused: it is not paid for, and `goodwill` is False.
    """
    found = _by_bank(case) or _by_refund(case, meant) if meant else None
    if found is None:
        return
    why, instead = found
    if not goodwill:
        raise Refused(f"order {case.order.display_id}: {why}. {instead}; or deliver it as a gift with --goodwill")
    case.remark(f"goodwill: {why}: {case.who.reason}")
    case.changes.append(f"goodwill: {why}")


def _by_bank(case: OrderCase) -> tuple[str, str] | None:
    """Return that a bank has the money, and what to do instead."""
    taken = taken_by_bank(case.conn, case.order)
    if taken is None:
        return None
    dispute, status = taken
    if status == LOST:
        return f"the customer has the money by the lost dispute {dispute}", _write_down(case, "--all")
    return f"the bank has the payment for dispute {dispute} ({status})", "Wait for its end"


def _by_refund(case: OrderCase, meant: Sequence[UnitRow]) -> tuple[str, str] | None:
    """Return that the customer has all of the money, or as much as a unit costs, and what to do instead."""
    [money] = money_of(case.conn, [case.order.order_id])
    if money.is_all_back:
        return f"all of its payment went back ({money.back})", _write_down(case, "--all")
    of_units = sum(unit_price(case.conn, unit) for unit in case.units if _is_paid_back(case, unit))
    too_much = max(0, money.paid.minor - money.price.minor)
    by_hand = Money(money.back.minor - of_units - too_much, money.back.currency)
    enough_for = [unit for unit in meant if 0 < unit_price(case.conn, unit) <= by_hand.minor]
    if not enough_for:
        return None
    why = f"{by_hand} went back by hand, enough for {case.named(enough_for[0])}"
    return why, _write_down(case, "--unit N")


def _is_paid_back(case: OrderCase, unit: UnitRow) -> bool:
    settled = unit.status is UnitStatus.REFUNDED and case.is_settled(unit)
    return settled or case.refund_state(unit) in _PAID_BACK


def _write_down(case: OrderCase, units: str) -> str:
    name = case.order.display_id
    return f"Write it down: numnaroad order refund {name} {units} --paid-elsewhere --release-hold"
