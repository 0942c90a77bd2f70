"""Compare what each provider says it sold to us with what we bought: the proof that no purchase was lost or doubled.

statement since the mark -> kept lines -> matched with our purchases -> orders that a purchase without an eSIM may have
been are read (what was bought after all goes to stock, by the same path as any late arrival) -> findings.
A provider that cannot be read keeps its findings and its mark; the others go on.
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select

from esim.errors import ProviderError
from esim.ports import Provider
from esim.purchase import Pending, Provisioned
from resources.db.attempts import stored_request
from resources.db.balance_statement import compare_balance
from resources.db.findings import BALANCE_DIFFERS, Finding, Settled, note_finding, open_findings, settle_findings
from resources.db.marks import looked_until, note_looked
from resources.db.settlement import Scribe, keep_outcome
from resources.db.statement_rules import StatementDay, compare_statement, statement_days
from resources.db.statements import keep_lines, likely_attempts, match_lines, oldest_unmatched
from resources.db.stock import is_kept
from resources.db.tables import purchase_attempts
from resources.order_operations import OrderTools

ACTOR = "reconciler"
FIRST_LOOK = timedelta(days=30)
OVERLAP = timedelta(days=2)  # orders change their state after the sale
EDGE = timedelta(hours=1)  # a provider's clock and day may differ by so much at either end
_log = logging.getLogger("numnaroad.reconcile")


@dataclass(frozen=True, slots=True)
class ProviderReport:
    """What one look at a provider's statement brought; `trouble` says why there was none."""

    provider: str
    lines: int = 0
    looked_up: int = 0
    kept_as_stock: int = 0
    balance: str = ""
    days: tuple[StatementDay, ...] = ()
    settled: Settled | None = None
    trouble: str = ""


def reconcile_providers(
    tools: OrderTools, since: datetime | None = None, run_id: str | None = None
) -> list[ProviderReport]:
    """Compare every provider's statement with our purchases, one after the other."""
    return [_reconcile(tools, provider, since, run_id) for provider in tools.providers.values()]


def _reconcile(tools: OrderTools, provider: Provider, since: datetime | None, run_id: str | None) -> ProviderReport:
    now = tools.clock()
    try:
        if provider.capabilities.lists_purchases:
            return _by_statement(tools, provider, since, now, run_id)
        return _by_balance_alone(tools, provider, now)
    except ProviderError as error:
        _log.warning("the statement of %s cannot be read: %s", provider.slug, error)
        text = f"The statement of {provider.slug} cannot be read ({type(error).__name__}); its purchases are unproven."
        with tools.engine.begin() as conn:
            note_finding(conn, _side(provider), Finding("statement_unread", provider.slug, text), now)
        return ProviderReport(provider.slug, trouble=str(error))


def _by_statement(
    tools: OrderTools, provider: Provider, since: datetime | None, now: datetime, run_id: str | None
) -> ProviderReport:
    slug, start = provider.slug, since or _start(tools, provider.slug, now)
    lines = keep_lines(tools.engine, slug, provider.purchases_since(start), tools.vault, now)
    settled_before = now - timedelta(seconds=provider.capabilities.settle_seconds) - EDGE
    looked_up, stocked = _keep_late(tools, provider, settled_before, run_id)
    balance, of_balance = _balance(tools, provider, now) if not provider.capabilities.resolves_for_certain else ("", [])
    with tools.engine.begin() as conn:
        match_lines(conn, slug)
        found = compare_statement(conn, slug, start + EDGE, settled_before)
        settled = settle_findings(conn, _side(provider), [*found, *of_balance], now)
        if since is None:
            note_looked(conn, _side(provider), now)
        days = tuple(statement_days(conn, slug, start))
    return ProviderReport(slug, lines, looked_up, stocked, balance, days, settled)


def _by_balance_alone(tools: OrderTools, provider: Provider, now: datetime) -> ProviderReport:
    balance, found = _balance(tools, provider, now)
    with tools.engine.begin() as conn:
        settled = settle_findings(conn, _side(provider), found, now)
        note_looked(conn, _side(provider), now)
        days = tuple(statement_days(conn, provider.slug, now - OVERLAP))
    return ProviderReport(provider.slug, balance=balance, days=days, settled=settled)


def _start(tools: OrderTools, slug: str, now: datetime) -> datetime:
    with tools.engine.connect() as conn:
        until = looked_until(conn, f"providers:{slug}")
        start = until - OVERLAP if until else now - FIRST_LOOK
        return min(start, oldest_unmatched(conn, slug, now - FIRST_LOOK) or start)


def _keep_late(tools: OrderTools, provider: Provider, settled_before: datetime, run_id: str | None) -> tuple[int, int]:
    """Read the orders that purchases without an eSIM may have been; return how many, and how many went to stock.

    The very order of the statement is read, by its own number: what a look-up by time finds might be another unit's.
    A line younger than `settled_before` may be a purchase whose answer is on its way.
    """
    with tools.engine.begin() as conn:
        match_lines(conn, provider.slug)
        likely = likely_attempts(conn, provider.slug, settled_before)
    kept = 0
    for attempt_id, number in likely.items():
        with tools.engine.connect() as conn:
            table = purchase_attempts
            attempt = conn.execute(select(table).where(table.c.attempt_id == attempt_id)).one()
        outcome = provider.order_status(number, stored_request(attempt))
        if isinstance(outcome, Provisioned | Pending) and outcome.provider_order_id == number:
            keep_outcome(tools.engine, attempt_id, outcome, Scribe(tools.vault, ACTOR, tools.clock(), run_id))
            with tools.engine.connect() as conn:
                kept += is_kept(conn, attempt_id)
    return len(likely), kept


def _balance(tools: OrderTools, provider: Provider, now: datetime) -> tuple[str, list[Finding]]:
    """Compare a provider's balance; while it cannot be compared, what was found before stays."""
    balance = provider.balance()
    with tools.engine.begin() as conn:
        compared = compare_balance(conn, provider.slug, balance, now)
        if compared.comparable:
            return compared.words, [compared.finding] if compared.finding else []
        known = open_findings(conn, [_side(provider)], with_accepted=True)
    return compared.words, [
        Finding(one.kind, one.subject, str(one.details["text"]), None, one.details)
        for one in known
        if one.kind == BALANCE_DIFFERS
    ]


def _side(provider: Provider) -> str:
    return f"providers:{provider.slug}"
