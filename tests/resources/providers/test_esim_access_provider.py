"""The eSIM Access adapter: the provider contract and what is peculiar to this provider."""

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from esim.catalogue import Allowance
from esim.errors import ProviderAuthFailed, ProviderError, ProviderUnavailable
from esim.money import Cost
from esim.ports import Provider
from esim.purchase import (
    CancelRefused,
    CancelUnknown,
    ErrorType,
    EsimRef,
    Pending,
    Provisioned,
    Rejected,
    Unknown,
)
from resources.providers.esim_access_wire import signed_headers
from tests.resources.providers.contract_base import buy, finish
from tests.resources.providers.esim_access_wire import REFERENCE, EsimAccessWire, esim_row, failure, orders, success
from tests.resources.providers.provider_contract import ProviderContract
from tests.resources.providers.wire import NOW, Stage, Wire, fails, says


class TestEsimAccess(ProviderContract):
    """eSIM Access keeps the contract, and more."""

    wire_type = EsimAccessWire

    def test_an_order_carries_our_reference_and_the_price_guard(
        self, provider: Provider, wire: Wire, stage: Stage
    ) -> None:
        buy(provider, wire.request)
        sent = next(request for request in stage.requests if wire.spends(request))
        assert json.loads(sent.content) == {
            "transactionId": REFERENCE,
            "amount": 17500,
            "packageInfoList": [{"packageCode": "PTX101", "count": 1, "price": 17500}],
        }

    def test_the_signature_covers_the_bytes_that_are_sent(self, provider: Provider, stage: Stage) -> None:
        provider.balance()
        sent = stage.requests[0]
        headers = sent.headers
        assert headers["RT-Timestamp"] == str(int(NOW.timestamp() * 1000))
        expected = signed_headers(
            "acc-0042",
            "very-secret-key",
            request_id=headers["RT-RequestID"],
            timestamp=headers["RT-Timestamp"],
            body=sent.content,
        )
        assert headers["RT-Signature"] == expected["RT-Signature"]
        assert headers["Content-Type"] == "application/json"

    def test_the_documented_signature_is_reproduced(self) -> None:
        headers = signed_headers(
            "11111",
            "1111",
            request_id="4ce9d9cdac9e4e17b3a2c66c358c1ce2",
            timestamp="1628670421",
            body=b'{"imsi":"326543826"}',
        )
        assert headers["RT-Signature"] == "7eb765e27df5373dea2dbc8c41a7d9557743e46c8054750f3d851b3fd01d0835"

    def test_a_changed_price_buys_nothing(self, provider: Provider, wire: Wire) -> None:
        request = replace(wire.request, expected_cost=Cost(Decimal("1.50"), "USD"))
        outcome, _ = buy(provider, request)
        assert isinstance(outcome, Rejected)
        assert outcome.error_type is ErrorType.PRICE_CHANGED
        assert not wire.sold

    @pytest.mark.parametrize("cost", [Cost(Decimal("1.75001"), "USD"), Cost(Decimal("1.75"), "EUR")])
    def test_a_price_that_cannot_guard_is_not_sent(
        self, provider: Provider, wire: Wire, stage: Stage, cost: Cost
    ) -> None:
        request = replace(wire.request, expected_cost=cost, cost_ceiling=Cost(Decimal(9), cost.currency))
        assert isinstance(provider.prepare(request), Rejected)
        assert isinstance(provider.purchase(request, {}), Rejected)
        assert not stage.requests

    def test_never_a_price_above_the_ceiling(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        request = replace(wire.request, cost_ceiling=Cost(Decimal("1.7499"), "USD"))
        assert isinstance(provider.purchase(request, {"price": 17500}), Rejected)
        assert not stage.requests

    def test_a_day_pass_is_ordered_for_one_day(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        offers = next(iter(provider.catalogue())).offers
        daily = next(offer for offer in offers if offer.provider_package_id == "PXD2")
        assert (daily.allowance, daily.data_mb, daily.validity_days) == (Allowance.DAILY, 1000, 1)
        provider.purchase(replace(wire.request, provider_package_id="PXD2", hints=daily.order_hints), {})
        sent = json.loads(stage.requests[-1].content)
        assert sent["packageInfoList"][0]["periodNum"] == 1

    def test_a_delivered_order_names_the_esim_by_its_transaction_number(self, provider: Provider, wire: Wire) -> None:
        outcome, _ = buy(provider, wire.request)
        assert isinstance(outcome, Pending)
        assert outcome.cost == wire.request.expected_cost
        assert isinstance(provider.order_status(outcome.provider_order_id, wire.request), Pending)
        done = finish(provider, outcome, wire.request, wire.clock)
        assert isinstance(done, Provisioned)
        assert done.profile.provider_esim_id == outcome.provider_order_id.removeprefix("B")
        assert done.cost == wire.request.expected_cost

    def test_resolving_never_orders_again(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        stage.when(wire.spends, fails(httpx.ReadTimeout), times=1)
        _, evidence = buy(provider, wire.request)
        for seconds in (1, 30, 300, 301, 3600):
            provider.resolve(wire.request, evidence, NOW + timedelta(seconds=seconds))
        assert stage.sent(wire.spends) == 1
        assert not wire.sold

    def test_an_order_that_waits_for_its_esim_is_not_taken_for_absent(self, stage: Stage, wire: EsimAccessWire) -> None:
        wire.allocates = False  # the window lists eSIMs, so an order without one does not show
        provider = wire.build(stage)
        stage.lose_answer(wire.spends)
        _, evidence = buy(provider, wire.request)
        outcome = provider.resolve(wire.request, evidence, NOW + timedelta(hours=1))
        assert isinstance(outcome, Pending)
        assert outcome.provider_order_id == "B26112009150001"
        assert len(wire.sold) == 1

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            (failure("310402"), Unknown),
            (failure("200010"), Unknown),
            (failure("900001"), Unknown),
            (failure("101003"), Unknown),
            (failure("000104"), Unknown),
            (failure("999999"), Unknown),
            (says(b"<html>"), Unknown),
            (says({}, 429), Unknown),
            (says({"success": True, "obj": {}}), Unknown),
            (fails(httpx.ConnectError), Unknown),
            (fails(httpx.ReadTimeout), Unknown),
            (failure("200005"), Rejected),
            (failure("200006"), Rejected),
            (failure("200011"), Rejected),
            (failure("310241"), Rejected),
        ],
    )
    def test_only_a_reference_that_is_new_to_the_provider_proves_absence(
        self, provider: Provider, wire: Wire, stage: Stage, answer: Any, expected: type
    ) -> None:
        stage.when(lambda sent: orders(sent) and REFERENCE.encode() in sent.content, answer)
        outcome = provider.resolve(wire.request, {}, NOW + timedelta(hours=1))
        assert isinstance(outcome, expected)
        if isinstance(outcome, Rejected):
            assert outcome.error_type is ErrorType.NOT_BOUGHT

    @pytest.mark.parametrize(
        ("answer", "proof"),
        [
            (says({"success": True, "errorCode": "0", "obj": {"orderNo": "B26112009150077"}}), True),
            (failure("310402"), True),
            (failure("200005"), False),  # who looks at the price first refuses known references too
            (failure("200011"), False),
            (failure("310241"), False),
            (failure("200010"), False),
            (failure("900001"), False),
            (says({"success": True, "errorCode": "0", "obj": {}}), False),
            (says({}, 500), False),
            (fails(httpx.ReadTimeout), False),
        ],
    )
    def test_a_refused_repeat_proves_absence_only_where_a_known_one_is_answered(
        self, provider: Provider, wire: Wire, stage: Stage, answer: Any, proof: bool
    ) -> None:
        stage.when(lambda sent: orders(sent) and REFERENCE.encode() not in sent.content, answer)
        outcome = provider.resolve(wire.request, {}, NOW + timedelta(hours=1))
        assert isinstance(outcome, Rejected if proof else Unknown)

    def test_without_any_known_order_nothing_is_proven(self, stage: Stage, wire: EsimAccessWire) -> None:
        wire.esims = []
        assert isinstance(wire.build(stage).resolve(wire.request, {}, NOW + timedelta(hours=1)), Unknown)

    def test_an_order_of_last_week_is_known_enough(self, stage: Stage, wire: EsimAccessWire) -> None:
        def last_week(sent: httpx.Request) -> httpx.Response:
            body = json.loads(sent.content)
            rows = wire.esims if body["startTime"] < f"{NOW - timedelta(days=7):%Y-%m-%d}" else []
            return success({"esimList": rows, "pager": {"pageNum": 1, "total": len(rows)}})

        stage.when(wire.is_statement, last_week)
        outcome = wire.build(stage).resolve(wire.request, {}, NOW + timedelta(hours=1))
        assert isinstance(outcome, Rejected)

    def test_the_window_is_read_to_its_last_page(self, stage: Stage, wire: EsimAccessWire) -> None:
        wire.esims = [esim_row(f"other-{n}", f"B9{n}") for n in range(1200)] + [esim_row(REFERENCE, "B26112009150001")]
        provider = wire.build(stage)
        assert isinstance(provider.resolve(wire.request, {}, NOW + timedelta(seconds=5)), Provisioned)
        assert len(stage.requests) == 3

    def test_a_window_that_does_not_add_up_proves_nothing(self, stage: Stage, wire: EsimAccessWire) -> None:
        def short(_: httpx.Request) -> httpx.Response:
            page: dict[str, Any] = {"esimList": [], "pager": {"pageNum": 1, "total": 2}}
            return says({"success": True, "errorCode": "0", "obj": page})(_)

        stage.when(lambda request: request.url.path.endswith("/esim/query"), short)
        outcome = wire.build(stage).resolve(wire.request, {}, NOW + timedelta(days=1))
        assert isinstance(outcome, Unknown)

    def test_pages_that_never_end_prove_nothing(self, stage: Stage, wire: EsimAccessWire) -> None:
        rows = [esim_row(f"other-{n}", f"B9{n}") for n in range(500)]
        endless = says({"success": True, "errorCode": "0", "obj": {"esimList": rows, "pager": {"total": 10**9}}})
        stage.when(lambda request: request.url.path.endswith("/esim/query"), endless)
        outcome = wire.build(stage).resolve(wire.request, {}, NOW + timedelta(days=1))
        assert isinstance(outcome, Unknown)
        assert len(stage.requests) <= 200

    def test_a_lost_top_up_is_found_among_the_plans_of_its_esim(
        self, provider: Provider, wire: Wire, stage: Stage
    ) -> None:
        request = wire.top_up_request
        assert request is not None
        stage.lose_answer(lambda sent: sent.url.path.endswith("/esim/topup"))
        outcome, evidence = buy(provider, request)
        assert isinstance(outcome, Unknown)
        assert isinstance(provider.resolve(request, evidence, NOW + timedelta(seconds=1)), Provisioned)
        other = replace(request, reference="another0another0another000")
        assert isinstance(provider.resolve(other, evidence, NOW + timedelta(seconds=1)), Unknown)
        late = provider.resolve(other, evidence, NOW + timedelta(seconds=301))
        assert isinstance(late, Rejected)
        assert late.error_type is ErrorType.NOT_BOUGHT

    def test_a_top_up_of_an_expired_esim_is_refused(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        assert wire.top_up_request is not None
        stage.when(lambda sent: sent.url.path.endswith("/esim/topup"), failure("200002"))
        outcome, _ = buy(provider, wire.top_up_request)
        assert isinstance(outcome, Rejected)
        nameless = replace(wire.top_up_request, top_up_of=EsimRef(iccid="8910300000009876501"))
        assert isinstance(provider.purchase(nameless, {}), Rejected)

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            (failure("200002"), CancelRefused),
            (failure("310403"), CancelUnknown),
            (failure("900001"), CancelUnknown),
            (fails(httpx.ReadTimeout), CancelUnknown),
            (fails(httpx.ConnectError), CancelUnknown),
            (says(b"<html>"), CancelUnknown),
        ],
    )
    def test_a_cancellation_that_failed_is_told_apart(
        self, provider: Provider, wire: Wire, stage: Stage, answer: Any, expected: type
    ) -> None:
        stage.when(lambda sent: sent.url.path.endswith("/esim/cancel"), answer)
        assert isinstance(provider.cancel(wire.esim), expected)

    def test_an_order_can_be_cancelled_by_its_number_alone(self, provider: Provider, stage: Stage, wire: Wire) -> None:
        provider.cancel(EsimRef(provider_order_id=wire.esim.provider_order_id))
        assert json.loads(stage.requests[-1].content) == {"esimTranNo": wire.esim.provider_esim_id}
        assert isinstance(provider.cancel(EsimRef(provider_order_id="B0")), CancelUnknown)

    def test_a_busy_answer_is_tried_again_and_then_named(self, provider: Provider, stage: Stage) -> None:
        def balance(request: httpx.Request) -> bool:
            return request.url.path.endswith("/balance/query")

        stage.when(balance, failure("900001"), times=2)
        assert provider.balance() == Cost(Decimal(94), "USD")
        stage.when(balance, failure("900001"))
        with pytest.raises(ProviderUnavailable):
            provider.balance()

    @pytest.mark.parametrize("code", ["000101", "000102", "101001", "101002", "101003", "401001"])
    def test_refused_signatures_are_named(self, provider: Provider, stage: Stage, code: str) -> None:
        stage.when(lambda _: True, failure(code))
        with pytest.raises(ProviderAuthFailed):
            provider.balance()

    def test_a_plan_that_is_gone_has_no_price(self, provider: Provider) -> None:
        with pytest.raises(ProviderError, match="NOPE"):
            provider.current_cost("NOPE", {})
        assert provider.current_cost("TOPUP_PTX101", {}) == Cost(Decimal("1.75"), "USD")

    def test_the_catalogue_waits_longer_than_other_calls(self, provider: Provider, stage: Stage) -> None:
        list(provider.catalogue())
        provider.balance()
        timeouts = [request.extensions["timeout"]["read"] for request in stage.requests]
        assert timeouts == [180.0, 30.0]

    def test_usage_of_an_unlimited_plan_has_no_total(self, stage: Stage, wire: EsimAccessWire) -> None:
        wire.esims[0]["dataType"] = 4
        assert wire.build(stage).usage(wire.esim).total_bytes is None
