"""The drains that are alive: how many units each works at once and how many it is working on."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, insert, select, update

from resources.db.tables import drains

ALIVE_SECONDS = 15.0  # a drain beats every second


@dataclass(frozen=True, slots=True)
class Room:
    """How many drains are alive and how many more units they can take."""

    drains: int
    units: int


def register(conn: Connection, drain_id: str, capacity: int, now: datetime, run_id: str | None) -> None:
    """Note that a drain began."""
    row = {"drain_id": drain_id, "run_id": run_id, "capacity": capacity, "started_at": now, "heartbeat_at": now}
    conn.execute(insert(drains).values(**row))


def beat(conn: Connection, drain_id: str, busy: int, now: datetime) -> None:
    """Note that a drain is alive, with the number of units it is working on."""
    conn.execute(update(drains).where(drains.c.drain_id == drain_id).values(busy=busy, heartbeat_at=now))


def end(conn: Connection, drain_id: str, now: datetime) -> None:
    """Note that a drain takes no more units."""
    conn.execute(update(drains).where(drains.c.drain_id == drain_id).values(busy=0, ended_at=now))


def room(conn: Connection, now: datetime) -> Room:
    """Return what the drains that are alive can still take."""
    d = drains.c
    alive = (d.ended_at.is_(None), d.heartbeat_at > now - timedelta(seconds=ALIVE_SECONDS))
    row = conn.execute(select(func.count(), func.coalesce(func.sum(d.capacity - d.busy), 0)).where(*alive)).one()
    return Room(int(row[0]), int(row[1]))


def unregistered(conn: Connection, run_ids: Sequence[str]) -> int:
    """Return how many of these runs have not registered a drain yet."""
    known = set(conn.scalars(select(drains.c.run_id).where(drains.c.run_id.in_(run_ids)))) if run_ids else set()
    return len(set(run_ids) - known)
