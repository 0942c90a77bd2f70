"""Order jobs, schedules and sensors on a real Dagster instance and a real Postgres."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text, update

from esim.errors import PaymentRejected, PaymentUnavailable
from esim.money import Money
from esim.purchase import ErrorType
from pipelines.order_jobs import order_jobs
from pipelines.order_schedules import (
    check_stuck_schedule,
    order_schedules,
    poll_pending_schedule,
    retry_failed_schedule,
)
from pipelines.provisioning import provision_orders
from pipelines.sensors import aftermath, paid_orders
from pipelines.sensors.aftermath import aftermath_sensor
from pipelines.sensors.paid_orders import Situation, order_sensors, paid_orders_sensor
from resources.db import drains, ledger
from resources.db.databases import Databases
from resources.db.fees import book_fee, claim_fees
from resources.db.outbox import enqueue
from resources.db.payments import Booking, Payment, record_payment
from resources.db.refunds import request_refund
from resources.db.tables import esims
from resources.order_operations import OrderOperations, utc_now
from resources.settings import PROVIDERS
from tests.pipelines.actors import accepts, never_hears, rejects, sells_without_answer, wait_until
from tests.pipelines.conftest import Shop, Source
from tests.resources.db.shop import order_state, paid_order, unit_states

Rows = Callable[[str], list[dict[str, object]]]
JOBS = {job.name: job for job in order_jobs}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def source(shop: Shop) -> Iterator[Source]:
    """Quick tools: drains that do not linger, sensors that do not wait, the real time."""
    shop.tools = shop.tools_with(drain_idle_seconds=0.0, sensor_wait_seconds=0.0)
    shop.tools.clock = utc_now
    yield Source(shop.tools)
    shop.tools.close()


def run(name: str, source: Source, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    result = JOBS[name].execute_in_process(instance=instance, resources={"operations": source})
    assert result.success
    return result


def output_metadata(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    [handled] = [event for event in result.all_events if event.event_type is dg.DagsterEventType.STEP_OUTPUT]
    metadata = handled.step_output_data.metadata
    return {
        name: [record.data for record in value.records] if isinstance(value, dg.TableMetadataValue) else value.value
        for name, value in metadata.items()
    }


def tick(sensor: dg.SensorDefinition, source: Source, instance: dg.DagsterInstance) -> object:
    """Evaluate a whole tick as the daemon does."""
    context = dg.build_sensor_context(instance=instance, resources={"operations": source})
    return sensor.evaluate_tick(context)


def test_run_shows_the_orders_it_worked_with_ids_only(shop: Shop, source: Source, instance: dg.DagsterInstance) -> None:
    shop.cheap.script.append(rejects(ErrorType.OUT_OF_STOCK))
    order_id = paid_order(shop.engine, now=utc_now())
    result = run("provision_orders", source, instance)
    assert order_state(shop.engine, order_id) == "completed"
    metadata = output_metadata(result)
    table = metadata["units"]
    assert isinstance(table, list)
    assert [(row["order_id"], row["unit"], row["provider"], row["outcome"]) for row in table] == [
        (str(order_id), 1, "airalo", "rejected (out_of_stock)"),
        (str(order_id), 1, "esim_go", "provisioned"),
    ]
    assert (metadata["airalo: rejected (out_of_stock)"], metadata["orders"]) == (1, 1)
    profile = next(iter(shop.dear.sold.values()))[0]
    log = repr([entry for entry in instance.all_logs(result.run_id)])
    assert str(order_id) in log
    assert profile.iccid not in log
    assert profile.activation_code not in log
    assert "customer@numnaroad.test" not in log


def test_running_again_finds_nothing_to_do(shop: Shop, source: Source, instance: dg.DagsterInstance) -> None:
    paid_order(shop.engine, now=utc_now())
    run("provision_orders", source, instance)
    assert output_metadata(run("provision_orders", source, instance))["orders"] == 0
    assert shop.sold == 1


def test_poll_job_finishes_accepted_orders(shop: Shop, source: Source, instance: dg.DagsterInstance) -> None:
    shop.cheap.script.append(accepts)
    shop.tools.settings = shop.tools.settings.model_copy(update={"drain_max_seconds": 0.0})
    order_id = paid_order(shop.engine, now=utc_now())
    run("provision_orders", source, instance)
    assert unit_states(shop.engine, order_id) == ["pending"]
    with shop.engine.begin() as conn:
        conn.execute(update(esims).values(next_attempt_at=utc_now()))
    assert isinstance(tick_schedule(poll_pending_schedule, source, instance), dg.RunRequest)
    metadata = output_metadata(run("poll_pending_orders", source, instance))
    assert metadata["airalo: looked up: provisioned"] == 1
    assert (order_state(shop.engine, order_id), len(shop.mailer.sent)) == ("completed", 1)
    assert isinstance(tick_schedule(poll_pending_schedule, source, instance), dg.SkipReason)


def tick_schedule(schedule: dg.ScheduleDefinition, source: Source, instance: dg.DagsterInstance) -> object:
    context = dg.build_schedule_context(instance=instance, resources={"operations": source})
    data = schedule.evaluate_tick(context)
    if data.run_requests:
        return data.run_requests[0]
    return dg.SkipReason(data.skip_message)


def test_retry_job_works_overdue_units_and_refunds_what_nobody_refunded(
    shop: Shop, source: Source, instance: dg.DagsterInstance
) -> None:
    by_hand = shop.tools_with(enable_auto_refund=False)
    by_hand.clock = utc_now
    shop.cheap.script.append(rejects(ErrorType.INVALID_PRODUCT))
    shop.dear.script.append(rejects(ErrorType.INVALID_PRODUCT))
    given_up = paid_order(shop.engine, now=utc_now())
    shop.drain(tools=by_hand)
    overdue = paid_order(shop.engine, now=utc_now() - timedelta(minutes=3))
    assert order_state(shop.engine, given_up) == "failed"
    skipped = tick_schedule(retry_failed_schedule, source, instance)
    assert isinstance(skipped, dg.RunRequest)
    metadata = output_metadata(run("retry_failed_orders", source, instance))
    assert metadata["refunds_requested"] == 1
    assert (order_state(shop.engine, given_up), order_state(shop.engine, overdue)) == ("refunded", "completed")
    assert tick_schedule(retry_failed_schedule, source, instance) == dg.SkipReason(
        "0 units are overdue or given up without a refund"
    )


def test_stuck_orders_are_checked_at_the_provider_or_shown_to_a_person(
    shop: Shop, source: Source, instance: dg.DagsterInstance
) -> None:
    shop.cheap.script += [sells_without_answer, never_hears]
    long_ago = utc_now() - timedelta(minutes=65)
    found, orphan = (paid_order(shop.engine, now=one) for one in (long_ago, long_ago))
    shop.drain(max_seconds=0.2)
    fresh = paid_order(shop.engine, now=utc_now())
    with shop.engine.begin() as conn:  # what must not happen: open for ever, without a purchase
        conn.execute(text("update esims set next_attempt_at = now() + interval '1 day'"))
        conn.execute(text("update purchase_attempts set state = 'rejected' where order_id = :o"), {"o": orphan})
    assert isinstance(tick_schedule(check_stuck_schedule, source, instance), dg.RunRequest)
    metadata = output_metadata(run("check_stuck_orders", source, instance))
    assert (metadata["stuck"], metadata["still_stuck"]) == (2, 0)
    states = {order_state(shop.engine, one) for one in (found, orphan)}
    assert states == {"completed", "attention"}
    assert order_state(shop.engine, fresh) != "attention"
    assert [key.split(":")[1] for key, _ in shop.notifier.posted if "attention" in key] == ["attention"]


def test_second_payment_is_paid_back_once(shop: Shop, source: Source, instance: dg.DagsterInstance, rows: Rows) -> None:
    order_id = paid_order(shop.engine, now=utc_now())
    shop.drain()
    shop.gateway.failures.append(PaymentUnavailable())
    with shop.engine.begin() as conn:
        ledger.post(conn, "payment:pi_2", order_id, ledger.payment_received(Money(499, "USD"), 4_990_000))
        for _ in range(2):
            request_refund(
                conn,
                key="second:pi_2",
                order_id=order_id,
                payment_intent="pi_2",
                amount=Money(499, "USD"),
                reason="second payment",
                esim_n=None,
            )
    assert output_metadata(run("work_refunds", source, instance)) == {"paid": 0, "failed": 1, "notices": 0, "fees": 0}
    with shop.engine.begin() as conn:
        conn.execute(text("update refunds set next_attempt_at = now()"))
    assert output_metadata(run("work_refunds", source, instance)) == {"paid": 1, "failed": 0, "notices": 0, "fees": 0}
    assert output_metadata(run("work_refunds", source, instance))["paid"] == 0
    assert list(shop.gateway.paid) == ["second:pi_2"]
    assert rows("select state, stripe_refund_id from refunds") == [{"state": "succeeded", "stripe_refund_id": "re_1"}]
    assert order_state(shop.engine, order_id) == "completed"
    assert rows("select refunded_minor from orders") == [{"refunded_minor": 0}]
    assert rows("select sum(amount_micros)::bigint as s from ledger_entries where account = 'refunds'") == [
        {"s": 4_990_000}
    ]


def test_refund_that_is_refused_for_good_needs_a_person(shop: Shop, rows: Rows) -> None:
    shop.gateway.failures.append(PaymentRejected("charge disputed"))
    shop.cheap.script.append(rejects(ErrorType.INVALID_PRODUCT))
    shop.dear.script.append(rejects(ErrorType.INVALID_PRODUCT))
    order_id = paid_order(shop.engine)
    shop.drain()
    assert (order_state(shop.engine, order_id), unit_states(shop.engine, order_id)) == ("attention", ["failed"])
    assert rows("select state from refunds") == [{"state": "failed"}]
    assert any("needs a person" in text for _, text in shop.notifier.posted)


@given(st.builds(Situation, *[st.integers(0, 100)] * 4, st.integers(1, 32), st.integers(1, 8)))
def test_sensor_starts_drains_only_for_what_has_no_room(now: Situation) -> None:
    decision = paid_orders.decide(now)
    if isinstance(decision, int):
        assert now.waiting > now.room
        assert 1 <= decision <= now.most - now.drains - now.starting
    else:
        assert any(character.isdigit() for character in decision)
        full = now.drains + now.starting >= now.most
        assert now.waiting <= now.room + now.starting * now.capacity or full


def test_sensor_tick_by_tick(shop: Shop, source: Source, instance: dg.DagsterInstance) -> None:
    first = tick(paid_orders_sensor, source, instance)
    assert (first.run_requests, first.skip_message) == ([], "0 units wait; 0 drains are alive")  # type: ignore[attr-defined]
    order_id = paid_order(shop.engine, now=utc_now())
    [request] = tick(paid_orders_sensor, source, instance).run_requests  # type: ignore[attr-defined]
    assert request.run_key.startswith("drain-")
    assert str(order_id) not in request.run_key
    started = instance.create_run_for_job(provision_orders, run_id=str(uuid4()), status=dg.DagsterRunStatus.STARTING)
    assert "1 starting have room" in tick(paid_orders_sensor, source, instance).skip_message  # type: ignore[attr-defined]
    with shop.engine.begin() as conn:
        drains.register(conn, "drain-x", 1, utc_now(), started.run_id)
    assert "1 drains alive and 0 starting" in tick(paid_orders_sensor, source, instance).skip_message  # type: ignore[attr-defined]
    with shop.engine.begin() as conn:
        drains.beat(conn, "drain-x", 1, utc_now())
    assert len(tick(paid_orders_sensor, source, instance).run_requests) == 1  # type: ignore[attr-defined]  # it is full
    with shop.engine.begin() as conn:
        drains.beat(conn, "drain-x", 0, utc_now() - timedelta(seconds=30))
    assert len(tick(paid_orders_sensor, source, instance).run_requests) == 1  # type: ignore[attr-defined]  # it is gone
    run("provision_orders", source, instance)
    assert tick(paid_orders_sensor, source, instance).run_requests == []  # type: ignore[attr-defined]


def test_failed_run_is_followed_by_another(shop: Shop, source: Source, instance: dg.DagsterInstance) -> None:
    paid_order(shop.engine, now=utc_now())
    [first] = tick(paid_orders_sensor, source, instance).run_requests  # type: ignore[attr-defined]
    instance.create_run_for_job(provision_orders, status=dg.DagsterRunStatus.FAILURE)
    [second] = tick(paid_orders_sensor, source, instance).run_requests  # type: ignore[attr-defined]
    assert first.run_key != second.run_key


def test_waiting_sensor_hears_of_a_payment(shop: Shop, instance: dg.DagsterInstance) -> None:
    tools = shop.tools_with(sensor_wait_seconds=20.0)
    tools.clock = utc_now
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(tick, paid_orders_sensor, Source(tools), instance)
        paid_order(shop.engine, now=utc_now())
        assert len(waiting.result(timeout=10).run_requests) == 1  # type: ignore[attr-defined]
    tools.close()


def test_notice_without_a_drain_is_sent_by_its_own_run(
    shop: Shop, source: Source, instance: dg.DagsterInstance
) -> None:
    order_id = paid_order(shop.engine, now=utc_now())
    with shop.engine.begin() as conn:
        conn.execute(text("delete from outbox"))
        enqueue(conn, key="payment_failed:1", channel="mail", kind="payment_failed", order_id=order_id)
        conn.execute(text("update outbox set next_attempt_at = now() - interval '3 seconds'"))
    [request] = tick(aftermath_sensor, source, instance).run_requests  # type: ignore[attr-defined]
    assert request.job_name == "send_notices"
    instance.create_run_for_job(JOBS["send_notices"], status=dg.DagsterRunStatus.STARTING)
    assert tick(aftermath_sensor, source, instance).run_requests == []  # type: ignore[attr-defined]  # it is coming
    assert output_metadata(run("send_notices", source, instance)) == {"sent": 1, "failed": 0}
    assert shop.mailer.sent[0][1].subject.startswith("Your payment did not go through")


def test_payment_fee_is_booked_once_when_it_is_known(
    shop: Shop, source: Source, instance: dg.DagsterInstance, rows: Rows
) -> None:
    paid_order(shop.engine, now=utc_now())
    shop.drain()
    assert rows("select * from ledger_entries where account = 'payment_fees'") == []
    shop.gateway.known_fee = Money(44, "USD")
    assert isinstance(tick_schedule(poll_pending_schedule, source, instance), dg.SkipReason)  # asked minutes ago
    with shop.engine.begin() as conn:
        conn.execute(text("update orders set fee_due_at = now()"))
    assert isinstance(tick_schedule(poll_pending_schedule, source, instance), dg.RunRequest)
    run("poll_pending_orders", source, instance)
    run("poll_pending_orders", source, instance)
    assert rows("select amount_micros from ledger_entries where account = 'payment_fees'") == [
        {"amount_micros": 440_000}
    ]
    assert rows("select sum(amount_micros)::bigint as s from ledger_entries") == [{"s": 0}]


def test_fee_in_another_currency_is_booked_at_its_rate(shop: Shop, rows: Rows) -> None:
    shop.gateway.known_fee = Money(50, "EUR")
    with shop.engine.begin() as conn:
        conn.execute(text("insert into reference_rates values ('EUR', '2026-11-20', 1100000)"))
    paid_order(shop.engine)
    shop.drain()
    assert rows("select amount_micros, original_currency from ledger_entries where account = 'payment_fees'") == [
        {"amount_micros": 550_000, "original_currency": "EUR"}
    ]


def test_fee_without_a_rate_waits_for_one_and_is_told_of_once(shop: Shop, rows: Rows) -> None:
    shop.gateway.known_fee = Money(300, "AED")
    paid_order(shop.engine)
    shop.drain()
    assert rows("select fee_due_at is not null as due from orders") == [{"due": True}]
    with shop.engine.begin() as conn:
        conn.execute(text("update orders set fee_due_at = now()"))
    shop.drain()
    assert len([key for key, _ in shop.notifier.posted if "fee_not_booked" in key]) == 1
    assert rows("select * from ledger_entries where account = 'payment_fees'") == []
    with shop.engine.begin() as conn:
        conn.execute(text("insert into reference_rates values ('AED', '2026-11-20', 272300)"))
        conn.execute(text("update orders set fee_due_at = now()"))
    shop.drain()
    assert rows("select amount_micros from ledger_entries where account = 'payment_fees'") == [
        {"amount_micros": 816_900}
    ]


def test_given_up_units_start_no_run_where_refunds_are_a_persons_work(
    shop: Shop, source: Source, instance: dg.DagsterInstance
) -> None:
    for provider in (shop.cheap, shop.dear):
        provider.script.append(rejects(ErrorType.INVALID_PRODUCT))
    paid_order(shop.engine)
    shop.drain(tools=shop.tools_with(enable_auto_refund=False))
    assert isinstance(tick_schedule(retry_failed_schedule, source, instance), dg.RunRequest)
    manual = Source(shop.tools_with(enable_auto_refund=False))
    assert isinstance(tick_schedule(retry_failed_schedule, manual, instance), dg.SkipReason)


def test_aftermath_decision_names_only_what_is_late_and_not_seen_to() -> None:
    assert aftermath.decide(0, 0, []) == "0 notices and 0 refunds are late; 0 runs see to them"
    assert aftermath.decide(3, 1, []) == ["work_refunds", "send_notices"]
    assert aftermath.decide(3, 1, ["send_notices"]) == ["work_refunds"]
    assert isinstance(aftermath.decide(3, 0, ["send_notices"]), str)


def test_resource_builds_its_tools_from_the_environment_when_first_used(
    databases: Databases, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", databases.operational)
    monkeypatch.setenv("DRAIN_IDLE_SECONDS", "0")
    operations = OrderOperations()
    result = provision_orders.execute_in_process(instance=instance, resources={"operations": operations})
    assert output_metadata(result)["orders"] == 0
    assert operations.tools() is OrderOperations().tools()
    assert set(operations.tools().providers) == set(PROVIDERS)
    operations.tools().close()


def test_clocks_and_sensors_run_by_default_and_need_no_environment() -> None:
    defs = dg.Definitions(
        jobs=order_jobs,
        schedules=order_schedules,
        sensors=order_sensors,
        resources={"operations": OrderOperations()},
    )
    dg.Definitions.validate_loadable(defs)
    assert {schedule.cron_schedule for schedule in order_schedules} == {"*/5 * * * *", "*/10 * * * *", "7 * * * *"}
    assert {schedule.default_status for schedule in order_schedules} == {dg.DefaultScheduleStatus.RUNNING}
    assert {sensor.default_status for sensor in order_sensors} == {dg.DefaultSensorStatus.RUNNING}
    assert all(job.description for job in order_jobs)


def test_fee_of_a_second_payment_is_booked_too(shop: Shop, rows: Rows) -> None:
    shop.gateway.known_fee = Money(44, "USD")
    order_id = paid_order(shop.engine)
    second = Payment(order_id, "pi_second", "cs_second", Money(499, "USD"), "test")
    with shop.engine.begin() as conn:
        record_payment(conn, second, Booking("test", shop.clock.now, 70))
    shop.drain()
    fees = rows("select posting_key, amount_micros from ledger_entries where account = 'payment_fees' order by 1")
    assert [row["amount_micros"] for row in fees] == [440_000, 440_000]
    assert fees[-1]["posting_key"] == "fee:pi_second"
    assert rows("select fee_due_at from orders") == [{"fee_due_at": None}]


def test_fee_of_a_payment_that_arrives_while_another_is_booked_stays_due(shop: Shop, rows: Rows) -> None:
    order_id = paid_order(shop.engine)
    [due] = claim_fees(shop.engine, 1)
    second = Payment(order_id, "pi_second", "cs_second", Money(499, "USD"), "test")

    def book() -> None:
        with shop.engine.begin() as conn:
            book_fee(conn, due, Money(44, "USD"))

    with ThreadPoolExecutor(1) as booking:
        with shop.engine.begin() as webhook:
            record_payment(webhook, second, Booking("test", shop.clock.now, 70))
            booked = booking.submit(book)
            waits = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            wait_until(lambda: bool(rows(waits)))
        booked.result(timeout=20)
    assert rows("select 1 from orders where fee_due_at is not null")
    assert [fee.payment_intent for fee in claim_fees(shop.engine, 1)] == ["pi_second"]
