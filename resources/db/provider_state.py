"""The circuit breaker of each provider, shared by every process, with its history and its alerts.

Five failures in a row open a circuit for a minute; then one purchase is let through as a probe: it closes the circuit
or opens it again. Only what the provider is to blame for counts: a plan that is sold out or too dear is no failure.
Before the minute is over a harmless read asks whether the provider answers at all (`claim_read_probe`): while it does
not, its circuit stays open, and no customer is the probe. Such reads cost nobody anything and are made about every
twenty seconds from then on, so that a provider is bought from again soon after it is up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, or_, select, text, update

from esim.health import BLAMELESS
from esim.purchase import Outcome, Rejected, Unknown
from resources.db.alerts import AlertKind, end_alert, raise_alert
from resources.db.databases import at_once
from resources.db.provider_events import ENGINE, Event, note_event
from resources.db.tables import providers

FAILURES_TO_OPEN = 5
OPEN_SECONDS = 60
READ_AGAIN_SECONDS = 30  # the rest after a read that failed; longer than it takes to start another watch
PROBE_LEAD_SECONDS = 10  # a read probe starts this long before the rest is over
PROBE_CLAIM_SECONDS = 180  # a read takes as long at the most, its own retries included
_NOTE_SUCCESS_EVERY = timedelta(seconds=5)  # one row per provider: not every purchase may queue for it
_PROBE_SECONDS = 60
_WORTH_NOTING = text(
    "select slug from providers where slug = any(:slugs)"
    " and (failures > 0 or last_success_at is null or last_success_at < :before)"
)


@dataclass(frozen=True, slots=True)
class RestingProvider:
    """A provider whose circuit is open, and until when."""

    slug: str
    open_until: datetime


def take_probe(conn: Connection, slug: str, now: datetime) -> bool:
    """Claim the one probe a half-open circuit lets through; True at once when the circuit closed meanwhile."""
    p = providers.c
    free = or_(p.probe_at.is_(None), p.probe_at < now - timedelta(seconds=_PROBE_SECONDS))
    open_now = p.open_until > now
    allowed = or_(p.open_until.is_(None), ~open_now & free)
    took = update(providers).where(p.slug == slug, allowed).values(probe_at=now).returning(p.slug)
    return conn.scalar(took) is not None


def note_outcome(engine: Engine, slug: str, outcome: Outcome, now: datetime) -> bool:
    """Count a purchase's outcome for its provider's circuit; return True when this outcome opened it.

    What opens, keeps open or closes a circuit is noted with its reason; operations are told once when an episode
    begins and once when it is over.
    """
    if isinstance(outcome, Rejected) and outcome.error_type in BLAMELESS:
        return False
    with engine.begin() as conn:
        if isinstance(outcome, Rejected | Unknown):
            return _note_failure(conn, slug, f"{outcome.error_type}: {outcome.message}"[:500], now)
        _note_success(conn, slug, now)
        return False


def note_outcomes(engine: Engine, outcomes: Sequence[tuple[str, Outcome, datetime]]) -> list[bool]:
    """Do what `note_outcome` does for many; a provider that only succeeded is written to once."""
    failing = {slug for slug, outcome, _ in outcomes if isinstance(outcome, Rejected | Unknown)}
    well = {slug: now for slug, _, now in outcomes if slug not in failing}
    untold = _worth_noting(engine, well) if well else set()
    opened = []
    for slug, outcome, now in outcomes:
        opened.append(note_outcome(engine, slug, outcome, now) if slug in failing or slug in untold else False)
        untold.discard(slug)
    return opened


def reset_circuit(conn: Connection, slug: str, actor: str = "operator", now: datetime | None = None) -> None:
    """Close a provider's circuit and forget how its purchases fared so far, at once: an operator knows better."""
    at = now or conn.execute(select(func.now())).scalar_one()
    closed = {"failures": 0, "open_until": None, "probe_at": None}
    conn.execute(update(providers).where(providers.c.slug == slug).values(**closed))
    note_event(conn, slug, Event.RESET, "closed by hand", at, actor)
    end_alert(conn, AlertKind.CIRCUIT_OPEN, slug, f"{slug}: its circuit was closed by hand; it is bought from.", at)


def follow_switch(conn: Connection, slug: str, *, enabled: bool, now: datetime) -> None:
    """Keep the alert of a locked provider's circuit true when it is switched off or on.

    Nobody probes a provider that is off, so an episode that is going on ends with it. Switched on again, it begins anew
    where the circuit is open still; where its rest is over the next purchase decides.
    """
    if not enabled:
        text = f"{slug} was disabled: it is not bought from, whether or not it is up again."
        end_alert(conn, AlertKind.CIRCUIT_OPEN, slug, text, now)
        return
    p = providers.c
    row = conn.execute(select(p.open_until, p.failures, p.last_error).where(p.slug == slug)).one()
    if row.open_until is not None and row.open_until > now:
        text = f"{slug} was enabled while it rests after {row.failures} failures ({str(row.last_error)[:200]})."
        raise_alert(conn, AlertKind.CIRCUIT_OPEN, slug, text, now)


def resting_providers(conn: Connection, now: datetime) -> list[RestingProvider]:
    """Return the enabled providers whose circuit is open, the first to end its rest first."""
    p = providers.c
    found = select(p.slug, p.open_until).where(p.enabled, p.open_until > now).order_by(p.open_until)
    return [RestingProvider(slug, until) for slug, until in conn.execute(found)]


def claim_read_probe(conn: Connection, slug: str, now: datetime) -> bool:
    """Claim the read that decides about a rest that is nearly over; the circuit stays open while it is made.

    Whoever claimed it calls `end_read_probe`. One that never does (killed) costs the provider three minutes' rest.
    """
    p = providers.c
    soon = now + timedelta(seconds=PROBE_LEAD_SECONDS)
    due = update(providers).where(p.slug == slug, p.open_until > now, p.open_until <= soon)
    claimed = due.values(open_until=now + timedelta(seconds=PROBE_CLAIM_SECONDS))
    return conn.scalar(claimed.returning(p.slug)) is not None


def end_read_probe(conn: Connection, slug: str, error: str, now: datetime, actor: str) -> None:
    """Let purchases through again where the read succeeded (`error` is empty); else it rests on for half a minute.

    A circuit that was closed or reset meanwhile stays closed.
    """
    until = now if not error else now + timedelta(seconds=READ_AGAIN_SECONDS)
    values: dict[str, object] = {"open_until": until} | ({"last_error": error, "last_error_at": now} if error else {})
    resting = update(providers).where(providers.c.slug == slug, providers.c.open_until > now)
    if conn.scalar(resting.values(**values).returning(providers.c.slug)) is None:
        return
    if error:
        note_event(conn, slug, Event.PROBE_FAILED, error, now, actor)
    else:
        note_event(conn, slug, Event.ANSWERS_AGAIN, "its balance can be read; the next purchase decides", now, actor)


def _note_failure(conn: Connection, slug: str, error: str, now: datetime) -> bool:
    row = _locked(conn, slug)
    if row is None:
        return False
    resting = row.open_until is not None and row.open_until > now
    opens = row.failures + 1 >= FAILURES_TO_OPEN and not resting
    until = now + timedelta(seconds=OPEN_SECONDS) if opens else row.open_until
    values = {"failures": row.failures + 1, "last_error": error, "last_error_at": now, "probe_at": None}
    conn.execute(update(providers).where(providers.c.slug == slug).values(**values, open_until=until))
    if opens:
        again = row.open_until is not None
        note_event(conn, slug, Event.PROBE_FAILED if again else Event.OPENED, error, now)
    if opens and row.enabled:  # what was under way when it was disabled may still fail
        text = f"{slug}: {FAILURES_TO_OPEN} purchases in a row failed ({error[:200]}); it rests and is not bought from."
        raise_alert(conn, AlertKind.CIRCUIT_OPEN, slug, text, now)
    return opens


def _worth_noting(engine: Engine, successes: Mapping[str, datetime]) -> set[str]:
    """Return the providers whose success says something new: nearly none, so nobody locks a row to find out."""
    values = {"slugs": list(successes), "before": max(successes.values()) - _NOTE_SUCCESS_EVERY}
    with at_once(engine).connect() as conn:
        return set(conn.scalars(_WORTH_NOTING, values))


def _note_success(conn: Connection, slug: str, now: datetime) -> None:
    p = providers.c
    row = _locked(conn, slug)
    values = {"failures": 0, "open_until": None, "probe_at": None, "last_success_at": now}
    conn.execute(update(providers).where(p.slug == slug).values(**values))
    if row is not None and row.open_until is not None:
        note_event(conn, slug, Event.CLOSED, "a purchase succeeded", now, ENGINE)
        text = f"{slug}: a purchase succeeded; its circuit is closed and it is bought from again."
        end_alert(conn, AlertKind.CIRCUIT_OPEN, slug, text, now)


def _locked(conn: Connection, slug: str) -> Row[Any, Any, Any] | None:
    p = providers.c
    return conn.execute(
        select(p.failures, p.open_until, p.enabled).where(p.slug == slug).with_for_update()
    ).one_or_none()
