"""What a person's look came to, written down for the audit: sentences with ids and figures.

What a provider or Stripe said in an error is read for anything personal first, since the audit is kept for good.
"""

from collections.abc import Iterable

from pipelines.prove_books import BooksReport
from pipelines.reconcile_payments import PaymentsReport
from pipelines.reconcile_providers import ProviderReport
from resources.db.audit import Look
from resources.db.findings import Settled
from resources.logs import redact_text

RECONCILE = "reconcile"  # the action's name, whoever offers it


def note_payments(look: Look, report: PaymentsReport) -> None:
    """Write down what Stripe knew and what could not be applied; what was applied is written down as it is."""
    read = f"{report.events} events and {report.sessions} payment pages read, {report.lost} webhooks lost"
    look.found.append(f"payments since {report.since:%Y-%m-%d %H:%M}: {read}")
    look.found += [redact_text(f"not applied: {what}") for what in report.failed]
    look.found += _news(report.settled)


def note_providers(look: Look, reports: Iterable[ProviderReport]) -> None:
    """Write down each provider's statement, and how many eSIMs went into stock by it."""
    for report in reports:
        look.found.append(redact_text(f"{report.provider}: {in_words(report)}"))
        look.found += _news(report.settled)
        if report.kept_as_stock:
            look.changes.append(f"{report.provider}: {report.kept_as_stock} eSIMs went into stock")


def note_books(look: Look, report: BooksReport) -> None:
    """Write down what the proof looked at and what is open."""
    still = f"{report.books.open} findings open in the books, {report.payments.open} against Stripe"
    look.found.append(f"books: {report.orders} orders looked at, {still}")
    look.found += [*_news(report.books), *_news(report.payments)]


def in_words(report: ProviderReport) -> str:
    """Return what a look at one provider's statement brought."""
    if report.trouble:
        return f"not read: {report.trouble}"
    open_now = report.settled.open if report.settled else 0
    told = f"{report.lines} lines, {report.looked_up} read again, {report.kept_as_stock} kept as stock, {open_now} open"
    return f"{told}; balance {report.balance}" if report.balance else told


def _news(settled: Settled | None) -> list[str]:
    return [f"new: {each.kind} of {each.subject}" for each in settled.new] if settled else []
