"""`--bought`: an order that an operator found is this purchase's, or is refused with what speaks against it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from esim.money import Cost
from esim.purchase import OrderFacts, Outcome, PurchaseRequest
from resources.db.operator_resolve import Doubt
from tests.pipelines.actors import ScriptedProvider, never_hears, sells_without_answer
from tests.pipelines.conftest import Shop
from tests.pipelines.operating import Action, Counter
from tests.pipelines.test_operator_resolve import abandon, not_bought
from tests.pipelines.test_stock_is_nobodys import in_stock
from tests.resources.db.shop import NOW, paid_order, unit_states

COST = Cost.parse("2", "USD")
NUMBER = "airalo-order-1"
Rows = Callable[[str], list[dict[str, object]]]


@pytest.fixture
def counter(shop: Shop) -> Counter:
    return Counter(shop)


def bought(order_id: UUID, number: str = NUMBER, *, sure: bool = False) -> Action:
    return lambda desk, who: desk.bought(order_id, who, Doubt(1), number, although_unproven=sure)


def unclear(shop: Shop) -> UUID:
    """A paid order whose purchase was made, and whose answer was lost."""
    shop.cheap.script.append(sells_without_answer)
    shop.cheap.on_resolve = never_hears
    order_id = paid_order(shop.engine)
    shop.drain(max_seconds=0.3)
    assert unit_states(shop.engine, order_id) == ["unknown"]
    shop.clock.advance(seconds=1)
    return order_id


def answers(shop: Shop, serial: int, **facts: object) -> None:
    """Let the provider answer with its so-manyeth order, which says this of itself."""
    reference = list(shop.cheap.sold)[serial - 1]
    found = shop.cheap.found(PurchaseRequest(reference, "plan-1", COST, COST, NOW))
    told = replace(found, facts=OrderFacts(**facts))  # type: ignore[arg-type]  # facts by name
    shop.cheap.on_status = lambda _provider, _request: told


def reference_of(shop: Shop, serial: int) -> str:
    return list(shop.cheap.sold)[serial - 1]


def test_an_order_of_another_reference_is_refused_whatever_is_said(shop: Shop, counter: Counter, rows: Rows) -> None:
    one, two = unclear(shop), unclear(shop)
    answers(shop, 2, reference=reference_of(shop, 2))
    [other] = rows(f"select display_id from orders where order_id = '{two}'")
    for sure in (False, True):
        counter.refused(
            bought(one, "airalo-order-2", sure=sure),
            f"order airalo-order-2 was bought under the reference {reference_of(shop, 2)}, which is attempt 1 of "
            f"order {other['display_id']}, eSIM 1; this purchase's is {reference_of(shop, 1)}",
        )
    assert (unit_states(shop.engine, one), unit_states(shop.engine, two)) == (["unknown"], ["unknown"])


def test_a_reference_that_is_nobodys_is_refused_too(shop: Shop, counter: Counter) -> None:
    order_id = unclear(shop)
    answers(shop, 1, reference="bought in the portal")
    counter.refused(bought(order_id), "bought under the reference bought in the portal; this purchase's is")


def test_our_reference_proves_it_whatever_else_is_open(shop: Shop, counter: Counter) -> None:
    one, _ = unclear(shop), unclear(shop)
    long_ago = NOW - timedelta(days=3)  # a clock that is wrong
    answers(shop, 1, reference=reference_of(shop, 1), packages=frozenset({"PLAN-1"}), ordered_at=long_ago)
    assert counter.do(bought(one)).changes == ("eSIM 1 is delivered",)


def test_an_order_of_another_plan_is_refused_whatever_is_said(shop: Shop, counter: Counter) -> None:
    order_id = unclear(shop)
    answers(shop, 1, packages=frozenset({"plan-2", "two"}))
    for sure in (False, True):
        counter.refused(bought(order_id, sure=sure), "is of plan-2 or two; this purchase was of plan-1")
    answers(shop, 1, packages=frozenset({"AIRALO  plan-1", "code"}))  # by its name
    assert counter.do(bought(order_id)).changes == ("eSIM 1 is delivered",)


def test_an_older_order_is_refused_unless_a_person_is_sure(shop: Shop, counter: Counter, rows: Rows) -> None:
    order_id = unclear(shop)
    answers(shop, 1, ordered_at=NOW - timedelta(minutes=11))
    counter.refused(bought(order_id), "is from 2026-11-21 11:49 UTC, before this purchase began .12:00.*unproven")
    assert counter.do(bought(order_id, sure=True)).changes == ("eSIM 1 is delivered",)
    [audited] = rows("select details from audit_events")
    details = audited["details"]
    assert isinstance(details, dict)
    assert (details["although_unproven"], details["provider_order_id"]) == (True, NUMBER)
    assert rows("select 1 from order_events where details ->> 'although_unproven' = 'true'")


def test_clocks_may_differ_a_little(shop: Shop, counter: Counter, rows: Rows) -> None:
    order_id = unclear(shop)
    answers(shop, 1, ordered_at=NOW - timedelta(minutes=9))
    counter.do(bought(order_id))
    assert rows("select 1 from audit_events where details ? 'although_unproven'") == []


def test_an_order_that_another_open_purchase_may_be_is_refused_unless_a_person_is_sure(
    shop: Shop, counter: Counter, rows: Rows
) -> None:
    one, two = unclear(shop), unclear(shop)
    answers(shop, 2)
    [other] = rows(f"select display_id from orders where order_id = '{two}'")
    message = f"other purchases of plan-1 are open there: order {other['display_id']}, eSIM 1 .attempt 1.*unproven"
    counter.refused(bought(one, "airalo-order-2"), message)
    assert counter.once(bought(one, "airalo-order-2", sure=True)).changes == ("eSIM 1 is delivered",)


def test_purchases_elsewhere_or_closed_are_no_doubt(shop: Shop, counter: Counter) -> None:
    one, two = unclear(shop), unclear(shop)
    counter.once(not_bought(two))
    shop.dear.script.append(never_hears)
    shop.dear.on_resolve = never_hears
    shop.drain(max_seconds=0.3)
    answers(shop, 1)
    assert counter.do(bought(one)).changes == ("eSIM 1 is delivered",)


def test_what_is_in_stock_is_refused_with_the_way_out(shop: Shop, counter: Counter, rows: Rows) -> None:
    kept = in_stock(shop, rows)
    order_id = unclear(shop)
    shop.cheap.on_status = lambda _provider, _request: kept
    for sure in (False, True):
        counter.refused(
            bought(order_id, kept.provider_order_id, sure=sure),
            "order airalo-order-1 is eSIM 1 in stock .bought for order OID.*--not-bought.*numnaroad stock return 1",
        )


def test_what_a_customer_has_does_not_go_to_stock_of_a_unit_that_was_given_up(
    shop: Shop, counter: Counter, rows: Rows
) -> None:
    order_id = unclear(shop)
    counter.once(abandon(order_id))
    shop.cheap.on_resolve = None
    paid_order(shop.engine)
    shop.drain(max_seconds=0.5)

    def the_customers(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
        other = next(reference for reference in provider.sold if reference != request.reference)
        return replace(provider.found(replace(request, reference=other)), provider_order_id="named-otherwise")

    shop.cheap.on_status = the_customers
    counter.refused(bought(order_id, "named-otherwise"), "airalo names an eSIM that another order has .order OID")
    assert rows("select 1 from stock_esims") == []
