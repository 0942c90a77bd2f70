"""Where launchers knock: the host's socket, its lock, and one visit per connection."""

import fcntl
import os
import selectors
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from pipelines.warm_runs.config import make_place
from pipelines.warm_runs.roster import Given
from pipelines.warm_runs.wire import Lines, Message, line

_log = structlog.get_logger("numnaroad.warm_runs")


class AlreadyServed(Exception):
    """Another host serves this place."""


class Visit:
    """One connection of a launcher, and the run it has offered on it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.offered: Given | None = None
        self._lines = Lines()

    def read(self) -> list[Message] | None:
        """Return what was said; None when the other side has hung up."""
        piece = self.connection.recv(65536)
        return self._lines.feed(piece) if piece else None

    def answer(self, message: Message) -> None:
        """Say something, if anybody listens still."""
        with suppress(OSError):
            self.connection.sendall(line(message))


class Reception:
    """Listens at a place, for one host at a time; what is asked is answered by `answer`."""

    def __init__(
        self, place: Path, selector: selectors.BaseSelector, answer: Callable[[Visit, Message], Message]
    ) -> None:
        self._place, self._selector, self._answer = place, selector, answer
        self._lock = _lock(place)
        self._listener: socket.socket | None = None

    def open(self) -> None:
        """Begin to listen."""
        path = self._place / "host.sock"
        path.unlink(missing_ok=True)  # of a host that was killed: we hold the lock
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(128)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Listen no more; who is in may finish."""
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            (self._place / "host.sock").unlink(missing_ok=True)

    def leave(self, keep_folder: bool) -> None:
        """Give up the place, and leave nothing behind where no run is to be accounted for."""
        with suppress(OSError):  # cards lie there still
            (self._place / "runs").rmdir()
        (self._place / "host.lock").unlink(missing_ok=True)
        os.close(self._lock)
        if not keep_folder:
            with suppress(OSError):
                self._place.rmdir()

    def _accept(self) -> None:
        with suppress(OSError):  # nobody there any more, or no file can be opened: who calls goes elsewhere
            assert self._listener is not None  # noqa: S101 - it is what became readable
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            visit = Visit(connection)
            self._selector.register(connection, selectors.EVENT_READ, lambda: self._attend(visit))

    def _attend(self, visit: Visit) -> None:
        try:
            messages = visit.read()
        except BlockingIOError:
            return
        except (OSError, ValueError):
            messages = None
        if messages is None:
            self._selector.unregister(visit.connection)
            visit.connection.close()
            return
        for message in messages:
            try:
                answer = self._answer(visit, message)
            except (OSError, ValueError) as error:  # no room for a card, or no run id
                _log.exception("a request was refused", request=message.get("do"))
                answer = {"refused": str(error)}
            visit.answer(answer)


def _lock(place: Path) -> int:
    """Hold the place for as long as this process lives."""
    path = make_place(place) / "host.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise AlreadyServed(f"another host serves {place}; end it first") from error
    with suppress(FileNotFoundError):
        if path.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    os.close(descriptor)  # a host that was leaving took the file away
    return _lock(place)
