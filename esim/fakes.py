"""In-memory implementations of the ports, typed and shipped: for tests, the demo and trying things out.

They keep what they were given in plain lists that can be looked at, and do what they are told to do next.
"""

from datetime import datetime


class MemoryTokenStore:
    """Access tokens in a dictionary: a `TokenStore` for one process."""

    def __init__(self) -> None:
        self._tokens: dict[str, tuple[str, datetime]] = {}

    def get(self, provider: str, now: datetime) -> str | None:
        """Return a token that is still good, if there is one."""
        token, expires_at = self._tokens.get(provider, ("", now))
        return token if expires_at > now else None

    def put(self, provider: str, token: str, expires_at: datetime) -> None:
        """Keep a fresh token."""
        self._tokens[provider] = (token, expires_at)

    def discard(self, provider: str, token: str) -> None:
        """Forget this token, unless it was replaced already."""
        if self._tokens.get(provider, ("",))[0] == token:
            del self._tokens[provider]
