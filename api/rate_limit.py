"""How often one client may ask: a token bucket per client address, in this process's memory.

Each process counts for itself, so with N workers a client spread over all of them gets up to N times the limit; that is
enough against abuse and costs a dictionary look-up instead of a database write per request. IPv6 clients are counted by
their /64, the smallest network one customer is given.
"""

import time
from collections.abc import Callable
from math import ceil

CLIENTS_KEPT = 50_000


class TokenBuckets:
    """`per_minute` requests a client: that many at once, refilled evenly."""

    __slots__ = ("_buckets", "_capacity", "_clock", "_most", "_per_second")

    def __init__(
        self, per_minute: int, clock: Callable[[], float] = time.monotonic, clients: int = CLIENTS_KEPT
    ) -> None:
        self._capacity = float(per_minute)
        self._per_second = per_minute / 60
        self._clock = clock
        self._most = clients
        self._buckets: dict[str, list[float]] = {}  # client -> [tokens, when counted]

    def take(self, client: str) -> bool:
        """Count one request; return whether the client still had one left."""
        now = self._clock()
        bucket = self._buckets.get(client)
        if bucket is None:
            if len(self._buckets) >= self._most:
                self._forget_idle(now)
            self._buckets[client] = [self._capacity - 1, now]
            return self._capacity >= 1
        tokens = bucket[0] + (now - bucket[1]) * self._per_second
        tokens = min(tokens, self._capacity)
        bucket[1] = now
        if tokens < 1:
            bucket[0] = tokens
            return False
        bucket[0] = tokens - 1
        return True

    def retry_after(self, client: str) -> int:
        """Return in how many whole seconds the client has a request left again."""
        bucket = self._buckets.get(client)
        missing = 1 - bucket[0] if bucket else 0.0
        return max(1, ceil(missing / self._per_second)) if self._per_second else 60

    def _forget_idle(self, now: float) -> None:
        """Drop clients whose bucket is full again; if that frees too little, the half that was counted first."""
        full_after = self._capacity / self._per_second if self._per_second else 60.0
        self._buckets = {client: b for client, b in self._buckets.items() if now - b[1] < full_after}
        if len(self._buckets) > self._most // 2:
            keep = sorted(self._buckets.items(), key=lambda item: item[1][1])[-(self._most // 2) :]
            self._buckets = dict(keep)

    def __len__(self) -> int:
        return len(self._buckets)


def client_of(address: str) -> str:
    """Return who is counted for a client address."""
    if ":" not in address:
        return address
    from ipaddress import IPv6Address, ip_network

    try:
        ip = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(ip.ipv4_mapped) if ip.ipv4_mapped else str(ip_network((ip, 64), strict=False))
