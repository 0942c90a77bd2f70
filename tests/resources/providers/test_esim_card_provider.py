"""The eSIMCard adapter: the provider contract and what is peculiar to this provider."""

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from esim.errors import (
    MalformedReply,
    ProviderAuthFailed,
    ProviderError,
    ProviderRejected,
    ProviderThrottled,
    WebhookRejected,
)
from esim.fakes import MemoryTokenStore
from esim.money import Cost
from esim.ports import Provider
from esim.purchase import (
    OTHER_ORDERS,
    ErrorType,
    EsimRef,
    Pending,
    Prepared,
    Provisioned,
    PurchaseRequest,
    Rejected,
    Unknown,
)
from resources.providers.base import Unlimited
from resources.providers.esim_card import EsimCard
from resources.settings import Endpoint
from tests.resources.providers.contract_base import buy
from tests.resources.providers.esim_card_wire import (
    ICCID,
    NAME,
    PACKAGE,
    SIM,
    TOKEN,
    EsimCardWire,
    bundle,
    package,
    refuse,
    sim,
    success,
)
from tests.resources.providers.provider_contract import ProviderContract
from tests.resources.providers.wire import NOW, Answer, Stage, Wire, fails, says

LATE = NOW + timedelta(seconds=181)


def logs_in(request: httpx.Request) -> bool:
    """Match logins."""
    return request.url.path.endswith("/login")


def reads_balance(request: httpx.Request) -> bool:
    """Match reads of the balance."""
    return request.url.path.endswith("/balance")


def lost(provider: Provider, wire: Wire, stage: Stage, *, arrived: bool) -> dict[str, Any]:
    """Buy and lose the answer; return the evidence."""
    if arrived:
        stage.lose_answer(wire.spends)
    else:
        stage.when(wire.spends, fails(httpx.ReadTimeout))
    outcome, evidence = buy(provider, wire.request)
    assert isinstance(outcome, Unknown)
    return evidence


def success_with(data: object) -> Answer:
    """Return an answerer that accepts with this `data`."""
    return lambda _: success(data)


class TestEsimCard(ProviderContract):
    """eSIMCard keeps the contract, and more."""

    wire_type = EsimCardWire

    def test_one_login_serves_many_calls_until_it_is_old(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        provider.balance()
        provider.balance()
        assert stage.sent(logs_in) == 1
        wire.clock.pass_seconds(50 * 60)
        provider.balance()
        assert stage.sent(logs_in) == 2

    def test_a_read_whose_token_is_refused_logs_in_once_more(self, provider: Provider, stage: Stage) -> None:
        stage.when(reads_balance, says({"message": "Unauthenticated."}, 401), times=1)
        assert provider.balance() == Cost(Decimal("120.5"), "USD")
        assert stage.sent(logs_in) == 2
        stage.when(reads_balance, says({"message": "Unauthenticated."}, 401))
        with pytest.raises(ProviderAuthFailed):
            provider.balance()

    def test_a_purchase_whose_token_is_refused_is_not_sent_again(
        self, provider: Provider, wire: Wire, stage: Stage
    ) -> None:
        stage.when(wire.spends, says({"message": "Unauthenticated."}, 401), times=1)
        outcome, _ = buy(provider, wire.request)
        assert isinstance(outcome, Rejected)
        assert stage.sent(wire.spends) == 1
        provider.balance()
        assert stage.sent(logs_in) == 2  # the refused token was forgotten

    @pytest.mark.parametrize(
        "answer", [says({"status": False, "message": "Invalid login details"}, 401), refuse("Invalid login details")]
    )
    def test_a_refused_login_names_the_settings(self, provider: Provider, stage: Stage, answer: Any) -> None:
        stage.when(logs_in, answer)
        with pytest.raises(ProviderAuthFailed, match="esim_card login"):
            provider.balance()

    def test_a_long_lived_key_needs_no_login(self, wire: Wire, stage: Stage) -> None:
        adapter = EsimCard(
            Endpoint("https://provider.test/api", live=True, credentials={"api_key": TOKEN}),
            limiter=Unlimited(),
            tokens=MemoryTokenStore(),
            clock=wire.clock,
            timeout_seconds=5,
            transport=stage,
        )
        assert isinstance(buy(adapter, wire.request)[0], Pending)
        assert stage.sent(logs_in) == 0
        stage.when(reads_balance, says({"message": "Unauthenticated."}, 401))
        with pytest.raises(ProviderAuthFailed):
            adapter.balance()
        assert stage.sent(logs_in) == 0

    def test_the_evidence_is_the_account_before(self, provider: Provider, wire: Wire) -> None:
        prepared = provider.prepare(wire.request)
        assert isinstance(prepared, Prepared)
        evidence = json.loads(json.dumps(dict(prepared.evidence)))
        assert (evidence["balance"], evidence["price"], evidence["package"]) == ("120.5", "4.15", NAME)
        assert (evidence["bundles"], evidence["sims"]) == (31, 31)
        assert {"b-0", "b-14", "b-30"} <= set(evidence["bundle_ids"])
        assert ICCID not in json.dumps(evidence)

    def test_an_empty_wallet_is_seen_before_buying(self, wire: EsimCardWire, stage: Stage) -> None:
        wire.balance = Decimal("4.14")
        outcome = wire.build(stage).prepare(wire.request)
        assert isinstance(outcome, Rejected)
        assert outcome.error_type is ErrorType.INSUFFICIENT_BALANCE

    @pytest.mark.parametrize("newest_first", [True, False])
    @pytest.mark.parametrize("already", [0, 1, 14, 15, 16, 29, 30, 31, 45])
    def test_a_lost_purchase_is_found_however_long_and_sorted_the_lists_are(
        self, wire: EsimCardWire, stage: Stage, already: int, newest_first: bool
    ) -> None:
        wire.newest_first = newest_first
        wire.bundles = [bundle(f"b-{n}") for n in range(already)]
        wire.sims = [sim(f"s-{n}") for n in range(already)]
        provider = wire.build(stage)
        evidence = lost(provider, wire, stage, arrived=True)
        wire.unfinished.clear()
        found = provider.resolve(wire.request, evidence, LATE)
        assert isinstance(found, Provisioned)
        assert found.profile.provider_esim_id == "sim-new-01"
        assert found.cost == wire.request.expected_cost

    def test_an_esim_has_one_order_number_however_it_was_found(self, wire: EsimCardWire, stage: Stage) -> None:
        provider = wire.build(stage)
        evidence = lost(provider, wire, stage, arrived=True)
        wire.unfinished.clear()
        found = provider.resolve(wire.request, evidence, LATE)
        (order_id, sim_id) = (101, "sim-new-01")
        told = {
            "handle": {"sim_applied": False, "sim_id": sim_id, "order_id": order_id},
            "at once": {"sim_applied": True, "sim": wire.sims[0], "package": {"id": "b-new-01"}},
            "at once, minimal": {"sim_applied": True, "sim": wire.sims[0]},
        }
        numbers = {found.provider_order_id} if isinstance(found, Provisioned) else set()
        for data in told.values():
            stage.when(wire.spends, success_with(data), times=1)
            answered = provider.purchase(wire.request, evidence)
            assert isinstance(answered, Provisioned | Pending)
            polled = provider.order_status(answered.provider_order_id, wire.request)
            assert isinstance(polled, Provisioned)
            numbers |= {answered.provider_order_id, polled.provider_order_id}
        older = provider.order_status(f"{order_id}/{sim_id}", wire.request)  # kept before the SIM alone was
        assert isinstance(older, Provisioned)
        assert numbers | {older.provider_order_id} == {sim_id}

    def test_a_top_up_never_has_the_number_of_its_esim(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        request = wire.top_up_request
        assert request is not None
        outcome, _ = buy(provider, request)
        assert isinstance(outcome, Provisioned)
        assert outcome.provider_order_id == f"{request.reference}/{SIM}"
        assert isinstance(provider.order_status(outcome.provider_order_id, request), Provisioned)

    def test_nothing_is_told_before_the_settle_time(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        evidence = lost(provider, wire, stage, arrived=True)
        sent = len(stage.requests)
        early = provider.resolve(wire.request, evidence, LATE - timedelta(seconds=1))
        assert isinstance(early, Unknown)
        assert len(stage.requests) == sent

    def test_what_the_account_cannot_tell_goes_to_a_person(
        self, provider: Provider, wire: EsimCardWire, stage: Stage
    ) -> None:
        evidence = lost(provider, wire, stage, arrived=False)

        def tells() -> str:
            outcome = provider.resolve(wire.request, evidence, LATE)
            assert isinstance(outcome, Unknown)
            return outcome.message

        wire.balance -= Decimal("4.15")
        assert "a person must look" in tells()  # paid, and nothing to show for it
        wire.bundles.insert(0, bundle("b-new", "Another plan"))
        assert "a person must look" in tells()  # another plan
        wire.bundles[0] = bundle("b-new")
        wire.balance -= Decimal("0.01")
        assert "a person must look" in tells()  # another price
        wire.balance += Decimal("0.01")
        assert "does not show yet" in tells()  # ours, without a SIM so far
        wire.sims[:0] = [sim("s-new-1"), sim("s-new-2")]
        assert "2 new SIMs" in tells()
        wire.bundles.insert(0, bundle("b-newer"))
        assert "a person must look" in tells()  # two purchases

    @pytest.mark.parametrize("arrived", [True, False])
    def test_other_purchases_of_ours_are_told_from_this_one(
        self, provider: Provider, wire: EsimCardWire, stage: Stage, arrived: bool
    ) -> None:
        evidence = lost(provider, wire, stage, arrived=arrived)
        wire.bundles.insert(0, bundle("b-theirs", "Another plan"))
        wire.sims.insert(0, sim("s-theirs", iccid="8910300000000000999"))
        wire.balance -= Decimal("3.10")
        theirs = {**evidence, OTHER_ORDERS: {"s-theirs": "3.100000 USD", "s-before": None}}
        outcome = provider.resolve(wire.request, theirs, LATE)
        if arrived:
            assert isinstance(outcome, Provisioned)
            assert outcome.provider_order_id != "s-theirs"
        else:
            assert isinstance(outcome, Rejected)
            assert outcome.error_type is ErrorType.NOT_BOUGHT
        assert isinstance(provider.resolve(wire.request, evidence, LATE), Unknown)

    @pytest.mark.parametrize("cost", [None, "3.09 USD", "3.10 EUR", "nonsense"])
    def test_a_purchase_of_ours_whose_cost_does_not_agree_leaves_the_account_unclear(
        self, provider: Provider, wire: EsimCardWire, stage: Stage, cost: str | None
    ) -> None:
        evidence = lost(provider, wire, stage, arrived=False)
        wire.bundles.insert(0, bundle("b-theirs"))
        wire.sims.insert(0, sim("s-theirs", iccid="8910300000000000999"))
        wire.balance -= Decimal("3.10")
        outcome = provider.resolve(wire.request, {**evidence, OTHER_ORDERS: {"s-theirs": cost}}, LATE)
        assert isinstance(outcome, Unknown)

    def test_an_order_of_another_purchase_alone_is_not_taken_for_this_one(
        self, provider: Provider, wire: EsimCardWire, stage: Stage
    ) -> None:
        evidence = lost(provider, wire, stage, arrived=False)
        wire.bundles.insert(0, bundle("b-theirs"))
        wire.sims.insert(0, sim("s-theirs", iccid="8910300000000000999"))
        wire.balance -= Decimal("4.15")
        assert isinstance(provider.resolve(wire.request, evidence, LATE), Provisioned)  # what alone it looks like
        theirs = {**evidence, OTHER_ORDERS: {"s-theirs": "4.15 USD"}}
        assert isinstance(provider.resolve(wire.request, theirs, LATE), Rejected)

    def test_a_refill_hides_what_happened(self, provider: Provider, wire: EsimCardWire, stage: Stage) -> None:
        evidence = lost(provider, wire, stage, arrived=False)
        wire.balance += 100
        assert isinstance(provider.resolve(wire.request, evidence, LATE), Unknown)

    def test_a_balance_with_the_noise_of_binary_fractions_still_tells(
        self, provider: Provider, wire: EsimCardWire, stage: Stage
    ) -> None:
        evidence = lost(provider, wire, stage, arrived=True)
        wire.balance += Decimal("0.0000000000001")
        assert isinstance(provider.resolve(wire.request, evidence, LATE), Provisioned)

    def test_a_purchase_without_ids_is_found_in_the_account(
        self, provider: Provider, wire: EsimCardWire, stage: Stage
    ) -> None:
        def delayed(request: httpx.Request) -> httpx.Response:
            wire.answer(request)
            return success({"sim_applied": False, "message": "wait"})

        stage.when(wire.spends, delayed)
        outcome, evidence = buy(provider, wire.request)
        assert isinstance(outcome, Unknown)
        assert isinstance(provider.resolve(wire.request, evidence, LATE), Provisioned)

    @pytest.mark.parametrize(
        "evidence",
        [
            {},
            {"balance": "1"},
            {"bundle_ids": [], "sim_ids": [], "bundles": 1, "sims": 1, "balance": "x", "price": "1"},
        ],
    )
    def test_without_the_account_before_nothing_is_sent(
        self, provider: Provider, wire: Wire, stage: Stage, evidence: dict[str, Any]
    ) -> None:
        assert isinstance(provider.purchase(wire.request, evidence), Rejected)
        late = provider.resolve(wire.request, evidence, LATE)
        assert isinstance(late, Rejected)
        assert late.error_type is ErrorType.NOT_BOUGHT
        assert stage.sent(wire.spends) == 0

    def test_a_refusal_that_the_balance_contradicts_is_unknown(
        self, provider: Provider, wire: EsimCardWire, stage: Stage
    ) -> None:
        def refused_but_paid(request: httpx.Request) -> httpx.Response:
            wire.answer(request)
            return refuse("Request refused")(request)

        stage.when(wire.spends, refused_but_paid)
        outcome, evidence = buy(provider, wire.request)
        assert isinstance(outcome, Unknown)
        assert isinstance(provider.resolve(wire.request, evidence, LATE), Provisioned)

    def test_a_refusal_beside_a_refill_is_unknown(self, provider: Provider, wire: EsimCardWire, stage: Stage) -> None:
        def refused_but_paid_and_refilled(request: httpx.Request) -> httpx.Response:
            wire.balance += Decimal(500) - Decimal("4.15")
            return refuse("Request refused")(request)

        stage.when(wire.spends, refused_but_paid_and_refilled)
        assert isinstance(buy(provider, wire.request)[0], Unknown)

    def test_a_status_that_is_neither_yes_nor_no_is_unknown(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        stage.when(wire.spends, says({"status": "processing", "data": {"sim_applied": False, "order_id": 1}}))
        assert isinstance(buy(provider, wire.request)[0], Unknown)

    def test_what_a_slow_login_holds_up_is_not_sent(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        prepared = provider.prepare(wire.request)
        assert isinstance(prepared, Prepared)
        wire.clock.pass_seconds(50 * 60)  # the token ends between the two

        def slow_login(request: httpx.Request) -> httpx.Response:
            wire.clock.pass_seconds(29)
            return wire.answer(request)

        stage.when(logs_in, slow_login)
        outcome = provider.purchase(wire.request, prepared.evidence)
        assert isinstance(outcome, Rejected)
        assert outcome.error_type is ErrorType.PROVIDER_TIMEOUT
        assert stage.sent(wire.spends) == 0

    def test_a_refusal_without_a_readable_balance_is_unknown(
        self, provider: Provider, wire: Wire, stage: Stage
    ) -> None:
        prepared = provider.prepare(wire.request)
        assert isinstance(prepared, Prepared)
        stage.when(wire.spends, refuse("Out of stock"))
        stage.when(reads_balance, fails(httpx.ReadTimeout))
        assert isinstance(provider.purchase(wire.request, prepared.evidence), Unknown)

    def test_the_old_host_is_named(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        stage.when(wire.spends, says(b"gone", 410))
        outcome, _ = buy(provider, wire.request)
        assert isinstance(outcome, Rejected)
        assert "ESIM_CARD_API_URL" in outcome.message

    def test_a_minimal_reply_about_a_sim_is_completed_from_the_list(
        self, provider: Provider, wire: Wire, stage: Stage
    ) -> None:
        minimal = {"sim": {"id": SIM, "iccid": ICCID, "status": "Released", "total_bundles": 1}}
        stage.when(lambda request: request.url.path.endswith(f"/my-esims/{SIM}"), lambda _: success(minimal))
        assert isinstance(provider.order_status(SIM, wire.request), Provisioned)

    @pytest.mark.parametrize("newest_first", [True, False])
    def test_a_minimal_reply_is_completed_from_either_end_of_the_list(
        self, provider: Provider, wire: EsimCardWire, stage: Stage, newest_first: bool
    ) -> None:
        wire.newest_first = newest_first
        minimal = {"sim": {"id": SIM, "iccid": ICCID, "status": "Released", "total_bundles": 1}}
        stage.when(lambda request: request.url.path.endswith(f"/my-esims/{SIM}"), lambda _: success(minimal))
        assert isinstance(provider.order_status(SIM, wire.request), Provisioned)

    def test_a_sim_without_activation_data_anywhere_is_pending(self, provider: Provider, wire: EsimCardWire) -> None:
        wire.sims[0] = sim(qr_code_text=None, smdp_address=None, matching_id=None)
        assert isinstance(provider.order_status(SIM, wire.request), Pending)
        with pytest.raises(ProviderRejected):
            provider.esim_details(wire.esim)
        with pytest.raises(ProviderRejected):
            provider.esim_details(EsimRef(iccid=ICCID))

    def test_a_top_up_goes_to_its_esim_only_where_that_is_possible(
        self, provider: Provider, wire: Wire, stage: Stage
    ) -> None:
        request = wire.top_up_request
        assert request is not None
        buy(provider, request)
        sent = next(r for r in stage.requests if wire.spends(r))
        assert sent.url.path.endswith("/package/purchase")
        assert json.loads(sent.content) == {"package_type_id": PACKAGE, "iccid": ICCID}
        other = replace(request, top_up_of=EsimRef("2/s-1", "s-1", "8910300000000000001", PACKAGE))
        outcome = provider.prepare(other)
        assert isinstance(outcome, Rejected)
        assert outcome.error_type is ErrorType.INVALID_PRODUCT
        assert provider.top_ups(EsimRef(iccid=ICCID)) == ()

    def test_an_accepted_top_up_is_followed_by_its_order(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        request: PurchaseRequest | None = wire.top_up_request
        assert request is not None
        assert isinstance(provider.order_status(f"100/{SIM}", request), Provisioned)

        def reads_order(sent: httpx.Request) -> bool:
            return sent.url.path.endswith("/order/100")

        stage.when(reads_order, lambda _: success([]), times=1)
        assert isinstance(provider.order_status(f"100/{SIM}", request), Pending)
        stage.when(reads_order, lambda _: success([{"id": "b", "status": "Failed"}]))
        assert isinstance(provider.order_status(f"100/{SIM}", request), Unknown)

    def test_a_lost_top_up_is_found_in_the_account(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        request = wire.top_up_request
        assert request is not None
        stage.lose_answer(wire.spends)
        _, evidence = buy(provider, request)
        found = provider.resolve(request, evidence, LATE)
        assert isinstance(found, Provisioned)
        assert found.profile.iccid == ICCID

    def test_unlimited_usage_has_no_figures(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        words = {"initial_data_quantity": "Unlimited", "rem_data_quantity": "Unlimited", "initial_data_unit": "GB"}
        stage.when(lambda request: request.url.path.endswith("/usage"), lambda _: success(words))
        reading = provider.usage(wire.esim)
        assert (reading.used_bytes, reading.total_bytes) == (None, None)
        assert reading.expires_at is not None

    def test_no_webhook_is_believed(self, provider: Provider) -> None:
        with pytest.raises(WebhookRejected):
            provider.verify_webhook({}, b"{}")
        with pytest.raises(WebhookRejected):
            provider.parse_webhook(b"{}")

    @pytest.mark.parametrize(
        ("data", "meta"),
        [
            ([], {"total": 3, "currentPage": 1, "lastPage": 2}),
            ([package(PACKAGE)], {"total": 3, "currentPage": 2, "lastPage": 2}),
            ([package(PACKAGE)], {"total": 3, "currentPage": 1, "lastPage": 100_000}),
            ([package(PACKAGE)], {"total": 3, "currentPage": 1}),
            ([package(PACKAGE)], None),
            ({"id": PACKAGE}, {"total": 3, "currentPage": 1, "lastPage": 1}),
        ],
    )
    def test_a_list_that_does_not_add_up_is_an_error(
        self, provider: Provider, wire: Wire, stage: Stage, data: Any, meta: Any
    ) -> None:
        stage.when(wire.is_catalogue, lambda _: success(data, meta=meta))
        with pytest.raises(MalformedReply):
            list(provider.catalogue())

    def test_the_countries_of_a_regional_plan_are_read_from_its_detail(
        self, provider: Provider, wire: Wire, stage: Stage
    ) -> None:
        def lists(request: httpx.Request) -> httpx.Response:
            rows = [package(f"r-{n}", name="eSIMCard 1GB Europe", coverage=[]) for n in range(300)]
            return success(rows, meta={"total": 300, "currentPage": 1, "lastPage": 1})

        def details(request: httpx.Request) -> bool:
            return "/package/detail/" in request.url.path

        def detail(request: httpx.Request) -> httpx.Response:
            name = request.url.path.rpartition("/")[2]
            countries = [{"id": 9, "name": "Spain"}, {"id": 10, "name": "France"}]
            return success({**package(name, coverage=[]), "countries": countries if name != "r-1" else "none"})

        stage.when(wire.is_catalogue, lists)
        stage.when(lambda request: request.url.path.endswith("/detail/r-0"), says({}, 500))
        stage.when(details, detail)
        (page,) = provider.catalogue()
        assert stage.sent(details) == 200  # bounded: a list that never tells is a slow one, not an endless one
        assert len(page.offers) == 198
        assert {offer.coverage.countries for offer in page.offers} == {("ES", "FR")}
        assert {reject.reason for reject in page.rejects} == {"its countries are neither listed nor in its name"}

    @pytest.mark.parametrize("times", [1, None])
    def test_a_throttled_detail_is_waited_for_and_never_makes_a_reject(
        self, provider: Provider, wire: Wire, stage: Stage, times: int | None
    ) -> None:
        rows = [package(PACKAGE, name="eSIMCard 1GB Europe", coverage=[])]
        meta = {"total": 1, "currentPage": 1, "lastPage": 1}
        stage.when(wire.is_catalogue, lambda _: success(rows, meta=meta))

        def details(request: httpx.Request) -> bool:
            return "/package/detail/" in request.url.path

        stage.when(details, lambda _: wire.throttled(), times=times)
        stage.when(details, lambda _: success({**rows[0], "countries": [{"id": 9, "name": "Spain"}]}))
        if times is None:
            with pytest.raises(ProviderThrottled):
                list(provider.catalogue())
        else:
            (page,) = provider.catalogue()
            assert (len(page.offers), page.rejects) == (1, ())

    def test_a_refusal_inside_200_is_an_error(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        stage.when(wire.is_catalogue, refuse("Something is wrong"))
        with pytest.raises(ProviderError, match="Something is wrong"):
            list(provider.catalogue())

    def test_a_package_that_is_gone_has_no_price(self, provider: Provider, stage: Stage) -> None:
        with pytest.raises(ProviderRejected):
            provider.current_cost("99999999-0000-4000-8000-000000000000", {})
        stage.when(lambda request: "/package/detail/" in request.url.path, lambda _: success(package("other")))
        with pytest.raises(MalformedReply):
            provider.current_cost(PACKAGE, {})
