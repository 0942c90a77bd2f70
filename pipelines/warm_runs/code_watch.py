"""Has the code changed? A list of the watched files with their times and sizes, compared as a whole.

All files of the watched folders count, loaded or not: a look costs a few milliseconds, and a file that did not import
is in no list of loaded modules.
"""

import os
from collections.abc import Iterable
from pathlib import Path

Code = frozenset[tuple[str, int, int]]  # path, time of the last change in nanoseconds, size in bytes


def read_code(folders: Iterable[Path]) -> Code:
    """Return what the watched folders hold now; a folder that is missing holds nothing."""
    found: set[tuple[str, int, int]] = set()
    waiting = [str(folder) for folder in folders]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:  # it is gone, or not ours to read
            continue
        for entry in entries:
            if entry.name.startswith((".", "__pycache__")):
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
                continue
            try:
                status = entry.stat()
            except OSError:  # an editor's file that came and went
                continue
            found.add((entry.path, status.st_mtime_ns, status.st_size))
    return frozenset(found)
