"""The circuit breaker and health of each provider, shared by every process.

Five failures in a row open a circuit for a minute; then one purchase is let through as a probe: it closes the circuit
or opens it again. Only what the provider is to blame for counts: a plan that is sold out or too dear is no failure.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, case, or_, update

from esim.purchase import ErrorType, Outcome, Rejected, Unknown
from resources.db.tables import providers

FAILURES_TO_OPEN = 5
OPEN_SECONDS = 60
_NOTE_SUCCESS_EVERY = timedelta(seconds=5)  # one row per provider: not every purchase may queue for it
_PROBE_SECONDS = 60

_BLAMELESS = frozenset(
    {
        ErrorType.OUT_OF_STOCK,
        ErrorType.INVALID_PRODUCT,
        ErrorType.PRICE_CHANGED,
        ErrorType.RATE_LIMITED,
        ErrorType.NOT_BOUGHT,
    }
)


def take_probe(conn: Connection, slug: str, now: datetime) -> bool:
    """Claim the one probe a half-open circuit lets through; True at once when the circuit closed meanwhile."""
    p = providers.c
    free = or_(p.probe_at.is_(None), p.probe_at < now - timedelta(seconds=_PROBE_SECONDS))
    open_now = p.open_until > now
    allowed = or_(p.open_until.is_(None), ~open_now & free)
    took = update(providers).where(p.slug == slug, allowed).values(probe_at=now).returning(p.slug)
    return conn.scalar(took) is not None


def note_outcome(engine: Engine, slug: str, outcome: Outcome, now: datetime) -> bool:
    """Count a purchase's outcome for its provider's circuit; return True when this outcome opened it."""
    if isinstance(outcome, Rejected) and outcome.error_type in _BLAMELESS:
        return False
    with engine.begin() as conn:
        if isinstance(outcome, Rejected | Unknown):
            return _note_failure(conn, slug, f"{outcome.error_type}: {outcome.message}"[:500], now)
        return _note_success(conn, slug, now)


def note_outcomes(engine: Engine, outcomes: Sequence[tuple[str, Outcome, datetime]]) -> list[bool]:
    """Do what `note_outcome` does for many; a provider that only succeeded is written to once."""
    failing = {slug for slug, outcome, _ in outcomes if isinstance(outcome, Rejected | Unknown)}
    succeeded: set[str] = set()
    opened = []
    for slug, outcome, now in outcomes:
        counts = slug in failing or slug not in succeeded
        opened.append(note_outcome(engine, slug, outcome, now) if counts else False)
        succeeded.add(slug)
    return opened


def reset_circuit(conn: Connection, slug: str) -> None:
    """Close a provider's circuit at once: an operator knows better."""
    conn.execute(update(providers).where(providers.c.slug == slug).values(failures=0, open_until=None, probe_at=None))


def _note_failure(conn: Connection, slug: str, error: str, now: datetime) -> bool:
    p = providers.c
    opens = (p.failures + 1 >= FAILURES_TO_OPEN) & or_(p.open_until.is_(None), p.open_until <= now)
    values = {
        "failures": p.failures + 1,
        "last_error": error,
        "last_error_at": now,
        "open_until": case((opens, now + timedelta(seconds=OPEN_SECONDS)), else_=p.open_until),
        "probe_at": None,
    }
    after = update(providers).where(p.slug == slug).values(**values).returning(p.open_until, p.failures)
    row = conn.execute(after).one_or_none()
    return row is not None and row.open_until == now + timedelta(seconds=OPEN_SECONDS)


def _note_success(conn: Connection, slug: str, now: datetime) -> bool:
    p = providers.c
    worth_it = or_(p.failures > 0, p.last_success_at.is_(None), p.last_success_at < now - _NOTE_SUCCESS_EVERY)
    values = {"failures": 0, "open_until": None, "probe_at": None, "last_success_at": now}
    conn.execute(update(providers).where(p.slug == slug, worth_it).values(**values))
    return False
