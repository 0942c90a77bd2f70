"""Published rate limits, obeyed by all processes together: GCRA in one statement per call, on the database's clock.

A quarter of a limit may go out at once; the rest is spaced so that no window, wherever it begins, holds more calls
than the limit allows.
"""

import time
from collections.abc import Callable

from sqlalchemy import Engine, text

from esim.ports import RateLimit

# `theoretical_arrival_at` is when the next call would be due if calls were evenly spaced. A call may come `slack`
# early; one that would have to wait beyond the caller's patience changes nothing and returns no row.
_ACQUIRE = text(
    """
    insert into rate_limits as r (key, theoretical_arrival_at)
    values (:key, clock_timestamp() + make_interval(secs => :spacing))
    on conflict (key) do update
    set theoretical_arrival_at = greatest(r.theoretical_arrival_at, clock_timestamp())
        + make_interval(secs => :spacing)
    where greatest(r.theoretical_arrival_at, clock_timestamp())
        <= clock_timestamp() + make_interval(secs => :slack + :patience)
    returning extract(epoch from r.theoretical_arrival_at - clock_timestamp()) - :spacing - :slack
    """
)


class PostgresLimiter:
    """A `Limiter` shared by every process that uses the same database."""

    def __init__(self, engine: Engine, sleep: Callable[[float], None] = time.sleep) -> None:
        self._engine = engine
        self._sleep = sleep

    def acquire(self, key: str, limit: RateLimit, *, patience_seconds: float) -> bool:
        """Wait for a slot for at most `patience_seconds`; return whether one was given."""
        spacing, slack = spacing_seconds(limit)
        values = {"key": key, "spacing": spacing, "slack": slack, "patience": max(0.0, patience_seconds)}
        with self._engine.begin() as conn:
            wait = conn.scalar(_ACQUIRE, values)
        if wait is None:
            return False
        if wait > 0:
            self._sleep(float(wait))
        return True


def spacing_seconds(limit: RateLimit) -> tuple[float, float]:
    """Return the seconds between two calls, and how early a call may come (the burst).

    With `burst` calls at once and one each `spacing` seconds, any window of `per_seconds` holds at most
    `burst + (calls - burst)` calls.
    """
    burst = max(1, limit.calls // 4)
    spacing = limit.per_seconds / (limit.calls - burst + 1)
    return spacing, spacing * (burst - 1)
