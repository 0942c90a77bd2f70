"""Refunds that Stripe answers with a fault of its own, which it repeats for a day: paid soon where that is safe."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Engine, text

from esim.money import Money
from esim.ports import CheckoutLine, CheckoutRequest
from pipelines.aftermath import pay_refunds
from resources.db.audit import Operator
from resources.db.operator_refunds import RefundOptions, refund_units
from resources.db.payments import Booking, Payment, record_payment
from resources.order_operations import OrderTools, utc_now
from resources.settings import Settings
from sandbox.config import SandboxConfig
from sandbox.serve import Served, served
from tests.resources.db.shop import place_order, unit_states

Rows = Callable[[str], list[dict[str, object]]]


@pytest.fixture(scope="module")
def running() -> Iterator[Served]:
    # Nobody listens there: the webhooks of a refund never come.
    with served(SandboxConfig(plans_per_provider=10)) as sandbox:
        yield sandbox


@pytest.fixture
def tools(settings: Settings, running: Served) -> Iterator[OrderTools]:
    place = urlsplit(running.base_url)
    tools = OrderTools(settings.model_copy(update={"host": place.hostname, "sandbox_port": place.port}))
    yield tools
    tools.close()


def to_pay_back(engine: Engine, tools: OrderTools, sandbox: httpx.Client, units: int) -> UUID:
    """A paid order, the first eSIM of which is to be paid back."""
    with engine.begin() as conn:
        order_id = place_order(conn, units=units, now=utc_now())
    line, soon = CheckoutLine("Japan", Money(499, "USD"), units), utc_now() + timedelta(hours=1)
    page = CheckoutRequest(
        str(order_id), "OID1", (line,), "a@example.com", "http://shop.test", "http://shop.test", soon
    )
    session = tools.gateway.create_checkout(page)
    intent = sandbox.post(f"/sandbox/stripe/pay/{session.session_id}", json={}).json()["payment_intent"]
    with engine.begin() as conn:
        payment = Payment(order_id, intent, session.session_id, Money(499 * units, "USD"), "test")
        record_payment(conn, payment, Booking("test", utc_now(), 70))
        refund_units(conn, order_id, Operator("mia", "asked", utc_now()), RefundOptions((1,)))
    return order_id


def stripe_fails(sandbox: httpx.Client, when: str) -> None:
    fault = {"kind": "refund_error", "times": 1 if when == "stored" else 3, "params": {"when": when, "status": 500}}
    sandbox.put("/sandbox/stripe/faults", json=fault).raise_for_status()


def try_again(engine: Engine, tools: OrderTools) -> tuple[int, int]:
    with engine.begin() as conn:
        conn.execute(text("update refunds set next_attempt_at = now()"))
    return pay_refunds(tools, "test")


def refunded(sandbox: httpx.Client) -> list[int]:
    rows = sandbox.get("/sandbox/charges").json()["charges"]
    return [refund["amount_minor"] for row in rows for refund in row["refunds"]]


@pytest.mark.parametrize("when", ["stored", "before", "after"])
def test_a_refund_of_a_whole_payment_is_paid_once_stripe_works_again(
    tools: OrderTools, engine: Engine, sandbox: httpx.Client, when: str
) -> None:
    order_id = to_pay_back(engine, tools, sandbox, units=1)
    stripe_fails(sandbox, when)
    assert pay_refunds(tools, "test") == (0, 1)
    assert try_again(engine, tools) == (1, 0)
    assert (refunded(sandbox), unit_states(engine, order_id)) == ([499], ["refunded"])


def test_a_refund_that_might_be_paid_twice_is_never_asked_for_as_another_request(
    tools: OrderTools, engine: Engine, sandbox: httpx.Client, rows: Rows
) -> None:
    to_pay_back(engine, tools, sandbox, units=2)
    stripe_fails(sandbox, "stored")  # it was made all the same
    assert pay_refunds(tools, "test") == (0, 1)
    assert rows("select faults from refunds") == [{"faults": 0}]
    with (
        engine.begin() as conn
    ):  # as one that looks for it before it can be seen: the same request gets the same answer
        conn.execute(text("update refunds set attempts = 0, next_attempt_at = now()"))
    assert pay_refunds(tools, "test") == (0, 1)
    assert try_again(engine, tools) == (1, 0)
    assert refunded(sandbox) == [499]


def test_a_refusal_of_the_second_request_that_is_the_first_ones_success_is_no_refusal(
    tools: OrderTools, engine: Engine, sandbox: httpx.Client, rows: Rows
) -> None:
    order_id = to_pay_back(engine, tools, sandbox, units=1)
    stripe_fails(sandbox, "after")
    pay_refunds(tools, "test")
    with engine.begin() as conn:  # as one does that looked for it a moment before it was there
        conn.execute(text("update refunds set attempts = 0, next_attempt_at = now()"))
    assert pay_refunds(tools, "test") == (1, 0)
    assert (refunded(sandbox), unit_states(engine, order_id)) == ([499], ["refunded"])
    assert rows("select state, faults from refunds") == [{"state": "succeeded", "faults": 1}]
