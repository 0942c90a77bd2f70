"""Drains with the real adapters against the sandbox, over real sockets: the provider's own books are the witness."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import Engine, text

from esim.catalogue import OfferKind
from esim.errors import Refused
from pipelines.drain import Drain, DrainLimits
from resources.db.audit import Operator
from resources.db.operator_refunds import RefundOptions
from resources.db.operator_resolve import Doubt
from resources.operator_desk import OperatorDesk
from resources.order_operations import OrderTools, utc_now
from resources.settings import PROVIDERS, Settings
from sandbox.config import SandboxConfig
from sandbox.serve import Served, served
from tests.pipelines.actors import wait_until
from tests.resources.db.shop import OfferSpec, open_shop, order_state, paid_order

Rows = Callable[[str], list[dict[str, object]]]


class LeapingClock:
    """The real time, plus what a test leaps over instead of waiting."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return utc_now() + self.ahead


@pytest.fixture(scope="module")
def running() -> Iterator[Served]:
    config = SandboxConfig(plans_per_provider=60, async_seconds=0.05, rate_limits=False)
    with served(config) as sandbox:
        yield sandbox


@pytest.fixture
def clock() -> LeapingClock:
    return LeapingClock()


@pytest.fixture
def tools(settings: Settings, running: Served, clock: LeapingClock) -> Iterator[OrderTools]:
    place = urlsplit(running.base_url)
    changes = {"host": place.hostname, "sandbox_port": place.port, "drain_workers": 4, "provider_timeout_ms": 3_000}
    tools = OrderTools(settings.model_copy(update=changes), clock=clock)
    yield tools
    for provider in tools.providers.values():
        provider.close()
    tools.close()


def put_on_sale(engine: Engine, tools: OrderTools, slug: str) -> None:
    """Offer one real plan of this provider's catalogue, beside one of another provider to fail over to."""
    specs = []
    for provider, most in ((slug, "0.10"), (next(one for one in ("airalo", "esim_access") if one != slug), "0.20")):
        offers = (offer for page in tools.providers[provider].catalogue() for offer in page.offers)
        plan = next(one for one in offers if one.kind is OfferKind.PLAN and one.cost.micros < 20_000_000)
        values: dict[str, object] = {
            "cost_amount": plan.cost.amount,
            "order_hints": dict(plan.order_hints),
            "name": plan.name,
            "landed_micros": int(float(most) * 1_000_000),
        }
        specs.append(OfferSpec(provider, most, plan=plan.provider_package_id, values=values))
    open_shop(engine, specs)


def work(tools: OrderTools, clock: LeapingClock, engine: Engine, order_id: object) -> None:
    """Let drains work until the order has an end, leaping over the waits for providers to settle."""
    for _ in range(12):
        Drain(tools, DrainLimits(4, 0.0, 1.2)).run()
        if order_state(engine, order_id) not in {"paid", "processing"}:  # type: ignore[arg-type]  # an order id
            return
        clock.ahead += timedelta(seconds=100)


def bought(sandbox: httpx.Client) -> list[dict[str, str]]:
    """What the providers keep as sold, by their own books."""
    rows = sandbox.get("/sandbox/purchases").json()["purchases"]
    return [row for row in rows if row["state"] in {"delivered", "processing", "inventory"}]


@pytest.mark.parametrize("fault", ["", "reset_after", "reset_before", "error_after"])
@pytest.mark.parametrize("slug", PROVIDERS)
def test_a_paid_unit_is_bought_once_whatever_happens_to_the_answer(
    sandbox: httpx.Client, engine: Engine, tools: OrderTools, clock: LeapingClock, rows: Rows, slug: str, fault: str
) -> None:
    put_on_sale(engine, tools, slug)
    if slug == "esim_access":  # what is proven absent there is proven beside an order that is known
        paid_order(engine, price_minor=4_999, now=utc_now())
        Drain(tools, DrainLimits(4, 0.0, 10.0)).run()
    earlier = bought(sandbox)
    if fault:
        strike = {"provider": slug, "call": "order", "kind": fault, "times": 1}
        assert sandbox.put("/sandbox/faults", json=strike).is_success
    order_id = paid_order(engine, price_minor=4_999, now=utc_now())
    work(tools, clock, engine, order_id)
    sold = [one for one in bought(sandbox) if one not in earlier]
    story = rows("select provider, state, error from purchase_attempts order by number")
    if tools.providers[slug].capabilities.resolves_for_certain or not fault:
        assert (order_state(engine, order_id), len(sold)) == ("completed", 1), story
        [unit] = rows(f"select provider, provider_order_id from esims where order_id = '{order_id}'")
        assert unit["provider"] == sold[0]["provider"], story
    else:
        assert len(sold) <= 1, story


def late_arrival(tools: OrderTools, clock: LeapingClock, engine: Engine, sandbox: httpx.Client, slug: str) -> int:
    """An eSIM in stock: its answer was lost, its price asked back meanwhile, and somebody finds it there."""
    put_on_sale(engine, tools, slug)
    strike = {"provider": slug, "call": "order", "kind": "reset_after", "times": 1}
    assert sandbox.put("/sandbox/faults", json=strike).is_success
    order_id = paid_order(engine, price_minor=4_999, now=utc_now())
    Drain(tools, DrainLimits(4, 0.0, 0.5)).run()
    desk, who = OperatorDesk(tools), Operator("mia", "too late", utc_now())
    desk.refund(order_id, who, RefundOptions(even_if_open=True))
    [sold] = bought(sandbox)

    def is_found() -> bool:
        try:
            return bool(desk.bought(order_id, who, Doubt(1), sold["order_id"]).changes)
        except Refused:  # it is being delivered there
            return False

    wait_until(is_found)
    with engine.connect() as conn:
        return int(conn.scalars(text("select stock_id from stock_esims where state = 'stock'")).one())


def wallet(sandbox: httpx.Client, slug: str) -> Decimal:
    return Decimal(sandbox.get("/sandbox/balances").json()[slug])


def balances(rows: Rows) -> dict[object, object]:
    found = rows("select account, sum(amount_micros)::bigint as micros from ledger_entries group by 1")
    return {row["account"]: row["micros"] for row in found if row["micros"]}


@pytest.mark.parametrize(("slug", "credited"), [("esim_access", True), ("mobimatter", True), ("esim_go", False)])
def test_a_late_arrival_is_given_back_where_the_contract_takes_it(
    sandbox: httpx.Client, engine: Engine, tools: OrderTools, clock: LeapingClock, rows: Rows, slug: str, credited: bool
) -> None:
    before = wallet(sandbox, slug)
    number = late_arrival(tools, clock, engine, sandbox, slug)
    cost = balances(rows)["stock"]
    assert OperatorDesk(tools).return_stock(number, Operator("mia", "late arrival", utc_now())).changes
    assert rows("select state from stock_esims") == [{"state": "cancelled"}]
    after = balances(rows)
    worth = (after.get("stock"), after.get("provider_balance"), after.get("loss"))
    assert worth == ((None, None, None) if credited else (None, -int(str(cost)), cost))
    assert (wallet(sandbox, slug) == before) is credited
    again = OperatorDesk(tools).return_stock(number, Operator("mia", "again", utc_now()))
    assert (again.changes, balances(rows)) == ((), after)


@pytest.mark.parametrize("slug", ["airalo"])
def test_a_late_arrival_that_no_contract_takes_back_stays_in_stock(
    sandbox: httpx.Client, engine: Engine, tools: OrderTools, clock: LeapingClock, rows: Rows, slug: str
) -> None:
    number = late_arrival(tools, clock, engine, sandbox, slug)
    with pytest.raises(Refused, match="takes nothing back through its API"):
        OperatorDesk(tools).return_stock(number, Operator("mia", "late arrival", utc_now()))
    assert rows("select state from stock_esims") == [{"state": "stock"}]
