"""What the world is like while a sweep's customers order: each mood leads workers past commits that others do not.

A mood says what providers and the payment service do, and over which leaps of the clock workers come back to it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from resources.settings import PROVIDERS

Json = dict[str, Any]
_SETTLED = 310.0
_RESTED = 1_900.0
_PAST_THE_DEADLINE = 4_300.0
_SIGNED_IN = ("airalo", "esim_card")  # who hand out tokens


def _well(_rng: Random) -> Iterator[Json]:
    """Nothing goes wrong."""
    yield from ()


def _lost_answers(rng: Random) -> Iterator[Json]:
    """Some providers lose their answers, before or after they sold."""
    for slug in rng.sample(PROVIDERS, 3):
        yield _on_orders(slug, rng.choice(("reset_after", "error_after", "reset_before", "malformed")))


def _refusals(_rng: Random) -> Iterator[Json]:
    """Every provider says that it has no such plan, so that a unit is given up and paid back."""
    for slug in PROVIDERS:
        yield {"provider": slug, "call": "order", "kind": "delisted", "params": {"share": 1.0}}


def _silence(_rng: Random) -> Iterator[Json]:
    """Every provider sells, loses its answer, and cannot be asked what became of it."""
    for slug in PROVIDERS:
        yield {"provider": slug, "call": "order", "kind": "reset_after"}
        yield {"provider": slug, "call": "status", "kind": "error_status", "params": {"status": 500}}
        yield {"provider": slug, "call": "balance", "kind": "error_status", "params": {"status": 500}}


def _told_twice(_rng: Random) -> Iterator[Json]:
    """Providers finish orders a little later and tell of each twice."""
    for slug in PROVIDERS:
        yield _on_orders(slug, "async_late", seconds=0.3)
        yield {"provider": slug, "call": "webhook", "kind": "webhook_duplicate", "times": 2}


def _signed_out(_rng: Random) -> Iterator[Json]:
    """Providers do not know the tokens that they handed out."""
    for slug in _SIGNED_IN:
        yield _on_orders(slug, "unauthorised")


def _sold_out(_rng: Random) -> Iterator[Json]:
    """Every provider has just sold the last one."""
    for slug in PROVIDERS:
        yield _on_orders(slug, "out_of_stock")


def _on_orders(slug: str, kind: str, **params: object) -> Json:
    return {"provider": slug, "call": "order", "kind": kind, "times": 1, "params": params}


@dataclass(frozen=True, slots=True)
class Mood:
    """One state of the world."""

    name: str
    faults: Callable[[Random], Iterator[Json]] = _well
    on_stripe: Json | None = None
    leaps: tuple[float, ...] = (_SETTLED,)  # workers work before and after each
    calm_after: int = 99  # of these leaps; then the faults are over
    limited: bool = False  # workers obey the providers' published rate limits


# The shop's API would book what went back as soon as it is told, and nothing were left for a worker to do.
_UNTOLD: Json = {"kind": "webhook_lost", "times": 99, "params": {"types": ["charge.refunded", "refund."]}}
_NO: Json = {"kind": "refund_error", "times": 99, "params": {"status": 400, "when": "before"}}
PAID_BACK_UNTOLD = Mood("paid back untold", _refusals, _UNTOLD)
MOODS = (
    Mood("plain"),
    Mood("unclear", _lost_answers),
    Mood("refused", _refusals),
    PAID_BACK_UNTOLD,
    Mood("refund refused", _refusals, _NO),
    Mood("turned up late", _silence, leaps=(_PAST_THE_DEADLINE, _SETTLED), calm_after=2),
    Mood("told twice", _told_twice),
    Mood("signed out", _signed_out),
    Mood("sold out", _sold_out, leaps=(_RESTED,)),
    Mood("within rate limits", limited=True),
)
