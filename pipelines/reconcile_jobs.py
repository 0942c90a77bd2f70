"""The jobs and clocks of the proof that orders, ledger, Stripe and provider statements agree.

Each mends what it can, keeps what disagrees as findings, and reports `ops/reconciliation`, so that the Dagster UI shows
the newest state; a disagreement fails a check there, not the run. A run that names its operator is kept in the audit.
"""

from datetime import UTC, datetime

import dagster as dg
from pydantic import Field

from assets.reconciliation import report_agreement
from pipelines.looks import RECONCILE, in_words, note_books, note_payments, note_providers
from pipelines.prove_books import prove_books
from pipelines.provisioning import MAX_RUNTIME
from pipelines.reconcile_payments import reconcile_payments
from pipelines.reconcile_providers import reconcile_providers
from resources.by_hand import ByHand
from resources.db.audit import audited_look
from resources.order_operations import ToolSource

_RUNNING = dg.DefaultScheduleStatus.RUNNING
_SHOWN = 50


class LookConfig(ByHand):
    """From when to look (ISO 8601, UTC where no zone is given); unset goes on where the last look ended."""

    since: str | None = Field(
        default=None, description="From when: 2026-11-01 or with a time, UTC; else since the last look."
    )

    def start(self) -> datetime | None:
        """Return the moment, None where none was given."""
        if not self.since:
            return None
        moment = datetime.fromisoformat(self.since)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class ProofConfig(LookConfig):
    """As `LookConfig`; `full` looks at every order instead of those that changed."""

    full: bool = Field(default=False, description="Every order, not only what changed.")


@dg.op(description="Apply what Stripe knows and we do not: lost payments, refunds, disputes and expiries.")
def apply_lost_events(
    context: dg.OpExecutionContext, config: LookConfig, operations: dg.ResourceParam[ToolSource]
) -> None:
    """Look at Stripe's events and payment pages since the last look."""
    tools = operations.tools()
    who = config.who(tools.clock(), context.run_id)
    with audited_look(tools.engine, who, RECONCILE, "payments") as look:
        report = reconcile_payments(tools, config.start(), look.changes)
        note_payments(look, report)
    context.add_output_metadata(
        {
            "since": report.since.isoformat(),
            "events": report.events,
            "sessions": report.sessions,
            "lost": report.lost,
            "mended": len(report.mended),
            "failed": len(report.failed),
            "what": report.mended[:_SHOWN],
        }
    )
    report_agreement(context.instance, tools.engine)


@dg.op(description="Compare what each provider says it sold to us with what we bought.")
def compare_statements(
    context: dg.OpExecutionContext, config: LookConfig, operations: dg.ResourceParam[ToolSource]
) -> None:
    """Read every provider's statement since the last look."""
    tools = operations.tools()
    who = config.who(tools.clock(), context.run_id)
    with audited_look(tools.engine, who, RECONCILE, "providers") as look:
        reports = reconcile_providers(tools, config.start(), context.run_id)
        note_providers(look, reports)
    context.add_output_metadata({report.provider: in_words(report) for report in reports})
    report_agreement(context.instance, tools.engine)


@dg.op(description="Prove that orders, events and ledger agree with each other and with Stripe.")
def prove_ledger(context: dg.OpExecutionContext, config: ProofConfig, operations: dg.ResourceParam[ToolSource]) -> None:
    """Look at what changed since the last proof, or at everything."""
    tools = operations.tools()
    who = config.who(tools.clock(), context.run_id)
    with audited_look(tools.engine, who, RECONCILE, "books") as look:
        report = prove_books(tools, since=config.start(), full=config.full)
        note_books(look, report)
    accounts = {f"account {account} (micro-USD)": micros for account, micros, _ in report.totals}
    counts = {"orders": report.orders, "days": len(report.days)}
    found = {"open in the books": report.books.open, "open against Stripe": report.payments.open}
    context.add_output_metadata(counts | found | accounts)
    report_agreement(context.instance, tools.engine)


@dg.job(name="reconcile_payments", executor_def=dg.in_process_executor, tags=MAX_RUNTIME)
def reconcile_payments_job() -> None:
    """Find payments, refunds and disputes whose webhooks were lost, and apply them."""
    apply_lost_events()


@dg.job(name="reconcile_providers", executor_def=dg.in_process_executor, tags=MAX_RUNTIME)
def reconcile_providers_job() -> None:
    """Prove that providers sold to us exactly what we bought."""
    compare_statements()


@dg.job(name="prove_books", executor_def=dg.in_process_executor, tags=MAX_RUNTIME)
def prove_books_job() -> None:
    """Prove that orders, ledger and Stripe agree."""
    prove_ledger()


@dg.schedule(job=reconcile_payments_job, cron_schedule="17 * * * *", default_status=_RUNNING)
def reconcile_payments_schedule() -> dg.RunRequest:
    """Every hour: a lost webhook is found within the hour."""
    return dg.RunRequest()


@dg.schedule(job=reconcile_providers_job, cron_schedule="20 4 * * *", default_status=_RUNNING)
def reconcile_providers_schedule() -> dg.RunRequest:
    """Every day at 04:20."""
    return dg.RunRequest()


@dg.schedule(job=prove_books_job, cron_schedule="50 4 * * *", default_status=_RUNNING)
def prove_books_schedule() -> dg.RunRequest:
    """Every day at 04:50, after the statements were compared."""
    return dg.RunRequest()


reconcile_jobs: list[dg.JobDefinition] = [reconcile_payments_job, reconcile_providers_job, prove_books_job]
reconcile_schedules: list[dg.ScheduleDefinition] = [
    reconcile_payments_schedule,
    reconcile_providers_schedule,
    prove_books_schedule,
]
