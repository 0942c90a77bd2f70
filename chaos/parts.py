"""Keeps the parts of a running platform up, as a service manager does that starts a dead one again after a second.

It is no part of what is tested: it looks at nothing but whether a process lives, and leaves alone whatever a killed
process left behind.
"""

import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic

from chaos.tally import Tally

RESTART_SECONDS = 1.0
_LOOK_SECONDS = 0.05
Process = subprocess.Popen[bytes]


class Parts:
    """The named processes, each started anew whenever it is dead."""

    def __init__(self, start: Callable[[str], Process], end: Callable[[Sequence[Process]], None], tally: Tally) -> None:
        self._start, self._end, self._tally = start, end, tally
        self._now: dict[str, Process] = {}
        self._before: list[Process] = []
        self._killed: set[int] = set()
        self._dead_since: dict[str, float] = {}
        self._changed, self._stop = threading.Condition(), threading.Event()

    @contextmanager
    def kept_up(self, names: Sequence[str]) -> Iterator["Parts"]:
        """Start the parts and keep them up until the block ends; then end them and all they left behind."""
        keeper = threading.Thread(target=self._keep, name="supervisor", daemon=True)
        try:
            for name in names:
                self._now[name] = self._start(name)
            keeper.start()
            yield self
        finally:
            self._stop.set()
            if keeper.is_alive():
                keeper.join()
            self._end([*self._now.values(), *self._before])

    def kill(self, name: str) -> int | None:
        """Kill -9 one part, and nothing it started; return its process id, None where it is dead already."""
        with self._changed:
            process = self._now[name]
            if process.poll() is not None:
                return None
            self._killed.add(process.pid)
            process.kill()
            process.wait()
            return process.pid

    def await_another(self, name: str, than: int, seconds: float) -> bool:
        """Wait until a part runs as another process than this one; return whether that was in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._now[name].pid != than, seconds)

    def _keep(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            with self._changed:
                for name in self._now:
                    self._look_at(name)

    def _look_at(self, name: str) -> None:
        process = self._now[name]
        if process.poll() is None:
            return
        since = self._dead_since.setdefault(name, monotonic())
        if monotonic() - since < RESTART_SECONDS:
            return
        del self._dead_since[name]
        if process.pid not in self._killed:
            self._tally.add(f"part {name} ended by itself with {process.returncode}, started again")
        self._before.append(process)
        self._now[name] = self._start(name)
        self._changed.notify_all()
