"""One eSIM serves one customer: purchases that disturb each other never overlap, and no ICCID is given out twice."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from esim.money import Cost
from esim.ports import Capabilities, Serialise
from esim.purchase import Outcome, Provisioned, PurchaseRequest
from tests.pipelines.actors import ScriptedProvider, accepts, sells
from tests.pipelines.conftest import Shop
from tests.resources.db.shop import order_state, paid_order, unit_states

COST = Cost.parse("2", "USD")
Rows = Callable[[str], list[dict[str, object]]]


def one_at_a_time(shop: Shop) -> None:
    """Let the cheap provider take one purchase at a time; the other one sells nothing."""
    shop.cheap.capabilities = Capabilities(reference_lookup=True, settle_seconds=0.0, serialise=Serialise.ACCOUNT)
    shop.tools = shop.tools_with(enable_multi_provider_failover=False)


def test_accepted_purchase_keeps_its_slot_until_it_is_delivered(shop: Shop, rows: Rows) -> None:
    one_at_a_time(shop)
    shop.cheap.script.append(accepts)
    shop.cheap.on_status = accepts
    paid_order(shop.engine)
    shop.drain(max_seconds=0.5)
    assert rows("select state, slot from purchase_attempts") == [{"state": "pending", "slot": "airalo"}]
    second = paid_order(shop.engine)
    shop.drain(max_seconds=0.5)
    assert (shop.cheap.purchases, unit_states(shop.engine, second)) == (0, ["queued"])
    shop.cheap.on_status = sells
    shop.clock.advance(minutes=5)
    shop.drain()
    assert rows("select distinct status from esims") == [{"status": "delivered"}]
    assert rows("select count(distinct iccid_hash) as n from esims") == [{"n": 2}]


def the_first_ones(order: str) -> Callable[[ScriptedProvider, PurchaseRequest], Outcome]:
    """Name the eSIM that was sold first, under another order number."""

    def step(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
        first = next(iter(provider.sold))
        return replace(provider.found(replace(request, reference=first)), provider_order_id=order)

    return step


def test_esim_named_again_under_another_order_number_needs_a_person(shop: Shop, rows: Rows) -> None:
    paid_order(shop.engine)
    shop.drain()
    shop.cheap.script.append(the_first_ones("airalo-another-number"))
    other = paid_order(shop.engine)
    shop.drain()
    assert (order_state(shop.engine, other), unit_states(shop.engine, other)) == ("attention", ["attention"])
    assert rows("select count(*) as n from esims where iccid_hash is not null") == [{"n": 1}]
    assert [key for key, _ in shop.notifier.posted if ":attention:" in key]


@pytest.mark.parametrize(("days", "state"), [(89, "attention"), (91, "delivered")])
def test_providers_may_use_an_iccid_again_once_it_is_old(shop: Shop, days: int, state: str) -> None:
    paid_order(shop.engine)
    shop.drain()
    shop.cheap.script.append(the_first_ones("airalo-years-later"))
    shop.clock.advance(days=days)
    later = paid_order(shop.engine, now=shop.clock.now)
    shop.drain()
    assert unit_states(shop.engine, later) == [state]


def test_of_two_deliveries_at_once_one_needs_a_person(shop: Shop, rows: Rows) -> None:
    shop.cheap.script.extend([accepts, accepts])
    shop.cheap.on_status = accepts
    for _ in range(2):
        paid_order(shop.engine)
    shop.drain(max_seconds=0.5)
    profile = shop.cheap.sell(PurchaseRequest("shared", "plan-1", COST, COST, shop.clock.now)).profile
    shop.cheap.on_status = lambda provider, request: Provisioned(profile, f"airalo-{request.reference}", COST)
    shop.clock.advance(minutes=5)
    shop.drain()
    assert sorted(row["status"] for row in rows("select status from esims")) == ["attention", "delivered"]
