"""What waits for a person stands in Dagster's UI as it does in a terminal, and is reported when it changes."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import text

from assets.attention import KEY, NOTHING_WAITS, attention_queue
from pipelines.definitions import defs
from pipelines.sensors.attention import attention_sensor
from resources.db.outages import note_unfunded
from resources.db.transitions import hold_order, lock_order
from tests.cli.typed import parse
from tests.pipelines.conftest import Shop, Source
from tests.resources.db.shop import paid_order


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


class Sensor:
    """The sensor, tick by tick as the daemon evaluates it, its reports kept by the instance."""

    def __init__(self, source: Source, instance: dg.DagsterInstance) -> None:
        self._source, self._instance = source, instance
        self._cursor: str | None = None

    def tick(self) -> int:
        """Evaluate a tick and return how many events it reported."""
        context = dg.build_sensor_context(self._instance, self._cursor, resources={"operations": self._source})
        result = attention_sensor.evaluate_tick(context)
        self._cursor = result.cursor
        for event in result.asset_events:
            assert not isinstance(event, dg.AssetObservation)
            self._instance.report_runless_asset_event(event)
        return len(result.asset_events)


@pytest.fixture
def sensor(source: Source, instance: dg.DagsterInstance) -> Sensor:
    return Sensor(source, instance)


def held(shop: Shop, why: str) -> None:
    """An order that waits for a decision."""
    order_id = paid_order(shop.engine)
    with shop.engine.begin() as conn:
        hold_order(conn, lock_order(conn, order_id), reason=why, actor="test", now=shop.clock.now)


def shown(instance: dg.DagsterInstance) -> dict[str, Any]:
    event = instance.get_latest_materialization_event(KEY)
    assert event is not None
    assert event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def table(instance: dg.DagsterInstance) -> list[dict[str, Any]]:
    return [dict(record.data) for record in shown(instance)["waiting"].records]


def nothing_waits(instance: dg.DagsterInstance) -> bool:
    record = instance.get_latest_asset_check_evaluation_record(dg.AssetCheckKey(KEY, NOTHING_WAITS))
    assert record is not None
    assert record.event is not None
    assert record.event.asset_check_evaluation is not None
    return record.event.asset_check_evaluation.passed


def test_the_queue_is_reported_when_it_changes_and_only_then(
    shop: Shop, sensor: Sensor, instance: dg.DagsterInstance
) -> None:
    assert sensor.tick() == 2  # that nothing waits, once
    assert (shown(instance)["dagster/row_count"], nothing_waits(instance)) == (0, True)
    held(shop, "the customer's bank asked")
    assert sensor.tick() == 2
    assert not nothing_waits(instance)
    shop.clock.advance(minutes=5)
    assert sensor.tick() == 0
    with shop.engine.begin() as conn:
        note_unfunded(conn, "airalo", 2_000_000, shop.clock.now)
    assert sensor.tick() == 2
    counts = {name: shown(instance)[name] for name in ("dagster/row_count", "now", "today", "sometime")}
    assert counts == {"dagster/row_count": 2, "now": 1, "today": 1, "sometime": 0}


def test_each_row_says_since_when_why_and_what_to_type(
    shop: Shop, sensor: Sensor, instance: dg.DagsterInstance
) -> None:
    held(shop, "the customer's bank asked")
    sensor.tick()
    [row] = table(instance)
    with shop.engine.connect() as conn:
        order_id, name = conn.execute(text("select order_id::text, display_id from orders")).one()
    assert (row["kind"], row["urgency"], row["subject"]) == ("held", "now", f"order {name}")
    assert row["since"] == f"{shop.clock.now:%Y-%m-%d %H:%M:%S} UTC"
    assert "the customer's bank asked" in row["reason"]
    assert row["order_id"] == order_id
    commands = row["commands"].splitlines()
    assert commands[0] == f"numnaroad order show {name}"
    for line in commands:
        parse(line)


def test_nothing_personal_gets_into_dagster(shop: Shop, sensor: Sensor, instance: dg.DagsterInstance) -> None:
    held(shop, "550 no such user <customer@numnaroad.test>")
    sensor.tick()
    [row] = table(instance)
    assert "550 no such user <[redacted]>" in row["reason"]
    assert "numnaroad.test" not in str(row)


def test_a_long_queue_is_counted_whole_and_shown_from_its_head(
    shop: Shop, sensor: Sensor, instance: dg.DagsterInstance
) -> None:
    for _ in range(103):
        held(shop, "a sale gone wrong")
    sensor.tick()
    assert (shown(instance)["dagster/row_count"], len(table(instance))) == (103, 100)


def test_a_person_has_the_queue_read_again_with_the_other_reports(
    shop: Shop, source: Source, instance: dg.DagsterInstance
) -> None:
    held(shop, "the customer's bank asked")
    shop.clock.advance(hours=1)
    assert KEY in defs.resolve_job_def("report_operations").asset_layer.executable_asset_keys
    assert dg.materialize([attention_queue], instance=instance, resources={"operations": source}).success
    [row] = table(instance)
    assert row["since"] == f"{shop.clock.now - timedelta(hours=1):%Y-%m-%d %H:%M:%S} UTC"
    assert not nothing_waits(instance)
