"""A clock that all processes of a campaign share: the real time, plus what the campaign leapt over.

The lead is one number in a small file that every process maps into its memory, so reading it costs nothing and a leap
is seen by all at once.
"""

import mmap
import struct
from datetime import datetime, timedelta
from pathlib import Path

from resources.order_operations import utc_now

_NUMBER = struct.Struct("<d")


class SharedClock:
    """The time, for everybody who names the same file; it can be pickled, and every process maps the file anew."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._map: mmap.mmap | None = None
        if not file.exists():
            file.write_bytes(_NUMBER.pack(0.0))

    def __call__(self) -> datetime:
        """Return the time."""
        return utc_now() + timedelta(seconds=self.ahead_seconds)

    def __reduce__(self) -> tuple[type["SharedClock"], tuple[Path]]:
        """Send the file's name to another process, not this process's map of it."""
        return SharedClock, (self._file,)

    @property
    def ahead_seconds(self) -> float:
        """By how much this clock is ahead of the real one."""
        return float(_NUMBER.unpack(self._memory[: _NUMBER.size])[0])

    def set_ahead(self, seconds: float) -> None:
        """Put this clock ahead of the real one, for everybody."""
        self._memory[: _NUMBER.size] = _NUMBER.pack(seconds)

    @property
    def _memory(self) -> mmap.mmap:
        if self._map is None:
            with self._file.open("r+b") as file:
                self._map = mmap.mmap(file.fileno(), _NUMBER.size)
        return self._map
