"""Sleep until the store says there is something to do: PostgreSQL's LISTEN on a thread of its own."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import psycopg
from psycopg import sql

_SLICE_SECONDS = 0.1
_AGAIN_SECONDS = 1.0
_log = logging.getLogger("numnaroad.wakeups")


class Wakeups:
    """A flag that is raised by notifications (and by anybody else who calls `wake`), and waited for."""

    def __init__(self) -> None:
        self._raised = Event()
        self._stopping = Event()
        self.listening = Event()

    def wake(self) -> None:
        """Raise the flag."""
        self._raised.set()

    def wait(self, seconds: float) -> bool:
        """Wait for the flag for at most `seconds`, take it down, and return whether it was up."""
        raised = self._raised.wait(max(0.0, seconds))
        self._raised.clear()
        return raised

    def stop(self) -> None:
        """End the listening."""
        self._stopping.set()
        self.wake()

    def listen(self, url: str, channels: tuple[str, ...]) -> None:
        """Raise the flag at every notification until stopped; a lost connection is opened again and wakes too."""
        while not self._stopping.is_set():
            try:
                with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
                    self._hear(connection, channels)
            except psycopg.OperationalError as error:
                _log.warning("listening again in %s s: %s", _AGAIN_SECONDS, type(error).__name__)
                self._stopping.wait(_AGAIN_SECONDS)

    def _hear(self, connection: psycopg.Connection, channels: tuple[str, ...]) -> None:
        for channel in channels:
            connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
        self.listening.set()
        self.wake()  # what was written before we listened is found by looking
        while not self._stopping.is_set():
            for _ in connection.notifies(timeout=_SLICE_SECONDS, stop_after=1):
                self.wake()


@contextmanager
def wakeups(url: str, *channels: str) -> Iterator[Wakeups]:
    """Listen to channels while the block runs."""
    flag = Wakeups()
    listener = Thread(target=flag.listen, args=(url, channels), name=f"listen-{'-'.join(channels)}", daemon=True)
    listener.start()
    try:
        yield flag
    finally:
        flag.stop()
        listener.join(timeout=5)


class Ear:
    """A connection that listens already, so that what is written after a look is not missed."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def hear(self, seconds: float) -> bool:
        """Wait for a notification for at most `seconds`; return whether one came."""
        heard = self._connection.notifies(timeout=max(0.0, seconds), stop_after=1)
        return any(True for _ in heard)


@contextmanager
def listening(url: str, channel: str) -> Iterator[Ear]:
    """Listen to one channel on this thread while the block runs."""
    with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
        connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
        yield Ear(connection)
