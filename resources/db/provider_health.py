"""The health table: figures of every provider's latest purchases, rolled up beside its circuit, balance and switches.

Purchases write nothing here (at hundreds a second, one row per provider would be a queue): `refresh_health` reads the
newest attempts of each provider through an index and writes the rows that differ. Since when a provider is judged, and
how often it was degraded lately, its events say.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, select, text
from sqlalchemy.dialects.postgresql import insert

from esim.health import (
    MOST_TRIALS,
    WINDOW,
    Condition,
    Figures,
    HealthRule,
    PastTrial,
    Record,
    Standing,
    has_rested,
    judge,
    measure,
    standing,
)
from esim.money import Cost
from resources.db.alerts import AlertKind, end_alert, raise_alert
from resources.db.provider_events import Event, note_event
from resources.db.tables import provider_health, providers

_TRIALS = text(
    "select p.slug, a.state, a.error_type, a.sent_at is not null as sent, a.latency_ms, a.started_at"
    " from providers p cross join lateral (select * from purchase_attempts a where a.provider = p.slug"
    " order by a.attempt_id desc limit :most) a"
)
_RECORDS = text(
    "select p.slug, p.open_until, h.degraded_since, e.judged_from, d.episodes from providers p"
    " left join provider_health h on h.provider = p.slug cross join lateral ("
    " select max(at) as judged_from, coalesce(max(at) filter (where event <> :recovered), :since) as well_at"
    " from provider_events where provider = p.slug and event in (:closed, :reset, :recovered) and at > :since) e"
    " cross join lateral (select count(*) as episodes from provider_events"
    " where provider = p.slug and event = :degraded and at > e.well_at) d order by p.slug"
)
_WORDS = {event.name.lower(): event for event in (Event.CLOSED, Event.RESET, Event.RECOVERED, Event.DEGRADED)}
_NOTHING = Figures(0, 0, None, None)


@dataclass(frozen=True, slots=True)
class ProviderHealth:
    """How one provider stands, with what an operator wants to see beside it."""

    slug: str
    standing: Standing
    reason: str
    figures: Figures
    last_error: str
    last_error_at: datetime | None
    last_success_at: datetime | None
    open_until: datetime | None
    balance: Cost | None
    balance_at: datetime | None

    @property
    def well(self) -> bool:
        """Whether nothing is wrong with it; one that a person switched off is not ill."""
        return self.standing in {Standing.HEALTHY, Standing.SWITCHED_OFF}


def refresh_health(engine: Engine, rule: HealthRule, now: datetime) -> list[ProviderHealth]:
    """Compute every provider's figures, write those that changed, and return how all of them stand.

    A provider that becomes degraded or recovers is noted and told of, once each. Who looks at the same time waits, and
    reads what was noted meanwhile.
    """
    with engine.begin() as conn:
        stored = {row.provider: row for row in conn.execute(select(provider_health).with_for_update())}
        records, trials = _records(conn, now), _trials(conn)
        for slug, record in records.items():
            rested = has_rested(record, now)
            figures = _NOTHING if rested else measure(trials.get(slug, ()), now, record.judged_from)
            before = record.degraded_since
            since = (before or now) if judge(figures, rule, record, now) else None
            row = stored.get(slug)
            if row is None or _figures(row) != figures or before != since:
                _write(conn, slug, figures, since, now)
            if since is not None and before is None:
                _tell_degraded(conn, slug, figures, now)
            elif since is None and before is not None:
                rest = now - before if rested else None
                _tell_recovered(conn, slug, _why_recovered(figures, rest), now)
        return read_health(conn, now)


def read_health(conn: Connection, now: datetime) -> list[ProviderHealth]:
    """Return how every provider stands by the table, in order of priority."""
    h, p = provider_health.c, providers.c
    joined = select(providers, h.attempts, h.successes, h.p50_ms, h.p95_ms, h.degraded_since)
    rows = conn.execute(joined.outerjoin(provider_health, h.provider == p.slug).order_by(p.priority, p.slug)).all()
    return [_health(row, now) for row in rows]


def _records(conn: Connection, now: datetime) -> Mapping[str, Record]:
    rows = conn.execute(_RECORDS, {**_WORDS, "since": now - WINDOW})
    return {row.slug: Record(row.degraded_since, row.judged_from, row.episodes, row.open_until) for row in rows}


def _trials(conn: Connection) -> Mapping[str, list[PastTrial]]:
    trials = dict[str, list[PastTrial]]()
    for row in conn.execute(_TRIALS, {"most": MOST_TRIALS}):
        trial = PastTrial(row.state, row.error_type, row.sent, row.latency_ms, row.started_at)
        trials.setdefault(row.slug, []).append(trial)
    return trials


def _write(conn: Connection, slug: str, figures: Figures, since: datetime | None, now: datetime) -> None:
    values = {
        "attempts": figures.attempts,
        "successes": figures.successes,
        "p50_ms": figures.p50_ms,
        "p95_ms": figures.p95_ms,
        "degraded_since": since,
        "computed_at": now,
    }
    fresh = insert(provider_health).values(provider=slug, **values)
    conn.execute(fresh.on_conflict_do_update(index_elements=[provider_health.c.provider], set_=values))


def _tell_degraded(conn: Connection, slug: str, figures: Figures, now: datetime) -> None:
    rate = _rate(figures)
    note_event(conn, slug, Event.DEGRADED, rate, now)
    text_ = f"{slug}: only {rate}; other providers' offers come first until it does better."
    raise_alert(conn, AlertKind.PROVIDER_DEGRADED, slug, text_, now)


def _tell_recovered(conn: Connection, slug: str, why: str, now: datetime) -> None:
    note_event(conn, slug, Event.RECOVERED, why, now)
    text_ = f"{slug}: {why}; its offers may be the best price again."
    end_alert(conn, AlertKind.PROVIDER_DEGRADED, slug, text_, now)


def _why_recovered(figures: Figures, rest: timedelta | None) -> str:
    if rest is not None:
        return f"it has rested for {rest // timedelta(seconds=1)} s; its next purchases decide"
    return _rate(figures) if figures.attempts else "what failed before no longer counts"


def _rate(figures: Figures) -> str:
    return f"{figures.successes} of the last {figures.attempts} purchases succeeded"


def _figures(row: Row[Any]) -> Figures:
    return Figures(row.attempts or 0, row.successes or 0, row.p50_ms, row.p95_ms)


def _health(row: Row[Any], now: datetime) -> ProviderHealth:
    figures = _figures(row)
    about = Condition(row.enabled, row.open_until, row.unfunded_at, row.degraded_since, row.last_error or "")
    stands, reason = standing(about, figures, now)
    return ProviderHealth(
        slug=row.slug,
        standing=stands,
        reason=reason,
        figures=figures,
        last_error=row.last_error or "",
        last_error_at=row.last_error_at,
        last_success_at=row.last_success_at,
        open_until=row.open_until,
        balance=Cost(row.balance_amount, row.balance_currency) if row.balance_amount is not None else None,
        balance_at=row.balance_at,
    )
