"""Providers as operations see and change them: switched on or off, circuit, errors, balance, stock, open purchases."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, select, text, update

from esim.errors import NotFound
from esim.health import Standing
from resources.db.audit import Operator, record_action
from resources.db.operator_actions import Done
from resources.db.provider_health import read_health
from resources.db.provider_state import follow_switch, reset_circuit
from resources.db.tables import provider_health, providers


class Circuit(StrEnum):
    """Whether purchases are let through to a provider."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"  # the next purchase is a probe


@dataclass(frozen=True, slots=True)
class ProviderReport:
    """One provider: what was decided about it, how it fares, and what of ours is open there."""

    slug: str
    enabled: bool
    standing: Standing
    why: str  # it stands so
    priority: int
    circuit: Circuit
    open_until: datetime | None
    failures: int
    last_error: str | None
    last_error_at: datetime | None
    last_success_at: datetime | None
    balance: str | None
    balance_at: datetime | None
    unfunded_at: datetime | None
    synced_at: datetime | None
    held_reason: str | None
    held_at: datetime | None
    offers: int
    open_purchases: int
    busy_slots: int
    in_stock: int


_REPORT = text(
    """
    select p.*,
        (select count(*) from offers o where o.provider = p.slug and o.on_offer) as offers,
        (select count(*) from purchase_attempts a where a.provider = p.slug
            and a.state in ('intent', 'prepared', 'pending', 'unknown')) as open_purchases,
        (select count(*) from purchase_attempts a where a.provider = p.slug and a.slot is not null
            and a.state in ('intent', 'prepared', 'pending', 'unknown')) as busy_slots,
        (select count(*) from stock_esims s where s.provider = p.slug and s.state = 'stock') as in_stock
    from providers p where cast(:slug as text) is null or p.slug = :slug
    order by p.priority, p.slug
    """
)


def provider_reports(conn: Connection, now: datetime, slug: str | None = None) -> list[ProviderReport]:
    """Return all providers by priority, or the one that is named.

    Raises:
        NotFound: there is no such provider.
    """
    rows = conn.execute(_REPORT, {"slug": slug}).all()
    if slug is not None and not rows:
        raise _unknown(conn, slug)
    health = {each.slug: each for each in read_health(conn, now)}
    return [
        ProviderReport(
            slug=row.slug,
            enabled=row.enabled,
            standing=health[row.slug].standing,
            why=health[row.slug].reason,
            priority=row.priority,
            circuit=circuit(row.open_until, now),
            open_until=row.open_until,
            failures=row.failures,
            last_error=row.last_error,
            last_error_at=row.last_error_at,
            last_success_at=row.last_success_at,
            balance=_balance(row.balance_amount, row.balance_currency),
            balance_at=row.balance_at,
            unfunded_at=row.unfunded_at,
            synced_at=row.synced_at,
            held_reason=row.held_reason,
            held_at=row.held_at,
            offers=int(row.offers),
            open_purchases=int(row.open_purchases),
            busy_slots=int(row.busy_slots),
            in_stock=int(row.in_stock),
        )
        for row in rows
    ]


def circuit(open_until: datetime | None, now: datetime) -> Circuit:
    """Return the state of a circuit that was opened until a moment, if it was."""
    if open_until is None:
        return Circuit.CLOSED
    return Circuit.OPEN if open_until > now else Circuit.HALF_OPEN


def set_enabled(conn: Connection, slug: str, who: Operator, *, enabled: bool) -> Done:
    """Switch a provider on or off for new purchases and for prices; what is open there goes on.

    Raises:
        NotFound: there is no such provider.
    """
    row = _locked(conn, slug)
    if row.enabled is enabled:
        return Done(f"provider {slug}")
    conn.execute(update(providers).where(providers.c.slug == slug).values(enabled=enabled))
    follow_switch(conn, slug, enabled=enabled, now=who.now)
    word = "enable" if enabled else "disable"
    follows = "is bought from again" if enabled else "is not bought from"
    changes = (f"{slug} is {word}d: it {follows}; prices follow within a minute",)
    record_action(conn, who, f"provider {word}", f"provider {slug}", details={"changes": list(changes)})
    return Done(f"provider {slug}", changes)


def reset_provider(conn: Connection, slug: str, who: Operator) -> Done:
    """Close a provider's circuit and forget its failures, those in a row and those that made it degraded.

    Raises:
        NotFound: there is no such provider.
    """
    row = _locked(conn, slug)
    since = provider_health.c.degraded_since
    degraded = conn.scalar(select(since).where(provider_health.c.provider == slug)) is not None
    was = circuit(row.open_until, who.now)
    changes = []
    if row.open_until is not None or row.failures:
        changes.append(f"the circuit of {slug} is closed (it was {was} after {row.failures} failures)")
    if degraded:
        forgotten = "its purchases so far do not count; prices follow within a minute"
        changes.append(f"{slug} is degraded no longer: {forgotten}")
    if not changes:
        return Done(f"provider {slug}")
    reset_circuit(conn, slug, who.actor, who.now)
    details = {"circuit": was, "failures": row.failures, "degraded": degraded, "changes": changes}
    record_action(conn, who, "provider reset", f"provider {slug}", details=details)
    return Done(f"provider {slug}", tuple(changes))


def accept_catalogues(conn: Connection, slugs: Sequence[str], who: Operator) -> Done:
    """Write down that a person has checked the moves of providers' catalogues, which are read and taken after this.

    Raises:
        NotFound: there is no such provider.
    """
    changes = []
    for slug in slugs:
        held = _locked(conn, slug).held_reason
        changes.append(f"the catalogue of {slug} is read and taken as it is" + (f" (held: {held})" if held else ""))
        record_action(conn, who, "catalogue accept", f"provider {slug}", details={"changes": changes[-1:]})
    return Done(f"catalogue of {', '.join(slugs)}", tuple(changes))


def _locked(conn: Connection, slug: str) -> Row[Any]:
    row = conn.execute(select(providers).where(providers.c.slug == slug).with_for_update()).one_or_none()
    if row is None:
        raise _unknown(conn, slug)
    return row


def _unknown(conn: Connection, slug: str) -> NotFound:
    known = ", ".join(conn.scalars(text("select slug from providers order by slug")))
    return NotFound(f"there is no provider {slug!r}; the providers are {known}")


def _balance(amount: Decimal | None, currency: str | None) -> str | None:
    return None if amount is None else f"{amount.normalize():f} {currency}"
