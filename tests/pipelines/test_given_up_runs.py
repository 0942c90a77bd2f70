"""A run that Dagster has marked as failed may go on for a while (dagster#15325): the order store does not mind."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Event
from uuid import uuid4

import dagster as dg
import pytest

from esim.purchase import Evidence, Outcome, PurchaseRequest
from pipelines.provisioning import provision_orders
from resources.db.order_store import LEASE_SECONDS
from resources.order_operations import OrderTools
from tests.pipelines.actors import HandClock, ScriptedProvider
from tests.pipelines.conftest import Shop, Source
from tests.resources.db.shop import order_state, paid_order, unit_states

Rows = Callable[[str], list[dict[str, object]]]


class Dawdler(ScriptedProvider):
    """A provider that sells, and whose first answer waits until it is told to go on."""

    def __init__(self, slug: str) -> None:
        super().__init__(slug)
        self.asleep, self.wake = Event(), Event()

    def purchase(self, request: PurchaseRequest, evidence: Evidence) -> Outcome:
        outcome = super().purchase(request, evidence)
        if not self.asleep.is_set():
            self.asleep.set()
            assert self.wake.wait(60)
        return outcome


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    # Two runs of one process must not both capture what it prints: the outer capture would wait for its tail.
    quiet = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides={"compute_logs": quiet}) as instance:
        yield instance


def run(tools: OrderTools, instance: dg.DagsterInstance, run_id: str) -> dg.ExecuteInProcessResult:
    resources = {"operations": Source(tools)}
    return provision_orders.execute_in_process(instance=instance, resources=resources, run_id=run_id)


@contextmanager
def going_on(dawdler: Dawdler, work: Callable[[], object]) -> Iterator[Future[object]]:
    """Do a work beside the test until the provider dawdles; it is woken whatever the test comes to."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        try:
            assert dawdler.asleep.wait(30)
            yield future
        finally:
            dawdler.wake.set()


@pytest.mark.parametrize("seconds_later", [1, LEASE_SECONDS + 1], ids=["its lease runs on", "its lease is over"])
def test_a_given_up_run_that_goes_on_buys_and_delivers_nothing_a_second_time(
    shop: Shop, instance: dg.DagsterInstance, rows: Rows, seconds_later: int
) -> None:
    shop.cheap = dawdler = Dawdler("airalo")
    ours, others = (shop.tools_with(drain_idle_seconds=0.0) for _ in range(2))
    others.clock = HandClock(shop.clock.now + timedelta(seconds=seconds_later))
    given_up, next_one = str(uuid4()), str(uuid4())
    first = paid_order(shop.engine)
    with going_on(dawdler, lambda: run(ours, instance, given_up)) as goes_on:
        instance.report_run_failed(_run(instance, given_up), "Exceeded maximum runtime.")
        second = paid_order(shop.engine)
        assert run(others, instance, next_one).success
        assert order_state(shop.engine, second) == "completed"
        assert order_state(shop.engine, first) == ("processing" if seconds_later == 1 else "completed")
        before = rows("select * from order_events order by event_id")
        dawdler.wake.set()
        goes_on.result(timeout=60)
    if seconds_later > LEASE_SECONDS:
        assert rows("select * from order_events order by event_id") == before  # too late: nothing it writes counts
    assert [order_state(shop.engine, one) for one in (first, second)] == ["completed", "completed"]
    assert [unit_states(shop.engine, one) for one in (first, second)] == [["delivered"], ["delivered"]]
    assert (shop.cheap.purchases, shop.dear.purchases) == (2, 0)
    assert sorted(key for key, _ in shop.mailer.sent) == sorted(f"confirmation:{one}" for one in (first, second))
    for tools in (ours, others):
        tools.close()


def _run(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run
