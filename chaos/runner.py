"""Many campaigns, one after another on each of a few stages, and the report of all of them."""

import multiprocessing
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from queue import Empty
from time import monotonic

from chaos.campaign import FAULT, Result, play
from chaos.coverage import table
from chaos.every_fault import strike_all
from chaos.history import story_of
from chaos.pauses import pause_past_the_lease
from chaos.platform_recovery import WITHIN_SECONDS as BACK_WITHIN_SECONDS
from chaos.platform_recovery import Back
from chaos.recovery import SCENARIOS, WITHIN_SECONDS, Recovered, recover
from chaos.stage import open_stage
from chaos.sweep import sweep

_MOST_STORIES = 5
Ports = tuple[int, int, int]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is to be played."""

    seeds: tuple[int, ...]
    orders: int
    first: int = 1
    sweep: bool = False
    faults: bool = False
    pauses: bool = False
    recovery: bool = False
    bug: str = ""

    def command(self, name: str) -> str:
        """Return the command that plays one part again."""
        kind, _, number = name.replace("-", " ").partition(" ")
        bug = f" --plant {self.bug}" if self.bug else ""
        more = f" --{kind}" if kind in {"sweep", "faults", "pauses"} else ""
        if kind == "platform":
            return f"numnaroad chaos --seeds 0 --seed {number} --orders {self.orders} --platform"
        return f"numnaroad chaos --seed {number} --orders {self.orders}{more}{bug}"


@dataclass
class Told:
    """One part that was played, as it is sent between processes."""

    name: str
    seconds: float
    counts: Counter[str]
    waiting: Counter[str]
    stories: list[str] = field(default_factory=list)
    broken: int = 0


@dataclass
class Report:
    """All that was played."""

    plan: Plan
    parts: list[Told] = field(default_factory=list)
    recovered: list[Recovered] = field(default_factory=list)
    back: list[Back] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        """Whether no promise was broken and everything recovered."""
        back = all(r.seconds is not None and r.interrupted_delivered and not r.violations for r in self.recovered)
        back = back and all(each.seconds is not None for each in self.back)
        return back and not self.crashed and not any(part.broken for part in self.parts)

    def text(self) -> str:
        """Return the report: what was injected, what became of everything, what waits for a person."""
        counts, waiting = Counter[str](), Counter[str]()
        for part in self.parts:
            counts.update(part.counts)
            waiting.update(part.waiting)
        broken = sum(part.broken for part in self.parts)
        head = f"{len(self.parts)} campaigns of {self.plan.orders} orders in {self.seconds:.0f} s: {broken} violations"
        lines = [head, "", "| what | times |", "|---|---:|"]
        lines += [f"| {what} | {times:,} |" for what, times in sorted(counts.items()) if times]
        if struck := {name.removeprefix(FAULT): times for name, times in counts.items() if name.startswith(FAULT)}:
            lines += table(struck)
        if waiting:
            lines += ["", "| units that wait for a person, by reason | units |", "|---|---:|"]
            lines += [f"| {why} | {units} |" for why, units in sorted(waiting.items())]
        if self.recovered:
            fresh = f"a fresh order was delivered after (limit {WITHIN_SECONDS:.0f} s)"
            lines += ["", f"| scenario | {fresh} | the interrupted ones too |", "|---|---:|---|"]
            lines += [
                f"| {r.scenario} | {_seconds(r.seconds)} | {'yes' if r.interrupted_delivered else 'no'} |"
                for r in self.recovered
            ]
        for done in dict.fromkeys(each.done for each in self.back):
            lines += ["", f"| platform recovery | {done} after (limit {BACK_WITHIN_SECONDS:.0f} s) |", "|---|---:|"]
            lines += [f"| {b.killed} | {_seconds(b.seconds)} |" for b in self.back if b.done == done]
        return "\n".join([*lines, *(f"A stage broke down: {line}" for line in self.crashed)])


def _seconds(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f} s"


def run_platform(report: Report, play_it: Callable[[int, int, Say], tuple[Result, list[Back]]], say: Say) -> None:
    """Play the campaign on the running platform, and add what it came to to the report."""
    result, back = play_it(report.plan.first, report.plan.orders, say)
    report.back += back
    report.seconds += result.seconds
    _take(report, _told(result, report.plan), say)


def run(plan: Plan, ports: Sequence[Ports], say: Say) -> Report:
    """Play a plan on as many stages as there are ports, telling of each part as it ends."""
    started, report = monotonic(), Report(plan)
    if not ports:
        return report
    shares = [plan.seeds[n :: len(ports)] for n in range(len(ports))]
    if len(ports) == 1:
        _play_share(plan, shares[0], ports[0], True, lambda told: _take(report, told, say))
    else:
        _run_beside(plan, shares, ports, report, say)
    report.seconds = monotonic() - started
    return report


def _run_beside(plan: Plan, shares: list[tuple[int, ...]], ports: Sequence[Ports], report: Report, say: Say) -> None:
    context = multiprocessing.get_context("spawn")
    told: Queue[Told | Recovered] = context.Queue()
    processes = [
        context.Process(target=_play_share_to, args=(plan, share, each, n == 0, told))
        for n, (share, each) in enumerate(zip(shares, ports, strict=True))
    ]
    try:
        for process in processes:
            process.start()
        while any(process.is_alive() for process in processes) or not told.empty():
            try:
                _take(report, told.get(timeout=0.5), say)
            except Empty:
                continue
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
    report.crashed += [f"it ended with {process.exitcode}" for process in processes if process.exitcode]


def _play_share_to(
    plan: Plan, seeds: tuple[int, ...], ports: Ports, first: bool, told: "Queue[Told | Recovered]"
) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what this stage started ends with it
    _play_share(plan, seeds, ports, first, told.put)


def _play_share(
    plan: Plan, seeds: tuple[int, ...], ports: Ports, first: bool, tell: Callable[[Told | Recovered], None]
) -> None:
    """Play one stage's share; the first stage plays what is played once, too."""
    with open_stage(ports) as stage:
        if first and plan.sweep:
            tell(_told(sweep(stage, plan.first, plan.bug), plan))
        if first and plan.faults:
            for result in strike_all(stage, plan.first, plan.bug):
                tell(_told(result, plan))
        if first and plan.pauses:
            tell(_told(pause_past_the_lease(stage, plan.first), plan))
        for seed in seeds:
            tell(_told(play(stage, seed, plan.orders, plan.bug), plan))
        for scenario in SCENARIOS if first and plan.recovery else ():
            tell(recover(stage, scenario))


def _told(result: Result, plan: Plan) -> Told:
    stories = [story_of(one, result.sides) for one in result.violations[:_MOST_STORIES] if result.sides is not None]
    repeat = f"To play it again: {plan.command(result.name)}"
    stories = [f"{story}\n  {repeat}" for story in stories]
    return Told(result.name, result.seconds, result.counts, result.waiting, stories, len(result.violations))


def _take(report: Report, told: Told | Recovered, say: Say) -> None:
    if isinstance(told, Recovered):
        report.recovered.append(told)
        say(f"recovery, {told.scenario}: {_seconds(told.seconds)}")
        return
    report.parts.append(told)
    ends = ", ".join(f"{told.counts[f'units {state}']} {state}" for state in ("delivered", "refunded", "attention"))
    say(f"{told.name}: {told.broken} violations in {told.seconds:.0f} s ({ends})")
    for story in told.stories:
        say(story)
