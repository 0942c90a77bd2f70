"""What a sensor kept between two ticks, read so that a cursor of another version stops no sensor."""

import json
from typing import NamedTuple, TypeVar

T = TypeVar("T", bound=NamedTuple)


def read_cursor(cursor: str | None, shape: type[T]) -> T | None:
    """Return a cursor written as a JSON list of `shape`'s fields; None for none, or for one of another shape."""
    try:
        values = json.loads(cursor or "null")
        return shape(*values) if isinstance(values, list) else None
    except (TypeError, ValueError):
        return None
