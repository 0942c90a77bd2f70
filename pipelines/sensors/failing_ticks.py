"""Sensors and schedules whose ticks fail: they are evaluated in time, and yet nothing comes of it."""

from collections.abc import Iterable
from datetime import datetime

import dagster as dg
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    SensorInstigatorData,
    TickStatus,
)

FAILING_SECONDS = 120.0  # of failures only, and at least five intervals
_GOOD = [TickStatus.SUCCESS, TickStatus.SKIPPED]


def failing_sensors(instance: dg.DagsterInstance, names: Iterable[str], now: datetime) -> dict[str, str]:
    """Return the sensors that have failed at every tick for a while, with how long that is at least."""
    failing: dict[str, str] = {}
    for state in _running(instance, InstigatorType.SENSOR, names):
        data = state.instigator_data
        if not isinstance(data, SensorInstigatorData) or data.last_tick_success_timestamp is not None:
            continue
        seconds = max(FAILING_SECONDS, 5 * (data.min_interval or 30))
        since, origin, selector = now.timestamp() - seconds, state.instigator_origin_id, state.selector_id
        if instance.get_ticks(origin, selector, after=since, limit=1, statuses=_GOOD):
            continue
        if instance.get_ticks(origin, selector, before=since, limit=1) and instance.get_ticks(
            origin, selector, after=since, limit=1, statuses=[TickStatus.FAILURE]
        ):
            failing[state.name] = f"{state.name} has failed at every tick for {seconds:.0f} s; its ticks say why."
    return failing


def failing_schedules(instance: dg.DagsterInstance, names: Iterable[str]) -> dict[str, str]:
    """Return the schedules whose newest tick failed: what they start did not start."""
    states = {state.selector_id: state for state in _running(instance, InstigatorType.SCHEDULE, names)}
    newest = instance.get_batch_ticks(list(states), limit=1) if states else {}
    return {
        states[selector].name: f"The newest tick of {states[selector].name} failed; it says why."
        for selector, ticks in newest.items()
        if ticks and ticks[0].status is TickStatus.FAILURE
    }


def _running(instance: dg.DagsterInstance, kind: InstigatorType, names: Iterable[str]) -> list[InstigatorState]:
    wanted = set(names)
    states = instance.all_instigator_state(instigator_type=kind)
    return [state for state in states if state.name in wanted and state.status is not InstigatorStatus.STOPPED]
