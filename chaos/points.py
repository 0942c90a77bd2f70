"""Where a worker process dies or falls asleep: before or after a commit, before or after a request to a provider.

A commit is named by what its transaction wrote, so that the points are found by watching the store and not by a list
that somebody has to keep: `Fate.of` draws one at random, and `chaos.sweep` goes through all of them.
"""

import os
import re
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from threading import Lock
from typing import Any

import httpx
from sqlalchemy import Connection, Engine, event

from resources.tls import tls_context

BEFORE, AFTER = "before", "after"
COMMIT, REQUEST = "commit", "request"
SURVEY = "survey"
_WRITE = re.compile(r"\b(insert into|(?<!for )(?<!do )update|delete from)\s+(\w+)")
# The first rule whose writes are all in the transaction names it.
_NAMES: tuple[tuple[str, frozenset[str]], ...] = tuple(
    (name, frozenset(writes.split(", ")))
    for name, writes in (
        ("intent to buy", "insert purchase_attempts"),
        ("late purchase to stock", "insert stock_esims"),
        ("eSIM delivered, cost booked", "update purchase_attempts, insert ledger_entries"),
        ("refund booked", "update refunds, insert ledger_entries"),
        ("fee booked", "insert ledger_entries"),
        ("given up, refund asked for", "insert refunds"),
        ("purchase open, refused or taken back", "update purchase_attempts, insert order_events"),
        ("purchase cleared to be sent", "update purchase_attempts"),
        ("refund not paid", "update refunds, insert order_events"),
        ("refund claimed or called off", "update refunds"),
        ("notice claimed or sent", "update outbox"),
        ("unit claimed, or put back for later", "insert order_events"),
        ("provider event heeded", "update inbox_events"),  # it may make a unit due, too
        ("lease prolonged, or look-up claimed", "update esims"),
        ("provider's health", "update providers"),
        ("payment's fee claimed", "update orders"),
        ("token kept", "insert provider_tokens"),
        ("token forgotten", "delete provider_tokens"),
        ("offer rests", "insert offer_outages"),
        ("slot within a rate limit", "insert rate_limits"),
        ("drain registered", "insert drains"),
        ("drain's heartbeat or end", "update drains"),
    )
)
COMMITS = tuple(name for name, _ in _NAMES)


def writes_of(statement: str) -> set[str]:
    """Return what a statement writes, such as `update esims`."""
    found = _WRITE.findall(" ".join(statement.lower().split()))
    return {f"{verb.split()[0]} {table}" for verb, table in found}


def name_of(writes: set[str]) -> str:
    """Return what a transaction that wrote this is for, in a few words; its writes where no rule fits."""
    return next((name for name, needed in _NAMES if needed <= writes), ", ".join(sorted(writes)))


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to a worker at the `nth` point that fits; an empty name fits every point of its kind."""

    kind: str
    side: str
    nth: int
    name: str = ""
    signal: int = signal.SIGKILL

    @property
    def point(self) -> str:
        """The point in words."""
        return f"{self.side} {self.kind}: {self.name}" if self.name else f"{self.side} any {self.kind}"

    @classmethod
    def of(cls, rng: Random) -> "Fate":
        """Draw a death at random: mostly around commits, sometimes around requests to providers."""
        kind = rng.choices((COMMIT, REQUEST), (3, 1))[0]
        return cls(kind, rng.choice((BEFORE, AFTER)), rng.randint(1, 40 if kind == COMMIT else 12))


class Reaper:
    """Watches one process's commits and requests, and strikes when the time has come.

    Every strike is written to `diary` first, one line each; with the kind `survey` it only counts what it sees.
    """

    def __init__(self, fate: Fate | None, diary: Path) -> None:
        self._fate, self._diary, self._lock = fate, diary, Lock()
        self._left = fate.nth if fate else 0
        self.seen: Counter[str] = Counter()

    def watch(self, engine: Engine) -> None:
        """Follow every transaction of an engine."""
        event.listen(engine, "before_cursor_execute", self._executes)
        event.listen(engine, "after_cursor_execute", self._executed)
        event.listen(engine, "commit", self._commits)
        event.listen(engine, "rollback", _rolls_back)
        event.listen(engine.pool, "checkin", self._returns)

    def passes(self, kind: str, side: str, name: str) -> None:
        """Note that a point is passed, and strike if it is the one."""
        fate = self._fate
        if fate is None:
            return
        with self._lock:
            if fate.kind == SURVEY:
                self.seen[f"{kind}|{side}|{name}"] += 1
                return
            if (fate.kind, fate.side) != (kind, side) or fate.name not in {"", name}:
                return
            self._left -= 1
            if self._left == 0:
                self._strike(fate, f"{side} {kind}: {name}")

    def _strike(self, fate: Fate, point: str) -> None:
        with self._diary.open("a") as diary:
            diary.write(f"{signal.Signals(fate.signal).name} {point}\n")
        os.kill(os.getpid(), fate.signal)

    def _executes(self, conn: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        writes = writes_of(statement)
        if writes and _is_at_once(conn):
            self.passes(COMMIT, BEFORE, name_of(writes))
        elif writes:
            conn.info["writes"] = conn.info.get("writes", set()) | writes

    def _executed(self, conn: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if _is_at_once(conn) and (writes := writes_of(statement)):
            self.passes(COMMIT, AFTER, name_of(writes))

    def _commits(self, conn: Connection) -> None:
        writes = conn.info.pop("writes", None)
        if writes:
            self.passes(COMMIT, BEFORE, name_of(writes))
            conn.info["committed"] = name_of(writes)

    def _returns(self, _connection: Any, record: Any) -> None:
        # SQLAlchemy tells of a commit before it is made; when the connection is back in the pool, it was.
        name = record.info.pop("committed", None) if record is not None else None
        if name is not None:
            self.passes(COMMIT, AFTER, name)


def _is_at_once(conn: Connection) -> bool:
    """Return whether each statement is a transaction of its own (`resources.db.databases.at_once`)."""
    return conn.get_execution_options().get("isolation_level") == "AUTOCOMMIT"


def _rolls_back(conn: Connection) -> None:
    conn.info.pop("writes", None)
    conn.info.pop("committed", None)


class WatchedTransport(httpx.BaseTransport):
    """Sends requests to a provider, with a point before each leaves and one when its answer is there."""

    def __init__(self, slug: str, reaper: Reaper) -> None:
        self._slug, self._reaper = slug, reaper
        self._inner = httpx.HTTPTransport(
            verify=tls_context(), limits=httpx.Limits(max_connections=64, max_keepalive_connections=64)
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request."""
        name = f"{request.method} {self._slug}"
        self._reaper.passes(REQUEST, BEFORE, name)
        response = self._inner.handle_request(request)
        self._reaper.passes(REQUEST, AFTER, name)
        return response

    def close(self) -> None:
        """Give connections back."""
        self._inner.close()
