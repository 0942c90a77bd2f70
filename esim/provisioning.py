"""The purchase protocol for one unit: offers tried in order until one is bought, or nobody may be asked any more.

intent committed -> prepare (buys nothing) -> evidence committed -> purchase, once -> outcome committed. Only
`Rejected`, the proof that nothing was bought, leads to the next offer. `Unknown` and `Pending` end the work here:
somebody looks them up later, and until then no other provider is asked. Nothing is bought before the intent is
committed, nor by a worker whose lease is over, nor for an order that waits for a person's decision.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from time import monotonic
from typing import Protocol

from esim.money import Cost
from esim.ports import Provider
from esim.purchase import (
    ErrorType,
    Evidence,
    Outcome,
    Pending,
    Prepared,
    Provisioned,
    PurchaseRequest,
    Rejected,
    Unknown,
)

SLOT_PATIENCE_SECONDS = 20.0  # how long a unit waits for a serialising provider before it tries the next offer
SLOT_DELAY_SECONDS = 2.0
SLOT_DELAY_LATER_SECONDS = 15.0
HELD_BACK_DELAY_SECONDS = 60.0  # a circuit opens for this long
THROTTLE_DELAY_MOST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class BuyableOffer:
    """One offer a unit may be bought from, with the most that may be paid, in the offer's own currency."""

    offer_id: str
    provider: str
    provider_package_id: str
    name: str
    expected_cost: Cost
    cost_ceiling: Cost
    landed_micros: int
    hints: Mapping[str, str] = field(default_factory=dict)
    half_open: bool = False  # its provider's circuit lets one probe through


class Skipped(StrEnum):
    """Why an offer was not tried now, or not to its end; the unit loses nothing by it."""

    SLOT_BUSY = "slot busy"  # the provider takes one purchase at a time and another one is open
    CIRCUIT_OPEN = "circuit open"
    HELD = "held"  # a person must decide about the order first: nothing more is bought for it


class Journal(Protocol):
    """Where every step of one unit's purchase is committed. Each method raises `LeaseLost` as soon as it is not ours.

    `conclude` is the exception: what became of a purchase is a fact and is kept whoever holds the unit by then.
    """

    def begin(self, offer: BuyableOffer, failover_step: int) -> PurchaseRequest | Skipped:
        """Commit the intent to buy this offer, under a fresh reference."""
        ...

    def prepared(self, request: PurchaseRequest, evidence: Evidence) -> Skipped | None:
        """Commit that the purchase may be on the wire from now on, or say why it may not be sent."""
        ...

    def may_send(self) -> None:
        """Raise `LeaseLost` unless the lease lasts well beyond the sending of a request."""
        ...

    def conclude(self, request: PurchaseRequest, outcome: Outcome, latency_ms: int) -> None:
        """Commit what became of it, and what follows for the unit."""
        ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """An offer that was tried in this round and proven not bought."""

    offer_id: str
    error_type: ErrorType
    message: str = ""
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Round:
    """What this unit tried already since it was queued, and how it may go on."""

    refusals: tuple[Refusal, ...] = ()
    failover: bool = True
    wait_for_slot: bool = True
    held_back: bool = False  # equivalent offers exist that cannot be asked just now


@dataclass(frozen=True, slots=True)
class Exhausted:
    """Every offer refused, or there is none; `retryable` tells whether a later round can help."""

    retryable: bool
    error_type: ErrorType
    message: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nothing failed, but nothing can be asked right now: try again after a delay that counts as no failure."""

    delay_seconds: float
    reason: str
    for_slot: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """A person must decide about the order first; what may be bought then is as it was."""


Result = Provisioned | Pending | Unknown | Exhausted | Waiting | Held


@dataclass(frozen=True, slots=True)
class Trial:
    """One offer that was tried, for those who watch: what came of it and how long it took."""

    offer: BuyableOffer
    outcome: Outcome
    latency_ms: int


@dataclass(frozen=True, slots=True)
class Worked:
    """What one piece of work on a unit came to."""

    result: Result
    trials: tuple[Trial, ...] = ()


def failover_sequence(offers: Sequence[BuyableOffer], providers: Mapping[str, Provider]) -> tuple[BuyableOffer, ...]:
    """Return the offers as they are tried: the first choice, then those of providers that can clear up every doubt.

    A lost answer of the others may stay unclear for good, which nobody should risk for want of a first choice.
    """
    rest = sorted(offers[1:], key=lambda offer: not providers[offer.provider].capabilities.resolves_for_certain)
    return (*offers[:1], *rest)


def provision(
    offers: Sequence[BuyableOffer],
    providers: Mapping[str, Provider],
    journal: Journal,
    so_far: Round,
    timer: Callable[[], float] = monotonic,
) -> Worked:
    """Buy one unit from the first offer that sells it; see the module's sentence for the protocol.

    Raises:
        LeaseLost: another worker owns the unit; nothing further was sent or written.
    """
    tried = {refusal.offer_id for refusal in so_far.refusals}
    refusals, trials, busy = list(so_far.refusals), list[Trial](), list[Skipped]()
    for offer in (offer for offer in offers if offer.offer_id not in tried):
        if refusals and not so_far.failover:
            break
        request = journal.begin(offer, len(refusals))
        if request is Skipped.HELD:
            return Worked(Held(), tuple(trials))
        if isinstance(request, Skipped):
            busy.append(request)
            if request is Skipped.SLOT_BUSY and so_far.wait_for_slot:
                break
            continue
        trial = _try(offer, request, providers[offer.provider], journal, timer)
        if trial is None:
            return Worked(Held(), tuple(trials))
        trials.append(trial)
        if not isinstance(trial.outcome, Rejected):
            return Worked(trial.outcome, tuple(trials))
        refusals.append(_refusal(offer, trial.outcome))
    return Worked(_without_purchase(refusals, busy, so_far), tuple(trials))


def _try(
    offer: BuyableOffer, request: PurchaseRequest, provider: Provider, journal: Journal, timer: Callable[[], float]
) -> Trial | None:
    """Try one offer; None where its order was held before anything was sent, which is no refusal of the provider's."""
    started = timer()
    outcome = _buy(request, provider, journal)
    latency_ms = int((timer() - started) * 1000)
    if outcome is None:
        journal.conclude(request, Rejected(ErrorType.NOT_BOUGHT, "its order was held before it was sent"), latency_ms)
        return None
    journal.conclude(request, outcome, latency_ms)
    return Trial(offer, outcome, latency_ms)


def _buy(request: PurchaseRequest, provider: Provider, journal: Journal) -> Outcome | None:
    try:
        ready = provider.prepare(request)
    except Exception as error:  # noqa: BLE001 - whatever an adapter raises here, nothing was bought yet
        return Rejected(ErrorType.PROVIDER_API_ERROR, f"{provider.slug}: {type(error).__name__} before buying")
    if not isinstance(ready, Prepared):
        return ready
    if journal.prepared(request, ready.evidence) is not None:
        return None
    journal.may_send()
    try:
        return provider.purchase(request, ready.evidence)
    except Exception as error:  # noqa: BLE001 - whatever an adapter raises here, it may have been bought
        return Unknown(ErrorType.UNKNOWN, f"{provider.slug}: {type(error).__name__} while buying; may have been done")


def _refusal(offer: BuyableOffer, outcome: Rejected) -> Refusal:
    return Refusal(offer.offer_id, outcome.error_type, outcome.message, outcome.retry_after_seconds)


def _without_purchase(refusals: Sequence[Refusal], busy: Sequence[Skipped], so_far: Round) -> Result:
    """Tell waiting from exhaustion after a round in which nothing was bought."""
    if Skipped.SLOT_BUSY in busy:
        delay = SLOT_DELAY_SECONDS if so_far.wait_for_slot else SLOT_DELAY_LATER_SECONDS
        return Waiting(delay, "another purchase is open where only one may be", for_slot=True)
    held_back = so_far.held_back or bool(busy)
    if not refusals and held_back:
        return Waiting(HELD_BACK_DELAY_SECONDS, "every provider that sells this is resting after failures")
    if not refusals:
        return Exhausted(True, ErrorType.OUT_OF_STOCK, "no offer may be bought: none on sale, or all above the ceiling")
    if all(refusal.error_type is ErrorType.RATE_LIMITED for refusal in refusals) and not held_back:
        asked = min(refusal.retry_after_seconds or SLOT_DELAY_SECONDS for refusal in refusals)
        return Waiting(min(asked, THROTTLE_DELAY_MOST_SECONDS), "every provider that sells this throttles us")
    retryable = held_back or any(is_retryable(refusal.error_type) for refusal in refusals)
    return Exhausted(retryable, refusals[-1].error_type, refusals[-1].message)


def is_retryable(error_type: ErrorType) -> bool:
    """Return whether a refusal of this kind may be gone later."""
    return Rejected(error_type, "").retryable


def retry_delay_minutes(failures: int) -> int:
    """Return how long a unit waits after its `failures`-th round that failed: 5, 15, then 60 minutes."""
    return (5, 15, 60)[min(failures, 3) - 1]


def resolve_delay_seconds(elapsed_seconds: float) -> float:
    """Return when to look again for an open purchase, by its age.

    After 1, 2, 5, 10 and 30 s, each minute for ten, every five minutes for a day, then hourly.
    """
    steps = ((1, 1.0), (3, 2.0), (8, 5.0), (18, 10.0), (48, 30.0), (600, 60.0), (86_400, 300.0))
    return next((delay for until, delay in steps if elapsed_seconds < until), 3_600.0)
