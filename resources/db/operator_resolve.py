"""An operator says what became of a purchase whose answer was lost, having asked the provider.

Not bought: the attempt is closed and the unit goes on with the next offer. Bought: what the provider itself answers
for its order is delivered, with every check of a delivery. Nobody can tell: the unit is paid back and the attempt stays
open, so that an eSIM which turns up goes to stock.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, select

from esim.errors import Refused
from esim.orders import UnitStatus
from esim.purchase import ErrorType, Provisioned, Rejected
from resources.db.attempts import stored_request
from resources.db.audit import Operator
from resources.db.found_orders import check_found
from resources.db.operator_actions import Done, OrderCase, chosen, close_case, in_work, open_case
from resources.db.operator_refunds import RefundOptions, ask_for_refunds
from resources.db.settlement import Scribe, record_outcome
from resources.db.tables import esims, purchase_attempts
from resources.db.transitions import UnitRow
from resources.db.vault import Vault


@dataclass(frozen=True, slots=True)
class Doubt:
    """The purchase meant: of one unit, and where it is said, the one attempt of it that the operator looked into."""

    n: int
    attempt: int | None = None


def resolve_not_bought(
    conn: Connection,
    order_id: UUID,
    who: Operator,
    doubt: Doubt,
    *,
    settle_seconds: float,
    vault: Vault,
    unsure: str = "",
) -> Done:
    """Close a purchase that was not made; its unit, if it still waits, is bought elsewhere at once.

    `unsure` is why the provider could not tell.

    Raises:
        NotFound: there is no such order.
        Refused: no purchase of it is open, or it may still turn up at the provider.
    """
    case, unit = _case(conn, order_id, who, doubt)
    attempt = case.open_purchase(unit)
    if attempt is None:
        last = _last_attempt(conn, unit, doubt)
        if last is not None and (last.state, last.error_type) == ("rejected", ErrorType.NOT_BOUGHT):
            return close_case(case, "order resolve")
        raise Refused(_nothing_open(case, unit))
    _check_meant(case, attempt, doubt)
    sure_at = stored_request(attempt).left_at + timedelta(seconds=settle_seconds)
    if who.now <= sure_at:
        raise Refused(
            f"{attempt.provider} may show an order for up to {settle_seconds:.0f} s; ask it again after "
            f"{sure_at:%H:%M:%S} UTC, then say so"
        )
    case.remark(f"attempt {attempt.number} was not bought: {who.reason}", esim_n=unit.n)
    outcome = Rejected(ErrorType.NOT_BOUGHT, f"{who.actor} says it was not bought: {who.reason}")
    status = record_outcome(conn, attempt.attempt_id, outcome, Scribe(vault, who.actor, who.now, who.run_id))
    goes_on = f"; {case.named(unit)} is {status}"
    case.changes.append(f"attempt {attempt.number} at {attempt.provider} is closed as not bought{goes_on}")
    if unsure:
        case.changes.append(f"{attempt.provider} could not tell, so this is your word alone: {unsure}")
    return _close(conn, case, attempt)


def open_attempt(conn: Connection, order_id: UUID, who: Operator, doubt: Doubt) -> Row[Any]:
    """Return the open attempt that is meant, for asking the provider about it.

    Raises:
        NotFound: there is no such order.
        Refused: no purchase of the unit is open, or another one than was meant.
    """
    case, unit = _case(conn, order_id, who, doubt)
    attempt = case.open_purchase(unit)
    if attempt is None:
        raise Refused(_nothing_open(case, unit))
    _check_meant(case, attempt, doubt)
    return attempt


def is_delivered_as(conn: Connection, order_id: UUID, n: int, provider_order_id: str) -> bool:
    """Return whether a unit is delivered with what the provider sold under this order."""
    unit = (esims.c.order_id == order_id) & (esims.c.n == n) & (esims.c.status == UnitStatus.DELIVERED)
    return conn.scalar(select(esims.c.provider_order_id).where(unit)) == provider_order_id


def resolve_bought(
    conn: Connection,
    order_id: UUID,
    who: Operator,
    doubt: Doubt,
    *,
    found: Provisioned,
    vault: Vault,
    although_unproven: bool = False,
) -> Done:
    """Deliver what the provider answers for its order, or keep it as stock where the unit was given up.

    Raises:
        NotFound: there is no such order.
        Refused: no purchase of the unit is open, or what was found is another purchase's or (unless
            `although_unproven`) may well be.
    """
    case, unit = _case(conn, order_id, who, doubt)
    attempt = case.open_purchase(unit)
    if attempt is None:
        raise Refused(_nothing_open(case, unit))
    _check_meant(case, attempt, doubt)
    check_found(conn, attempt, found, vault, who.now, although_unproven=although_unproven)
    unproven = {"although_unproven": True} if although_unproven else {}
    text = f"found at {attempt.provider} as {found.provider_order_id}: {who.reason}"
    case.remark(text, esim_n=unit.n, details=unproven or None)
    status = record_outcome(conn, attempt.attempt_id, found, Scribe(vault, who.actor, who.now, who.run_id))
    if status is UnitStatus.ATTENTION:
        raise Refused(f"{attempt.provider} names an eSIM that another order has; nothing was delivered")
    where = "is delivered" if status is UnitStatus.DELIVERED else f"stays {status}; what was bought is in stock"
    case.changes.append(f"{case.named(unit)} {where}")
    return _close(conn, case, attempt, {"provider_order_id": found.provider_order_id, **unproven})


def resolve_abandoned(conn: Connection, order_id: UUID, who: Operator, doubt: Doubt, *, release_hold: bool) -> Done:
    """Give a unit up whose purchase nobody can clear up, and have it paid back; the attempt stays open.

    Raises:
        NotFound: there is no such order.
        Refused: no purchase of the unit is open, or it cannot be paid back.
    """
    case, unit = _case(conn, order_id, who, doubt)
    attempt = case.open_purchase(unit)
    if attempt is None:
        raise Refused(_nothing_open(case, unit))
    _check_meant(case, attempt, doubt)
    options = RefundOptions((unit.n,), even_if_open=True, release_hold=release_hold)
    ask_for_refunds(case, [unit], options)
    return close_case(case, "order abandon", {"unit": unit.n, "attempt": attempt.number})


def _case(conn: Connection, order_id: UUID, who: Operator, doubt: Doubt) -> tuple[OrderCase, UnitRow]:
    case = open_case(conn, order_id, who)
    [unit] = chosen(case, (doubt.n,))
    if busy := in_work(case, unit):
        raise Refused(f"order {case.order.display_id}: {busy}")
    return case, unit


def _check_meant(case: OrderCase, attempt: Row[Any], doubt: Doubt) -> None:
    if doubt.attempt is not None and doubt.attempt != attempt.number:
        raise Refused(
            f"order {case.order.display_id}, eSIM {doubt.n}: attempt {doubt.attempt} is closed; open is attempt "
            f"{attempt.number} at {attempt.provider}. Look into that one"
        )


def _last_attempt(conn: Connection, unit: UnitRow, doubt: Doubt) -> Row[Any] | None:
    a = purchase_attempts.c
    found = select(purchase_attempts).where(a.esim_id == unit.esim_id).order_by(a.number.desc()).limit(1)
    if doubt.attempt is not None:
        found = found.where(a.number == doubt.attempt)
    return conn.execute(found).one_or_none()


def _nothing_open(case: OrderCase, unit: UnitRow) -> str:
    display_id = case.order.display_id
    return (
        f"order {display_id}: {case.named(unit)} is {unit.status} and no purchase of it is open; see what it needs: "
        f"numnaroad order show {display_id}"
    )


def _close(conn: Connection, case: OrderCase, attempt: Row[Any], details: Mapping[str, object] | None = None) -> Done:
    """Write the audit event; the order was settled with the outcome, so it is read again."""
    after = open_case(conn, case.order.order_id, case.who)
    after.changes.extend(case.changes)
    told = {"attempt": attempt.number, "provider": attempt.provider, **(details or {})}
    return close_case(after, "order resolve", told)
