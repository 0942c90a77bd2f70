"""Which runs the host was given and where each of them stands; it decides nothing by itself and touches nothing.

queued -> running -> ended. A run whose process is gone without having ended it in Dagster's eyes is `lost` in between,
until an errand has accounted for it; so is one that was taken and cannot be started here.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from signal import Signals
from typing import Literal

from pipelines.warm_runs.zygote_process import ZygoteProcess

_REMEMBERED = 5000
_ERRAND_AGAIN_SECONDS = (1.0, 2.0, 5.0, 15.0, 60.0)


@dataclass(slots=True)
class Given:
    """A run that waits or goes on."""

    run_id: str
    instance_ref: str
    zygote: ZygoteProcess | None = None
    kill_at: float | None = None


@dataclass(slots=True)
class Lost:
    """A run somebody must account for: why, by which errand, from when on; `going` while its process lives still."""

    run_id: str
    instance_ref: str
    why: str
    errand: Literal["lost", "hand_over"] = "lost"
    at: float = 0.0
    going: bool = False
    sent_to: ZygoteProcess | None = None
    tries: int = 0
    kill_at: float | None = None

    def try_again(self, now: float) -> None:
        """Send the errand another time, later every time."""
        self.at = now + _ERRAND_AGAIN_SECONDS[min(self.tries, len(_ERRAND_AGAIN_SECONDS) - 1)]
        self.tries += 1
        self.sent_to = None


@dataclass(slots=True)
class Roster:
    """All runs of one host by run id; `ended` remembers the last ones: why each was lost, empty where it was not."""

    queued: dict[str, Given] = field(default_factory=dict)
    running: dict[str, Given] = field(default_factory=dict)
    lost: dict[str, Lost] = field(default_factory=dict)
    ended: OrderedDict[str, str] = field(default_factory=OrderedDict)

    @property
    def going(self) -> int:
        """How many processes of runs there are, those of an earlier host among them."""
        return len(self.running) + sum(lost.going for lost in self.lost.values())

    def knows(self, run_id: str) -> bool:
        """Return whether this run was given to us already."""
        return any(run_id in runs for runs in (self.queued, self.running, self.lost, self.ended))

    def state(self, run_id: str) -> tuple[str, str]:
        """Return where a run stands (queued, running, ended, lost, unknown), and why it was lost."""
        if run_id in self.queued:
            return "queued", ""
        if run_id in self.running:
            return "running", ""
        if lost := self.lost.get(run_id):
            return ("running", "") if lost.going else ("lost", lost.why)
        if run_id in self.ended:
            return ("lost" if self.ended[run_id] else "ended"), self.ended[run_id]
        return "unknown", ""

    def uses(self, zygote: ZygoteProcess) -> bool:
        """Return whether a child of this zygote is expected to be at work."""
        errands = (lost.sent_to for lost in self.lost.values())
        return any(given.zygote is zygote for given in self.running.values()) or any(each is zygote for each in errands)

    def lose(self, given: Given, lost: Lost) -> None:
        """Move a run to those somebody must account for."""
        self.queued.pop(given.run_id, None)
        self.running.pop(given.run_id, None)
        self.lost[given.run_id] = lost

    def end(self, run_id: str, why: str = "") -> None:
        """The run is accounted for."""
        for runs in (self.queued, self.running, self.lost):
            runs.pop(run_id, None)
        self.ended[run_id] = why
        while len(self.ended) > _REMEMBERED:
            self.ended.popitem(last=False)


def explain(run_id: str, code: int) -> str:
    """Say how a run's process ended, as Dagster's code server does."""
    if code < 0:
        name = Signals(-code).name
        more = " The operating system does this when memory runs out." if name == "SIGKILL" else ""
        return f"Run execution process for {run_id} was terminated by signal {-code} ({name}).{more}"
    return f"Run execution process for {run_id} unexpectedly exited with code {code}."
