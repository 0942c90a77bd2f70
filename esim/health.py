"""A provider's health from its latest purchases, and whether its offers may be anybody's best price.

past purchases -> `measure` (rate, latency) -> `degraded` (with a margin, so that it does not flicker) -> `standing`,
the one word and sentence an operator is shown.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from esim.purchase import ErrorType

WINDOW = timedelta(hours=1)
MOST_TRIALS = 100
RECOVERY_MARGIN_PERCENT = 10

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


@dataclass(frozen=True, slots=True)
class Condition:
    """What is known of a provider besides its figures."""

    enabled: bool
    open_until: datetime | None
    unfunded_at: datetime | None
    degraded_since: datetime | None
    last_error: str = ""


def measure(trials: Iterable[PastTrial], now: datetime) -> Figures:
    """Return the figures of the purchases of the last hour that speak for or against the provider."""
    recent = [trial for trial in trials if now - trial.started_at <= WINDOW]
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


def degraded(figures: Figures, rule: HealthRule, *, already: bool) -> bool:
    """Return whether too few purchases succeed; one that is degraded `already` must do better by ten points.

    Too few purchases prove nothing: a degraded provider gets few, and is given another chance when its failures are
    an hour old.
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
        return Standing.DEGRADED, f"{rate} since {now - WINDOW:%H:%M} UTC; it is nobody's best price"
    return Standing.HEALTHY, rate if figures.attempts else "no purchase in the last hour"
