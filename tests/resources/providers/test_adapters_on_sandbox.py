"""Every adapter against the sandbox over real HTTP: what it reports must be what the provider's books say."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from esim.catalogue import OfferKind, ProviderOffer, check_offer
from esim.errors import ProviderError
from esim.fakes import MemoryTokenStore
from esim.money import Cost
from esim.ports import Provider
from esim.purchase import (
    Cancelled,
    CancelRefused,
    CancelUnknown,
    ErrorType,
    EsimRef,
    Outcome,
    Pending,
    ProviderPurchase,
    Provisioned,
    PurchaseRequest,
    Rejected,
    SaleState,
    Unknown,
)
from resources.providers.base import Unlimited
from resources.providers.registry import FACTORIES
from resources.settings import PROVIDERS, Endpoint, Settings
from sandbox.config import SandboxConfig
from sandbox.serve import Served, served
from tests.resources.providers.contract_base import buy

SOLD = {"delivered", "processing", "inventory"}
LOST_AFTER = ("timeout_after", "reset_after", "error_after", "malformed", "html_after")
LOST_BEFORE = ("timeout_before", "reset_before", "error_status", "html", "ok_with_error")
REFUSALS = {
    "refuse": None,
    "out_of_stock": {ErrorType.OUT_OF_STOCK, ErrorType.INVALID_PRODUCT},
    "insufficient_balance": {ErrorType.INSUFFICIENT_BALANCE},
}


@pytest.fixture(scope="module")
def world() -> Iterator[Served]:
    with served(SandboxConfig(plans_per_provider=600, async_seconds=0.2, rate_limits=False)) as sandbox:
        yield sandbox


@pytest.fixture(scope="module", params=sorted(FACTORIES))
def shop(request: pytest.FixtureRequest, world: Served) -> "Iterator[Shop]":
    shop = Shop(str(request.param), world)
    yield shop
    shop.provider.close()


@pytest.fixture(autouse=True)
def _clean(world: Served) -> None:
    httpx.post(f"{world.base_url}/sandbox/reset").raise_for_status()


class Shop:
    """One provider's adapter, its sandbox, and a plan to buy there."""

    def __init__(self, slug: str, world: Served) -> None:
        self.slug = slug
        self._world = world
        self.endpoint = sandbox_endpoint(slug, httpx.URL(world.base_url).port or 0)
        self.tokens = MemoryTokenStore()
        self.ahead = timedelta()  # how far the adapter's clock is ahead of the sandbox's
        self.provider = self.client()
        self.offers = [offer for page in self.provider.catalogue() for offer in page.offers]
        plans = [offer for offer in self.offers if offer.kind is OfferKind.PLAN]
        self.offer = min(plans, key=lambda offer: (offer.cost.amount, offer.provider_package_id))

    def client(self, timeout_seconds: float = 20.0) -> Provider:
        return FACTORIES[self.slug](
            self.endpoint,
            limiter=Unlimited(),
            tokens=self.tokens,
            clock=lambda: datetime.now(UTC) + self.ahead,
            timeout_seconds=timeout_seconds,
        )

    def request(self, offer: ProviderOffer | None = None, esim: EsimRef | None = None) -> PurchaseRequest:
        offer = offer or self.offer
        return PurchaseRequest(
            reference=f"{time.time_ns():026d}",
            provider_package_id=offer.provider_package_id,
            expected_cost=offer.cost,
            cost_ceiling=offer.cost,
            started_at=datetime.now(UTC),
            hints=offer.order_hints,
            top_up_of=esim,
            package_name=offer.name,
        )

    def fault(self, kind: str, call: str = "order", times: int | None = 1, **params: Any) -> None:
        wanted = {"provider": self.slug, "call": call, "kind": kind, "times": times, "params": params}
        answer = httpx.put(f"{self._world.base_url}/sandbox/faults", content=json.dumps(wanted))
        assert answer.status_code == 200, answer.text

    def heal(self) -> None:
        httpx.delete(f"{self._world.base_url}/sandbox/faults").raise_for_status()

    def sold(self) -> int:
        rows = httpx.get(f"{self._world.base_url}/sandbox/purchases", params={"provider": self.slug}).json()
        return sum(row["state"] in SOLD for row in rows["purchases"])

    def settle(self, outcome: Outcome, request: PurchaseRequest) -> Outcome:
        """Poll an accepted order for ten seconds at most."""

        def ask() -> Outcome | None:
            nonlocal outcome
            if isinstance(outcome, Pending):
                outcome = self.provider.order_status(outcome.provider_order_id, request)
            return None if isinstance(outcome, Pending) else outcome

        settled: Outcome = eventually(ask)
        return settled

    def disturbed(self, kind: str, request: PurchaseRequest) -> tuple[Outcome, dict[str, Any]]:
        """Buy while a fault of this kind is in force."""
        provider = self.client(0.8) if kind.startswith("timeout") else self.provider
        self.fault(kind)
        bought = buy(provider, request)
        self.heal()
        return bought

    def look_up(self, request: PurchaseRequest, evidence: dict[str, Any]) -> Outcome:
        """Resolve for a second and a half, and once more as if the settle time were over."""
        deadline, pause = time.monotonic() + 1.5, threading.Event()
        while time.monotonic() < deadline:
            outcome = self.provider.resolve(request, evidence, datetime.now(UTC))
            if not isinstance(outcome, Unknown):
                return outcome
            pause.wait(0.2)
        late = datetime.now(UTC) + timedelta(seconds=self.provider.capabilities.settle_seconds + 5)
        return self.provider.resolve(request, evidence, late)

    def bought(self, offer: ProviderOffer | None = None) -> tuple[Provisioned, PurchaseRequest]:
        request = self.request(offer)
        outcome, _ = buy(self.provider, request)
        outcome = self.settle(outcome, request)
        assert isinstance(outcome, Provisioned)
        return outcome, request

    def esim(self, offer: ProviderOffer | None = None) -> EsimRef:
        outcome, request = self.bought(offer)
        profile = outcome.profile
        return EsimRef(outcome.provider_order_id, profile.provider_esim_id, profile.iccid, request.provider_package_id)

    def extendable(self) -> tuple[EsimRef, Sequence[ProviderOffer]]:
        """Buy plans until one can be topped up, twelve at most."""
        plans = [offer for offer in self.offers if offer.kind is OfferKind.PLAN and offer.supports_top_up is not False]
        for offer in plans[:12]:
            esim = self.esim(offer)
            if offers := self.provider.top_ups(esim):
                return esim, offers
        return esim, ()


def sandbox_endpoint(slug: str, port: int) -> Endpoint:
    """Return the sandbox's address of a provider, whatever live keys the environment may hold."""
    keys = dict.fromkeys(name for name in Settings.model_fields if name.startswith(PROVIDERS))
    settings = Settings(_env_file=None, host="127.0.0.1", sandbox_port=port, **keys)  # type: ignore[call-arg, arg-type]  # pydantic-settings takes these
    endpoint = settings.provider(slug)
    assert not endpoint.live
    assert endpoint.url.startswith(f"http://127.0.0.1:{port}/")
    return endpoint


def eventually(ask: Callable[[], Any]) -> Any:
    """Return what `ask` returns as soon as it is not None; fails after ten seconds."""
    deadline, pause = time.monotonic() + 10, threading.Event()
    while time.monotonic() < deadline:
        if (found := ask()) is not None:
            return found
        pause.wait(0.1)
    raise AssertionError("nothing came of it in ten seconds")


def test_the_catalogue_is_read_whole(shop: Shop) -> None:
    pages = list(shop.provider.catalogue())
    rejects = [reject for page in pages for reject in page.rejects]
    assert len(rejects) * 100 <= len(shop.offers)  # sandboxes list an oddity or two, as the real lists do
    assert len({offer.provider_package_id for offer in shop.offers}) == len(shop.offers) >= 100
    for offer in shop.offers:
        check_offer(offer)
    assert shop.provider.current_cost(shop.offer.provider_package_id, shop.offer.order_hints) == shop.offer.cost


@pytest.mark.parametrize("kind", ["html", "malformed", "ok_with_error", "endless_pages"])
def test_a_sick_catalogue_is_an_error(shop: Shop, kind: str) -> None:
    shop.fault(kind, "catalogue", None)
    with pytest.raises(ProviderError):
        list(shop.provider.catalogue())


@pytest.mark.parametrize("kind", ["negative_price", "zero_price", "huge_name", "broken_plan"])
def test_a_sick_plan_is_a_reject(shop: Shop, kind: str) -> None:
    shop.fault(kind, "catalogue", 1)
    pages = list(shop.provider.catalogue())
    offers = [offer for page in pages for offer in page.offers]
    rejects = [reject for page in pages for reject in page.rejects]
    assert rejects or kind == "huge_name"  # some lists have a name that nobody reads
    assert 0 < len(offers) < len(shop.offers) or kind == "huge_name"
    for offer in offers:
        check_offer(offer)


def test_a_read_survives_two_failures(shop: Shop) -> None:
    shop.fault("error_status", "balance", 2, status=502)
    assert shop.provider.balance().amount > 0


def test_an_esim_is_bought_once_and_at_the_price_listed(shop: Shop) -> None:
    outcome, _ = shop.bought()
    assert shop.sold() == 1
    assert outcome.profile.lpa.startswith("LPA:1$")
    assert outcome.cost in {None, shop.offer.cost}


def test_an_order_that_is_read_says_whose_it_is_and_of_what(shop: Shop) -> None:
    outcome, request = shop.bought()
    read = shop.provider.order_status(outcome.provider_order_id, shop.request())
    assert isinstance(read, Provisioned)
    facts = read.facts
    assert facts.reference == (request.reference if shop.slug in {"airalo", "esim_access", "mobimatter"} else "")
    if shop.slug != "esim_card":  # it names a plan only by a name that top-ups change
        assert request.provider_package_id in facts.packages
    assert facts.ordered_at is not None
    assert abs(facts.ordered_at - request.started_at) < timedelta(minutes=5)


@pytest.mark.parametrize("kind", LOST_AFTER)
def test_a_purchase_with_a_lost_answer_is_found_and_not_repeated(shop: Shop, kind: str) -> None:
    request = shop.request()
    outcome, evidence = shop.disturbed(kind, request)
    if isinstance(outcome, Unknown):
        outcome = shop.look_up(request, evidence)
    outcome = shop.settle(outcome, request)
    if shop.provider.capabilities.resolves_for_certain:
        assert isinstance(outcome, Provisioned)
    assert not isinstance(outcome, Rejected)
    assert shop.sold() == 1


@pytest.mark.parametrize("kind", LOST_BEFORE)
def test_a_purchase_that_never_happened_is_proven_absent(shop: Shop, kind: str) -> None:
    if shop.slug == "esim_access":  # what is proven there is proven beside an order that is known
        assert isinstance(shop.settle(buy(shop.provider, earlier := shop.request())[0], earlier), Provisioned)
    sold = shop.sold()
    request = shop.request()
    outcome, evidence = shop.disturbed(kind, request)
    if isinstance(outcome, Unknown):
        late = datetime.now(UTC) + timedelta(seconds=shop.provider.capabilities.settle_seconds + 5)
        outcome = shop.provider.resolve(request, evidence, late)
    if shop.provider.capabilities.resolves_for_certain:
        assert isinstance(outcome, Rejected)
    assert not isinstance(outcome, Provisioned | Pending)
    assert shop.sold() == sold


def test_an_order_that_never_gets_its_esim_is_not_taken_for_absent_where_prices_are_checked_first(
    world: Served,
) -> None:
    shop = Shop("esim_access", world)
    assert isinstance(shop.settle(buy(shop.provider, earlier := shop.request())[0], earlier), Provisioned)
    request = shop.request()
    shop.fault("async_never")
    shop.fault("reset_after")
    outcome, evidence = buy(shop.provider, request)
    assert isinstance(outcome, Unknown)
    shop.fault("guard_first", times=None)
    assert isinstance(shop.provider.resolve(request, evidence, datetime.now(UTC) + timedelta(days=1)), Unknown)
    shop.heal()
    assert isinstance(shop.provider.resolve(request, evidence, datetime.now(UTC) + timedelta(days=1)), Pending)
    assert shop.sold() == 2
    shop.provider.close()


def test_an_order_that_waits_for_its_esim_is_not_taken_for_absent_whatever_is_checked_first(world: Served) -> None:
    shop = Shop("esim_access", world)
    request = shop.request()
    shop.fault("async_late", seconds=1.5)
    shop.fault("reset_after")
    outcome, evidence = buy(shop.provider, request)
    assert isinstance(outcome, Unknown)
    shop.fault("guard_first", times=None)
    in_time = request.started_at + timedelta(seconds=shop.provider.capabilities.settle_seconds)
    assert isinstance(shop.provider.resolve(request, evidence, in_time), Unknown)

    def ask() -> Outcome | None:
        found = shop.provider.resolve(request, evidence, in_time)
        return None if isinstance(found, Unknown) else found

    assert isinstance(shop.settle(eventually(ask), request), Provisioned)
    assert shop.sold() == 1
    shop.provider.close()


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_is_a_refusal(shop: Shop, kind: str) -> None:
    shop.fault(kind)
    outcome, _ = buy(shop.provider, shop.request())
    assert isinstance(outcome, Rejected)
    expected = REFUSALS[kind]
    assert expected is None or outcome.error_type in expected
    assert shop.sold() == 0


@pytest.mark.parametrize("kind", ["unauthorised", "rate_limited"])
def test_being_turned_away_at_the_door_buys_nothing(shop: Shop, kind: str) -> None:
    shop.fault(kind, times=None)
    outcome, _ = buy(shop.provider, shop.request())
    assert isinstance(outcome, Rejected) == (shop.sold() == 0)  # not every provider has such an answer
    assert not isinstance(outcome, Unknown)


def test_a_price_that_went_up_is_not_paid(shop: Shop) -> None:
    shop.fault("price_change", "*", None, percent=20)
    outcome, _ = buy(shop.client(), shop.request())
    assert isinstance(outcome, Rejected)
    assert outcome.error_type is ErrorType.PRICE_CHANGED
    assert shop.sold() == 0


def test_a_price_within_the_ceiling_is_paid(shop: Shop) -> None:
    generous = Cost(shop.offer.cost.amount * 2, shop.offer.cost.currency)
    request = replace(shop.request(), cost_ceiling=generous)
    outcome, _ = buy(shop.provider, request)
    assert isinstance(shop.settle(outcome, request), Provisioned)


def test_an_unused_esim_reports_its_data_and_activation(shop: Shop) -> None:
    esim = shop.esim()
    reading = shop.provider.usage(esim)
    assert reading.used_bytes in {0, None}
    assert shop.provider.esim_details(esim).iccid == esim.iccid


def test_a_top_up_lands_on_its_esim(shop: Shop) -> None:
    esim, offers = shop.extendable()
    assert bool(offers) == shop.provider.capabilities.top_up
    if not offers:
        return
    request = shop.request(offers[0], esim)
    outcome, _ = buy(shop.provider, request)
    outcome = shop.settle(outcome, request)
    assert isinstance(outcome, Provisioned)
    assert outcome.profile.iccid == esim.iccid


def test_an_unused_esim_is_given_back_where_that_is_possible(shop: Shop) -> None:
    outcome = shop.provider.cancel(shop.esim())
    if shop.provider.capabilities.cancel:
        assert isinstance(outcome, Cancelled)
    else:
        assert isinstance(outcome, CancelRefused | CancelUnknown)


def test_the_balance_falls_by_the_cost(shop: Shop) -> None:
    before = shop.provider.balance()
    shop.bought()
    assert before.amount - shop.provider.balance().amount == shop.offer.cost.amount
    assert before.amount > Decimal(0)


def test_the_statement_lists_what_was_bought_and_nothing_else(shop: Shop) -> None:
    if not shop.provider.capabilities.lists_purchases:
        return
    since = datetime.now(UTC) - timedelta(seconds=1)
    (first, request), (second, _) = shop.bought(), shop.bought()
    shop.ahead = timedelta(seconds=299)  # a statement may end before now by a settle time of 300 s
    both = {first.provider_order_id, second.provider_order_id}

    def listed() -> dict[str, ProviderPurchase] | None:
        lines = {line.provider_order_id: line for line in shop.provider.purchases_since(since)}
        return lines if both <= set(lines) else None

    lines = eventually(listed)
    shop.ahead = timedelta()
    assert set(lines) == both
    line = lines[first.provider_order_id]
    assert (line.state, line.quantity, line.iccids) == (SaleState.SOLD, 1, (first.profile.iccid,))
    assert line.package_id in {request.provider_package_id, ""}
    assert line.cost in {None, first.cost}
    if shop.provider.capabilities.reference_lookup:
        assert line.reference == request.reference
    assert list(shop.provider.purchases_since(datetime.now(UTC) + timedelta(hours=1))) == []
