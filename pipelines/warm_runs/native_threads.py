"""Which native threads a zygote has, and how it gets by with almost none.

A fork copies the thread that forks and no other. A lock that another thread held stays locked in the child for ever, so
a zygote should fork with no thread that may hold one. Python's own it never starts; native libraries start theirs when
they are imported:

- jemalloc, within polars, frees memory in the background, taking the allocator's locks. `QUIET` keeps it from that. A
  child loses nothing: jemalloc switches its background threads off in every fork, and frees memory as it goes.
- DuckDB's default connection, which nothing of ours uses, has one worker for each further processor. `still` ends them;
  connections that a child opens have their own.
- polars' cleaner of spilled files cannot be kept from starting. It is parked on an empty queue, with nothing in its
  hands, until a query spills to disk, and in a zygote none runs. So a fork finds it parked, and a child does without.
"""

import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

QUIET: Mapping[str, str] = {"_RJEM_MALLOC_CONF": "background_thread:false"}
PARKED = frozenset({"polars-ooc-clea"})  # as the kernel shortens it


def still() -> None:
    """End the native threads that were started on import and can be ended."""
    if (duckdb := sys.modules.get("duckdb")) is not None:
        duckdb.execute("set threads = 1")


def other_threads() -> list[str]:
    """Return the names of this process's threads but for the first; nothing where the system does not tell."""
    names = []
    with suppress(OSError):  # no /proc here
        process = Path("/proc/self")
        first = process.resolve().name
        for task in (process / "task").iterdir():
            with suppress(OSError):  # it ended while we looked
                if task.name != first:
                    names.append((task / "comm").read_text().strip())
    return sorted(names)
