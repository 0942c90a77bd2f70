"""Operations are alerted from the order store and from Dagster's signs of life, once at the beginning and the end."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import dagster as dg
import pytest
from dagster._core.definitions.run_status_sensor_definition import RunStatusSensorCursor
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._daemon.types import DaemonHeartbeat
from dagster_shared.error import SerializableErrorInfo
from sqlalchemy import text

from pipelines.definitions import defs
from pipelines.order_jobs import send_due_notices
from pipelines.runs import last_run
from pipelines.sensors.cursors import read_cursor
from pipelines.sensors.operations_watch import (
    Cursor,
    operations_watch_sensor,
    run_failure_alerts,
    troubles,
)
from resources.db.alerts import AlertKind
from resources.db.watch_figures import StoreFigures, store_figures
from resources.order_operations import utc_now
from tests.pipelines.actors import never_hears
from tests.pipelines.conftest import Shop, Source
from tests.resources.db.shop import paid_order
from tests.resources.db.test_alerts import is_open, told

CALM = StoreFigures(*[0] * 14)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """One with storage of its own for sensors, which an ephemeral one has not."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


class Watch:
    """The watch, tick by tick as the daemon evaluates it."""

    def __init__(self, shop: Shop, source: Source, instance: dg.DagsterInstance) -> None:
        self._shop, self._source, self._instance = shop, source, instance
        self._cursor: str | None = None
        self.reports = 0

    def look(self, **later: float) -> list[str]:
        """Move the clock, look, and return the kinds of alerts that are open."""
        self._shop.clock.advance(**later)
        context = dg.build_sensor_context(
            self._instance,
            self._cursor,
            resources={"operations": self._source},
            repository_def=defs.get_repository_def(),
        )
        result = operations_watch_sensor.evaluate_tick(context)
        self._cursor = result.cursor
        self.reports += bool(result.asset_events)
        return [kind for kind, _ in is_open(self._shop.engine)]


@pytest.fixture
def watch(shop: Shop, source: Source, instance: dg.DagsterInstance) -> Watch:
    watch = Watch(shop, source, instance)
    assert watch.look() == []
    return watch


def change(shop: Shop, statement: str, **values: object) -> None:
    with shop.engine.begin() as conn:
        conn.execute(text(statement), values)


def name(order_id: UUID) -> str:
    return f"OID{order_id.hex[:8].upper()}"


def test_a_paid_unit_nobody_works_on_is_told_once_after_a_minute_and_its_end_too(shop: Shop, watch: Watch) -> None:
    order_id = paid_order(shop.engine, now=shop.clock())
    change(shop, "update outbox set sent_at = now()")
    looks = [watch.look(seconds=20) for _ in range(6)]
    assert [bool(look) for look in looks] == [False] * 3 + [True] * 3
    assert looks[-1] == ["slow_drain"]
    shop.drain()
    assert watch.look(seconds=10) == []
    notes = [note for note in told(shop.engine) if "paid unit" in note]
    assert notes == [
        f"1 paid units wait, the oldest for 80 s, and nobody works on them. Oldest: {name(order_id)}.",
        "No paid unit waits for long any more.",
    ]
    assert watch.reports == 3  # the first look, the beginning and the end


def test_a_unit_whose_worker_is_gone_counts_as_waiting(shop: Shop, watch: Watch) -> None:
    paid_order(shop.engine, now=shop.clock())
    change(shop, "update esims set status = 'working', lease_until = :at", at=shop.clock())
    assert [watch.look(seconds=40), watch.look(seconds=40)] == [[], ["slow_drain"]]


def test_a_purchase_without_an_end_is_told_when_it_is_old(shop: Shop, watch: Watch) -> None:
    shop.cheap.script.append(never_hears)
    shop.cheap.on_resolve = never_hears
    order_id = paid_order(shop.engine, now=shop.clock())
    shop.drain(max_seconds=1.0)
    change(shop, "update outbox set sent_at = now()")
    with shop.engine.connect() as conn:
        assert store_figures(conn, shop.clock()).unknown_purchases == 1
    for _ in range(31):
        kinds = watch.look(seconds=30)
    assert "open_purchases" in kinds
    assert any(f"Oldest: {name(order_id)}." in note for note in told(shop.engine))
    shop.cheap.on_resolve = None
    change(shop, "update esims set next_attempt_at = :at", at=shop.clock())
    shop.drain()
    assert "open_purchases" not in watch.look(seconds=1)


def test_refunds_and_notices_that_wait_are_told(shop: Shop, watch: Watch) -> None:
    order_id = paid_order(shop.engine, now=shop.clock())
    change(shop, "update esims set status = 'delivered', next_attempt_at = null")
    at = shop.clock()
    refund = (
        "insert into refunds (refund_key, order_id, payment_intent, amount_minor, currency, reason, created_at)"
        " values ('r', :order_id, 'pi', 1, 'USD', 'test', :at)"
    )
    change(shop, refund, order_id=order_id, at=at)
    note = "insert into outbox (key, channel, kind, next_attempt_at) values ('n', 'mail', 'order_confirmation', :at)"
    change(shop, note, at=at)
    for _ in range(21):
        kinds = watch.look(seconds=30)
    assert set(kinds) == {"refunds_late", "notices_late"}
    [refunds] = [note for note in told(shop.engine) if "refunds are due" in note]
    assert refunds.endswith(f" Oldest: {name(order_id)}.")
    change(shop, "update refunds set state = 'succeeded'")
    change(shop, "update outbox set sent_at = now()")
    assert watch.look(seconds=10) == []


def test_what_is_alerted_is_over_at_half_its_limit_so_that_it_does_not_come_and_go(shop: Shop) -> None:
    def wrong(seconds: int, *already: str) -> bool:
        return bool(troubles(replace(CALM, waiting_seconds=seconds), shop.settings, already))

    assert [wrong(60), wrong(61), wrong(31, "slow_drain"), wrong(30, "slow_drain")] == [False, True, True, False]


def test_limits_are_the_settings(shop: Shop) -> None:
    figures = replace(CALM, waiting_units=3, waiting_seconds=61, refund_seconds=600)
    assert set(troubles(figures, shop.settings)) == {AlertKind.SLOW_DRAIN}
    assert troubles(figures, shop.settings.model_copy(update={"slow_drain_seconds": 90})) == {}
    assert "3 paid units wait, the oldest for 61 s" in troubles(figures, shop.settings)[AlertKind.SLOW_DRAIN]


def test_a_watch_that_was_away_says_how_long_nobody_looked(shop: Shop, watch: Watch) -> None:
    assert watch.look(minutes=12) == ["daemon_silent"]
    assert watch.look(seconds=10) == []
    assert "for 720 s" in told(shop.engine)[0]


def test_a_sensor_that_is_not_evaluated_any_more_is_told_and_one_a_person_stopped_is_not(
    shop: Shop, watch: Watch, instance: dg.DagsterInstance
) -> None:
    def evaluated(name: str, seconds_ago: float | None, status: InstigatorStatus = InstigatorStatus.RUNNING) -> None:
        at = None if seconds_ago is None else shop.clock().timestamp() - seconds_ago
        data = SensorInstigatorData(last_tick_start_timestamp=at, min_interval=30)
        repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("numnaroad"), "__repository__")
        origin = RemoteInstigatorOrigin(repository, name)
        instance.add_instigator_state(InstigatorState(origin, InstigatorType.SENSOR, status, data))

    evaluated("paid_orders_sensor", 119)
    evaluated("aftermath_sensor", 3600)
    evaluated("price_conditions_sensor", 3600, InstigatorStatus.STOPPED)
    evaluated("changed_orders_sensor", None)
    evaluated("a_sensor_of_an_older_version", 3600)
    assert watch.look(seconds=10) == ["sensor_silent"]
    assert is_open(shop.engine) == [("sensor_silent", "aftermath_sensor")]


def ticked(instance: dg.DagsterInstance, name: str, kind: InstigatorType, at: datetime, status: TickStatus) -> None:
    """Let a sensor or schedule have a tick, and its state say what the daemon would write."""
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("numnaroad"), "__repository__")
    origin = RemoteInstigatorOrigin(repository, name)
    good = None if status is TickStatus.FAILURE else at.timestamp()
    data: SensorInstigatorData | ScheduleInstigatorData = ScheduleInstigatorData("7 * * * *")
    if kind is InstigatorType.SENSOR:
        data = SensorInstigatorData(
            last_tick_start_timestamp=at.timestamp(), min_interval=15, last_tick_success_timestamp=good
        )
    state = InstigatorState(origin, kind, InstigatorStatus.RUNNING, data)
    known = instance.get_instigator_state(state.instigator_origin_id, state.selector_id)
    (instance.update_instigator_state if known else instance.add_instigator_state)(state)
    instance.create_tick(
        TickData(
            state.instigator_origin_id,
            name,
            kind,
            status,
            at.timestamp(),
            run_ids=["run"] if status is TickStatus.SUCCESS else None,
            error=SerializableErrorInfo("broken", [], None) if status is TickStatus.FAILURE else None,
            selector_id=state.selector_id,
        )
    )


def test_a_sensor_that_fails_at_every_tick_is_told(shop: Shop, watch: Watch, instance: dg.DagsterInstance) -> None:
    def tick(status: TickStatus) -> list[str]:
        kinds = watch.look(seconds=15)
        ticked(instance, "price_conditions_sensor", InstigatorType.SENSOR, shop.clock(), status)
        return kinds

    tick(TickStatus.SKIPPED)
    looks = [tick(TickStatus.FAILURE) for _ in range(12)]
    assert (looks[7], looks[-1]) == ([], ["sensor_silent"])
    assert "price_conditions_sensor has failed at every tick for 120 s" in told(shop.engine)[0]
    tick(TickStatus.SKIPPED)
    assert watch.look(seconds=15) == []


def test_a_schedule_whose_newest_tick_failed_is_told_until_one_succeeds(
    shop: Shop, watch: Watch, instance: dg.DagsterInstance
) -> None:
    for status, kinds in (
        (TickStatus.SUCCESS, []),
        (TickStatus.FAILURE, ["sensor_silent"]),
        (TickStatus.SUCCESS, []),
    ):
        ticked(instance, "prove_books_schedule", InstigatorType.SCHEDULE, shop.clock(), status)
        assert watch.look(seconds=15) == kinds


@pytest.mark.parametrize("cursor", [None, "", "[]", "[1, 2, 3, 4, 5, 6, 7]", '{"open": []}', "3", "no json"])
def test_a_cursor_of_another_version_is_none(cursor: str | None) -> None:
    assert read_cursor(cursor, Cursor) is None


def test_a_daemon_that_was_heard_of_and_is_not_any_more_is_told(
    shop: Shop, watch: Watch, instance: dg.DagsterInstance
) -> None:
    def heard(seconds_ago: float) -> None:
        beat = DaemonHeartbeat(utc_now().timestamp() - seconds_ago, "SCHEDULER", None, [])
        instance.add_daemon_heartbeat(beat)

    heard(400)
    assert watch.look(seconds=10) == ["daemon_silent"]
    heard(0)
    assert watch.look(seconds=10) == []
    assert "SCHEDULER" in told(shop.engine)[0]


def fails() -> dg.JobDefinition:
    @dg.op
    def break_off() -> None:
        raise RuntimeError("customer@example.com broke it")

    @dg.job(name=send_due_notices.name)
    def job() -> None:
        break_off()

    return job


def test_a_job_that_fails_is_told_once_with_a_link_until_a_run_of_it_succeeds(
    shop: Shop, source: Source, watch: Watch, instance: dg.DagsterInstance
) -> None:
    for _ in range(2):
        result = fails().execute_in_process(instance=instance, raise_on_error=False)
        [event] = [e for e in result.all_events if e.event_type is dg.DagsterEventType.RUN_FAILURE]
        context = dg.build_run_status_sensor_context(
            "run_failure_alerts", event, instance, result.dagster_run, resources={"operations": source}
        ).for_run_failure()
        run_failure_alerts(context)
    [note] = told(shop.engine)
    assert "Run" in note
    assert f"/runs/{instance.get_runs()[-1].run_id}" in note
    assert "example.com" not in note
    assert watch.look() == ["run_failed"]
    assert send_due_notices.execute_in_process(instance=instance, resources={"operations": source}).success
    last = last_run(instance, send_due_notices.name)
    assert last is not None
    assert last.succeeded
    assert watch.look() == []


def test_a_night_of_failed_runs_is_told_of_at_one_tick(
    shop: Shop, source: Source, instance: dg.DagsterInstance
) -> None:
    """Dagster reads twenty-five a tick and works five of them: it would fall days behind (dagster#19224)."""
    job = fails()
    for _ in range(30):
        instance.report_run_failed(instance.create_run_for_job(job))
    [newest] = instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=1).records
    before = RunStatusSensorCursor(record_id=0).to_json()
    context = dg.build_sensor_context(instance, cursor=before, resources={"operations": source})

    told_of = run_failure_alerts.evaluate_tick(context).cursor

    assert told_of is not None
    assert RunStatusSensorCursor.from_json(told_of).record_id == newest.storage_id
    assert len(told(shop.engine)) == 1


def test_nothing_personal_is_in_what_the_watch_reports(
    shop: Shop, source: Source, instance: dg.DagsterInstance
) -> None:
    paid_order(shop.engine, now=shop.clock() - timedelta(hours=1))
    context = dg.build_sensor_context(instance, None, resources={"operations": source})
    result = operations_watch_sensor.evaluate_tick(context)
    [shown] = [event for event in result.asset_events if isinstance(event, dg.AssetMaterialization)]
    assert shown.metadata["waiting_units"].value == 1
    assert "numnaroad.test" not in json.dumps([str(value.value) for value in shown.metadata.values()])
