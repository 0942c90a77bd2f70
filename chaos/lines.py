"""Connections to the world outside the shop, which outlive a loaded machine."""

import httpx

_IDLE_SECONDS = 1.0  # a server hangs up after five: whoever sends at that moment hears nothing


def line(url: str, *, timeout_seconds: float) -> httpx.Client:
    """Return a client of a server on this machine."""
    return httpx.Client(base_url=url, timeout=timeout_seconds, limits=httpx.Limits(keepalive_expiry=_IDLE_SECONDS))
