"""Providers are asked harmless things: balances are kept whoever fails, and no order probes a provider that is away."""

import dagster as dg
import pytest

from esim.errors import ProviderAuthFailed, ProviderThrottled, ProviderUnavailable
from esim.money import Cost
from esim.purchase import ErrorType
from pipelines.operations_jobs import check_stock_and_balance, watch_resting_providers
from pipelines.provider_watch import read_balances, watch_providers
from pipelines.runs import LastRun
from pipelines.sensors.provider_health import decide, provider_health_sensor
from resources.db.provider_events import newest_events
from resources.db.provider_state import note_outcome
from tests.pipelines.actors import rejects
from tests.pipelines.conftest import Rows, Shop, Source
from tests.resources.db.shop import paid_order, unit_states
from tests.resources.db.test_alerts import is_open, told
from tests.resources.db.test_provider_state import TIMEOUT

AWAY = ProviderUnavailable("airalo balance: ConnectError")
BALANCES = (
    "select slug, balance_amount::text as left, balance_at from providers where balance_at is not null order by 1"
)


def fail(shop: Shop, slug: str = "airalo") -> None:
    """Open a provider's circuit."""
    for _ in range(5):
        note_outcome(shop.engine, slug, TIMEOUT, shop.clock())


def happened(shop: Shop) -> list[str]:
    with shop.engine.connect() as conn:
        return [what for _, what, _, _ in newest_events(conn, "airalo")][::-1]


@pytest.mark.parametrize("error", [AWAY, ProviderAuthFailed(), RuntimeError("a defect")])
def test_a_balance_that_cannot_be_read_does_not_stop_the_others(shop: Shop, rows: Rows, error: Exception) -> None:
    shop.cheap.wallet, shop.dear.wallet = error, Cost.parse("99.5", "USD")
    readings = {reading.slug: reading for reading in read_balances(shop.tools, shop.tools.providers, "test")}
    assert readings["airalo"].error.startswith(type(error).__name__)
    assert rows(BALANCES) == [{"slug": "esim_go", "left": "99.500000", "balance_at": shop.clock()}]
    assert is_open(shop.engine) == [("low_balance", "esim_go")]


def test_the_check_job_keeps_balances_and_shows_who_could_not_be_read(source: Source, shop: Shop) -> None:
    shop.cheap.wallet = AWAY
    with dg.DagsterInstance.ephemeral() as instance:
        result = check_stock_and_balance.execute_in_process(instance=instance, resources={"operations": source})
    [output] = [e for e in result.all_events if e.event_type is dg.DagsterEventType.STEP_OUTPUT]
    shown = {name: value.value for name, value in output.step_output_data.metadata.items()}
    assert shown == {"airalo": "not read", "esim_go": "1000 USD", "running_out": 0}


def test_while_a_provider_cannot_be_reached_it_rests_on_and_no_order_is_the_probe(shop: Shop) -> None:
    fail(shop)
    shop.cheap.wallet = AWAY
    for seconds in (55, 21, 21):
        shop.clock.advance(seconds=seconds)
        assert watch_providers(shop.tools, "watch", 0.0) == {"airalo: still away": 1}
        order_id = paid_order(shop.engine, now=shop.clock())
        shop.drain()
        assert unit_states(shop.engine, order_id) == ["delivered"]
    assert shop.cheap.asked == []
    assert shop.dear.purchases == 3
    assert happened(shop) == ["circuit opened", *["probe failed"] * 3]
    assert len(told(shop.engine)) == 4  # the opening, and three orders that are complete


@pytest.mark.parametrize("answer", [Cost.parse("500", "USD"), ProviderAuthFailed(), ProviderThrottled("slow down")])
def test_a_provider_that_answers_is_asked_to_sell_again_and_closes_its_circuit(
    shop: Shop, answer: Cost | Exception
) -> None:
    fail(shop)
    shop.clock.advance(seconds=55)
    shop.cheap.wallet = answer
    assert watch_providers(shop.tools, "watch", 0.0) == {"airalo: answers": 1}
    paid_order(shop.engine, now=shop.clock())
    shop.drain()
    assert shop.cheap.purchases == 1
    assert happened(shop) == ["circuit opened", "answers again", "circuit closed"]
    assert is_open(shop.engine) == []


def test_a_rest_that_is_young_is_left_alone(shop: Shop) -> None:
    fail(shop)
    assert watch_providers(shop.tools, "watch", 0.0) == {}
    assert shop.cheap.wallet_reads == 0


def test_a_provider_out_of_funds_is_asked_for_its_balance_and_bought_from_when_it_is_topped_up(shop: Shop) -> None:
    shop.cheap.script.append(rejects(ErrorType.INSUFFICIENT_BALANCE))
    shop.cheap.wallet = Cost.parse("1", "USD")
    for _ in range(2):
        paid_order(shop.engine, now=shop.clock())
        shop.drain()
        assert watch_providers(shop.tools, "watch", 0.0) == {"airalo: balance read": 1}
        shop.clock.advance(minutes=6)
    assert (shop.cheap.purchases, shop.dear.purchases) == (0, 2)
    shop.cheap.wallet = Cost.parse("50", "USD")
    watch_providers(shop.tools, "watch", 0.0)
    paid_order(shop.engine, now=shop.clock())
    shop.drain()
    assert len(shop.cheap.asked) == 2
    assert shop.cheap.purchases == 1


def test_a_refusal_as_sold_out_moves_the_next_order_at_once(shop: Shop) -> None:
    shop.cheap.script.append(rejects(ErrorType.OUT_OF_STOCK))
    for _ in range(3):
        paid_order(shop.engine, now=shop.clock())
        shop.drain()
    assert len(shop.cheap.asked) == 1
    assert shop.dear.purchases == 3
    shop.clock.advance(minutes=31)
    paid_order(shop.engine, now=shop.clock())
    shop.drain()
    assert shop.cheap.purchases == 1


LAST = LastRun(active=False, succeeded=True, tags={}, seconds_ago=100)


@pytest.mark.parametrize(
    ("resting", "unfunded", "last", "reason"),
    [
        (0, 0, LAST, "0 providers"),
        (1, 0, LastRun(True, False, {}, 3), "a run is going"),
        (1, 0, LAST, ""),
        (1, 0, None, ""),
        (0, 1, LAST, "asked 100 s ago"),
        (0, 1, LastRun(False, True, {}, 301), ""),
    ],
)
def test_one_watch_at_a_time_and_out_of_funds_is_no_hurry(
    resting: int, unfunded: int, last: LastRun | None, reason: str
) -> None:
    decision = decide(resting, unfunded, last)
    assert reason in decision
    assert bool(decision) is bool(reason)


def test_the_sensor_reports_changes_without_a_run_and_starts_a_watch_of_a_resting_provider(
    shop: Shop, source: Source
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        cursor: str | None = None

        def tick() -> tuple[int, list[bool]]:
            nonlocal cursor
            context = dg.build_sensor_context(instance, cursor, resources={"operations": source})
            result = provider_health_sensor.evaluate_tick(context)
            cursor = result.cursor
            checks = [event for event in result.asset_events if isinstance(event, dg.AssetCheckEvaluation)]
            for event in result.asset_events:
                instance.report_runless_asset_event(event)
            return len(result.run_requests or ()), [check.passed for check in checks]

        assert tick() == (0, [True] * 5)
        assert tick() == (0, [])
        fail(shop)
        runs, passed = tick()
        assert (runs, passed) == (1, [False])
        assert tick()[1] == []
        job = watch_resting_providers.execute_in_process(
            instance=instance,
            resources={"operations": source},
            run_config={"ops": {"probe_resting_providers": {"config": {"max_seconds": 0.0}}}},
        )
        assert job.success
        shown = instance.get_latest_materialization_event(dg.AssetKey(["ops", "provider_health"]))
        assert shown is not None
        assert shown.asset_materialization is not None
        table = shown.asset_materialization.metadata["providers"]
        assert isinstance(table, dg.TableMetadataValue)
        [airalo] = [dict(record.data) for record in table.records if record.data["provider"] == "airalo"]
        assert airalo["standing"] == "circuit open"
