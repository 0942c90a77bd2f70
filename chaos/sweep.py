"""A worker killed at every point there is: before and after each kind of commit, before and after each kind of request.

The points are found by watching: workers whose fate is a survey write down every point they pass while orders go
right, go unclear and fail. Then, for each point, customers order and a worker is killed there.
"""

from collections.abc import Iterator
from random import Random
from typing import Any

from chaos.campaign import Result
from chaos.points import SURVEY, Fate
from chaos.scripted import Scripted
from chaos.stage import Shop, Stage
from chaos.tally import deaths
from resources.settings import PROVIDERS

Json = dict[str, Any]
_ENDS_WITHIN = 20.0
_TRIALS = 4  # a point that lies on a rare path may need more than one order
_LEASE_OVER = 61.0
_SETTLED = 310.0
_PLAIN, _UNCLEAR, _REFUSED = _MOODS = ("plain", "unclear", "refused")


def sweep(stage: Stage, seed: int, bug: str = "") -> Result:
    """Kill a worker at every point of its work, then compare all sides."""
    with stage.shop(f"sweep-{seed}") as shop:
        run = _Sweep(shop, seed, bug)
        for fate in run.survey():
            run.kill_at(fate)
        return run.play.end(bug)


class _Sweep:
    """The orders and workers of one sweep."""

    def __init__(self, shop: Shop, seed: int, bug: str) -> None:
        self.play = Scripted(shop, f"sweep-{seed}")
        self._shop, self._bug = shop, bug
        self._rng = Random(f"sweep {seed}")  # noqa: S311 - repeatable, not secret
        self._trial = 0

    def survey(self) -> list[Fate]:
        """Let workers work orders of every kind, and return a death for every point they passed."""
        file = self._shop.folder / "seen.txt"
        for mood in _MOODS:
            self._order(mood, self._shop.package_ids)
            self._work(Fate(SURVEY, "", 0), seen=file)
            self._leap(_SETTLED)
            self._work(Fate(SURVEY, "", 0), seen=file)
        points = sorted(set(file.read_text().splitlines()))
        self.play.tally.add("points found to kill a worker at", len(points))
        return [Fate(kind, side, 1, name) for kind, side, name in (point.split("|", 2) for point in points)]

    def kill_at(self, fate: Fate) -> None:
        """Have a worker killed at one point, trying some orders for those on rare paths."""
        for _ in range(_TRIALS):
            before, self._trial = deaths(self._shop.diary).total(), self._trial + 1
            self._order(_MOODS[self._trial % len(_MOODS)], self._rng.sample(self._shop.package_ids, 2))
            self._work(fate)
            self._leap(_LEASE_OVER)
            if deaths(self._shop.diary).total() > before:
                return
        self.play.tally.add(f"point not reached again: {fate.point}")

    def _order(self, mood: str, package_ids: list[str]) -> None:
        """Have customers order while providers are well, lose their answers or refuse for good."""
        outside = self._shop.stage.outside
        outside.clear_faults()
        if mood != _PLAIN:
            outside.put_faults([*(self._lost_answers() if mood == _UNCLEAR else _refusals())])
        for package_id in package_ids:
            self.play.order(package_id)

    def _lost_answers(self) -> Iterator[Json]:
        for slug in self._rng.sample(PROVIDERS, 3):
            kind = self._rng.choice(("reset_after", "error_after", "reset_before", "malformed"))
            yield {"provider": slug, "call": "order", "kind": kind, "times": 1}

    def _work(self, fate: Fate, **changes: Any) -> None:
        self._shop.start_drain(fate=fate, workers=4, idle_seconds=0.1, max_seconds=1.0, bug=self._bug, **changes)
        self._shop.end_drains(_ENDS_WITHIN)

    def _leap(self, seconds: float) -> None:
        self._shop.await_arrivals()
        self._shop.make_due()
        self._shop.stage.leap_to(self._shop.clock.ahead_seconds + seconds)


def _refusals() -> Iterator[Json]:
    """Every provider says that it has no such plan, so that a unit is given up and refunded."""
    for slug in PROVIDERS:
        yield {"provider": slug, "call": "order", "kind": "delisted", "params": {"share": 1.0}}
