"""Refunds that back off after a fault: whoever mended the cause has them tried at once, and each is still paid once."""

from collections.abc import Iterator
from uuid import UUID

import dagster as dg
import pytest
from sqlalchemy import text

from esim.errors import PaymentUnavailable
from esim.purchase import ErrorType
from pipelines.aftermath import pay_refunds
from pipelines.order_jobs import work_refunds
from pipelines.sensors.aftermath import aftermath_sensor
from resources.db.operator_refunds import RefundOptions
from resources.db.refunds import claim_refunds, hasten_refunds
from tests.pipelines.actors import rejects
from tests.pipelines.conftest import Rows, Shop, Source
from tests.pipelines.operating import Counter
from tests.resources.db.shop import order_state, paid_order


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def waiting(shop: Shop) -> UUID:
    """An order given up while Stripe was away, so long ago that its refund is tried again in an hour only."""
    for provider in (shop.cheap, shop.dear):
        provider.script.append(rejects(ErrorType.INVALID_PRODUCT))
    shop.gateway.failures.append(PaymentUnavailable("no answer"))
    order_id = paid_order(shop.engine)
    shop.drain()
    with shop.engine.begin() as conn:
        conn.execute(text("update refunds set attempts = 9, next_attempt_at = now() + interval '1 hour'"))
    return order_id


def launch(source: Source, instance: dg.DagsterInstance, run_config: object = None) -> None:
    resources = {"operations": source}
    assert work_refunds.execute_in_process(run_config=run_config, instance=instance, resources=resources).success


def test_the_job_launched_by_hand_pays_what_backs_off(
    shop: Shop, source: Source, waiting: UUID, instance: dg.DagsterInstance
) -> None:
    assert pay_refunds(shop.tools, "test") == (0, 0)
    launch(source, instance)
    assert (order_state(shop.engine, waiting), len(shop.gateway.paid)) == ("refunded", 1)
    launch(source, instance)
    assert len(shop.gateway.paid) == 1


def test_the_job_tries_each_once_while_the_fault_lasts(
    shop: Shop, source: Source, waiting: UUID, instance: dg.DagsterInstance, rows: Rows
) -> None:
    shop.gateway.failures.extend([PaymentUnavailable("no answer")] * 5)
    launch(source, instance)
    assert (order_state(shop.engine, waiting), len(shop.gateway.failures)) == ("failed", 4)
    assert rows("select next_attempt_at > now() + interval '50 minutes' as backs_off from refunds") == [
        {"backs_off": True}
    ]


def test_a_run_of_the_sensor_leaves_alone_what_backs_off(
    shop: Shop, source: Source, waiting: UUID, instance: dg.DagsterInstance
) -> None:
    with shop.engine.begin() as conn:  # another one is late
        conn.execute(text("update outbox set sent_at = now()"))
        conn.execute(
            text(
                "insert into refunds (refund_key, order_id, payment_intent, amount_minor, currency, reason,"
                " next_attempt_at) values ('late', :id, 'pi_2', 1, 'USD', 'test', now() - interval '1 minute')"
            ),
            {"id": waiting},
        )
    shop.tools.settings = shop.tools.settings.model_copy(update={"sensor_wait_seconds": 0.0})
    context = dg.build_sensor_context(instance=instance, resources={"operations": source})
    requests = aftermath_sensor.evaluate_tick(context).run_requests or []
    [request] = [request for request in requests if request.job_name == work_refunds.name]
    launch(source, instance, request.run_config)
    assert (order_state(shop.engine, waiting), list(shop.gateway.paid)) == ("failed", ["late"])


def test_a_refund_that_is_being_paid_is_left_to_whoever_pays_it(shop: Shop, waiting: UUID) -> None:
    with shop.engine.begin() as conn:
        conn.execute(text("update refunds set next_attempt_at = now()"))
    assert len(claim_refunds(shop.engine, 1)) == 1
    with shop.engine.begin() as conn:
        assert hasten_refunds(conn) == []
    assert claim_refunds(shop.engine, 1) == []


def test_an_operator_has_refunds_tried_at_once(shop: Shop, waiting: UUID, rows: Rows) -> None:
    counter, key = Counter(shop), f"refund:{waiting}:1"
    options = RefundOptions(again=True)
    [left] = counter.once(lambda desk, who: desk.refund(waiting, who, options)).left_alone
    assert left.startswith("the refund of eSIM 1 is under way (no answer): numnaroad refunds retry --order OID")
    done = counter.do(lambda desk, who: desk.retry_refunds(who, waiting))
    assert done.changes == (f"refund {key} is tried again at once",)
    [action] = rows("select actor, action, order_id from audit_events where action like 'refunds%'")
    assert action == {"actor": "operator:mia", "action": "refunds retry", "order_id": waiting}
    assert pay_refunds(shop.tools, "test") == (1, 0)
    assert order_state(shop.engine, waiting) == "refunded"


def test_an_operator_has_everybodys_refunds_tried_at_once(shop: Shop, waiting: UUID) -> None:
    done = Counter(shop).do(lambda desk, who: desk.retry_refunds(who, None))
    assert (done.subject, len(done.changes)) == ("refunds", 1)
    assert pay_refunds(shop.tools, "test") == (1, 0)
