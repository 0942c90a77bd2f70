"""The MobiMatter adapter: the provider contract and what is peculiar to this provider."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from esim.errors import ProviderRejected, WebhookRejected
from esim.fakes import MemoryTokenStore
from esim.money import Cost
from esim.ports import Provider
from esim.purchase import (
    Cancelled,
    CancelRefused,
    CancelUnknown,
    ErrorType,
    EsimRef,
    Pending,
    Prepared,
    Provisioned,
    Rejected,
    Unknown,
)
from resources.providers.base import Unlimited
from resources.providers.mobimatter import MobiMatter
from resources.settings import Endpoint, Settings
from tests.resources.providers.contract_base import buy
from tests.resources.providers.mobimatter_wire import (
    ADDON,
    ICCID,
    PRODUCT,
    PUBLIC_KEY,
    MobiMatterWire,
    failure,
    order,
    signed,
    success,
)
from tests.resources.providers.provider_contract import ProviderContract
from tests.resources.providers.wire import NOW, Stage, Wire, fails, says


def creates(request: httpx.Request) -> bool:
    """Match reservations."""
    return request.method == "POST" and request.url.path.endswith("/order")


def cancels(request: httpx.Request) -> bool:
    """Match cancellations."""
    return request.url.path.endswith("/order/cancel")


def looks_up(request: httpx.Request) -> bool:
    """Match reads of one order."""
    return request.method == "GET" and "/order/MM-" in request.url.path


def built(credentials: Mapping[str, str], stage: Stage) -> MobiMatter:
    """Return an adapter with these credentials."""
    endpoint = Endpoint("https://provider.test", live=False, credentials=dict(credentials))
    return MobiMatter(
        endpoint,
        limiter=Unlimited(),
        tokens=MemoryTokenStore(),
        clock=lambda: NOW,
        timeout_seconds=1,
        transport=stage,
    )


class TestMobiMatter(ProviderContract):
    """MobiMatter keeps the contract, and more."""

    wire_type = MobiMatterWire

    def test_forged_webhooks_are_refused(self, provider: Provider, wire: Wire) -> None:
        # The signature is inside the body and covers three of its fields, not the headers nor the bytes.
        genuine = json.loads(signed("order.esim_delayed.completed", order("MM-1", "Completed")))
        forgeries: tuple[Callable[[Any], object], ...] = (
            lambda event: event.update(signature=""),
            lambda event: event.update(signature="ü"),
            lambda event: event.update(signature=None),
            lambda event: event.update(signature=event["signature"][:-8] + "AAAAAA=="),
            lambda event: event["eventData"].update(orderId="MM-2"),
            lambda event: event["eventData"].update(merchantId="somebody-else"),
            lambda event: event["eventData"]["orderLineItem"].update(providerName="Other"),
            lambda event: event["eventData"].pop("orderLineItem"),
        )
        for forge in forgeries:
            forged = json.loads(json.dumps(genuine))
            forge(forged)
            with pytest.raises(WebhookRejected):
                provider.verify_webhook({}, json.dumps(forged).encode())

    @pytest.mark.parametrize("key", ["", "no key", PUBLIC_KEY.replace("M", "N", 3)])
    def test_without_a_usable_key_no_webhook_is_believed(self, stage: Stage, key: str) -> None:
        adapter = built({**MobiMatterWire.credentials, "webhook_public_key": key}, stage)
        with pytest.raises(WebhookRejected, match="mobimatter"):
            adapter.verify_webhook({}, MobiMatterWire().hooks()[0].body)

    def test_the_public_key_comes_from_the_settings_on_one_line(self, stage: Stage) -> None:
        configured = Settings(mobimatter_webhook_public_key=PUBLIC_KEY.replace("\n", "\\n"))
        key = configured.provider("mobimatter").credentials["webhook_public_key"]
        adapter = built({**MobiMatterWire.credentials, "webhook_public_key": key}, stage)
        adapter.verify_webhook({}, MobiMatterWire().hooks()[0].body)

    def test_the_order_id_is_known_before_money_moves(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        prepared = provider.prepare(wire.request)
        assert isinstance(prepared, Prepared)
        assert prepared.evidence == {"order_id": "MM-1001", "wholesale": "8.4"}
        assert not wire.sold
        created = next(request for request in stage.requests if creates(request))
        assert json.loads(created.content) == {
            "productId": PRODUCT,
            "label": wire.request.reference,
            "productCategory": "esim_realtime",
        }

    def test_a_reservation_that_holds_too_much_is_released(self, stage: Stage, wire: MobiMatterWire) -> None:
        wire.wholesale = Decimal("9.01")
        outcome = wire.build(stage).prepare(wire.request)
        assert isinstance(outcome, Rejected)
        assert outcome.error_type is ErrorType.PRICE_CHANGED
        assert wire.orders["MM-1001"]["orderState"] == "Cancelled"

    @pytest.mark.parametrize(
        "trouble",
        [fails(httpx.ReadTimeout), says(b"<html>"), failure(404), lambda _: success(order("MM-1001", "Processing"))],
    )
    def test_a_reservation_that_cannot_be_checked_is_released(
        self, provider: Provider, wire: MobiMatterWire, stage: Stage, trouble: Any
    ) -> None:
        stage.when(looks_up, trouble)
        assert isinstance(provider.prepare(wire.request), Rejected)
        assert wire.orders["MM-1001"]["orderState"] == "Cancelled"

    @pytest.mark.parametrize("error", [httpx.ReadTimeout, httpx.ReadError, httpx.ConnectError])
    def test_a_lost_reservation_frees_the_way_for_the_next_offer(
        self, provider: Provider, wire: Wire, stage: Stage, error: type[httpx.TransportError]
    ) -> None:
        stage.lose_answer(creates, error)
        outcome = provider.prepare(wire.request)
        assert isinstance(outcome, Rejected)
        assert outcome.retryable
        assert stage.sent(creates) == 1
        assert not wire.sold

    @pytest.mark.parametrize("status", [400, 402, 404, 429, 455])
    def test_a_completion_the_platform_undid_is_rejected(
        self, provider: Provider, wire: MobiMatterWire, stage: Stage, status: int
    ) -> None:
        def undone(request: httpx.Request) -> httpx.Response:
            wire.orders["MM-1001"]["orderState"] = "Cancelled"
            return failure(status)(request)

        stage.when(wire.spends, undone)
        outcome, _ = buy(provider, wire.request)
        assert isinstance(outcome, Rejected)
        assert stage.sent(cancels) == 0  # no compensating cancel: the platform does it

    @pytest.mark.parametrize(("state", "expected"), [("Completed", Provisioned), ("Processing", Pending)])
    def test_a_refusal_that_the_order_contradicts_is_no_refusal(
        self, provider: Provider, wire: MobiMatterWire, stage: Stage, state: str, expected: type
    ) -> None:
        def bought(request: httpx.Request) -> httpx.Response:
            wire.orders["MM-1001"] = order("MM-1001", state)
            return failure(400)(request)

        stage.when(wire.spends, bought)
        outcome, _ = buy(provider, wire.request)
        assert isinstance(outcome, expected)

    def test_a_refusal_that_cannot_be_confirmed_is_unknown(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        prepared = provider.prepare(wire.request)
        assert isinstance(prepared, Prepared)
        stage.when(wire.spends, failure(429))
        stage.when(looks_up, fails(httpx.ReadTimeout))
        assert isinstance(provider.purchase(wire.request, prepared.evidence), Unknown)

    def test_an_expired_reservation_may_be_tried_again(self, provider: Provider, wire: MobiMatterWire) -> None:
        prepared = provider.prepare(wire.request)
        assert isinstance(prepared, Prepared)
        wire.orders["MM-1001"]["orderState"] = "Expired"
        outcome = provider.purchase(wire.request, prepared.evidence)
        assert isinstance(outcome, Rejected)
        assert outcome.error_type is ErrorType.NOT_BOUGHT
        assert outcome.retryable

    @pytest.mark.parametrize("evidence", [{}, {"order_id": ""}, {"order_id": 7}, {"order_id": None}])
    def test_without_a_reservation_nothing_is_sent(
        self, provider: Provider, wire: Wire, stage: Stage, evidence: Any
    ) -> None:
        assert isinstance(provider.purchase(wire.request, evidence), Rejected)
        assert isinstance(provider.resolve(wire.request, evidence, NOW), Rejected)
        assert not stage.requests

    def test_a_standing_reservation_is_cancelled_only_after_the_settle_time(
        self, provider: Provider, wire: MobiMatterWire, stage: Stage
    ) -> None:
        stage.when(wire.spends, fails(httpx.ReadTimeout))
        _, evidence = buy(provider, wire.request)
        assert isinstance(provider.resolve(wire.request, evidence, NOW + timedelta(seconds=120)), Unknown)
        assert stage.sent(cancels) == 0
        late = provider.resolve(wire.request, evidence, NOW + timedelta(seconds=121))
        assert isinstance(late, Rejected)
        assert late.error_type is ErrorType.NOT_BOUGHT
        assert wire.orders["MM-1001"]["orderState"] == "Cancelled"
        assert stage.sent(wire.spends) == 1

    @pytest.mark.parametrize("trouble", [fails(httpx.ReadTimeout), failure(400), says(b"<html>"), says({})])
    def test_a_cancel_that_failed_proves_nothing(
        self, provider: Provider, wire: Wire, stage: Stage, trouble: Any
    ) -> None:
        stage.when(wire.spends, fails(httpx.ReadTimeout))
        _, evidence = buy(provider, wire.request)
        stage.when(cancels, trouble)
        assert isinstance(provider.resolve(wire.request, evidence, NOW + timedelta(hours=1)), Unknown)

    def test_a_completion_that_won_the_race_against_the_cancel_is_found(
        self, provider: Provider, wire: MobiMatterWire, stage: Stage
    ) -> None:
        stage.when(wire.spends, fails(httpx.ReadTimeout))
        _, evidence = buy(provider, wire.request)

        def too_late(request: httpx.Request) -> httpx.Response:
            wire.orders["MM-1001"] = order("MM-1001", "Completed")
            return failure(400)(request)

        stage.when(cancels, too_late)
        found = provider.resolve(wire.request, evidence, NOW + timedelta(hours=1))
        assert isinstance(found, Provisioned)
        assert found.cost == Cost(Decimal("8.4"), "USD")

    def test_a_cancel_that_succeeded_proves_absence_when_the_order_is_unreadable(
        self, provider: Provider, wire: MobiMatterWire, stage: Stage
    ) -> None:
        stage.when(wire.spends, fails(httpx.ReadTimeout))
        _, evidence = buy(provider, wire.request)

        def cancel(request: httpx.Request) -> httpx.Response:
            stage.when(looks_up, fails(httpx.ReadTimeout))
            return wire.answer(request)

        stage.when(cancels, cancel)
        assert isinstance(provider.resolve(wire.request, evidence, NOW + timedelta(hours=1)), Rejected)

    def test_a_top_up_names_the_root_order(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        assert wire.top_up_request is not None
        buy(provider, wire.top_up_request)
        created = next(request for request in stage.requests if creates(request))
        assert json.loads(created.content)["addOnOrderIdentifier"] == "MM-1"
        nameless = replace(wire.top_up_request, top_up_of=EsimRef(iccid=ICCID))
        assert isinstance(provider.prepare(nameless), Rejected)

    def test_top_ups_come_from_the_family_of_the_esim(self, provider: Provider, stage: Stage, wire: Wire) -> None:
        offers = provider.top_ups(wire.esim)
        assert [offer.provider_package_id for offer in offers] == [ADDON]
        assert dict(stage.requests[-1].url.params) == {"category": "esim_addon", "familyId": "77"}

    def test_an_esim_that_takes_no_top_ups_has_none(self, stage: Stage, wire: MobiMatterWire) -> None:
        wire.orders["MM-1"] = order("MM-1", "Completed", pairs={"RECHARGABLE": "False"})
        assert not wire.build(stage).top_ups(wire.esim)

    @pytest.mark.parametrize(
        ("state", "eligible", "refund", "expected"),
        [
            ("Completed", True, 202, Cancelled),
            ("Completed", True, 400, CancelRefused),
            ("Completed", True, 403, CancelRefused),
            ("Completed", True, 500, CancelUnknown),
            ("Completed", False, 202, CancelRefused),
            ("Created", True, 202, Cancelled),
            ("Expired", True, 202, Cancelled),
            ("Processing", True, 202, CancelRefused),
        ],
    )
    def test_what_can_be_given_back_is(
        self, wire: MobiMatterWire, stage: Stage, state: str, eligible: bool, refund: int, expected: type
    ) -> None:
        wire.orders["MM-1"] = order("MM-1", state)
        verdict = {"isEligible": eligible, "fee": None, "reason": "installed"}
        stage.when(lambda request: request.url.path.endswith("/eligibility"), lambda _: success(verdict))
        stage.when(lambda request: request.url.path.endswith("/refund"), failure(refund))
        assert isinstance(wire.build(stage).cancel(wire.esim), expected)

    def test_a_product_that_is_gone_has_no_price(self, provider: Provider) -> None:
        with pytest.raises(ProviderRejected):
            provider.current_cost("33333333-3333-4333-8333-333333333333", {})
        assert provider.current_cost(PRODUCT.lower(), {}) == Cost(Decimal("8.4"), "USD")

    def test_usage_is_asked_once(self, provider: Provider, stage: Stage, wire: Wire) -> None:
        def info(request: httpx.Request) -> bool:
            return "/provider/info/" in request.url.path

        bare = {"esim": {"smdpCode": "activated"}, "packages": [{"totalAllowanceMb": 5000, "usedMb": 10.5}]}
        stage.when(info, says(bare), times=1)
        reading = provider.usage(wire.esim)
        assert (reading.used_bytes, reading.total_bytes, reading.status) == (10_000_000, 5_000_000_000, "activated")
        stage.when(info, failure(455))
        with suppress(Exception):
            provider.usage(wire.esim)
        assert stage.sent(info) == 2
