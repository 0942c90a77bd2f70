"""Work done in batches, for those who test that callers are served together."""

from collections.abc import Sequence
from threading import Event


class Counting:
    """Work that remembers its batches and can be held up."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun, self.go_on = Event(), Event()
        self.go_on.set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.begun.set()
        assert self.go_on.wait(20)
        self.batches.append(list(items))
        if any(item < 0 for item in items):
            raise ValueError("a negative number")
        return [item * 10 for item in items]
