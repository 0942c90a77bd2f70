"""Signals as something a selector waits for, so that a loop needs no thread and misses none."""

import os
import signal
import socket
from collections.abc import Iterable


class SignalPipe:
    """Becomes readable when one of the signals has come."""

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        self._ours, self._kernels = socket.socketpair()
        self._ours.setblocking(False)
        self._kernels.setblocking(False)
        signal.set_wakeup_fd(self._kernels.fileno(), warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, lambda *_: None)

    def fileno(self) -> int:
        """Return what a selector registers."""
        return self._ours.fileno()

    def drain(self) -> set[int]:
        """Return the numbers of the signals that came since the last look."""
        try:
            return set(self._ours.recv(4096))
        except BlockingIOError:
            return set()

    def close_after_fork(self) -> None:
        """Let go of it in a child, where signals mean something else."""
        signal.set_wakeup_fd(-1)
        for end in (self._ours, self._kernels):
            os.close(end.detach())
