"""eSIMs given back: delivered ones whose price goes back, and late arrivals in stock; booked by what was answered.

The provider is asked outside of any transaction; these functions say what may be asked for and write down what came.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, select, update

from esim.errors import NotFound, Refused
from esim.money import Cost
from esim.purchase import Cancelled, CancelOutcome, CancelRefused, EsimRef
from resources.db import ledger
from resources.db.audit import Operator, record_action
from resources.db.esim_owners import customer_of_stock
from resources.db.operator_actions import Done, close_case, open_case
from resources.db.tables import esims, ledger_entries, order_events, orders, purchase_attempts, refunds, stock_esims
from resources.db.transitions import lock_order
from resources.db.vault import Vault

_TAKEN_BACK = "taken back"


@dataclass(frozen=True, slots=True)
class Returnable:
    """An eSIM that its provider may be asked to take back."""

    provider: str
    attempt_id: int
    esim: EsimRef = field(repr=False)
    n: int = 0


@dataclass(frozen=True, slots=True)
class StockEsim:
    """One eSIM that was bought and that no unit got."""

    stock_id: int
    order_id: UUID
    display_id: str
    esim_n: int
    provider: str
    offer_id: str
    provider_order_id: str
    cost_micros: int | None
    reason: str
    created_at: datetime


def returnable_units(
    conn: Connection, order_id: UUID, units: Sequence[int], vault: Vault, *, asked_only: bool = True
) -> list[Returnable]:
    """Return the eSIMs of an order's units whose refund is asked for (or, if not `asked_only`, may be) to give back."""
    e, a, r = esims.c, purchase_attempts.c, refunds.c
    asked = select(r.esim_n).where(r.order_id == order_id, r.state.in_(("requested", "sent", "succeeded", "elsewhere")))
    found = (
        select(esims, a.attempt_id, a.provider_package_id)
        .join_from(esims, purchase_attempts, (a.esim_id == e.esim_id) & (a.state == "provisioned"))
        .where(e.order_id == order_id, e.n.in_(units), e.profile_enc.is_not(None))
        .order_by(e.n)
    )
    if asked_only:
        found = found.where(e.n.in_(asked))
    back = _taken_back(conn, order_id)
    return [_returnable(row, vault, int(row.n)) for row in conn.execute(found) if row.n not in back]


def note_returned(conn: Connection, order_id: UUID, who: Operator, item: Returnable, answer: CancelOutcome) -> Done:
    """Write down what a provider said to taking a delivered eSIM back, and book its cost if that came back."""
    case = open_case(conn, order_id, who)
    [unit] = [one for one in case.units if one.n == item.n]
    details: dict[str, object] = {"provider": item.provider, "attempt_id": item.attempt_id}
    if not isinstance(answer, Cancelled):
        text = _not_taken(item.provider, answer)
        case.remark(text, esim_n=item.n, details=details)
        case.changes.append(f"{case.named(unit)}: {text}")
        return close_case(case, "order return", details)
    if item.n in _taken_back(conn, order_id):
        return close_case(case, "order return")
    if answer.refunded:
        _book_returned(conn, order_id, item)
    _let_go(conn, order_id, item)
    text = f"{item.provider} took it back{'' if answer.refunded else '; its cost is not refunded'}"
    case.remark(text, esim_n=item.n, details=details | {"esim": _TAKEN_BACK})
    case.changes.append(f"{case.named(unit)}: {text}")
    return close_case(case, "order return", details | {"refunded": answer.refunded})


def stock(conn: Connection, stock_id: int | None = None) -> list[StockEsim]:
    """Return the eSIMs in stock, oldest first; only one of them when its number is given."""
    s, a, o, e = stock_esims.c, purchase_attempts.c, orders.c, esims.c
    found = (
        select(
            s.stock_id,
            a.order_id,
            o.display_id,
            e.n.label("esim_n"),
            s.provider,
            s.offer_id,
            s.provider_order_id,
            s.cost_micros,
            s.reason,
            s.created_at,
        )
        .join_from(stock_esims, purchase_attempts, s.attempt_id == a.attempt_id)
        .join(orders, a.order_id == o.order_id)
        .join(esims, a.esim_id == e.esim_id)
        .where(s.state == "stock")
        .order_by(s.created_at)
    )
    if stock_id is not None:
        found = found.where(s.stock_id == stock_id)
    return [StockEsim(**row._mapping) for row in conn.execute(found)]


def returnable_stock(conn: Connection, stock_id: int, vault: Vault) -> Returnable | None:
    """Return an eSIM in stock for asking its provider to take it back; None when it is not in stock any more.

    Raises:
        NotFound: there is no such eSIM.
        Refused: a customer has it: whoever gives it back takes it from them.
    """
    row = _stock_row(conn, stock_id)
    if row.state != "stock":
        return None
    if customer := customer_of_stock(conn, stock_id):
        raise Refused(
            f"eSIM {stock_id} in stock is that of {customer}: given back, it stops working there. It is in stock by "
            f"mistake; book it out with: numnaroad stock write-off {stock_id}"
        )
    profile = vault.decrypt_profile(bytes(row.profile_enc)) if row.profile_enc else None
    reference = EsimRef(
        row.provider_order_id,
        profile.provider_esim_id if profile else "",
        profile.iccid if profile else "",
        row.provider_package_id,
    )
    return Returnable(row.provider, row.attempt_id, reference)


def end_stock(conn: Connection, stock_id: int, who: Operator, answer: CancelOutcome | None) -> Done:
    """Book an eSIM in stock as given back, or (`answer` is None) as worth nothing any more.

    Raises:
        NotFound: there is no such eSIM.
        Refused: its provider did not take it back.
    """
    row, subject = _stock_row(conn, stock_id), f"stock {stock_id}"
    lock_order(conn, row.order_id)
    state = conn.scalar(select(stock_esims.c.state).where(stock_esims.c.stock_id == stock_id).with_for_update())
    if state != "stock":
        return Done(subject)
    if answer is not None and not isinstance(answer, Cancelled):
        raise Refused(f"{_not_taken(row.provider, answer)}; it stays in stock")
    refunded = isinstance(answer, Cancelled) and answer.refunded
    booked = _booked(conn, f"stock:{row.attempt_id}", ledger.Account.STOCK)
    if booked is not None:
        entries = (ledger.stock_returned if refunded else ledger.loss)(*booked)
        ledger.post(conn, f"stock_end:{row.attempt_id}", row.order_id, entries, int(row.n))
    target = "written_off" if answer is None else "cancelled"
    conn.execute(update(stock_esims).where(stock_esims.c.stock_id == stock_id).values(state=target))
    worth = "its cost is in our balance again" if refunded else "its cost is a loss"
    text = f"{row.provider} took it back; {worth}" if answer is not None else f"written off; {worth}"
    changes = (f"eSIM {stock_id} in stock: {text}",)
    details = {"provider": row.provider, "attempt_id": row.attempt_id, "refunded": refunded, "changes": list(changes)}
    record_action(conn, who, f"stock {target}", subject, order_id=row.order_id, details=details)
    return Done(subject, changes, order_id=row.order_id)


def cannot_return(provider: str) -> CancelRefused:
    """Return the answer of a provider whose contract takes nothing back."""
    return CancelRefused(f"{provider} takes nothing back through its API")


def _not_taken(provider: str, answer: CancelOutcome) -> str:
    message = answer.message[:200] if not isinstance(answer, Cancelled) else ""
    if isinstance(answer, CancelRefused):
        return f"{provider} does not take it back ({message})"
    return f"{provider} gave no clear answer to taking it back ({message}); look at it there"


def _taken_back(conn: Connection, order_id: UUID) -> set[int]:
    v = order_events.c
    return set(conn.scalars(select(v.esim_n).where(v.order_id == order_id, v.details["esim"].astext == _TAKEN_BACK)))


def _returnable(row: Row[Any], vault: Vault, n: int) -> Returnable:
    iccid = vault.decrypt_profile(bytes(row.profile_enc)).iccid
    reference = EsimRef(row.provider_order_id or "", row.provider_esim_id or "", iccid, row.provider_package_id)
    return Returnable(row.provider, row.attempt_id, reference, n)


def _book_returned(conn: Connection, order_id: UUID, item: Returnable) -> None:
    """Take back exactly what was booked for the purchase; the unit then cost nothing."""
    booked = _booked(conn, f"cost:{item.attempt_id}", ledger.Account.COST_OF_SALES)
    if booked is None:
        return
    if ledger.post(conn, f"returned:{item.attempt_id}", order_id, ledger.cost_returned(*booked), item.n):
        unit = (esims.c.order_id == order_id) & (esims.c.n == item.n)
        conn.execute(update(esims).where(unit).values(cost_amount=0, cost_micros=0))


def _let_go(conn: Connection, order_id: UUID, item: Returnable) -> None:
    """Forget which eSIM the unit had, for look-ups: its provider may sell the same ICCID to somebody else tomorrow."""
    unit = (esims.c.order_id == order_id) & (esims.c.n == item.n)
    conn.execute(update(esims).where(unit).values(iccid_hash=None))


def _booked(conn: Connection, key: str, account: ledger.Account) -> tuple[Cost, int] | None:
    """Return what a posting booked to an account: the cost and its value in micro-USD."""
    e = ledger_entries.c
    found = select(e.amount_micros, e.original_amount, e.original_currency)
    row = conn.execute(found.where(e.posting_key == key, e.account == account)).one_or_none()
    return None if row is None else (Cost(row.original_amount, row.original_currency), int(row.amount_micros))


def _stock_row(conn: Connection, stock_id: int) -> Row[Any]:
    s, a = stock_esims.c, purchase_attempts.c
    found = (
        select(stock_esims, a.order_id, a.provider_package_id, esims.c.n)
        .join_from(stock_esims, purchase_attempts, s.attempt_id == a.attempt_id)
        .join(esims, a.esim_id == esims.c.esim_id)
        .where(s.stock_id == stock_id)
    )
    row = conn.execute(found).one_or_none()
    if row is None:
        raise NotFound(f"there is no eSIM {stock_id} in stock; numnaroad stock list shows them")
    return row
