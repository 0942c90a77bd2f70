"""A worker killed at every point there is: before and after each kind of commit, before and after each kind of request.

The points are found by watching: workers whose fate is a survey write down every point they pass, in every mood. Then,
for each point, customers order in a mood that leads there, and a worker is killed. A commit that has a name in
`chaos.points` and was not killed at, on either side, is a broken promise like any other: so is a point that was found.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from random import Random

from chaos.campaign import Result
from chaos.invariants import Violation
from chaos.moods import MOODS, Mood
from chaos.points import AFTER, BEFORE, COMMIT, COMMITS, REQUEST, SURVEY, Fate
from chaos.scripted import Scripted
from chaos.stage import Shop, Stage
from chaos.tally import deaths
from resources.settings import PROVIDERS

RULE = "a worker is killed at every point"
_ENDS_WITHIN = 20.0
_TRIALS = 5  # a point that lies on a rare path may need more than one order
_LEASE_OVER = 61.0


def sweep(
    stage: Stage, seed: int, bug: str = "", *, moods: Sequence[Mood] = MOODS, commits: Collection[str] = ()
) -> Result:
    """Kill a worker at every point of its work, or at the named commits only, then compare all sides."""
    with stage.shop(f"sweep-{seed}") as shop:
        run = _Sweep(shop, seed, moods, bug)
        found = run.survey()
        wanted: dict[Fate, list[Mood]] = {
            Fate(COMMIT, side, 1, name): [] for name in commits or COMMITS for side in (BEFORE, AFTER)
        }
        for fate in wanted if commits else wanted | found:
            run.kill_at(fate, found.get(fate, ()))
        result = run.play.end(bug)
        result.violations += run.missed
        return result


class _Sweep:
    """The orders and workers of one sweep."""

    def __init__(self, shop: Shop, seed: int, moods: Sequence[Mood], bug: str) -> None:
        self.play = Scripted(shop, f"sweep-{seed}")
        self.missed: list[Violation] = []
        self._shop, self._moods, self._bug = shop, moods, bug
        self._rng = Random(f"sweep {seed}")  # noqa: S311 - repeatable, not secret

    def survey(self) -> dict[Fate, list[Mood]]:
        """Let workers work orders in every mood, and return a death for every point they passed, with its moods."""
        found: dict[Fate, list[Mood]] = {}
        for mood in self._moods:
            file = self._shop.folder / f"seen {mood.name}.txt"
            self._play(mood, self._shop.package_ids, Fate(SURVEY, "", 0), file)
            for point in sorted(set(file.read_text().splitlines())):
                kind, side, name = point.split("|", 2)
                found.setdefault(Fate(kind, side, 1, name), []).append(mood)
        self.play.tally.add("points found to kill a worker at", len(found))
        return dict(sorted(found.items(), key=lambda one: (one[0].kind, one[0].name, one[0].side)))

    def kill_at(self, fate: Fate, moods: Sequence[Mood]) -> None:
        """Have a worker killed at one point, trying some orders in the moods that lead there."""
        for trial in range(_TRIALS if moods else 0):
            package_ids = self._shop.package_ids if trial else self._few(fate)
            if self._play(moods[trial % len(moods)], package_ids, fate):
                return
        self.missed.append(Violation(RULE, f"none was killed {fate.point}"))

    def _few(self, fate: Fate) -> list[str]:
        """Return two packages, one of which is bought first where a request is to be made."""
        package_ids = self._shop.package_ids
        _, _, slug = fate.name.rpartition(" ")
        if fate.kind == REQUEST and slug in PROVIDERS:
            return [package_ids[PROVIDERS.index(slug)], self._rng.choice(package_ids)]
        return self._rng.sample(package_ids, 2)

    def _play(self, mood: Mood, package_ids: Sequence[str], fate: Fate, seen: Path | None = None) -> bool:
        """Have customers order and workers come back to it over the mood's leaps, until one of them dies."""
        shop, before = self._shop, deaths(self._shop.diary).total()
        self._set(mood)
        for package_id in package_ids:
            self.play.order(package_id)
        for leaps in range(len(mood.leaps) + 1):
            if leaps == mood.calm_after:
                shop.stage.outside.clear_faults()
            shop.start_drain(
                fate=fate, workers=4, idle_seconds=0.1, max_seconds=1.0, limited=mood.limited, bug=self._bug, seen=seen
            )
            shop.end_drains(_ENDS_WITHIN)
            if deaths(shop.diary).total() > before:
                self._leap(_LEASE_OVER)
                return True
            self._leap(mood.leaps[leaps] if leaps < len(mood.leaps) else _LEASE_OVER)
        return False

    def _set(self, mood: Mood) -> None:
        outside = self._shop.stage.outside
        outside.clear_faults()
        outside.put_faults(list(mood.faults(self._rng)))
        if mood.on_stripe is not None:
            outside.put_other_faults("stripe", mood.on_stripe)

    def _leap(self, seconds: float) -> None:
        self._shop.await_arrivals()
        self._shop.make_due()
        self._shop.stage.leap_to(self._shop.clock.ahead_seconds + seconds)
