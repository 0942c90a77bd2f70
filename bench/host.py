"""What the machine under a benchmark gave to others: a virtual one may have its processors taken away at any moment."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil


@contextmanager
def stolen_share() -> Iterator[None]:
    """Print, after the block, the share of processor time that the host took for others; silent where it took none."""
    before = psutil.cpu_times()
    yield
    after = psutil.cpu_times()
    stolen = getattr(after, "steal", 0.0) - getattr(before, "steal", 0.0)
    share = stolen / max(0.001, sum(after) - sum(before))
    if share >= 0.01:
        print(f"  meanwhile the host took {share:.0%} of all processor time for others", flush=True)
