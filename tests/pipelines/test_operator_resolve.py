"""An operator says what became of an unclear purchase; what the provider says decides what is delivered."""

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import text

from esim.money import Cost
from esim.orders import UnitStatus
from esim.ports import Capabilities
from esim.purchase import ErrorType, Outcome, Pending, Provisioned, PurchaseRequest, Rejected, Unknown
from pipelines.aftermath import pay_refunds
from resources.db.operator_resolve import Doubt
from resources.db.settlement import Scribe, record_outcome
from tests.pipelines.actors import ScriptedProvider, accepts, never_hears, sells_without_answer
from tests.pipelines.conftest import Shop
from tests.pipelines.operating import Action, Counter
from tests.resources.db.shop import NOW, order_state, paid_order, unit_states

Rows = Callable[[str], list[dict[str, object]]]
Answer = Callable[[ScriptedProvider, PurchaseRequest], Outcome]


@pytest.fixture
def counter(shop: Shop) -> Counter:
    return Counter(shop)


def not_bought(order_id: UUID, attempt: int | None = None) -> Action:
    return lambda desk, who: desk.not_bought(order_id, who, Doubt(1, attempt))


def bought(order_id: UUID, provider_order_id: str, attempt: int | None = None) -> Action:
    return lambda desk, who: desk.bought(order_id, who, Doubt(1, attempt), provider_order_id)


def abandon(order_id: UUID) -> Action:
    return lambda desk, who: desk.abandon(order_id, who, Doubt(1))


def unclear(shop: Shop, *, sold: bool, settle_seconds: float = 0.0) -> UUID:
    """A paid order whose purchase got no answer and that no look-up clears up."""
    shop.cheap.capabilities = Capabilities(reference_lookup=True, settle_seconds=settle_seconds)
    shop.cheap.script.append(sells_without_answer if sold else never_hears)
    shop.cheap.on_resolve = never_hears
    order_id = paid_order(shop.engine)
    shop.drain(max_seconds=0.3)
    assert unit_states(shop.engine, order_id) == ["unknown"]
    shop.clock.advance(seconds=1)
    return order_id


def test_purchase_that_was_not_made_is_closed_and_the_next_offer_is_bought(
    shop: Shop, counter: Counter, rows: Rows
) -> None:
    order_id = unclear(shop, sold=False)
    done = counter.do(not_bought(order_id, 1))
    closed, alone = done.changes
    assert closed == "attempt 1 at airalo is closed as not bought; eSIM 1 is queued"
    assert alone.startswith("airalo could not tell, so this is your word alone")
    shop.drain()
    assert (order_state(shop.engine, order_id), shop.dear.purchases) == ("completed", 1)
    assert rows("select state, error_type from purchase_attempts order by number") == [
        {"state": "rejected", "error_type": "not_bought"},
        {"state": "provisioned", "error_type": None},
    ]


def test_purchase_is_not_called_absent_before_the_provider_would_show_it(shop: Shop, counter: Counter) -> None:
    order_id = unclear(shop, sold=True, settle_seconds=300.0)
    counter.refused(not_bought(order_id), "airalo may show an order for up to 300 s; ask it again after 12:05:00 UTC")
    shop.clock.advance(seconds=300)
    assert counter.once(not_bought(order_id)).changes


@pytest.mark.parametrize("answer", [lambda provider, request: provider.sell(request), accepts])
def test_what_the_provider_has_is_not_closed_as_not_bought(shop: Shop, counter: Counter, answer: Answer) -> None:
    order_id = unclear(shop, sold=False)
    shop.cheap.on_resolve = answer
    counter.refused(not_bought(order_id), "airalo has it, as order .*: wait for the next look-up, or say --bought")
    assert unit_states(shop.engine, order_id) == ["unknown"]


def test_a_provider_that_agrees_needs_no_other_word(shop: Shop, counter: Counter) -> None:
    order_id = unclear(shop, sold=False)
    shop.cheap.on_resolve = lambda provider, request: Rejected(ErrorType.NOT_BOUGHT, "in no order")
    assert len(counter.do(not_bought(order_id)).changes) == 1


def test_an_answer_about_an_older_attempt_closes_no_newer_one(shop: Shop, counter: Counter) -> None:
    order_id = unclear(shop, sold=False)
    counter.once(not_bought(order_id, 1))
    shop.dear.script.append(never_hears)
    shop.dear.on_resolve = never_hears
    shop.drain(max_seconds=0.3)
    assert unit_states(shop.engine, order_id) == ["unknown"]
    shop.clock.advance(seconds=1)
    counter.refused(not_bought(order_id, 1), "attempt 1 is closed; open is attempt 2 at esim_go")
    counter.refused(bought(order_id, "airalo-order-1", 1), "attempt 1 is closed; open is attempt 2 at esim_go")


def test_found_purchase_is_delivered_as_the_provider_answers_it(shop: Shop, counter: Counter, rows: Rows) -> None:
    order_id = unclear(shop, sold=True)
    done = counter.do(bought(order_id, "airalo-order-1", 1))
    assert done.changes == ("eSIM 1 is delivered",)
    assert (order_state(shop.engine, order_id), shop.sold) == ("completed", 1)
    assert rows("select provider_order_id, cost_micros from esims") == [
        {"provider_order_id": "airalo-order-1", "cost_micros": 2_000_000}
    ]
    shop.drain()
    assert (shop.sold, len(shop.mailer.sent)) == (1, 1)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Pending("airalo-order-1"), "does not say that it delivered order airalo-order-1 .pending.; try again later"),
        (Pending("airalo-order-1"), "or check the number: airalo may not know it"),
        (Unknown(ErrorType.PROVIDER_TIMEOUT, "no answer"), "does not say that it delivered .* .unknown: no answer."),
        (Rejected(ErrorType.OUT_OF_STOCK, "failed unpaid"), "order airalo-order-1 failed .failed unpaid.; if so"),
    ],
)
def test_only_a_clear_answer_is_delivered(shop: Shop, counter: Counter, answer: Outcome, message: str) -> None:
    order_id = unclear(shop, sold=True)
    shop.cheap.on_status = lambda provider, request: answer
    counter.refused(bought(order_id, "airalo-order-1"), message)
    assert unit_states(shop.engine, order_id) == ["unknown"]


def test_another_customers_order_is_not_delivered(shop: Shop, counter: Counter) -> None:
    first = paid_order(shop.engine)
    shop.drain()
    assert unit_states(shop.engine, first) == ["delivered"]
    order_id = unclear(shop, sold=True)

    def the_first_ones(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
        return provider.found(replace(request, reference=next(iter(provider.sold))))

    def under_another_number(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
        found = the_first_ones(provider, request)
        assert isinstance(found, Provisioned)
        return replace(found, provider_order_id="airalo-again")

    shop.cheap.on_status = the_first_ones
    counter.refused(bought(order_id, "airalo-order-1"), "airalo's order airalo-order-1 is a purchase of order OID")
    shop.cheap.on_status = under_another_number
    counter.refused(bought(order_id, "airalo-again"), "airalo names an eSIM that another order has")
    assert unit_states(shop.engine, order_id) == ["unknown"]


def test_purchase_nobody_can_clear_up_is_paid_back_and_turns_up_in_stock(
    shop: Shop, counter: Counter, rows: Rows
) -> None:
    order_id = unclear(shop, sold=True)
    done = counter.do(abandon(order_id))
    assert done.changes == ("4.99 USD for eSIM 1 goes back to the customer",)
    pay_refunds(shop.tools, "test")
    assert order_state(shop.engine, order_id) == "refunded"
    [attempt] = rows("select attempt_id, state from purchase_attempts")
    assert attempt["state"] == "unknown"
    found = shop.cheap.found(replace(_request(), reference=next(iter(shop.cheap.sold))))
    with shop.engine.begin() as conn:
        scribe = Scribe(shop.tools.vault, "look-up", shop.clock.now)
        assert record_outcome(conn, int(str(attempt["attempt_id"])), found, scribe) is UnitStatus.REFUNDED
    assert rows("select state from stock_esims") == [{"state": "stock"}]
    assert len(shop.gateway.paid) == 1


def test_open_purchase_of_a_unit_that_was_paid_back_is_closed_without_buying(shop: Shop, counter: Counter) -> None:
    order_id = unclear(shop, sold=False)
    counter.once(abandon(order_id))
    pay_refunds(shop.tools, "test")
    closed, _ = counter.do(not_bought(order_id)).changes
    assert closed == "attempt 1 at airalo is closed as not bought; eSIM 1 is refunded"
    shop.drain()
    assert (shop.sold, order_state(shop.engine, order_id)) == (0, "refunded")


def duplicate(shop: Shop) -> UUID:
    """An order for which the provider named an eSIM that another order has."""
    paid_order(shop.engine)
    shop.drain()

    def first_again(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
        found = provider.found(replace(request, reference=next(iter(provider.sold))))
        return replace(found, provider_order_id="airalo-another-number")

    shop.cheap.script.append(first_again)
    order_id = paid_order(shop.engine)
    shop.drain()
    assert unit_states(shop.engine, order_id) == ["attention"]
    shop.clock.advance(seconds=1)
    return order_id


def test_duplicate_esim_is_released_to_the_next_offer(shop: Shop, counter: Counter) -> None:
    order_id = duplicate(shop)
    counter.do(not_bought(order_id))
    shop.drain()
    assert (order_state(shop.engine, order_id), shop.dear.purchases) == ("completed", 1)


def test_duplicate_esim_is_given_up(shop: Shop, counter: Counter) -> None:
    order_id = duplicate(shop)
    counter.do(abandon(order_id))
    pay_refunds(shop.tools, "test")
    assert order_state(shop.engine, order_id) == "refunded"


def test_where_nothing_is_open_there_is_nothing_to_resolve(shop: Shop, counter: Counter) -> None:
    order_id = paid_order(shop.engine)
    for action in (not_bought(order_id), bought(order_id, "x"), abandon(order_id)):
        counter.refused(action, "eSIM 1 is queued and no purchase of it is open.*numnaroad order show")


def test_purchase_in_work_is_left_to_its_worker(shop: Shop, counter: Counter) -> None:
    order_id = unclear(shop, sold=False)
    with shop.engine.begin() as conn:
        conn.execute(text("update esims set status = 'working', lease_owner = 'w', lease_until = now()"))
        conn.execute(
            text(
                "insert into order_events (order_id, esim_n, to_status, reason, actor)"
                " select order_id, 1, 'working', 'test', 'test' from esims"
            )
        )
    counter.refused(not_bought(order_id), "is being worked on right now")
    counter.refused(abandon(order_id), "is being worked on right now")


def _request() -> PurchaseRequest:
    cost = Cost.parse("2.00", "USD")
    return PurchaseRequest("r", "plan-1", cost, cost, NOW)
