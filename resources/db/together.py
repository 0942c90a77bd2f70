"""What many threads want from the store at the same moment, done in one transaction: whoever comes first does it.

A thread that comes alone is served at once, by itself. While it works, others queue up; the first of them serves all
that wait by then. So a quiet shop waits for nobody, and a busy one pays for one commit instead of a hundred.

Between being quiet and being buried there is a load at which each comes just too late for the batch before: then a
`gap` between the batches gathers them.
"""

from collections import deque
from collections.abc import Callable, Sequence
from threading import Event, Lock
from time import monotonic, sleep
from typing import Generic, TypeVar

from psycopg.errors import DeadlockDetected
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection

T = TypeVar("T")
R = TypeVar("R")
# An internal error is what a worker sees whose transaction the server ended while it stood still.
STORE_AWAY = (OperationalError, InterfaceError, InternalError, NoConnection)


class _Entry(Generic[T, R]):
    """One thing wanted, and what came of it."""

    def __init__(self, item: T) -> None:
        self.item = item
        self.woken = Event()
        self.leads = False
        self.result: R
        self.error: BaseException | None = None


class Together(Generic[T, R]):
    """Serves callers in batches: `work` takes items and returns as many results, in order, or raises and did nothing.

    What becomes of a batch that fails is `served`'s to say. `gap()` seconds at least lie between the starts of two
    batches.
    """

    def __init__(
        self, work: Callable[[Sequence[T]], Sequence[R]], most: int = 100, *, gap: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._work, self._most, self._gap = work, most, gap
        self._served_at = float("-inf")
        self._lock = Lock()
        self._waiting: deque[_Entry[T, R]] = deque()
        self._led = False

    def submit(self, item: T) -> R:
        """Return what came of `item`, done alone or together with others.

        Raises:
            Exception: whatever `work` raised for it.
        """
        entry = _Entry[T, R](item)
        with self._lock:
            self._waiting.append(entry)
            entry.leads, self._led = not self._led, True
        if not entry.leads:
            entry.woken.wait()
        if entry.leads:
            self._lead()
        if entry.error is not None:
            raise entry.error
        return entry.result

    def _lead(self) -> None:
        """Serve one batch, the caller's own item first in it, and give the lead to the next who waits."""
        if (left := self._served_at + self._gap() - monotonic()) > 0:
            sleep(left)
        self._served_at = monotonic()
        with self._lock:
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
        try:
            self._serve(batch)
        except BaseException as error:
            for entry in batch:
                entry.error = entry.error or error
            raise
        finally:
            with self._lock:
                heir = self._waiting[0] if self._waiting else None
                self._led = heir is not None
            if heir is not None:
                heir.leads = True
                heir.woken.set()
            for entry in batch[1:]:
                entry.woken.set()

    def _serve(self, batch: Sequence[_Entry[T, R]]) -> None:
        for entry, result in zip(batch, served(self._work, [entry.item for entry in batch]), strict=True):
            if isinstance(result, Exception):
                entry.error = result
            else:
                entry.result = result


def served(work: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> Sequence[R | Exception]:
    """Return what came of each item: its result, or the error that `work` raised for it.

    When a batch fails, each of its items is tried alone, so that one that cannot be done harms no other; when the
    store itself is away, all of them hear so at once.
    """
    try:
        return work(items)
    except Exception as error:  # noqa: BLE001 - it is raised again for the callers, each by itself
        if len(items) == 1 or (isinstance(error, STORE_AWAY) and not _deadlocked(error)):
            return [error] * len(items)
        return [served(work, [item])[0] for item in items]


def _deadlocked(error: Exception) -> bool:
    return isinstance(error, DBAPIError) and isinstance(error.orig, DeadlockDetected)
