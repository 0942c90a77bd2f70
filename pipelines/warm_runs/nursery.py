"""Which zygote forks: one with the code as it is now. The ones before live on until their last child has ended."""

import selectors
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import structlog

from pipelines.warm_runs.code_watch import Code, read_code
from pipelines.warm_runs.config import WarmRunsConfig
from pipelines.warm_runs.native_threads import PARKED
from pipelines.warm_runs.wire import Message
from pipelines.warm_runs.zygote_process import ZygoteProcess

_WARM_WITHIN_SECONDS = 120.0
_LOOK_EVERY_SECONDS = 1.0
_AGAIN_SECONDS = 30.0  # for code that did not import for a reason that is in no watched file
_log = structlog.get_logger("numnaroad.warm_runs")

Heard = Callable[[ZygoteProcess, Message | None], None]  # None: the zygote is gone


class Nursery:
    """The zygotes of one host."""

    def __init__(
        self,
        config: WarmRunsConfig,
        place: Path,
        selector: selectors.BaseSelector,
        heard: Heard,
        again_seconds: float = _AGAIN_SECONDS,
    ) -> None:
        self._config, self._place, self._selector, self._heard = config, place, selector, heard
        self._folders = [Path(name).absolute() for name in config.watch]
        self._looked_at = monotonic()
        self._again_seconds = again_seconds
        self._no_room, self._again_at = "", 0.0  # why no zygote could be started, and when to try again
        self._retired: list[ZygoteProcess] = []
        self._ending: list[ZygoteProcess] = []
        self.current = self._start(read_code(self._folders))

    @property
    def refusal(self) -> str:
        """Why no run can be taken; empty when one can, if only after a warm-up."""
        broken = self.current.state in {"broken", "gone"} and not self._code_changed()
        return self._no_room or (self.current.why if broken else "")

    def ready(self) -> ZygoteProcess | None:
        """Return a zygote that has the code as it is at this moment."""
        if self._code_changed():
            self._start_over("the code has changed")
        return self.current if self.current.state == "ready" and not self._no_room else None

    def for_errands(self) -> ZygoteProcess | None:
        """Return a zygote that can do what needs none of our code."""
        able = [each for each in (*self._retired, self.current) if each.state in {"ready", "broken"}]
        return able[0] if able else None

    def look_after(self, in_use: Callable[[ZygoteProcess], bool]) -> None:
        """Start over where that is called for, let go of zygotes nobody needs, and see how the others are."""
        now, current = monotonic(), self.current
        for zygote in [each for each in self._retired if not in_use(each)]:
            self._retired.remove(zygote)
            self._hang_up(zygote)
        self._ending = [zygote for zygote in self._ending if zygote.ended() is None]
        if current.state == "warming" and now - current.born > _WARM_WITHIN_SECONDS:
            current.why = f"the zygote was not warm after {_WARM_WITHIN_SECONDS:.0f} s"
            current.kill()
        if now - self._looked_at < _LOOK_EVERY_SECONDS:
            return
        self._looked_at = now
        again = now >= self._again_at if self._no_room else now - current.born > self._again_seconds
        if current.state != "warming" and not self._no_room and self._code_changed():
            self._start_over("the code has changed")
        elif (self._no_room or current.state in {"broken", "gone"}) and again:
            self._start_over("another try")

    def close(self) -> None:
        """Hang up on all of them."""
        for zygote in (*self._retired, self.current):
            if zygote.state != "gone":
                self._hang_up(zygote)

    @property
    def all_ended(self) -> bool:
        """Return whether every zygote that was hung up on has ended."""
        return all(zygote.ended() is not None for zygote in self._ending)

    def _start(self, code: Code) -> ZygoteProcess:
        zygote = ZygoteProcess(self._config, self._place, code)
        self._selector.register(zygote, selectors.EVENT_READ, lambda: self._hear(zygote))
        _log.info("warming up", zygote=zygote.pid, module=self._config.module)
        return zygote

    def _start_over(self, why: str) -> None:
        if self.current.state == "warming":
            return  # what it becomes is compared with the code then
        before = self.current
        _log.info("starting over with fresh code", why=why, before=before.pid)
        self._replace()
        if self.current is not before and before.state != "gone":
            self._retired.append(before)

    def _replace(self) -> None:
        """Start a zygote with the code as it is; where the machine has no room for one, refuse runs for a while."""
        try:
            self.current, self._no_room = self._start(read_code(self._folders)), ""
        except OSError as error:
            self._no_room = f"no zygote can be started: {error.strerror or type(error).__name__}"
            self._again_at = monotonic() + self._again_seconds
            _log.exception("no zygote can be started", again_in_seconds=self._again_seconds)

    def _hear(self, zygote: ZygoteProcess) -> None:
        messages = zygote.receive()
        if messages is None:
            self._lose(zygote)
            return
        for message in messages:
            if message["tell"] in {"ready", "broken"}:
                zygote.state, zygote.why = message["tell"], message.get("why", "")
                _log.info("zygote is " + zygote.state, zygote=zygote.pid, why=zygote.why or None)
                if at_work := sorted({*message["threads"]} - PARKED):
                    _log.warning("a zygote has native threads that a fork leaves behind", threads=at_work)
            else:
                self._heard(zygote, message)

    def _lose(self, zygote: ZygoteProcess) -> None:
        """A zygote ended without being told to."""
        self._selector.unregister(zygote)
        was, zygote.state = zygote.state, "gone"
        zygote.hang_up()
        zygote.why = zygote.why or "the zygote ended unexpectedly"
        self._ending.append(zygote)
        if zygote in self._retired:
            self._retired.remove(zygote)
        _log.error("a zygote is gone", zygote=zygote.pid, was=was, why=zygote.why)
        self._heard(zygote, None)
        if zygote is self.current and was == "ready":
            self._replace()

    def _hang_up(self, zygote: ZygoteProcess) -> None:
        self._selector.unregister(zygote)
        zygote.state = "gone"
        zygote.hang_up()
        self._ending.append(zygote)

    def _code_changed(self) -> bool:
        try:
            return read_code(self._folders) != self.current.code
        except OSError:  # no file can be opened just now: look again later
            return False
