"""What was injected and what became of it, counted while it happens."""

from collections import Counter
from pathlib import Path
from threading import Lock


class Tally:
    """Counts by a line of text, from any thread."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._lock = Lock()

    def add(self, what: str, times: int = 1) -> None:
        """Count something."""
        with self._lock:
            self.counts[what] += times

    def take_over(self, counts: Counter[str]) -> None:
        """Add another tally's counts."""
        with self._lock:
            self.counts.update(counts)


def deaths(diary: Path) -> Counter[str]:
    """Return how workers died or fell asleep by their own hand, by point."""
    if not diary.exists():
        return Counter()
    words = {"SIGKILL": "worker killed", "SIGSTOP": "worker paused"}
    lines = (line.partition(" ") for line in diary.read_text().splitlines())
    return Counter(f"{words[how]} {point}" for how, _, point in lines)
