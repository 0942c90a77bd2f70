"""Look up every purchase that has no end yet, once, side by side: the safety net beside the drains."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pipelines.unit_work import UnitReport, look_up_attempt, look_up_late
from resources.db.inbox import work_provider_event
from resources.db.leases import reclaim_expired
from resources.db.order_store import claim_open_units
from resources.order_operations import OrderTools

WORKERS = 8
_AT_ONCE = 64
_log = logging.getLogger("numnaroad.look_ups")
_Work = Callable[[], Sequence[UnitReport]]


def look_up_open_purchases(tools: OrderTools, actor: str, run_id: str | None) -> list[UnitReport]:
    """Take back units of lost workers, heed provider events, and ask about every open purchase that is due."""
    reclaim_expired(tools.engine, actor, tools.clock(), run_id=run_id)
    jobs = _late_arrivals(tools, actor, run_id)
    reports: list[UnitReport] = []
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="look-up") as pool:
        while jobs := [*jobs, *_due(tools, actor, run_id)]:
            reports += _all(pool, jobs)
            jobs = []
    return reports


def _due(tools: OrderTools, actor: str, run_id: str | None) -> list[_Work]:
    units = claim_open_units(tools.engine, _AT_ONCE, tools.clock())
    return [partial(look_up_attempt, tools, unit.attempt_id, unit.n, actor, run_id) for unit in units]


def _late_arrivals(tools: OrderTools, actor: str, run_id: str | None) -> list[_Work]:
    late: list[_Work] = []
    while True:
        with tools.engine.begin() as conn:
            found = work_provider_event(conn, tools.clock())
        if found is None:
            return late
        late += [partial(look_up_late, tools, one, actor, run_id) for one in found]


def _all(pool: ThreadPoolExecutor, jobs: Sequence[_Work]) -> list[UnitReport]:
    reports: list[UnitReport] = []
    for job in [pool.submit(job) for job in jobs]:
        try:
            reports += job.result()
        except Exception as error:  # noqa: BLE001 - one that breaks off must not keep the others from being looked up
            _log.exception("a look-up broke off: %s", type(error).__name__)
    return reports
