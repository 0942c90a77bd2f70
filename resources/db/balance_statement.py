"""A provider's balance against our bookings: the only statement of a provider that lists no purchases.

The last balance that agreed is the base. What was spent since must be what we booked since. More spent than booked is
a finding, and the base stays until it agrees (a hold that expires comes back by itself); a balance that rose was
refilled or paid back, and becomes the new base.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection, select, text
from sqlalchemy.dialects.postgresql import insert

from esim.money import Cost
from resources.db.findings import BALANCE_DIFFERS, Finding
from resources.db.tables import balance_readings

_AT_WORK = timedelta(minutes=5)

_BUSY = text(
    """
    select count(*) from purchase_attempts where provider = :provider and (
        state in ('prepared', 'pending', 'unknown') or sent_at >= :lately
    )
    """
)
_BOOKED = text(
    """
    select coalesce(sum(case when a.state = 'provisioned' then e.cost_amount else a.cost end), 0)
    from purchase_attempts a join esims e on e.esim_id = a.esim_id
    where a.provider = :provider and a.state in ('provisioned', 'stocked') and a.sent_at >= :since
        and :currency = case when a.state = 'provisioned' then e.cost_currency else a.currency end
    """
)


@dataclass(frozen=True, slots=True)
class Balance:
    """How a balance compares with our bookings: in words, and the finding where it does not agree."""

    words: str
    finding: Finding | None = None
    comparable: bool = True


def compare_balance(conn: Connection, provider: str, balance: Cost, read_at: datetime) -> Balance:
    """Compare a balance, read just before, with the last one that agreed and with what was booked since."""
    base = conn.execute(select(balance_readings).where(balance_readings.c.provider == provider)).one_or_none()
    if conn.scalar(_BUSY, {"provider": provider, "lately": read_at - _AT_WORK}):
        return Balance("purchases are open there: the balance cannot be compared now", comparable=False)
    if base is None or base.currency != balance.currency:
        _keep_base(conn, provider, balance, read_at)
        return Balance(f"first reading: {balance}")
    values = {"provider": provider, "since": base.read_at, "currency": balance.currency}
    booked = Decimal(conn.scalar(_BOOKED, values) or 0)
    spent = base.amount - balance.amount
    if spent > booked:
        more = _plain(spent - booked, balance)
        return Balance(f"{more} more spent than booked", _finding(provider, balance, base.read_at, spent, booked))
    _keep_base(conn, provider, balance, read_at)
    if spent < booked:
        return Balance(f"{_plain(booked - spent, balance)} came in: refilled, or paid back")
    return Balance(f"agrees: {_plain(spent, balance)} spent and booked")


def _plain(amount: Decimal, balance: Cost) -> str:
    return f"{amount.normalize():f} {balance.currency}"


def _finding(provider: str, balance: Cost, since: datetime, spent: Decimal, booked: Decimal) -> Finding:
    text_ = (
        f"{provider} has no full statement; by its balance {_plain(spent, balance)} were spent since "
        f"{since:%Y-%m-%d %H:%M}, and {_plain(booked, balance)} were booked. "
        "Compare in its portal; holds come back by themselves."
    )
    details = {"spent": str(spent), "booked": str(booked), "currency": balance.currency, "since": since.isoformat()}
    return Finding(BALANCE_DIFFERS, provider, text_, None, details)


def _keep_base(conn: Connection, provider: str, balance: Cost, read_at: datetime) -> None:
    row = {"read_at": read_at, "amount": balance.amount, "currency": balance.currency}
    statement = insert(balance_readings).values(provider=provider, **row)
    conn.execute(statement.on_conflict_do_update(index_elements=["provider"], set_=row))
