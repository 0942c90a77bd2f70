"""Work on one unit: buy it, or look up what became of its purchase. Plain functions; drains and jobs call them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select

from esim.errors import LeaseLost
from esim.orders import UnitStatus
from esim.provisioning import (
    SLOT_PATIENCE_SECONDS,
    Exhausted,
    Held,
    Round,
    Trial,
    Waiting,
    Worked,
    failover_sequence,
    provision,
)
from esim.purchase import (
    ErrorType,
    Outcome,
    Provisioned,
    PurchaseRequest,
    Rejected,
    Unknown,
)
from resources.db.attempts import Lease, UnitJournal, stored_request
from resources.db.candidates import Candidates
from resources.db.inbox import LateArrival, event_worked
from resources.db.order_store import Claim
from resources.db.outages import note_late_refusal, note_refusal
from resources.db.overdue import give_up_overdue
from resources.db.rounds import RetryPolicy, end_round
from resources.db.settlement import Scribe, keep_outcome
from resources.db.stock import is_kept
from resources.db.tables import OPEN_STATES, purchase_attempts
from resources.look_ups import look_up
from resources.order_operations import OrderTools


@dataclass(frozen=True, slots=True)
class UnitReport:
    """One line for those who watch: ids, provider, outcome and latency; nothing personal."""

    order_id: UUID
    n: int
    provider: str
    outcome: str
    latency_ms: int


def work_unit(tools: OrderTools, lease: Lease, run_id: str | None, found: Candidates | None = None) -> list[UnitReport]:
    """Try to buy one claimed unit and leave it delivered, open, waiting or given up.

    `found` is what it may be bought from, where that was looked up just now.
    """
    claim = lease.claim
    journal = UnitJournal(tools.desk, lease, run_id)
    try:
        worked = _provision(tools, claim, journal, found)
        reports = [_report(claim, trial) for trial in worked.trials]
        for trial in worked.trials:
            _note_health(tools, trial)
        if isinstance(worked.result, Exhausted | Waiting | Held):
            scribe = Scribe(tools.vault, claim.owner, tools.clock(), run_id)
            status = end_round(tools.engine, claim, worked.result, retry_policy(tools), scribe)
            reports.append(UnitReport(claim.order_id, claim.n, "", _ending(worked.result, status), 0))
    except LeaseLost:
        return [UnitReport(claim.order_id, claim.n, "", "lease lost", 0)]
    return reports


def look_up_attempt(tools: OrderTools, attempt_id: int, n: int, actor: str, run_id: str | None) -> list[UnitReport]:
    """Ask the provider about one attempt, open or closed: what a closed one bought after all goes to stock."""
    return [_look_up(tools, attempt_id, n, actor, run_id)[1]]


def look_up_late(tools: OrderTools, late: LateArrival, actor: str, run_id: str | None) -> list[UnitReport]:
    """Ask about a closed attempt that an event speaks of; without a final answer the event comes up again."""
    outcome, report = _look_up(tools, late.attempt_id, 0, actor, run_id)
    with tools.engine.begin() as conn:
        # What turned out to be another purchase's was not kept: this one is as unclear as before.
        found = isinstance(outcome, Provisioned) and is_kept(conn, late.attempt_id)
        if found or isinstance(outcome, Rejected):
            event_worked(conn, late.event, tools.clock())
    return [report]


def proven(outcome: Outcome, request: PurchaseRequest, settle_seconds: float, now: datetime) -> Outcome:
    """Return `outcome`, unless it takes an absence for proof before the provider's settle time is over.

    The time counts from the latest moment the purchase can have left, which is later than its intent where a worker
    was lost.
    """
    if not isinstance(outcome, Rejected) or outcome.error_type is not ErrorType.NOT_BOUGHT:
        return outcome
    if now - request.left_at > timedelta(seconds=settle_seconds):
        return outcome
    return Unknown(ErrorType.UNKNOWN, "not there yet, and too early to be sure")


def retry_policy(tools: OrderTools) -> RetryPolicy:
    """Return how units are tried again and given up, by the settings."""
    return RetryPolicy(tools.settings.max_retry_attempts, tools.settings.enable_auto_refund)


def outcome_word(outcome: Outcome) -> str:
    """Return an outcome in one word, with its error type where it has one."""
    word = type(outcome).__name__.lower()
    return f"{word} ({outcome.error_type})" if isinstance(outcome, Rejected | Unknown) else word


def _provision(tools: OrderTools, claim: Claim, journal: UnitJournal, found: Candidates | None) -> Worked:
    now, settings = tools.clock(), tools.settings
    if now >= claim.deadline_at:
        return Worked(Exhausted(False, ErrorType.PROVIDER_TIMEOUT, "the customer's deadline has passed"))
    found = found or tools.desk.offers([claim.sale])[0]
    waited = (now - claim.slot_wait_since).total_seconds() if claim.slot_wait_since else 0.0
    so_far = Round(
        claim.refusals,
        failover=settings.enable_multi_provider_failover,
        wait_for_slot=waited < SLOT_PATIENCE_SECONDS,
        held_back=found.held_back,
    )
    offers = [offer for offer in found.offers if offer.provider in tools.providers]
    return provision(failover_sequence(offers, tools.providers), tools.providers, journal, so_far)


def _look_up(tools: OrderTools, attempt_id: int, n: int, actor: str, run_id: str | None) -> tuple[Outcome, UnitReport]:
    with tools.engine.connect() as conn:
        table = purchase_attempts
        attempt = conn.execute(select(table).where(table.c.attempt_id == attempt_id)).one()
    provider = tools.providers[attempt.provider]
    started = tools.clock()
    request = stored_request(attempt)
    outcome = look_up(tools.engine, provider, attempt, started)
    outcome = proven(outcome, request, provider.capabilities.settle_seconds, started)
    now = tools.clock()
    if attempt.state in OPEN_STATES or not isinstance(outcome, Rejected | Unknown):
        scribe = Scribe(tools.vault, actor, now, run_id)
        status = keep_outcome(tools.engine, attempt_id, outcome, scribe, read=attempt)
        note_late_refusal(tools.engine, attempt, outcome, now)
        if status in {UnitStatus.PENDING, UnitStatus.UNKNOWN}:
            give_up_overdue(tools.engine, attempt.esim_id, attempt.order_id, retry_policy(tools), scribe)
    latency_ms = int((now - started).total_seconds() * 1000)
    return outcome, UnitReport(attempt.order_id, n, attempt.provider, f"looked up: {outcome_word(outcome)}", latency_ms)


def _note_health(tools: OrderTools, trial: Trial) -> None:
    now = tools.clock()
    tools.desk.health.submit((trial.offer.provider, trial.outcome, now))
    note_refusal(tools.engine, trial.offer, trial.outcome, now)


def _report(claim: Claim, trial: Trial) -> UnitReport:
    return UnitReport(claim.order_id, claim.n, trial.offer.provider, outcome_word(trial.outcome), trial.latency_ms)


def _ending(result: Exhausted | Waiting | Held, status: UnitStatus) -> str:
    if status is UnitStatus.ATTENTION:
        return "stopped: its order is held"
    if isinstance(result, Held):
        return "waits (the hold was released)"
    why = result.reason if isinstance(result, Waiting) else str(result.error_type)
    return f"given up ({why})" if status is UnitStatus.FAILED else f"waits ({why})"
