"""A provider's health from its latest purchases, and whether its offers may be anybody's best price.

past purchases -> `measure` (rate, latency) -> `judge` (degraded or not) -> `standing`, the one word and sentence an
operator is shown.

A degraded provider is asked last, so that hardly a purchase shows that it is well again, and no harmless read does:
what answers may still refuse to sell. So it is given another chance by the clock, as an open circuit is: after a
minute's rest what was tried before no longer counts, and its next purchases decide; one that fails goes to the next
provider as ever. What was tried before its circuit closed, or before an operator reset it, does not count either: an
outage that is over is not held against it.

Three things keep it from flickering. A degraded provider recovers by ten points more than it takes to stay well. Each
time it is degraded within an hour it rests twice as long as before, and half as many purchases are enough to call it
degraded again, until a purchase closes its circuit or an operator resets it. And it does not recover while its circuit
is open.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from esim.purchase import ErrorType

WINDOW = timedelta(hours=1)
MOST_TRIALS = 100
RECOVERY_MARGIN_PERCENT = 10
FIRST_REST = timedelta(minutes=1)
_FEWEST_ATTEMPTS = 2  # one failure is an accident
_MOST_DOUBLINGS = 6  # by then a rest is longer than the window

# What the provider is not to blame for: a plan that is gone, our own pace, our own account.
BLAMELESS = frozenset(
    {
        ErrorType.OUT_OF_STOCK,
        ErrorType.INVALID_PRODUCT,
        ErrorType.PRICE_CHANGED,
        ErrorType.RATE_LIMITED,
        ErrorType.INSUFFICIENT_BALANCE,
        ErrorType.NOT_BOUGHT,
    }
)


class Standing(StrEnum):
    """How a provider stands, worst first."""

    SWITCHED_OFF = "switched off"
    OPEN = "circuit open"
    UNFUNDED = "unfunded"
    HALF_OPEN = "half-open"
    DEGRADED = "degraded"
    HEALTHY = "healthy"


@dataclass(frozen=True, slots=True)
class PastTrial:
    """One purchase that was tried: its state, why it failed, whether it left us, and how long it took."""

    state: str  # of its attempt
    error_type: str | None
    sent: bool
    latency_ms: int | None
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Figures:
    """What the latest purchases say: how many count, how many succeeded, and the time they took in milliseconds."""

    attempts: int
    successes: int
    p50_ms: int | None
    p95_ms: int | None

    @property
    def success_percent(self) -> int | None:
        """The share that succeeded, rounded down; None where nothing counts."""
        return self.successes * 100 // self.attempts if self.attempts else None


@dataclass(frozen=True, slots=True)
class HealthRule:
    """A provider is degraded when fewer than `min_success_percent` of at least `min_attempts` purchases succeed."""

    min_attempts: int = 10
    min_success_percent: int = 50

    def after(self, episodes: int) -> "HealthRule":
        """Return the rule for one that was degraded so often lately: each time half as many purchases are enough."""
        halved = self.min_attempts >> min(episodes, _MOST_DOUBLINGS)
        return replace(self, min_attempts=min(self.min_attempts, max(_FEWEST_ATTEMPTS, halved)))


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered of a provider when it is judged."""

    degraded_since: datetime | None
    judged_from: datetime | None  # what was tried before does not count
    episodes: int  # how often it became degraded since its circuit closed, in the last hour, this time included
    open_until: datetime | None  # its circuit


@dataclass(frozen=True, slots=True)
class Condition:
    """What is known of a provider besides its figures."""

    enabled: bool
    open_until: datetime | None
    unfunded_at: datetime | None
    degraded_since: datetime | None
    last_error: str = ""


def measure(trials: Iterable[PastTrial], now: datetime, judged_from: datetime | None) -> Figures:
    """Return the figures of what was tried in the last hour, and since it is judged, for or against the provider."""
    recent = [trial for trial in trials if now - trial.started_at <= WINDOW]
    recent = [trial for trial in recent if judged_from is None or trial.started_at > judged_from]
    verdicts = [(trial, verdict) for trial in recent if (verdict := succeeded(trial)) is not None]
    times = sorted(trial.latency_ms for trial, _ in verdicts if trial.latency_ms is not None)
    successes = sum(verdict for _, verdict in verdicts)
    return Figures(len(verdicts), successes, percentile(times, 50), percentile(times, 95))


def succeeded(trial: PastTrial) -> bool | None:
    """Return whether a purchase speaks for the provider or against it; None when it says nothing about it.

    A lost answer speaks against it, also when the purchase was proven absent later.
    """
    if trial.state in {"provisioned", "pending", "stocked"}:
        return True
    if trial.state == "unknown":
        return False
    if trial.state != "rejected":
        return None
    if trial.error_type == ErrorType.NOT_BOUGHT:
        return False if trial.sent else None
    return None if trial.error_type in BLAMELESS else False


def percentile(ordered: Sequence[int], percent: int) -> int | None:
    """Return the smallest value that at least `percent` of the ordered values do not exceed."""
    return ordered[-(-percent * len(ordered) // 100) - 1] if ordered else None


def judge(figures: Figures, rule: HealthRule, record: Record, now: datetime) -> bool:
    """Return whether a provider is degraded, by what was tried since its record says that it is judged."""
    already = record.degraded_since is not None
    if already and _circuit_open(record, now):
        return True
    return degraded(figures, rule.after(record.episodes), already=already)


def has_rested(record: Record, now: datetime) -> bool:
    """Return whether a degraded provider is due another chance: what was tried so far no longer counts."""
    if record.degraded_since is None or _circuit_open(record, now):
        return False
    doublings = min(max(0, record.episodes - 1), _MOST_DOUBLINGS)
    return now - record.degraded_since >= min(WINDOW, FIRST_REST * (1 << doublings))


def degraded(figures: Figures, rule: HealthRule, *, already: bool) -> bool:
    """Return whether too few purchases succeed; one that is degraded `already` must do better by ten points.

    Too few purchases prove nothing.
    """
    if figures.attempts < rule.min_attempts:
        return False
    margin = RECOVERY_MARGIN_PERCENT if already else 0
    wanted = min(100, rule.min_success_percent + margin)
    return figures.successes * 100 < wanted * figures.attempts


def standing(about: Condition, figures: Figures, now: datetime) -> tuple[Standing, str]:
    """Return how a provider stands, and why in a sentence."""
    rate = f"{figures.successes} of the last {figures.attempts} purchases succeeded"
    if not about.enabled:
        return Standing.SWITCHED_OFF, "a person switched it off"
    if about.open_until is not None and about.open_until > now:
        return Standing.OPEN, f"resting until {about.open_until:%H:%M:%S} UTC after failures: {about.last_error}"
    if about.unfunded_at is not None:
        return Standing.UNFUNDED, f"our balance there did not suffice at {about.unfunded_at:%Y-%m-%d %H:%M} UTC"
    if about.open_until is not None:
        return Standing.HALF_OPEN, "its rest is over; the next purchase decides"
    if about.degraded_since is not None:
        return Standing.DEGRADED, f"{rate}; since {about.degraded_since:%H:%M} UTC it is nobody's best price"
    return Standing.HEALTHY, rate if figures.attempts else "no purchase that counts in the last hour"


def _circuit_open(record: Record, now: datetime) -> bool:
    return record.open_until is not None and record.open_until > now
