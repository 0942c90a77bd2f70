"""Contract cases: a catalogue is read whole or not at all, and no plan is dropped in silence."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from esim.catalogue import CataloguePage, ProviderOffer, RejectedPlan, check_offer
from esim.errors import ProviderAuthFailed, ProviderError, ProviderUnavailable
from esim.ports import Provider
from tests.resources.providers.contract_base import ContractBase
from tests.resources.providers.wire import HTML, Matcher, Stage, Wire, anything, fails, reply, says


class CatalogueCases(ContractBase):
    """The catalogue is complete or an error; a plan that cannot be read is kept with its reason."""

    def read(self, provider: Provider) -> tuple[list[ProviderOffer], list[RejectedPlan]]:
        pages: list[CataloguePage] = list(provider.catalogue())
        return [o for p in pages for o in p.offers], [r for p in pages for r in p.rejects]

    def tamper(self, wire: Wire, stage: Stage, change: Callable[[dict[str, Any]], None], matches: Matcher) -> None:
        def act(request: httpx.Request) -> httpx.Response:
            page = json.loads(wire.answer(request).content)
            change(wire.plans(page)[0])
            return reply(page)

        stage.when(matches, act, times=1)

    def test_every_plan_is_read_once(self, provider: Provider, wire: Wire) -> None:
        offers, rejects = self.read(provider)
        assert offers
        assert not rejects
        assert len({offer.offer_id for offer in offers}) == len(offers)
        for offer in offers:
            assert offer.provider == provider.slug == wire.slug
            check_offer(offer)
        bought = next(o for o in offers if o.provider_package_id == wire.request.provider_package_id)
        assert bought.cost == wire.request.expected_cost
        assert dict(bought.order_hints) == dict(wire.request.hints)

    def test_a_plan_that_cannot_be_sold_is_rejected_with_its_reason(
        self, provider: Provider, wire: Wire, stage: Stage, spoil: Any
    ) -> None:
        whole, _ = self.read(provider)
        self.tamper(wire, stage, spoil, wire.is_catalogue)
        offers, rejects = self.read(provider)
        assert len(rejects) >= 1
        assert len(offers) + len(rejects) >= len(whole)
        assert len(whole) - len(offers) >= 1
        for reject in rejects:
            assert reject.reason
            assert reject.provider == wire.slug
            assert len(reject.payload) <= 500
            assert len(reject.reason) <= 500
            assert len(reject.provider_package_id) <= 300

    def test_another_currency_is_kept_or_rejected_but_never_taken_for_dollars(self, provider: Provider) -> None:
        offers, _ = self.read(provider)
        assert {offer.cost.currency for offer in offers} == {"USD"}

    @pytest.mark.parametrize(
        "body",
        [HTML, b'{"data": [{"slug": "jap', b"", b"null", b'"plans"', b"{}", b'{"message": "Something went wrong"}'],
        ids=["html", "half a document", "nothing", "null", "text", "an empty object", "an error inside"],
    )
    def test_a_page_that_is_not_a_catalogue_is_an_error(
        self, provider: Provider, wire: Wire, stage: Stage, body: bytes
    ) -> None:
        stage.when(wire.is_catalogue, says(body))
        with pytest.raises(ProviderError):
            list(provider.catalogue())

    @pytest.mark.parametrize("new_each_time", [True, False], ids=["new pages", "the same page"])
    def test_a_catalogue_that_never_ends_is_an_error(
        self, provider: Provider, wire: Wire, stage: Stage, new_each_time: bool
    ) -> None:
        serial = iter(range(1, 10_000_000))

        def act(request: httpx.Request) -> httpx.Response:
            return wire.endless(request, next(serial) if new_each_time else 1) or reply(HTML)

        stage.when(wire.is_catalogue, act)
        with pytest.raises(ProviderError):
            list(provider.catalogue())
        assert stage.sent(wire.is_catalogue) <= 2_000

    def test_reads_are_tried_again(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        stage.when(wire.is_catalogue, says({}, 503), times=1)
        stage.when(wire.is_catalogue, fails(httpx.ReadTimeout), times=1)
        stage.when(wire.is_catalogue, lambda _: wire.throttled(), times=1)
        offers, _ = self.read(provider)
        assert offers

    def test_reads_are_tried_four_times_at_most(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        stage.when(wire.is_catalogue, says({}, 502))
        with pytest.raises(ProviderUnavailable):
            list(provider.catalogue())
        assert stage.sent(wire.is_catalogue) == 4

    def test_refused_credentials_are_named(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        stage.when(anything, lambda _: wire.unauthorised())
        with pytest.raises(ProviderAuthFailed):
            list(provider.catalogue())
