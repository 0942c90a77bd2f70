"""What is in stock is nobody's, and what is somebody's never goes to stock, whoever finds it and whenever."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from threading import Event
from uuid import UUID

import pytest
from sqlalchemy import text

from esim.money import Cost
from esim.ports import Capabilities, Serialise
from esim.purchase import (
    OTHER_ORDERS,
    Cancelled,
    ErrorType,
    Evidence,
    Outcome,
    Pending,
    ProviderPurchase,
    Provisioned,
    PurchaseRequest,
    Rejected,
    SaleState,
)
from pipelines.open_purchases import look_up_open_purchases
from pipelines.reconcile_providers import reconcile_providers
from pipelines.unit_work import UnitReport
from resources.db.deliveries import Delivery, deliver_together
from resources.db.inbox import LOOK_UP_SECONDS
from resources.db.operator_resolve import Doubt
from resources.db.settlement import Scribe, record_outcome
from tests.pipelines.actors import ScriptedProvider, accepts, never_hears, rejects, sells_without_answer, wait_until
from tests.pipelines.conftest import Shop
from tests.pipelines.operating import Counter
from tests.pipelines.test_crashes import recover, work_one
from tests.resources.db.shop import NOW, paid_order, unit_states

COST = Cost.parse("2", "USD")
Rows = Callable[[str], list[dict[str, object]]]
STOCK = "select provider_order_id, state from stock_esims order by stock_id"
BOOKED = "select distinct posting_key from ledger_entries where posting_key ~ '^(cost|stock):' order by 1"


def window_of(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
    """Find the first order there is, as a provider does that carries no reference of ours."""
    return window_found(provider) if provider.sold else Rejected(ErrorType.NOT_BOUGHT, "no order of this plan")


def window_found(provider: ScriptedProvider) -> Provisioned:
    """What the provider sold first."""
    return provider.found(PurchaseRequest(next(iter(provider.sold)), "plan-1", COST, COST, NOW))


@contextmanager
def asleep_before_the_wire(shop: Shop) -> Iterator[tuple[Event, Future[list[UnitReport]]]]:
    """A worker stands still before its request leaves, its purchase is proven absent, and its unit is served."""
    asleep, awake = Event(), Event()

    def sleeps(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
        asleep.set()
        assert awake.wait(30)
        return never_hears(provider, request)

    shop.cheap.script.append(sleeps)
    paid_order(shop.engine)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(work_one, shop)
        assert asleep.wait(30)
        recover(shop)
        try:
            yield awake, late
        finally:
            awake.set()


def posted(shop: Shop, kind: str) -> list[str]:
    with shop.engine.connect() as conn:
        return list(conn.scalars(text("select payload ->> 'text' from outbox where kind = :kind"), {"kind": kind}))


def test_a_late_doubt_never_takes_what_another_customer_was_given(shop: Shop, rows: Rows) -> None:
    with asleep_before_the_wire(shop) as (awake, late):
        second = paid_order(shop.engine)
        shop.drain()
        assert (unit_states(shop.engine, second), shop.cheap.purchases) == (["delivered"], 1)
        shop.cheap.on_resolve = window_of
        awake.set()
        late.result(timeout=30)
    for _ in range(2):
        shop.clock.advance(seconds=LOOK_UP_SECONDS + 1)
        shop.drain()
    assert (rows(STOCK), rows(BOOKED)) == ([], [{"posting_key": "cost:2"}, {"posting_key": "cost:3"}])
    [told] = posted(shop, "anothers_esim")
    assert "airalo names order airalo-order-1" in told
    assert rows("select worked_at from inbox_events where type = 'late_doubt'") == [{"worked_at": None}]
    shop.cheap.on_resolve = None  # it tells them apart again: nothing was bought
    shop.clock.advance(seconds=LOOK_UP_SECONDS + 1)
    shop.drain()
    assert rows("select 1 from inbox_events where worked_at is null and work is not null") == []


def test_a_late_doubt_never_takes_an_order_that_another_purchase_was_accepted_under(shop: Shop, rows: Rows) -> None:
    with asleep_before_the_wire(shop) as (awake, late):
        shop.cheap.script.append(accepts)
        shop.cheap.on_status = accepts
        paid_order(shop.engine)
        shop.drain(max_seconds=0.3)
        [number] = [row["provider_order_id"] for row in rows("select * from purchase_attempts where state = 'pending'")]
        shop.cheap.on_resolve = lambda _provider, _request: Pending(str(number))
        awake.set()
        late.result(timeout=30)
    shop.clock.advance(seconds=2)
    shop.drain(max_seconds=0.3)
    assert rows(STOCK) == []
    assert len(posted(shop, "anothers_esim")) == 1


def test_a_purchase_of_a_unit_that_was_given_up_never_takes_another_customers(shop: Shop, rows: Rows) -> None:
    shop.cheap.script.append(never_hears)
    shop.cheap.on_resolve = never_hears
    first = paid_order(shop.engine)
    shop.drain(max_seconds=0.3)
    second = paid_order(shop.engine)
    shop.drain(max_seconds=0.3)
    Counter(shop).once(lambda desk, who: desk.abandon(first, who, Doubt(1)))
    shop.cheap.on_resolve = window_of
    for _ in range(2):
        shop.clock.advance(hours=1)
        look_up_open_purchases(shop.tools, "test", None)
    assert (unit_states(shop.engine, second), rows(STOCK)) == (["delivered"], [])
    assert rows("select state, error_type from purchase_attempts where number = 1 order by attempt_id limit 1") == [
        {"state": "unknown", "error_type": "unknown"}
    ]
    assert len(posted(shop, "anothers_esim")) == 1


def in_stock(shop: Shop, rows: Rows, *, accepted_only: bool = False) -> Provisioned:
    """An eSIM that a closed attempt turned out to have bought; its unit was served by another provider."""
    shop.cheap.script.append(rejects(ErrorType.PROVIDER_API_ERROR))
    paid_order(shop.engine)
    shop.drain()
    [attempt] = rows("select attempt_id, reference from purchase_attempts where state = 'rejected'")
    sold = shop.cheap.sell(PurchaseRequest(str(attempt["reference"]), "plan-1", COST, COST, NOW))
    late = Pending(sold.provider_order_id) if accepted_only else sold
    with shop.engine.begin() as conn:
        record_outcome(conn, int(str(attempt["attempt_id"])), late, Scribe(shop.tools.vault, "test", shop.clock.now))
    assert rows(STOCK) == [{"provider_order_id": sold.provider_order_id, "state": "stock"}]
    return sold


@pytest.mark.parametrize(("accepted_only", "renamed"), [(False, False), (False, True), (True, False)])
def test_what_is_in_stock_is_not_delivered_by_itself(
    shop: Shop, rows: Rows, accepted_only: bool, renamed: bool
) -> None:
    kept = in_stock(shop, rows, accepted_only=accepted_only)
    named = replace(kept, provider_order_id="airalo-another-number") if renamed else kept
    shop.cheap.script.append(lambda _provider, _request: named)
    order_id = paid_order(shop.engine)
    shop.drain()
    assert unit_states(shop.engine, order_id) == ["attention"]
    assert rows("select 1 from esims e join stock_esims t on t.iccid_hash = e.iccid_hash") == []
    [told] = posted(shop, "attention")
    assert "names an eSIM that is in stock" in told


def test_an_order_in_stock_is_not_accepted_for_another_unit(shop: Shop, rows: Rows) -> None:
    kept = in_stock(shop, rows)
    shop.cheap.script.append(lambda _provider, _request: Pending(kept.provider_order_id))
    order_id = paid_order(shop.engine)
    shop.drain(max_seconds=0.5)
    assert unit_states(shop.engine, order_id) == ["attention"]


def test_an_esim_that_was_given_back_may_be_sold_again(shop: Shop, rows: Rows) -> None:
    kept = in_stock(shop, rows)
    shop.cheap.capabilities = replace(shop.cheap.capabilities, cancel=True)
    shop.cheap.takes_back = Cancelled(refunded=True)
    counter = Counter(shop)
    counter.do(lambda desk, who: desk.return_stock(1, who))
    shop.cheap.script.append(lambda _provider, _request: replace(kept, provider_order_id="airalo-sold-again"))
    order_id = paid_order(shop.engine)
    shop.drain()
    assert unit_states(shop.engine, order_id) == ["delivered"]


def test_of_a_late_arrival_and_a_delivery_at_once_one_sees_the_other(shop: Shop, rows: Rows) -> None:
    """The late arrival has no ICCID yet: the order's number alone makes them wait for each other."""
    shop.cheap.script.append(rejects(ErrorType.PROVIDER_API_ERROR))
    paid_order(shop.engine)
    shop.drain()
    [closed] = rows("select attempt_id from purchase_attempts where state = 'rejected'")
    shop.cheap.script.append(sells_without_answer)
    shop.cheap.on_resolve = never_hears
    order_id = paid_order(shop.engine)
    shop.drain(max_seconds=0.3)
    [open_one] = rows("select attempt_id, reference from purchase_attempts where state = 'unknown'")
    sold = shop.cheap.found(PurchaseRequest(str(open_one["reference"]), "plan-1", COST, COST, NOW))
    scribe = Scribe(shop.tools.vault, "test", shop.clock.now)
    delivery = Delivery(int(str(open_one["attempt_id"])), sold, order_id, "test", shop.clock.now, None, 1)
    waiting = "select 1 from pg_locks where locktype = 'advisory' and not granted"
    with ThreadPoolExecutor(1) as pool:
        with shop.engine.begin() as conn:
            record_outcome(conn, int(str(closed["attempt_id"])), Pending(sold.provider_order_id), scribe)
            at_once = pool.submit(deliver_together, shop.engine, shop.tools.vault, [delivery])
            wait_until(lambda: bool(rows(waiting)))
        assert at_once.result(timeout=30) == [False]
    with shop.engine.begin() as conn:
        record_outcome(conn, int(str(open_one["attempt_id"])), sold, scribe)
    assert unit_states(shop.engine, order_id) == ["attention"]


def taken_from_a_customer(shop: Shop, rows: Rows, *, by: str) -> UUID:
    """A delivered eSIM that older code put into stock as well."""
    shop.cheap.script.append(rejects(ErrorType.PROVIDER_API_ERROR))
    paid_order(shop.engine)
    shop.drain()
    order_id = paid_order(shop.engine)
    shop.drain()
    columns = {"number": "provider_order_id, null", "iccid": "'another-number', iccid_hash"}[by]
    with shop.engine.begin() as conn:
        conn.execute(
            text(
                "insert into stock_esims (attempt_id, provider, offer_id, provider_order_id, iccid_hash, cost_micros,"
                " reason) select (select attempt_id from purchase_attempts where state = 'rejected'), provider,"
                f" offer_id, {columns}, 2000000, 'test' from esims where order_id = :order_id"
            ),
            {"order_id": order_id},
        )
    return order_id


@pytest.mark.parametrize("by", ["number", "iccid"])
def test_stock_that_a_customer_has_is_not_given_back(shop: Shop, rows: Rows, by: str) -> None:
    order_id = taken_from_a_customer(shop, rows, by=by)
    shop.cheap.capabilities = replace(shop.cheap.capabilities, cancel=True)
    shop.cheap.takes_back = Cancelled(refunded=True)
    [order] = rows(f"select display_id from orders where order_id = '{order_id}'")
    message = f"eSIM 1 in stock is that of order {order['display_id']}, eSIM 1.*numnaroad stock write-off 1"
    Counter(shop).refused(lambda desk, who: desk.return_stock(1, who), message)
    assert shop.cheap.asked_to_take_back == []
    assert Counter(shop).once(lambda desk, who: desk.write_off_stock(1, who)).changes


def lists_orders(shop: Shop) -> None:
    shop.cheap.capabilities = Capabilities(reference_lookup=False, settle_seconds=0.0, lists_purchases=True)
    shop.dear.capabilities = replace(shop.cheap.capabilities, lists_purchases=False)


def listed_unnamed(shop: Shop, made: Provisioned) -> None:
    """Let the cheap provider list an order without its eSIM and our reference, and tell it when it is read."""
    number = made.provider_order_id
    shop.cheap.statement = [ProviderPurchase(number, NOW, SaleState.SOLD, package_id="plan-1")]
    shop.cheap.on_status = lambda _provider, _request: made


def test_a_statement_read_while_another_purchase_is_on_the_wire_gives_its_order_to_nobody(
    shop: Shop, rows: Rows
) -> None:
    lists_orders(shop)
    shop.cheap.script.append(rejects(ErrorType.PROVIDER_API_ERROR))
    paid_order(shop.engine)
    shop.drain()

    def sells_while_the_statement_is_read(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
        made = provider.sell(request)
        listed_unnamed(shop, made)
        assert reconcile_providers(shop.tools)[0].looked_up == 0
        return made

    shop.cheap.script.append(sells_while_the_statement_is_read)
    second = paid_order(shop.engine)
    shop.drain()
    shop.clock.advance(days=1)
    assert reconcile_providers(shop.tools)[0].kept_as_stock == 0
    assert (unit_states(shop.engine, second), rows(STOCK)) == (["delivered"], [])


def test_a_statement_gives_nobody_an_order_that_an_open_purchase_may_be(shop: Shop, rows: Rows) -> None:
    lists_orders(shop)
    shop.cheap.script.append(rejects(ErrorType.PROVIDER_API_ERROR))
    paid_order(shop.engine)
    shop.drain()
    shop.cheap.script.append(sells_without_answer)
    shop.cheap.on_resolve = never_hears
    second = paid_order(shop.engine)
    shop.drain(max_seconds=0.3)
    assert unit_states(shop.engine, second) == ["unknown"]
    listed_unnamed(shop, window_found(shop.cheap))
    shop.clock.advance(hours=2)
    assert (reconcile_providers(shop.tools)[0].looked_up, rows(STOCK)) == (0, [])
    shop.cheap.on_resolve = None
    look_up_open_purchases(shop.tools, "test", None)
    assert reconcile_providers(shop.tools)[0].kept_as_stock == 0
    assert (unit_states(shop.engine, second), rows(STOCK)) == (["delivered"], [])


def test_a_fresh_line_of_a_statement_is_left_for_the_next_look(shop: Shop, rows: Rows) -> None:
    lists_orders(shop)
    shop.cheap.capabilities = replace(shop.cheap.capabilities, settle_seconds=300.0)

    def refused_after_all(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
        made = provider.sell(request)
        listed_unnamed(shop, made)
        return Rejected(ErrorType.PROVIDER_API_ERROR, "refused")

    shop.cheap.script.append(refused_after_all)
    paid_order(shop.engine)
    shop.drain()
    shop.clock.advance(minutes=5)
    assert (reconcile_providers(shop.tools)[0].looked_up, rows(STOCK)) == (0, [])
    shop.clock.advance(hours=2)
    assert (reconcile_providers(shop.tools)[0].kept_as_stock, len(rows(STOCK))) == (1, 1)


def test_what_a_statement_names_and_another_purchase_has_is_not_counted_as_kept(shop: Shop, rows: Rows) -> None:
    lists_orders(shop)
    shop.cheap.script.append(rejects(ErrorType.PROVIDER_API_ERROR))
    paid_order(shop.engine)
    shop.drain()
    second = paid_order(shop.engine)
    shop.drain()
    # The statement knows the order by a number of its own and names no eSIM: only reading it tells whose it is.
    listed_unnamed(shop, replace(window_found(shop.cheap), provider_order_id="listed-otherwise"))
    shop.clock.advance(days=1)
    report = reconcile_providers(shop.tools)[0]
    assert (report.looked_up, report.kept_as_stock, rows(STOCK)) == (1, 0, [])
    assert unit_states(shop.engine, second) == ["delivered"]
    assert rows("select 1 from outbox where kind = 'late_doubt'") == []


class Windowed(ScriptedProvider):
    """A provider without references: a look-up finds the order of the plan that no other purchase is known to be."""

    def __init__(self) -> None:
        super().__init__(
            "airalo",
            capabilities=Capabilities(reference_lookup=False, settle_seconds=0.0, serialise=Serialise.PACKAGE),
        )
        self.while_asked: list[Callable[[], object]] = []

    def resolve(self, request: PurchaseRequest, evidence: Evidence, now: object) -> Outcome:
        self.looked_up.append(request.reference)
        found = [self.found(replace(request, reference=reference)) for reference in self.sold]
        if self.while_asked:
            self.while_asked.pop()()
        others = evidence.get(OTHER_ORDERS)
        assert isinstance(others, dict)
        new = [one for one in found if one.provider_order_id not in others]
        return new[0] if new else Rejected(ErrorType.NOT_BOUGHT, "no new order of this plan")


@pytest.fixture
def windowed(shop: Shop) -> Windowed:
    provider = Windowed()
    shop.cheap = provider
    shop.tools = shop.tools_with()
    return provider


def test_a_look_up_knows_the_orders_of_other_purchases(shop: Shop, windowed: Windowed, rows: Rows) -> None:
    with asleep_before_the_wire(shop) as (awake, late):
        second = paid_order(shop.engine)
        shop.drain()
        awake.set()
        late.result(timeout=30)
    shop.clock.advance(seconds=2)
    shop.drain()
    assert (rows(STOCK), posted(shop, "anothers_esim")) == ([], [])
    assert rows("select 1 from inbox_events where worked_at is null and work is not null") == []
    assert unit_states(shop.engine, second) == ["delivered"]


def test_a_late_doubt_is_not_looked_up_past_another_purchase_that_is_open(
    shop: Shop, windowed: Windowed, rows: Rows
) -> None:
    with asleep_before_the_wire(shop) as (awake, late):
        awake.set()
        late.result(timeout=30)

        def looked_up_meanwhile(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
            made = provider.sell(request)
            shop.clock.advance(seconds=2)
            shop.drain(max_seconds=0.3)
            return made

        windowed.script.append(looked_up_meanwhile)
        second = paid_order(shop.engine)
        work_one(shop)
    assert (unit_states(shop.engine, second), rows(STOCK)) == (["delivered"], [])
    shop.clock.advance(seconds=LOOK_UP_SECONDS + 1)
    shop.drain()
    assert rows("select 1 from inbox_events where worked_at is null and work is not null") == []
