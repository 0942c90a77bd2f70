"""What is left at each provider: readings kept, low ones told once, and providers that can be bought from again."""

from datetime import datetime
from decimal import ROUND_DOWN, Decimal

from sqlalchemy import Connection, select, update

from esim.money import MICROS, Cost
from resources.db.alerts import AlertKind, end_alert, raise_alert
from resources.db.catalogue_reader import usd_micros_per_unit
from resources.db.provider_events import Event, note_event
from resources.db.tables import providers


def note_balance(conn: Connection, slug: str, balance: Cost, low_micros: int, now: datetime, actor: str) -> None:
    """Keep a reading; tell of a balance below `low_micros` micro-USD, and of one that suffices again."""
    kept = {"balance_amount": balance.amount, "balance_currency": balance.currency, "balance_at": now}
    conn.execute(update(providers).where(providers.c.slug == slug).values(**kept))
    micros = balance_micros(conn, balance)
    if micros is None:
        return
    _watch_low(conn, slug, balance, micros, low_micros, now)
    _fund(conn, slug, balance, micros, now, actor)


def balance_micros(conn: Connection, balance: Cost) -> int | None:
    """Return a balance in micro-USD at the newest reference rate; None where there is none."""
    rate = MICROS if balance.currency == "USD" else usd_micros_per_unit(conn, balance.currency)
    return None if rate is None else int((balance.amount * Decimal(rate)).quantize(Decimal(1), rounding=ROUND_DOWN))


def _watch_low(conn: Connection, slug: str, balance: Cost, micros: int, low_micros: int, now: datetime) -> None:
    if micros < low_micros:
        text = f"{slug}: {balance} left, below {low_micros // MICROS} USD; top it up."
        raise_alert(conn, AlertKind.LOW_BALANCE, slug, text, now)
    else:
        end_alert(conn, AlertKind.LOW_BALANCE, slug, f"{slug}: the balance is {balance} again.", now)


def _fund(conn: Connection, slug: str, balance: Cost, micros: int, now: datetime, actor: str) -> None:
    p = providers.c
    needed = conn.scalar(select(p.unfunded_micros).where(p.slug == slug, p.unfunded_at.is_not(None)))
    if needed is None or micros < needed:
        return
    conn.execute(update(providers).where(p.slug == slug).values(unfunded_at=None, unfunded_micros=None))
    note_event(conn, slug, Event.FUNDED, f"the balance is {balance}", now, actor)
    text = f"{slug}: the balance is {balance}; it is bought from again."
    end_alert(conn, AlertKind.PROVIDER_UNFUNDED, slug, text, now)
