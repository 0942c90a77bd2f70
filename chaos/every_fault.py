"""Every fault once at every provider whose contract has it: what chance leaves out of a campaign is played by script.

For each kind customers order, workers buy and look up, and the sandbox is asked whom the fault struck. One that struck
nobody's purchase is a broken promise: of a campaign that has not tried everything nothing follows.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from chaos.campaign import Result, faults_since
from chaos.coverage import Row, Strike, never_struck, rows
from chaos.invariants import Violation
from chaos.mischief import ON_LOOK_UPS, ON_ORDERS
from chaos.scripted import Json, Scripted
from chaos.stage import Shop, Stage
from resources.settings import PROVIDERS

RULE = "every fault strikes every provider that has it"
_TRIALS = 4
_SETTLED, _RESTED = 310.0, 1_900.0
_ENDS_WITHIN = 20.0
# What is never finished, or failed, keeps an account or a plan that is bought from one at a time: a shop of its own.
_OPEN_FOR_GOOD = ("async_never", "fail_after_accept")
# After these a provider or an offer is not bought from for long: they come last, the longest at the very end.
_LASTING = ("price_change", "delisted", "out_of_stock", "insufficient_balance")
# What must go wrong first for a fault to have anything to strike.
_UNCLEAR: Json = {"call": "order", "kind": "reset_after", "times": 1}
_SIGNED_OUT: Json = {"call": "order", "kind": "unauthorised", "times": 1}
_UNLISTED: Json = {"call": "order", "kind": "async_late", "times": 1}
_UNLISTED_SECONDS = 6.0  # and longer at each further trial, for a machine that is slow to look it up


def strike_all(stage: Stage, seed: int, bug: str = "") -> Iterator[Result]:
    """Have every required fault strike, in three shops, and compare all sides of each."""
    yield strike(stage, seed, sorted((row for row in rows() if row[1] not in _OPEN_FOR_GOOD), key=_how_lasting), bug)
    for kind in _OPEN_FOR_GOOD:
        yield strike(stage, seed, [row for row in rows() if row[1] == kind], bug)


def strike(stage: Stage, seed: int, kinds: Sequence[Row], bug: str = "") -> Result:
    """Have these faults strike in one shop, one kind after the other, then compare all sides."""
    before = stage.outside.struck()
    with stage.shop(f"faults-{seed}") as shop:
        run = _Script(shop, seed, bug)
        for call, kind, slugs in kinds:
            run.strike([Strike(slug, call, kind) for slug in slugs])
        result = run.play.end(bug)
    result.violations += run.missed
    result.counts.update(faults_since(before, stage.outside.struck()))
    return result


class _Script:
    """The orders and workers of it."""

    def __init__(self, shop: Shop, seed: int, bug: str) -> None:
        self.play = Scripted(shop, f"faults-{seed}")
        self.missed: list[Violation] = []
        self._shop, self._bug = shop, bug

    def strike(self, wanted: Sequence[Strike]) -> None:
        """Have one kind of fault strike all that are named, ordering again from those it has not."""
        outside, before = self._shop.stage.outside, Counter(self._shop.stage.outside.struck())
        left = list(wanted)
        for trial in range(_TRIALS):
            outside.put_faults([fault for one in left for fault in _faults(one, trial)])
            for one in left:
                self.play.order(self._shop.package_ids[PROVIDERS.index(one.provider)])
            self._work()
            outside.clear_faults()
            if left[0].kind in _LASTING or trial:
                self._leap(_RESTED)
            struck = Counter(outside.struck()) - before
            left = [one for one in left if not one.times(struck)]
            if not left:
                return
        self.missed += [Violation(RULE, f"it never struck: {name}") for name in never_struck({}, left)]

    def _work(self) -> None:
        """Buy, and look up what is not clear, as soon as that proves anything."""
        for _ in range(2):
            self._shop.start_drain(workers=6, idle_seconds=0.05, max_seconds=1.0, bug=self._bug)
            self._shop.end_drains(_ENDS_WITHIN)
            self._leap(_SETTLED)

    def _leap(self, seconds: float) -> None:
        self._shop.await_arrivals()
        self._shop.make_due()
        self._shop.stage.leap_to(self._shop.clock.ahead_seconds + seconds)


def _how_lasting(row: Row) -> int:
    return _LASTING.index(row[1]) if row[1] in _LASTING else -1


def _faults(wanted: Strike, trial: int) -> list[Json]:
    """Return the fault, after what must go wrong before it can strike."""
    params = (ON_LOOK_UPS if wanted.call == "status" else ON_ORDERS).get(wanted.kind, ({},))
    times = None if wanted.kind == "price_change" else 1  # a price moves everywhere, and for long
    fault = {"call": wanted.call, "kind": wanted.kind, "times": times, "params": dict(params[trial % len(params)])}
    if wanted.kind == "delisted":
        fault["params"] = {"share": 1.0}
    first: list[Json] = []
    if wanted.call == "status":
        first = [_UNCLEAR]
    elif wanted.call == "login":
        first = [_SIGNED_OUT]
    elif wanted.kind in {"duplicate_code", "guard_first"}:
        first = [_UNCLEAR, {**_UNLISTED, "params": {"seconds": _UNLISTED_SECONDS * (1 + trial)}}]
    return [{"provider": wanted.provider, **each} for each in [*first, fault]]
