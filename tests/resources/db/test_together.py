"""Callers who come together are served together, and one that fails harms no other."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.errors import DeadlockDetected
from sqlalchemy.exc import OperationalError

from resources.db.together import Together
from tests.batched_work import Counting


def test_one_alone_is_served_at_once_by_itself() -> None:
    work = Counting()
    assert Together(work).submit(4) == 40
    assert work.batches == [[4]]


def served_together(work: Counting, items: Sequence[int], most: int = 100) -> list[object]:
    """Hold up a first caller until all `items` wait behind it; return what each got."""
    together = Together(work, most)
    work.go_on.clear()
    with ThreadPoolExecutor(len(items) + 1) as pool:
        first = pool.submit(together.submit, 1)
        assert work.begun.wait(20)
        waiting = [pool.submit(together.submit, item) for item in items]
        pause = Event()
        while len(together._waiting) < len(items):
            pause.wait(0.005)
        work.go_on.set()
        assert first.result(20) == 10
        return [future.exception(20) or future.result(20) for future in waiting]


def test_those_who_wait_are_served_in_one_batch() -> None:
    work = Counting()
    assert served_together(work, [2, 3, 4]) == [20, 30, 40]
    assert [sorted(batch) for batch in work.batches] == [[1], [2, 3, 4]]


def test_a_batch_has_a_bound() -> None:
    work = Counting()
    assert served_together(work, [2, 3, 4, 5, 6], most=2) == [20, 30, 40, 50, 60]
    assert [len(batch) for batch in work.batches] == [1, 2, 2, 1]


def test_a_gap_gathers_those_who_come_in_it() -> None:
    work, pause = Counting(), Event()

    def gap() -> float:
        while len(together._waiting) < 3:
            pause.wait(0.005)
        return 0.0

    together = Together[int, int](work, gap=gap)
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(together.submit, [2, 3, 4])) == [20, 30, 40]
    assert [sorted(batch) for batch in work.batches] == [[2, 3, 4]]


def test_one_that_fails_harms_no_other() -> None:
    results = served_together(Counting(), [2, -3, 4])
    assert (results[0], results[2]) == (20, 40)
    assert isinstance(results[1], ValueError)


def test_all_hear_at_once_that_the_store_is_away() -> None:
    calls: list[int] = []

    class Away(Counting):
        def __call__(self, items: Sequence[int]) -> list[int]:
            super().__call__(items)
            calls.append(len(items))
            if len(items) > 1:
                raise OperationalError("select", {}, Exception("gone"))
            return [item * 10 for item in items]

    results = served_together(Away(), [2, 3, 4])
    assert [type(result) for result in results] == [OperationalError] * 3
    assert calls == [1, 3]


def test_a_batch_that_waited_in_a_circle_is_served_one_by_one() -> None:
    class Circling(Counting):
        def __call__(self, items: Sequence[int]) -> list[int]:
            if len(items) > 1:
                raise OperationalError("insert", {}, DeadlockDetected("deadlock detected"))
            return super().__call__(items)

    assert served_together(Circling(), [2, 3, 4]) == [20, 30, 40]


def test_a_leader_that_is_torn_away_leaves_nobody_waiting() -> None:
    class Torn(BaseException):
        pass

    class Tearing(Counting):
        def __call__(self, items: Sequence[int]) -> list[int]:
            results = super().__call__(items)
            if len(items) > 1:
                raise Torn
            return results

    work = Tearing()
    results = served_together(work, [2, 3])
    assert [type(result) for result in results] == [Torn, Torn]


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40), st.integers(1, 7))
def test_everybody_gets_the_own_result(items: list[int], most: int) -> None:
    together = Together[int, int](lambda batch: [item * 10 for item in batch], most)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(together.submit, items)) == [item * 10 for item in items]


def test_what_is_raised_for_one_is_raised_in_its_caller() -> None:
    with pytest.raises(ValueError, match="negative"):
        Together(Counting()).submit(-1)
