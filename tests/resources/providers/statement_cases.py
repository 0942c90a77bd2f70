"""Contract cases: the statement of what a provider says it sold to us, whole or not at all."""

import json
from datetime import timedelta

import httpx
import pytest

from esim.errors import MalformedReply, ProviderUnavailable, UnsupportedCapability
from esim.ports import Provider
from esim.purchase import SaleState
from tests.resources.providers.contract_base import ContractBase
from tests.resources.providers.wire import NOW, Answer, Sale, Stage, Wire, reply, says

SINCE = NOW - timedelta(days=2)


def lists(wire: Wire, *sales: Sale) -> Answer:
    """Answer as a provider with these sales, the newest first."""
    ordered = sorted(sales, key=lambda sale: sale.at, reverse=True)
    return lambda request: wire.statement(request, ordered)


def sale(number: int, hours_ago: float, state: SaleState = SaleState.SOLD) -> Sale:
    return Sale(number, NOW - timedelta(hours=hours_ago), state)


class StatementCases(ContractBase):
    """Pages, edges of the window, states, and what cannot be read."""

    def test_a_provider_without_a_statement_says_so(self, provider: Provider) -> None:
        if not provider.capabilities.lists_purchases:
            with pytest.raises(UnsupportedCapability):
                list(provider.purchases_since(SINCE))

    def test_every_purchase_of_every_page_is_listed_once(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        if not provider.capabilities.lists_purchases:
            return
        sales = [sale(number, number * 4) for number in range(1, 8)]
        stage.when(wire.is_statement, lists(wire, *sales))
        found = {line.provider_order_id: line for line in provider.purchases_since(SINCE)}
        assert set(found) == {str(number) for number in range(1, 8)}
        for one in sales:
            line = found[str(one.number)]
            assert (line.bought_at, line.quantity, line.state) == (one.at, 1, SaleState.SOLD)
            assert line.iccids == (one.iccid,)
            assert line.package_id or line.package_name
            assert line.reference == (f"ours-{one.number}" if provider.capabilities.reference_lookup else "")
            assert one.iccid not in repr(line)

    def test_the_window_begins_at_the_moment_asked_for(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        if not provider.capabilities.lists_purchases:
            return
        sales = (sale(1, 1), Sale(2, SINCE), Sale(3, SINCE - timedelta(seconds=1)), sale(4, 24 * 60))
        stage.when(wire.is_statement, lists(wire, *sales))
        assert {line.provider_order_id for line in provider.purchases_since(SINCE)} == {"1", "2"}

    def test_an_empty_statement_is_empty(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        if not provider.capabilities.lists_purchases:
            return
        stage.when(wire.is_statement, lists(wire))
        assert list(provider.purchases_since(SINCE)) == []
        assert stage.sent(wire.is_statement) >= 1

    @pytest.mark.parametrize("state", [SaleState.GIVEN_BACK, SaleState.FAILED])
    def test_what_ended_is_told_as_ended(self, provider: Provider, wire: Wire, stage: Stage, state: SaleState) -> None:
        if state not in wire.told_states:
            return
        stage.when(wire.is_statement, lists(wire, sale(1, 5, state), sale(2, 6)))
        found = {line.provider_order_id: line.state for line in provider.purchases_since(SINCE)}
        assert found == {"1": state, "2": SaleState.SOLD}

    def test_a_statement_that_cannot_be_read_whole_is_none(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        for spoil in wire.unreadable_sales():

            def spoilt(request: httpx.Request) -> httpx.Response:
                page = json.loads(wire.statement(request, [sale(1, 5)]).content)
                spoil(page)  # noqa: B023 - called within this round of the loop
                return reply(page)

            stage.when(wire.is_statement, spoilt, times=20)
            with pytest.raises(MalformedReply):
                list(provider.purchases_since(NOW - timedelta(hours=6)))
            stage.forget()
        assert bool(wire.unreadable_sales()) == provider.capabilities.lists_purchases

    def test_a_page_that_fails_fails_the_statement(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        if not provider.capabilities.lists_purchases:
            return
        first = lists(wire, *(sale(number, number) for number in range(1, 6)))
        stage.when(wire.is_statement, first, times=1)
        stage.when(wire.is_statement, says({"message": "Server Error"}, 503))
        with pytest.raises(ProviderUnavailable):
            list(provider.purchases_since(SINCE))

    def test_a_list_that_repeats_itself_is_no_statement(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        if not provider.capabilities.lists_purchases:
            return
        sales = lists(wire, *(sale(number, number / 10) for number in range(1, 9)))
        answers: list[httpx.Response] = []

        def stuck(request: httpx.Request) -> httpx.Response:
            answers.append(sales(request))
            return httpx.Response(200, content=answers[0].content)

        stage.when(wire.is_statement, stuck)
        try:
            found = [line.provider_order_id for line in provider.purchases_since(NOW - timedelta(hours=6))]
        except MalformedReply:
            return
        assert len(found) == len(set(found)) == 8
