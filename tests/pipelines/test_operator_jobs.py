"""The jobs operators launch by hand: the same actions, what changed in the run, refusals as failed runs."""

from collections.abc import Callable, Iterator

import dagster as dg
import pytest

from assets.reconciliation import KEY, reconciliation
from esim.errors import PaymentUnavailable
from esim.money import Money
from esim.ports import Capabilities
from esim.purchase import CancelRefused
from pipelines.operator_jobs import (
    OrderAction,
    ProviderAction,
    accept_finding,
    operate_order,
    operate_provider,
    operate_stock,
    operator_jobs,
)
from resources.db.findings import Finding, settle_findings
from resources.db.refund_events import refunded_in_all
from resources.db.tellers import Teller
from resources.order_operations import OrderTools, utc_now
from tests.pipelines.actors import never_hears, sells_without_answer
from tests.pipelines.conftest import Shop
from tests.pipelines.test_operator_cancel import late_arrival
from tests.resources.db.shop import order_state, paid_order, unit_states

Rows = Callable[[str], list[dict[str, object]]]
Launch = Callable[..., dg.ExecuteInProcessResult]


class Source:
    """Hands a shop's tools to Dagster."""

    def __init__(self, tools: OrderTools) -> None:
        self._tools = tools

    def tools(self) -> OrderTools:
        return self._tools


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def in_stock(shop: Shop) -> int:
    """The number of an eSIM in stock, by the clock that is set by hand."""
    return late_arrival(shop)


@pytest.fixture
def launch(shop: Shop, instance: dg.DagsterInstance) -> Launch:
    """Launch a job with a configuration as the Launchpad does."""
    shop.tools.clock = utc_now

    def run(job: dg.JobDefinition, **config: object) -> dg.ExecuteInProcessResult:
        op = next(iter(job.graph.node_dict))
        filled = {"operator": "mia", "reason": "asked for", **config}
        return job.execute_in_process(
            run_config={"ops": {op: {"config": filled}}},
            instance=instance,
            resources={"operations": Source(shop.tools)},
            raise_on_error=False,
        )

    return run


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    [output] = [event for event in result.all_events if event.event_type is dg.DagsterEventType.STEP_OUTPUT]
    return {name: value.value for name, value in output.step_output_data.metadata.items()}


def findings_in(instance: dg.DagsterInstance) -> list[dict[str, object]]:
    """Return the open findings as Dagster shows them."""
    event = instance.get_latest_materialization_event(KEY)
    assert event is not None
    assert event.asset_materialization is not None
    table = event.asset_materialization.metadata["findings"]
    assert isinstance(table, dg.TableMetadataValue)
    return [dict(record.data) for record in table.records]


def sentence_of(result: dg.ExecuteInProcessResult) -> str:
    assert not result.success
    [failed] = [event for event in result.all_events if event.event_type is dg.DagsterEventType.STEP_FAILURE]
    return str(failed.step_failure_data.user_failure_data.description)


def test_order_is_cancelled_from_the_launchpad_and_the_run_shows_it(shop: Shop, launch: Launch, rows: Rows) -> None:
    order_id = paid_order(shop.engine, now=utc_now())
    shown = launch(operate_order, action="CANCEL", order=str(order_id), preview=True)
    assert metadata_of(shown)["changes"] == "4.99 USD for eSIM 1 goes back to the customer"
    assert unit_states(shop.engine, order_id) == ["queued"]
    done = launch(operate_order, action="CANCEL", order=str(order_id))
    assert metadata_of(done)["order_id"] == str(order_id)
    assert order_state(shop.engine, order_id) == "failed"
    assert rows("select actor, action, run_id from audit_events") == [
        {"actor": "operator:mia", "action": "order cancel", "run_id": done.run_id}
    ]
    assert metadata_of(launch(operate_order, action="CANCEL", order=str(order_id)))["changes"] == "nothing to do"


def test_refusal_fails_the_run_with_its_sentence(shop: Shop, launch: Launch) -> None:
    order_id = paid_order(shop.engine, now=utc_now())
    shop.drain()
    assert "eSIM 1 is delivered" in sentence_of(launch(operate_order, action="RETRY", order=str(order_id)))
    assert "set all_units" in sentence_of(launch(operate_order, action="REFUND", order=str(order_id)))
    assert "about one eSIM" in sentence_of(launch(operate_order, action="ABANDON", order=str(order_id)))
    assert "provider_order_id" in sentence_of(launch(operate_order, action="BOUGHT", order=str(order_id), units=[1]))
    assert "no order 'OID999'" in sentence_of(launch(operate_order, action="RETRY", order="OID999"))


def test_the_launchpad_asks_the_payment_service_before_it_writes_down(shop: Shop, launch: Launch, rows: Rows) -> None:
    order_id = paid_order(shop.engine, now=utc_now())
    config = {"action": "PAID_ELSEWHERE", "order": str(order_id), "all_units": True}
    shop.gateway.away = PaymentUnavailable("Stripe did not answer; try again later")
    assert "must be known first, and nothing was changed" in sentence_of(launch(operate_order, **config))
    assert rows("select 1 from refunds") == []
    shop.gateway.away = None
    shop.gateway.pays_by_hand(f"pi_{order_id.hex}", 499)
    assert "of which nobody had told: booked now" in str(metadata_of(launch(operate_order, **config))["changes"])
    assert rows("select amount_minor, esim_n from refunds") == [{"amount_minor": 499, "esim_n": None}]


def test_order_that_was_paid_back_is_delivered_from_the_launchpad_only_as_a_gift(shop: Shop, launch: Launch) -> None:
    order_id = paid_order(shop.engine, now=utc_now())
    with shop.engine.begin() as conn:
        refunded_in_all(conn, order_id, f"pi_{order_id.hex}", Money(499, "USD"), Teller("stripe", utc_now()))
    released = {"action": "RETRY", "order": str(order_id), "release_hold": True}
    assert "all of its payment went back" in sentence_of(launch(operate_order, **released))
    assert "goodwill: all of its payment" in str(
        metadata_of(launch(operate_order, **released, goodwill=True))["changes"]
    )
    assert unit_states(shop.engine, order_id) == ["queued"]


@pytest.mark.parametrize("field", ["operator", "reason"])
def test_an_empty_field_is_named_as_the_form_names_it(shop: Shop, launch: Launch, field: str) -> None:
    order_id = paid_order(shop.engine, now=utc_now())
    said = sentence_of(launch(operate_order, action="CANCEL", order=str(order_id), **{field: " "}))
    assert f"fill in `{field}`" in said
    assert "--" not in said


@pytest.mark.parametrize("action", list(OrderAction))
def test_every_action_on_an_order_is_reached(shop: Shop, launch: Launch, action: OrderAction) -> None:
    order_id = paid_order(shop.engine, now=utc_now())
    config = {"units": [1], "provider_order_id": "x"} if action is not OrderAction.CANCEL else {}
    result = launch(operate_order, action=action.name, order=str(order_id), **config)
    if action in {OrderAction.NOT_BOUGHT, OrderAction.BOUGHT, OrderAction.ABANDON}:
        assert "no purchase of it is open" in sentence_of(result)
    else:
        assert result.success


def test_an_order_that_may_be_anothers_needs_a_person_who_is_sure(shop: Shop, launch: Launch) -> None:
    shop.cheap.script.extend([sells_without_answer, sells_without_answer])
    shop.cheap.on_resolve = never_hears
    one, _ = paid_order(shop.engine, now=utc_now()), paid_order(shop.engine, now=utc_now())
    shop.drain(max_seconds=0.3)
    found = {"action": "BOUGHT", "order": str(one), "units": [1], "provider_order_id": "airalo-order-1"}
    assert "although_unproven" in sentence_of(launch(operate_order, **found))
    assert metadata_of(launch(operate_order, **found, although_unproven=True))["changes"] == "eSIM 1 is delivered"


@pytest.mark.parametrize("action", list(ProviderAction))
def test_every_action_on_a_provider_is_reached(launch: Launch, action: ProviderAction) -> None:
    result = launch(operate_provider, action=action.name, provider="airalo")
    changed = metadata_of(result)["changes"]
    assert (changed == "nothing to do") == (action is not ProviderAction.DISABLE)


def test_unknown_provider_fails_with_the_known_ones(launch: Launch) -> None:
    assert "the providers are airalo" in sentence_of(launch(operate_provider, action="RESET", provider="nobody"))


def test_an_esim_in_stock_is_given_back_or_written_off_from_the_launchpad(
    shop: Shop, in_stock: int, launch: Launch, rows: Rows
) -> None:
    shop.cheap.capabilities = Capabilities(cancel=True)
    shop.cheap.takes_back = CancelRefused("installed")
    shown = launch(operate_stock, action="RETURN", stock=in_stock, preview=True)
    assert metadata_of(shown)["changes"] == f"airalo is asked to take eSIM {in_stock} in stock back"
    assert shop.cheap.asked_to_take_back == []
    assert "it stays in stock" in sentence_of(launch(operate_stock, action="RETURN", stock=in_stock))
    done = launch(operate_stock, action="WRITE_OFF", stock=in_stock)
    assert metadata_of(done)["changes"] == f"eSIM {in_stock} in stock: written off; its cost is a loss"
    audited = rows("select actor, action, run_id from audit_events where subject like 'stock %'")
    assert audited == [{"actor": "operator:mia", "action": "stock written_off", "run_id": done.run_id}]
    assert metadata_of(launch(operate_stock, action="WRITE_OFF", stock=in_stock))["changes"] == "nothing to do"
    assert "99" in sentence_of(launch(operate_stock, action="RETURN", stock=99))


def test_a_finding_is_accepted_from_the_launchpad_by_the_number_that_dagster_shows(
    shop: Shop, launch: Launch, instance: dg.DagsterInstance, rows: Rows
) -> None:
    with shop.engine.begin() as conn:
        settle_findings(
            conn, "books", [Finding("cost_differs", "x", "It differs.", paid_order(shop.engine))], utc_now()
        )
    resources = {"operations": Source(shop.tools)}
    dg.materialize([reconciliation], instance=instance, resources=resources, raise_on_error=False)
    [shown] = findings_in(instance)
    launched = launch(accept_finding, finding=shown["number"], preview=True)
    assert metadata_of(launched)["changes"] == "cost_differs of x is accepted"
    assert [row["number"] for row in findings_in(instance)] == [shown["number"]]
    done = launch(accept_finding, finding=shown["number"])
    assert findings_in(instance) == []
    assert rows("select actor, action, run_id from audit_events") == [
        {"actor": "operator:mia", "action": "finding accept", "run_id": done.run_id}
    ]
    assert "no finding 99 is open" in sentence_of(launch(accept_finding, finding=99))


@pytest.mark.parametrize("job", operator_jobs, ids=lambda job: job.name)
def test_every_field_of_a_form_is_described(job: dg.JobDefinition) -> None:
    [node] = job.graph.node_dict.values()
    schema = node.definition.config_schema.config_type.fields  # type: ignore[attr-defined,union-attr]  # an op's form
    assert [name for name, field in schema.items() if not field.description] == []
