"""Why an order is held, as one readable line: every reason once, in the order they came, and not without end."""

SEPARATOR = "; "
MOST_CHARACTERS = 1_000
_MORE = "and more: see its history"


def add(held_for: str | None, reason: str) -> str:
    """Return what an order is held for when `reason` comes to it; what does not fit is in its history only."""
    known = _each(held_for)
    if reason in known:
        return SEPARATOR.join(known)
    longer = SEPARATOR.join([*known, reason])
    if len(longer) <= MOST_CHARACTERS or not known:
        return longer
    return SEPARATOR.join([*(one for one in known if one != _MORE), _MORE])


def besides(held_for: str | None, reason: str) -> str:
    """Return what an order is held for besides `reason`; empty where that is all."""
    return SEPARATOR.join(one for one in _each(held_for) if one != reason)


def _each(held_for: str | None) -> list[str]:
    return held_for.split(SEPARATOR) if held_for else []
