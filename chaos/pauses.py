"""Workers whose clock stops past their lease, at every step of the purchase protocol, for real: 66 seconds of SIGSTOP.

A lease is counted on the worker's own monotonic clock, which nobody can set ahead, so this pause is not simulated: one
worker after the other falls asleep at its point, all sleep together for longer than a lease, others take over, and
then all wake up and go on where they were.
"""

import os
import signal
import time
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from uuid import UUID

import psutil
from sqlalchemy import text

from chaos.campaign import Result
from chaos.invariants import Violation
from chaos.points import AFTER, BEFORE, COMMIT, REQUEST, Fate
from chaos.postgres import state_of
from chaos.scripted import Scripted
from chaos.stage import Stage
from resources.db.order_store import LEASE_SECONDS

_SLEEP = LEASE_SECONDS + 6
_FALLS_ASLEEP_WITHIN = 10.0
_SETTLED = 400.0
_GOES_ON_WITHIN = 30.0
_COMMITS = (
    "unit claimed, or put back for later",
    "intent to buy",
    "purchase cleared to be sent",
    "eSIM delivered, cost booked",
)
# The request of each provider that buys, as the how-manieth of its method it is in one purchase.
_PURCHASES = (
    ("POST airalo", 2),
    ("POST esim_access", 2),
    ("POST esim_go", 2),
    ("PUT mobimatter", 1),
    ("POST esim_card", 2),
)


def fates() -> list[tuple[Fate, int]]:
    """Return every pause, with the number of the package whose first provider it concerns."""
    sleep = signal.SIGSTOP
    found = [(Fate(COMMIT, side, 1, name, sleep), 0) for name in _COMMITS for side in (BEFORE, AFTER)]
    found += [
        (Fate(REQUEST, side, nth, name, sleep), n)
        for n, (name, nth) in enumerate(_PURCHASES)
        for side in (BEFORE, AFTER)
    ]
    return found


def pause_past_the_lease(
    stage: Stage, seed: int, steps: Sequence[tuple[Fate, int]] = (), *, in_real_time: bool = True
) -> Result:
    """Put workers to sleep at every step (or those named), let others take over, wake them, and compare all sides.

    Where it is not done in real time the shared clock leaps instead: who wakes up believes in a lease that all others
    see as over, so that nothing but the store's own checks can keep it from doing harm.
    """
    with stage.shop(f"pauses-{seed}") as shop:
        play = Scripted(shop, f"pauses-{seed}")
        asleep: list[ForkServerProcess] = []
        try:
            for fate, package in steps or fates():
                play.order(shop.package_ids[package])
                process = shop.start_drain(fate=fate, workers=1, idle_seconds=0.5, max_seconds=8.0)
                shop.drains.remove(process)
                if _falls_asleep(process):
                    asleep.append(process)
            if in_real_time:
                time.sleep(_SLEEP)
            else:
                shop.stage.leap_to(shop.clock.ahead_seconds + _SLEEP)
            late = _goes_on(play)
            for seconds in (0.0, _SETTLED):  # what they left is looked up, and after the settle time bought elsewhere
                shop.stage.leap_to(shop.clock.ahead_seconds + seconds)
                shop.start_drain(workers=10, idle_seconds=0.5, max_seconds=3.0 if in_real_time else 1.0)
                shop.end_drains(30.0)
            for process in asleep:
                os.kill(process.pid or 0, signal.SIGCONT)
        finally:
            shop.drains.extend(asleep)  # whatever happens, they end with the shop
        play.tally.add("workers that slept past their lease and woke up", len(asleep))
        play.tally.add("woken workers that did not end by themselves, killed", shop.end_drains(60.0))
        result = play.end()
        result.violations += late
        return result


def _goes_on(play: Scripted) -> list[Violation]:
    """Have one more order worked while the others sleep, with whatever they hold."""
    play.order(play.shop.package_ids[0])
    play.shop.start_drain(workers=10, idle_seconds=0.5, max_seconds=5.0)
    killed = play.shop.end_drains(_GOES_ON_WITHIN)
    order_id = play.baskets[-1].order_id
    with play.shop.engine.connect() as conn:
        status = conn.scalar(text("select status from orders where order_id = :order_id"), {"order_id": order_id})
    if status == "completed" and not killed:
        return []
    return [Violation("others go on while one sleeps", f"a fresh order is {status}", UUID(order_id))]


def _falls_asleep(process: ForkServerProcess) -> bool:
    """Wait until a worker has stopped itself; False when it ended without coming to its point."""
    until = time.monotonic() + _FALLS_ASLEEP_WITHIN
    while time.monotonic() < until and process.exitcode is None:
        if state_of(process.pid or 0) == psutil.STATUS_STOPPED:
            return True
        time.sleep(0.02)
    process.kill()
    process.join()
    return False
