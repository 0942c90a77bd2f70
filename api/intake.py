"""What many requests want from the store at the same moment, taken in one transaction by one thread.

The event loop's counterpart of `resources.db.together`: a request that comes alone is served at once; while a batch is
under way, others gather for the next. None of them keeps a thread waiting.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from starlette.concurrency import run_in_threadpool

from resources.db.together import served

T = TypeVar("T")
R = TypeVar("R")
MOST_AT_ONCE = 100


class Intake(Generic[T, R]):
    """Serves coroutines of one event loop in batches; `work` is as in `resources.db.together.Together`."""

    def __init__(self, work: Callable[[Sequence[T]], Sequence[R]]) -> None:
        self._work = work
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._serving: asyncio.Task[None] | None = None

    async def submit(self, item: T) -> R:
        """Return what came of `item`, done alone or together with others.

        Raises:
            Exception: whatever `work` raised for it.
        """
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve(), name="intake")
        return await answer

    async def _serve(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
                results = await run_in_threadpool(served, self._work, [item for item, _ in batch])
                for (_, answer), result in zip(batch, results, strict=True):
                    if answer.cancelled():
                        continue  # nobody waits for it any more; what was committed stays
                    if isinstance(result, Exception):
                        answer.set_exception(result)
                    else:
                        answer.set_result(result)
        finally:
            self._serving = None
