"""The providers as the attention queue needs them: how each stands, without counting what is ours there.

The queue is read twice a minute; counting a provider's open purchases reads every purchase ever made there.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from resources.db.operator_providers import Circuit, circuit
from resources.db.provider_health import read_health
from resources.db.tables import providers


@dataclass(frozen=True, slots=True)
class ProviderFacts:
    """One provider: what was decided about it, and how it fares."""

    slug: str
    enabled: bool
    why: str  # it stands as it does
    circuit: Circuit
    failures: int
    last_error: str | None
    last_error_at: datetime | None
    unfunded_at: datetime | None
    held_reason: str | None
    held_at: datetime | None


def provider_facts(conn: Connection, now: datetime) -> list[ProviderFacts]:
    """Return all providers by priority."""
    p, health = providers.c, {each.slug: each for each in read_health(conn, now)}
    return [
        ProviderFacts(
            slug=row.slug,
            enabled=row.enabled,
            why=health[row.slug].reason,
            circuit=circuit(row.open_until, now),
            failures=row.failures,
            last_error=row.last_error,
            last_error_at=row.last_error_at,
            unfunded_at=row.unfunded_at,
            held_reason=row.held_reason,
            held_at=row.held_at,
        )
        for row in conn.execute(select(providers).order_by(p.priority, p.slug))
    ]
