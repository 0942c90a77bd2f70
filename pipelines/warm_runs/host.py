"""The host: takes runs from launchers, has them forked by a zygote, at most so many at a time, and watches over them.

launcher -> socket -> queue -> zygote -> child. One thread, one selector; it imports neither Dagster nor our code, so
that it answers while a zygote is warming up, and it opens no connection: what must be written to Dagster's storage is
an errand that a forked child does.

Asked to end (SIGTERM), it takes no more and interrupts its runs, as Dagster's code server and its runs are when the
platform's process group is ended: Dagster then reports them as failed, since nobody asked for their cancellation. A run
that does not end in time is killed and reported. What is left of a host that was killed is accounted for by the next.
"""

import selectors
import signal
from pathlib import Path
from time import monotonic

import structlog

from pipelines.warm_runs.cards import Cards
from pipelines.warm_runs.config import WarmRunsConfig
from pipelines.warm_runs.nursery import Nursery
from pipelines.warm_runs.reception import Reception, Visit
from pipelines.warm_runs.roster import Given, Lost, Roster, explain
from pipelines.warm_runs.signals import SignalPipe
from pipelines.warm_runs.wire import Message
from pipelines.warm_runs.zygote_process import ZygoteProcess

_TICK_SECONDS = 0.5
_ERRANDS_AT_ONCE = 4
_ERRANDS_SECONDS = 2.0  # what is left for the last errands after the runs have ended or were killed
_log = structlog.get_logger("numnaroad.warm_runs")


class Host:
    """One host, serving one place."""

    def __init__(self, config: WarmRunsConfig, place: Path) -> None:
        self._config, self._place, self._cards = config, place, Cards(place)
        self._selector = selectors.DefaultSelector()
        self._reception = Reception(place, self._selector, self._answer)
        self._roster = Roster()
        self._signals = SignalPipe([signal.SIGTERM, signal.SIGINT, signal.SIGCHLD])
        self._stop_by: float | None = None
        self._fork_again_at = 0.0
        self._take_over()
        self._nursery = Nursery(config, place, self._selector, self._heard)
        self._reception.open()
        self._selector.register(self._signals, selectors.EVENT_READ, self._signalled)

    def serve(self) -> None:
        """Serve until asked to end and everything is accounted for."""
        _log.info("taking runs", socket=str(self._place / "host.sock"), most=self._config.max_concurrent)
        while not self._is_over():
            for key, _ in self._selector.select(_TICK_SECONDS):
                key.data()
            self._nursery.look_after(self._roster.uses)
            self._start_queued()
            self._kill_overdue()
            self._account()
        self._nursery.close()
        until = monotonic() + _ERRANDS_SECONDS
        while not self._nursery.all_ended and monotonic() < until:
            self._selector.select(0.1)
            self._signals.drain()
        self._reception.leave(keep_folder=bool(self._config.folder))
        _log.info("ended")

    # Launchers

    def _answer(self, visit: Visit, message: Message) -> Message:
        match message:
            case {"do": "launch", "run_id": str(run_id), "instance_ref": str(reference)}:
                if refusal := self._refusal():
                    return {"refused": refusal}
                visit.offered = Given(run_id, reference)
                return {"ready": True}
            case {"do": "start"} if visit.offered is not None:
                if self._stop_by is not None:
                    return {"refused": self._refusal()}
                self._take(visit.offered)
                return {"taken": True}
            case {"do": "terminate", "run_id": str(run_id)}:
                return {"was": self._terminate(run_id)}
            case {"do": "ask", "run_id": str(run_id)}:
                state, why = self._roster.state(run_id)
                return {"state": state, "why": why}
        return {"refused": "no such request"}

    def _refusal(self) -> str:
        return "the host is ending" if self._stop_by is not None else self._nursery.refusal

    def _take(self, given: Given) -> None:
        """Queue a run, once: whoever comes again with it is told that it is taken."""
        if self._roster.knows(given.run_id) or not self._cards.lay(given.run_id, given.instance_ref):
            _log.warning("a run was given to us twice", run=given.run_id)
            return
        self._roster.queued[given.run_id] = given

    def _terminate(self, run_id: str) -> str:
        now, grace = monotonic(), self._config.terminate_grace_seconds
        if run_id in self._roster.queued:
            self._cards.tear_up(run_id)
            self._roster.end(run_id)
            return "queued"
        if given := self._roster.running.get(run_id):
            given.kill_at = min(given.kill_at or now + grace, now + grace)
            self._signal(given, signal.SIGTERM)
            return "running"
        lost = self._roster.lost.get(run_id)
        if lost and lost.going and self._cards.signal(run_id, signal.SIGTERM):
            lost.kill_at = min(lost.kill_at or now + grace, now + grace)
            return "running"
        return "unknown"

    # Zygotes and their children

    def _start_queued(self) -> None:
        if not self._roster.queued or self._stop_by is not None:
            return
        if refusal := self._nursery.refusal:
            for given in list(self._roster.queued.values()):
                self._roster.lose(given, Lost(given.run_id, given.instance_ref, f"{refusal}.", errand="hand_over"))
            return
        if self._roster.going >= self._config.max_concurrent or monotonic() < self._fork_again_at:
            return
        zygote = self._nursery.ready()
        while zygote and self._roster.queued and self._roster.going < self._config.max_concurrent:
            given = self._roster.queued.pop(next(iter(self._roster.queued)))
            given.zygote = zygote
            self._roster.running[given.run_id] = given
            self._fork(zygote, "run", given.run_id, given.instance_ref)

    def _fork(self, zygote: ZygoteProcess, task: str, run_id: str, reference: str, why: str = "") -> None:
        given = {"task": task, "run_id": run_id, "instance_ref": reference, "why": why}
        times = {"look_seconds": self._config.look_seconds, "grace_seconds": self._config.terminate_grace_seconds}
        zygote.send({"do": "fork", **given, **times})

    def _signal(self, given: Given, number: signal.Signals) -> None:
        if given.zygote is not None:
            given.zygote.send({"do": "signal", "run_id": given.run_id, "signal": int(number)})

    def _heard(self, zygote: ZygoteProcess, message: Message | None) -> None:
        if message is None:
            self._zygote_gone(zygote)
        elif message["tell"] == "not_forked":
            self._not_forked(message)
        elif message["tell"] == "ended" and message["task"] == "run":
            self._run_ended(message["run_id"], message["code"])
        elif message["tell"] == "ended":
            self._errand_ended(message["run_id"])

    def _run_ended(self, run_id: str, code: int) -> None:
        given = self._roster.running.get(run_id)
        if given is None:
            return
        if not self._cards.lies(run_id):
            self._roster.end(run_id)
            return
        why = explain(run_id, code)
        _log.error("a run's process ended before its run", run=run_id, code=code)
        self._roster.lose(given, Lost(run_id, given.instance_ref, why))

    def _errand_ended(self, run_id: str) -> None:
        lost = self._roster.lost.get(run_id)
        if lost is None:
            return
        if self._cards.lies(run_id):
            lost.try_again(monotonic())
        else:
            self._roster.end(run_id, lost.why if lost.errand == "lost" else "")

    def _not_forked(self, message: Message) -> None:
        """The machine has no room for another process: try again in a while."""
        _log.error("no process could be forked", run=message["run_id"], why=message["why"])
        if lost := self._roster.lost.get(message["run_id"]):
            lost.try_again(monotonic())
        elif given := self._roster.running.pop(message["run_id"], None):
            given.zygote, given.kill_at = None, None
            self._roster.queued = {given.run_id: given, **self._roster.queued}
            self._fork_again_at = monotonic() + 1.0

    def _zygote_gone(self, zygote: ZygoteProcess) -> None:
        """Nobody can tell any more how its children end: their cards say whether they have."""
        for given in [each for each in self._roster.running.values() if each.zygote is zygote]:
            why = f"The process that watched over run {given.run_id} is gone, and the run's process with it."
            lost = Lost(given.run_id, given.instance_ref, why, at=monotonic() + 1.0, going=True, kill_at=given.kill_at)
            self._roster.lose(given, lost)
        for lost in self._roster.lost.values():
            if lost.sent_to is zygote:
                lost.try_again(monotonic())

    # What is overdue or lost

    def _take_over(self) -> None:
        """Account for the runs of a host that was killed: those that go on are watched, the others reported."""
        for run_id in self._cards.all():
            reference = self._cards.read(run_id).get("instance_ref")
            if not reference:  # the host ended while it wrote: the launcher never heard that the run was taken
                self._cards.tear_up(run_id)
                continue
            why = f"The warm run host ended before run {run_id} had."
            self._roster.lost[run_id] = Lost(run_id, reference, why, going=self._cards.is_held(run_id))
        if self._roster.lost:
            _log.warning("an earlier host left runs", runs=list(self._roster.lost), going=self._roster.going)

    def _kill_overdue(self) -> None:
        now = monotonic()
        for given in self._roster.running.values():
            if given.kill_at is not None and given.kill_at <= now:
                given.kill_at = None
                self._signal(given, signal.SIGKILL)
        for lost in self._roster.lost.values():
            if lost.kill_at is not None and lost.kill_at <= now:
                lost.kill_at = None
                self._cards.signal(lost.run_id, signal.SIGKILL)

    def _account(self) -> None:
        now = monotonic()
        room = _ERRANDS_AT_ONCE - sum(lost.sent_to is not None for lost in self._roster.lost.values())
        for lost in list(self._roster.lost.values()):
            if lost.sent_to is not None or lost.at > now:
                continue
            lost.going = self._cards.is_held(lost.run_id)
            if lost.going:
                lost.at = now + _TICK_SECONDS
            elif not self._cards.lies(lost.run_id):
                self._roster.end(lost.run_id)
            elif room > 0 and (zygote := self._nursery.for_errands()):
                room -= 1
                lost.sent_to = zygote
                self._fork(zygote, lost.errand, lost.run_id, lost.instance_ref, lost.why)

    def _signalled(self) -> None:
        if self._signals.drain() & {signal.SIGTERM, signal.SIGINT} and self._stop_by is None:
            self._begin_to_stop()

    def _begin_to_stop(self) -> None:
        now = monotonic()
        kill_at = now + self._config.shutdown_grace_seconds
        self._stop_by = kill_at + _ERRANDS_SECONDS
        _log.info("ending", running=len(self._roster.running), queued=len(self._roster.queued))
        self._reception.close()
        for given in list(self._roster.queued.values()):
            why = f"The warm run host was ended before run {given.run_id} was started."
            self._roster.lose(given, Lost(given.run_id, given.instance_ref, why))
        for given in self._roster.running.values():
            given.kill_at = min(given.kill_at or kill_at, kill_at)
            self._signal(given, signal.SIGTERM)
        for lost in self._roster.lost.values():
            if lost.going:
                lost.kill_at = kill_at
                self._cards.signal(lost.run_id, signal.SIGTERM)

    def _is_over(self) -> bool:
        if self._stop_by is None:
            return False
        return not (self._roster.running or self._roster.lost) or monotonic() > self._stop_by
