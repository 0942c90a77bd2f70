"""Requests that come together are served together, and one that fails or goes away harms no other."""

import asyncio
from collections.abc import Sequence

import pytest

from api.intake import Intake
from tests.batched_work import Counting


async def behind_a_first(work: Counting, items: Sequence[int], leaves: int | None = None) -> list[object]:
    """Hold up a first request until all `items` wait behind it, one of which may leave; return what each got."""
    intake = Intake(work)
    work.go_on.clear()
    first = asyncio.create_task(intake.submit(1))
    await asyncio.to_thread(work.begun.wait, 20)
    others = [asyncio.create_task(intake.submit(item)) for item in items]
    await asyncio.sleep(0)  # let each of them begin
    if leaves is not None:
        others[leaves].cancel()
    work.go_on.set()
    assert await first == 10
    return list(await asyncio.gather(*others, return_exceptions=True))


def test_those_who_come_while_one_is_served_go_together() -> None:
    work = Counting()
    assert asyncio.run(behind_a_first(work, [2, 3, 4])) == [20, 30, 40]
    assert work.batches == [[1], [2, 3, 4]]


def test_one_that_fails_harms_no_other() -> None:
    two, failed, four = asyncio.run(behind_a_first(Counting(), [2, -3, 4]))
    assert (two, four) == (20, 40)
    assert isinstance(failed, ValueError)


def test_one_that_left_harms_no_other_and_a_later_one_is_served() -> None:
    work = Counting()
    left, three = asyncio.run(behind_a_first(work, [2, 3], leaves=0))
    assert isinstance(left, asyncio.CancelledError)
    assert three == 30
    assert asyncio.run(Intake(work).submit(5)) == 50


def test_what_fails_alone_is_raised() -> None:
    work = Counting()
    with pytest.raises(ValueError, match="negative"):
        asyncio.run(Intake(work).submit(-1))
