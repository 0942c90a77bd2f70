"""Runs that a person launches from Dagster's Launchpad are kept in the audit; those of clocks and sensors are not."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import cast
from uuid import UUID

import dagster as dg
import pytest
from sqlalchemy import Engine, text

from esim.errors import PaymentUnavailable
from esim.ports import PaymentGateway
from esim.purchase import ErrorType
from pipelines.order_jobs import work_refunds
from pipelines.reconcile_jobs import prove_books_job, reconcile_jobs, reconcile_payments_job, reconcile_providers_job
from resources.order_operations import OrderTools
from tests.pipelines.actors import rejects
from tests.pipelines.conftest import Rows, Shop, Source
from tests.pipelines.scripted_gateway import Account
from tests.pipelines.test_reconcile_providers import LISTS, line, refused_after_all
from tests.resources.db.shop import NOW, order_state, paid_order, place_order

PAID_AT = NOW - timedelta(hours=2)
MIA = {"operator": "mia", "reason": "the endpoint was down"}
AUDIT = "select actor, action, subject, reason, run_id from audit_events"
TOLD = "select details from audit_events order by audit_id desc limit 1"
Launch = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def tools(shop: Shop, account: Account) -> OrderTools:
    """The shop's tools with a payment service that has books."""
    tools = shop.tools_with()
    tools._gateway = cast(PaymentGateway, account)
    return tools


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Launch a job with a form as the Launchpad fills it in, or with nothing, as a clock does."""
    with dg.DagsterInstance.ephemeral() as instance:

        def run(job: dg.JobDefinition, tools: OrderTools, **form: object) -> dg.ExecuteInProcessResult:
            op = next(iter(job.graph.node_dict))
            config = {"ops": {op: {"config": form}}} if form else {}
            resources = {"operations": Source(tools)}
            return job.execute_in_process(
                run_config=config, instance=instance, resources=resources, raise_on_error=False
            )

        yield run


def told(rows: Rows) -> dict[str, list[str]]:
    [row] = rows(TOLD)
    return cast(dict[str, list[str]], row["details"])


def unpaid(engine: Engine) -> UUID:
    with engine.begin() as conn:
        return place_order(conn, now=NOW - timedelta(hours=3))


def test_payments_applied_by_hand_are_kept_with_who_had_them_applied(
    tools: OrderTools, account: Account, engine: Engine, rows: Rows, launch: Launch
) -> None:
    order_id = unpaid(engine)
    account.pays(order_id, PAID_AT)
    run = launch(reconcile_payments_job, tools, **MIA)
    assert order_state(engine, order_id) == "paid"
    assert rows(AUDIT) == [
        {
            "actor": "operator:mia",
            "action": "reconcile",
            "subject": "payments",
            "reason": "the endpoint was down",
            "run_id": run.run_id,
        }
    ]
    assert "1 webhooks lost" in told(rows)["found"][0]
    [mended] = told(rows)["changes"]
    assert mended.startswith("checkout.session.completed: ")


def test_esims_put_into_stock_by_hand_are_kept_with_who_looked(
    shop: Shop, engine: Engine, rows: Rows, launch: Launch
) -> None:
    shop.cheap.capabilities = LISTS
    shop.cheap.script.append(refused_after_all)
    paid_order(engine)
    shop.drain()
    shop.cheap.statement = [replace(line(shop.cheap), bought_at=NOW + timedelta(seconds=40))]
    shop.clock.advance(days=1)
    assert launch(reconcile_providers_job, shop.tools, operator="mia").success
    assert [(row["subject"], row["reason"]) for row in rows(AUDIT)] == [("providers", "not said")]
    assert told(rows)["changes"] == ["airalo: 1 eSIMs went into stock"]
    assert told(rows)["found"][0].startswith("airalo: 1 lines, 1 read again")


def test_what_the_proof_found_for_a_person_is_kept(
    tools: OrderTools, engine: Engine, rows: Rows, launch: Launch
) -> None:
    order_id = paid_order(engine)  # nobody paid at Stripe
    tools.clock.advance(days=1)  # type: ignore[attr-defined]  # a clock set by hand
    assert launch(prove_books_job, tools, **MIA, full=True).success
    assert f"new: payment_not_at_stripe of pi_{order_id.hex}" in told(rows)["found"]


def test_a_look_that_breaks_off_is_kept_with_what_it_mended_before(
    tools: OrderTools, account: Account, engine: Engine, rows: Rows, launch: Launch
) -> None:
    one, two = unpaid(engine), unpaid(engine)
    account.pays(one, PAID_AT)
    account.events.remove(account.pays(two, PAID_AT))
    account.breaks_after = 1  # the one event is read and applied, the second of two pages is not read
    assert not launch(reconcile_payments_job, tools, **MIA).success
    assert (order_state(engine, one), order_state(engine, two)) == ("paid", "pending")
    assert told(rows)["found"] == ["broke off: PaymentError"]
    [mended] = told(rows)["changes"]
    assert mended.startswith("checkout.session.completed: ")


def test_refunds_paid_by_hand_are_kept_with_how_many(shop: Shop, rows: Rows, launch: Launch) -> None:
    for provider in (shop.cheap, shop.dear):
        provider.script.append(rejects(ErrorType.INVALID_PRODUCT))
    shop.gateway.failures.append(PaymentUnavailable("no answer"))
    order_id = paid_order(shop.engine)
    shop.drain()
    with shop.engine.begin() as conn:
        conn.execute(text("update refunds set attempts = 9, next_attempt_at = now() + interval '1 hour'"))
    assert launch(work_refunds, shop.tools, **MIA).success
    assert order_state(shop.engine, order_id) == "refunded"
    assert [(row["action"], row["subject"]) for row in rows(AUDIT)] == [("refunds work", "refunds")]
    assert told(rows) == {"changes": ["1 refunds paid"], "found": ["0 refunds could not be paid"]}


@pytest.mark.parametrize("job", [*reconcile_jobs, work_refunds], ids=lambda job: job.name)
def test_a_run_that_names_nobody_is_not_kept_and_a_reason_needs_a_name(
    tools: OrderTools, rows: Rows, launch: Launch, job: dg.JobDefinition
) -> None:
    assert launch(job, tools).success
    nameless = launch(job, tools, reason="I wondered")
    [failed] = [event for event in nameless.all_events if event.event_type is dg.DagsterEventType.STEP_FAILURE]
    assert "fill in `operator`" in str(failed.step_failure_data.user_failure_data.description)
    assert rows(AUDIT) == []


@pytest.mark.parametrize("job", [*reconcile_jobs, work_refunds], ids=lambda job: job.name)
def test_every_field_of_a_form_is_described(job: dg.JobDefinition) -> None:
    [node] = job.graph.node_dict.values()
    schema = node.definition.config_schema.config_type.fields  # type: ignore[attr-defined,union-attr]  # an op's form
    assert {"operator", "reason"} <= set(schema)
    assert [name for name, field in schema.items() if not field.description] == []
