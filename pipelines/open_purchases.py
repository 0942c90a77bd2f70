"""Look up every purchase that has no end yet, once, side by side: the safety net beside the drains."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pipelines.unit_work import UnitReport, look_up_attempt
from resources.db.inbox import work_provider_event
from resources.db.leases import reclaim_expired
from resources.db.order_store import claim_open_units
from resources.order_operations import OrderTools

WORKERS = 8
_AT_ONCE = 64


def look_up_open_purchases(tools: OrderTools, actor: str, run_id: str | None) -> list[UnitReport]:
    """Take back units of lost workers, heed provider events, and ask about every open purchase that is due."""
    reclaim_expired(tools.engine, actor, tools.clock(), run_id=run_id)
    attempts = [(attempt_id, 0) for attempt_id in _late_arrivals(tools)]
    reports: list[UnitReport] = []
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="look-up") as pool:
        while attempts := attempts + _due(tools):
            reports += _all(pool, tools, attempts, actor, run_id)
            attempts = []
    return reports


def _due(tools: OrderTools) -> list[tuple[int, int]]:
    return [(unit.attempt_id, unit.n) for unit in claim_open_units(tools.engine, _AT_ONCE, tools.clock())]


def _late_arrivals(tools: OrderTools) -> list[int]:
    late: list[int] = []
    while True:
        with tools.engine.begin() as conn:
            found = work_provider_event(conn, tools.clock())
        if found is None:
            return late
        late += found


def _all(
    pool: ThreadPoolExecutor,
    tools: OrderTools,
    attempts: Sequence[tuple[int, int]],
    actor: str,
    run_id: str | None,
) -> list[UnitReport]:
    jobs = [pool.submit(partial(look_up_attempt, tools, attempt, n, actor, run_id)) for attempt, n in attempts]
    return [report for job in jobs for report in job.result()]
