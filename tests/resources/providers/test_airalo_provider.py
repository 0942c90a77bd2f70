"""Airalo against the provider contract, and what only Airalo does."""

import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

import httpx
import pytest

from esim.catalogue import Allowance, OfferKind, package_key
from esim.errors import MalformedReply, ProviderRejected, ProviderUnavailable
from esim.fakes import MemoryTokenStore
from esim.money import Cost
from esim.ports import Provider
from esim.purchase import (
    CancelRefused,
    CancelUnknown,
    ErrorType,
    EsimRef,
    EventKind,
    Pending,
    Prepared,
    Provisioned,
    PurchaseRequest,
    Rejected,
    SaleState,
    Unknown,
)
from resources.providers.airalo import Airalo
from tests.resources.providers.contract_base import buy
from tests.resources.providers.provider_contract import ProviderContract
from tests.resources.providers.wire import NOW, Answer, Clock, Hook, Refusal, Sale, Stage, Wire, fails, reply, says

SECRET = "airalo-client-secret"
TOKEN = "airalo-access-token"
ICCID = "8944110000000007312"
MATCHING = "KJ4-77PLM-90QAZ"
REFERENCE = "r4k7m2p9x1c5v8b3n6q0w2e4t7"
MEBIBYTE = 1024 * 1024


def package(package_id: str, amount: int, day: int, net: str, price: str, **more: Any) -> dict[str, Any]:
    return {
        "id": package_id,
        "type": "sim",
        "price": Decimal(price),
        "net_price": Decimal(net),
        "amount": amount,
        "day": day,
        "is_unlimited": False,
        "is_fair_usage_policy": False,
        "fair_usage_policy": None,
        "data": f"{amount // 1024} GB",
        "voice": None,
        "text": None,
        "title": f"{amount // 1024} GB - {day} days",
        "prices": {"net_price": {"USD": Decimal(net)}, "recommended_retail_price": {"USD": Decimal(price)}},
        **more,
    }


def entry(country: str, operator: str, packages: list[dict[str, Any]], codes: tuple[str, ...] = ()) -> dict[str, Any]:
    networks = [{"name": "Fuji Mobile", "types": ["5G"]}, {"name": "Kita Tel", "types": ["LTE"]}]
    return {
        "slug": operator.lower().replace(" ", "-"),
        "country_code": country,
        "title": operator,
        "operators": [
            {
                "id": 17,
                "title": operator,
                "type": "local" if country else "global",
                "plan_type": "data",
                "rechargeability": True,
                "coverages": [{"name": code, "code": code, "networks": networks} for code in codes or (country,)],
                "countries": [{"country_code": code, "title": code} for code in codes or (country,)],
                "packages": packages,
            }
        ],
    }


def shop() -> list[dict[str, Any]]:
    """The catalogue: a country with an unlimited plan and a top-up, one with voice, and a region."""
    policy = "Speed drops to 512 kbps after 1GB/day"
    unlimited = {"is_unlimited": True, "is_fair_usage_policy": 1, "fair_usage_policy": policy, "data": "Unlimited"}
    voice = {"voice": 30, "text": 20}
    return [
        entry(
            "JP",
            "Moshi Fuji",
            [
                package("moshi-fuji-7days-1gb", 1024, 7, "2.10", "4.5"),
                package("moshi-fuji-3days-unlimited", 66651, 3, "5.25", "11", **unlimited),
                package("moshi-fuji-7days-1gb-topup", 1024, 7, "2.00", "4.5", type="topup"),
            ],
        ),
        entry("FR", "Bonjour Plus", [package("bonjour-plus-15days-2gb", 2048, 15, "4", "8", **voice)]),
        entry("", "Nordlink", [package("nordlink-30days-5gb", 5120, 30, "7.7", "16")], ("SE", "NO", "FI", "DK")),
    ]


def sim() -> dict[str, Any]:
    return {
        "id": 90411,
        "iccid": ICCID,
        "lpa": "rsp.airalo-wire.test",
        "matching_id": MATCHING,
        "qrcode": f"LPA:1$rsp.airalo-wire.test${MATCHING}",
        "apn_type": "manual",
        "apn_value": "internet",
        "confirmation_code": None,
        "direct_apple_installation_url": f"https://install.test/?carddata=LPA:1$rsp.airalo-wire.test${MATCHING}",
    }


def order(**changed: Any) -> dict[str, Any]:
    return {
        "id": 583801,
        "code": "20261120-583801",
        "currency": "USD",
        "package_id": "moshi-fuji-7days-1gb",
        "quantity": 1,
        "type": "sim",
        "description": REFERENCE,
        "validity": 7,
        "price": Decimal("4.5"),
        "net_price": Decimal("2.1"),
        "pricing_model": "net_pricing",
        "created_at": "2026-11-20 09:15:31",
        "sims": [sim()],
        **changed,
    }


def signed(body: dict[str, Any], kind: EventKind) -> Hook:
    raw = json.dumps(body, separators=(",", ":")).encode()
    return Hook({"airalo-signature": hmac.new(SECRET.encode(), raw, hashlib.sha512).hexdigest()}, raw, kind)


class AiraloWire(Wire):
    """Airalo in small: two pages of catalogue, one eSIM, orders found by description."""

    slug = "airalo"
    factory = Airalo
    credentials: ClassVar[Mapping[str, str]] = {"client_id": "airalo-client-id", "client_secret": SECRET}
    secrets = (SECRET, TOKEN, ICCID, MATCHING)
    request = PurchaseRequest(
        reference=REFERENCE,
        provider_package_id="moshi-fuji-7days-1gb",
        expected_cost=Cost(Decimal("2.10"), "USD"),
        cost_ceiling=Cost(Decimal("2.50"), "USD"),
        started_at=NOW,
        hints={"filter[country]": "JP"},
    )
    esim = EsimRef("583801", "90411", ICCID, "moshi-fuji-7days-1gb")
    top_up_request = replace(request, provider_package_id="moshi-fuji-7days-1gb-topup", hints={}, top_up_of=esim)
    usage = (257 * MEBIBYTE, 1024 * MEBIBYTE)
    cancel_outcome = CancelUnknown
    told_states = frozenset({SaleState.GIVEN_BACK, SaleState.FAILED})

    def __init__(self) -> None:
        super().__init__()
        self.orders: list[dict[str, Any]] = []
        self.history = [{"id": 728, "status": "ACTIVE", "package": {"id": "moshi-fuji-7days-1gb"}}]
        self.mints = 0

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/")
        if path == "token":
            self.mints += 1
            data = {"token_type": "Bearer", "expires_in": 31622400, "access_token": TOKEN}
            return reply({"data": data, "meta": {"message": "success"}})
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return self.unauthorised()
        if request.method == "POST":
            return self.posted(path, json.loads(request.content))
        return self.read(path, request.url.params)

    def posted(self, path: str, body: dict[str, Any]) -> httpx.Response:
        if path == "refund":
            return reply({"data": {"refund_id": "12", "created_at": "2026-11-21 09:30"}}, 202)
        self.sold.append(body["description"])
        placed = order(id=583800 + len(self.sold), description=body["description"], package_id=body["package_id"])
        if path == "orders/topups":
            del placed["sims"]
            self.history.append({"id": 729, "status": "NOT_ACTIVE", "package": {"id": body["package_id"]}})
        else:
            assert body["quantity"] == 1
            self.orders.append(placed)
        return reply({"data": placed, "meta": {"message": "success"}})

    def read(self, path: str, params: httpx.QueryParams) -> httpx.Response:
        if path == "packages":
            return self.page(params)
        if path == "orders":
            assert params["include"] == "sims,status"
            found = [o for o in self.orders if params["filter[description]"] in o["description"]]
            rows = [{"status": {"name": "Completed", "slug": "completed"}, **o, "price": "4.50"} for o in found]
            return reply({"data": rows, "meta": {"message": "success"}})
        documents = {
            f"sims/{ICCID}": sim(),
            f"sims/{ICCID}/usage": {"remaining": 767, "total": 1024, "expired_at": "2026-11-27 09:15:31",
                                    "is_unlimited": False, "status": "ACTIVE"},
            f"sims/{ICCID}/packages": self.history,
            f"sims/{ICCID}/topups": [p for p in shop()[0]["operators"][0]["packages"] if p["type"] == "topup"],
            "balance": {"balances": {"name": "balance", "availableBalance": {"amount": 1250.75, "currency": "USD"}}},
        }  # fmt: skip
        if path in documents:
            return reply({"pricing": {"model": "net_pricing"}, "data": documents[path], "meta": {}})
        return reply({"data": [], "meta": {"message": "messages.resource_not_found"}}, 404)

    def page(self, params: httpx.QueryParams) -> httpx.Response:
        entries = shop()
        country, kind = params.get("filter[country]"), params.get("filter[type]")
        if country or kind:
            return self.sheet([e for e in entries if e["country_code"] == (country or "")], 1, 1)
        number = int(params["page"])
        return self.sheet(entries[:2] if number == 1 else {"2": entries[2]}, number, 2)

    def sheet(self, data: Any, number: int, last: int) -> httpx.Response:
        meta = {"message": "success", "current_page": number, "last_page": last, "per_page": "50", "total": 3}
        return reply({"pricing": {"model": "net_pricing", "discount_percentage": 0}, "data": data, "meta": meta})

    def spends(self, request: httpx.Request) -> bool:
        return request.method == "POST" and request.url.path.endswith(("/orders", "/orders/topups"))

    def is_catalogue(self, request: httpx.Request) -> bool:
        return request.url.path.endswith("/packages") and "/sims/" not in request.url.path

    def plans(self, page: Any) -> list[dict[str, Any]]:
        entries = page["data"].values() if isinstance(page["data"], dict) else page["data"]
        return [p for e in entries for o in e["operators"] for p in o["packages"]]

    def spoilt(self) -> Mapping[str, Callable[[dict[str, Any]], None]]:
        return {
            "negative_price": lambda p: p.update(net_price=-2.1),
            "zero_price": lambda p: p.update(net_price=0),
            "price_times_10000": lambda p: p.update(net_price=21000),
            "price_as_words": lambda p: p.update(net_price="two dollars"),
            "huge_name": lambda p: p.update(title="x" * 10_000_000),
            "no_size": lambda p: p.pop("amount"),
            "tiny_size": lambda p: p.update(amount=3),
            "no_id": lambda p: p.pop("id"),
            "no_term": lambda p: p.update(day=None),
            "negative_voice": lambda p: p.update(voice=-5),
            "lists_for_values": lambda p: p.update(voice=[], type={}, day=[7]),
            "unknown_type": lambda p: p.update(type="gift"),
            "no_net_price": lambda p: p.update(net_price=None, prices={}),
        }

    def is_statement(self, request: httpx.Request) -> bool:
        return request.url.path.endswith("/orders") and "filter[created_at]" in request.url.params

    def statement(self, request: httpx.Request, sales: Sequence[Sale]) -> httpx.Response:
        params = request.url.params
        first, last = params["filter[created_at]"].split(" - ")
        found = [sale for sale in sales if first <= f"{sale.at:%Y-%m-%d}" <= last]
        page, pages = int(params["page"]), max(1, -(-len(found) // 2))
        words = {SaleState.SOLD: "completed", SaleState.GIVEN_BACK: "refunded", SaleState.FAILED: "failed"}
        rows = [
            order(
                id=sale.number,
                description=f"ours-{sale.number}",
                created_at=f"{sale.at:%Y-%m-%d %H:%M:%S}",
                sims=[{**sim(), "iccid": sale.iccid}],
                status={"name": "-", "slug": words[sale.state]},
            )
            for sale in found[page * 2 - 2 : page * 2]
        ]
        return reply({"data": rows, "meta": {"current_page": page, "last_page": pages}})

    def unreadable_sales(self) -> Sequence[Callable[[dict[str, Any]], None]]:
        return (
            lambda page: page["data"][0].pop("id"),
            lambda page: page["data"][0].update(created_at="yesterday"),
            lambda page: page["data"][0].update(quantity=None),
            lambda page: page["data"].insert(0, "an order"),
            lambda page: page.pop("meta"),
            lambda page: page.update(data={}),
        )

    def endless(self, request: httpx.Request, serial: int) -> httpx.Response:
        plan = package(f"endless-{serial}", 1024, 7, "1", "2")
        return self.sheet([entry("JP", "Endless", [plan])], serial, serial + 1)

    def refusals(self) -> Mapping[str, Refusal]:
        def coded(code: int, kind: ErrorType, status: int = 422) -> Refusal:
            return Refusal(says({"code": code, "reason": "The request was refused."}, status), kind)

        def invalid(kind: ErrorType, **fields: str) -> Refusal:
            return Refusal(says({"data": fields, "meta": {"message": "the parameter is invalid"}}, 422), kind)

        return {
            "insufficient credit": coded(11, ErrorType.INSUFFICIENT_BALANCE),
            "maintenance": coded(13, ErrorType.PROVIDER_API_ERROR),
            "checksum": coded(14, ErrorType.PROVIDER_API_ERROR),
            "stock": coded(33, ErrorType.OUT_OF_STOCK),
            "invalid or out of stock": coded(34, ErrorType.INVALID_PRODUCT),
            "recycled": coded(73, ErrorType.INVALID_PRODUCT),
            "address not allowed": coded(89, ErrorType.AUTH_FAILED, 403),
            "quantity": invalid(ErrorType.OUT_OF_STOCK, quantity="SIM quantity is not available. Available: 0."),
            "package": invalid(ErrorType.INVALID_PRODUCT, package_id="The selected package is invalid."),
            "description": invalid(ErrorType.PROVIDER_API_ERROR, description="The description is too long."),
            "throttled": Refusal(says({"message": "Too Many Attempts."}, 429), ErrorType.RATE_LIMITED),
        }

    def unclear(self) -> Mapping[str, Answer]:
        unexpected = {"code": 53, "reason": "Something unexpected happened."}
        return {
            "unexpected": says(unexpected, 422),
            "unexpected with 200": says(unexpected),
            "a refusal with 200": says({"code": 11, "reason": "Insufficient Airalo Credit"}),
            "unlisted code": says({"code": 4711, "reason": "New"}, 422),
            "unlisted status": says({"message": "I am a teapot"}, 418),
            "html with 422": says(b"<html></html>", 422),
            "redirect": says({}, 302, {"Location": "https://elsewhere.test"}),
            "no order id": says({"data": order(id=None, sims=[])}),
            "no data": says({"data": [], "meta": {"message": "success"}}),
            "partially refunded": says({"data": order(status={"slug": "partially_refunded"})}),
        }

    def accepted(self) -> Mapping[str, Answer]:
        return {
            "no eSIM yet": says({"data": order(sims=[])}),
            "an eSIM without activation data": says({"data": order(sims=[{"id": 1, "iccid": ICCID}])}),
            "an eSIM of nonsense": says({"data": order(sims=[None, 7, {"iccid": [], "lpa": 5}])}),
        }

    def delivered(self) -> Mapping[str, Answer]:
        host_in_qrcode = {**sim(), "lpa": None, "matching_id": None}
        return {
            "text for numbers": says({"data": order(id="583801", quantity="1", validity="7", price="4.50")}),
            "number for iccid": says({"data": order(sims=[{**sim(), "iccid": int(ICCID)}])}),
            "only a qrcode": says({"data": order(sims=[host_in_qrcode])}),
            "host with scheme": says({"data": order(sims=[{**sim(), "lpa": "https://rsp.airalo-wire.test/"}])}),
            "discount account": says({"data": order(net_price=None, discount_percentage=10, unit_paid_price=2.1)}),
            "cost of nonsense": says({"data": order(net_price="?", currency=5)}),
            "two eSIMs": says({"data": order(quantity="2", sims=[sim(), sim()])}),
        }

    def status_answers(self) -> Mapping[str, tuple[Answer, type]]:
        def state(slug: str, **changed: Any) -> Answer:
            document = {"data": order(status={"name": slug.title(), "slug": slug}, **changed)}
            return lambda r: self.answer(r) if r.url.path.endswith("/token") else reply(document)

        def refused(body: dict[str, Any], status: int) -> Answer:
            return lambda r: self.answer(r) if r.url.path.endswith("/token") else reply(body, status)

        return {
            "completed": (state("completed"), Provisioned),
            "failed": (state("failed", sims=[]), Rejected),
            "refunded": (state("refunded"), Rejected),
            "a word we do not know": (state("in-review", sims=[]), Pending),
            "not ours": (refused({"data": [], "meta": {"message": "This action is unauthorized."}}, 401), Unknown),
            "not found": (refused({"data": []}, 404), Unknown),
        }

    def hooks(self) -> tuple[Hook, ...]:
        low = {"level": "75%", "package_name": "moshi", "remaining_percentage": 25, "iccid": ICCID}
        done = {"data": {**order(net_price=2.1, price=4.5), "request_id": "3NhR3gKmqCWK7IWppurpDX3Cg"}, "new_key": 1}
        return (
            signed(done, EventKind.ORDER_READY),
            signed({"request_id": "3NhR3gKmqCWK7IWppurpDX3Cg", "reason": "Out of stock."}, EventKind.ORDER_FAILED),
            signed(low, EventKind.USAGE),
            signed({**low, "level": "1days"}, EventKind.EXPIRY),
            signed({"message": "Surpassed 80%", "remaining": 225}, EventKind.BALANCE_LOW),
            signed({"something": "new"}, EventKind.OTHER),
        )

    def other_sales(self) -> None:
        self.orders.append(order(id=1, description=f"{REFERENCE}-b", sims=[]))
        self.orders.append(order(id=2, description=f"x{REFERENCE}", sims=[]))


class Ticking(Clock):
    """A clock that moves at every look, and tells when as many threads as there are workers have looked."""

    WORKERS = 4

    def __init__(self) -> None:
        super().__init__()
        self.callers: set[int] = set()
        self.everybody = threading.Event()
        self._lock = threading.Lock()

    def __call__(self) -> datetime:
        with self._lock:
            self.now += timedelta(milliseconds=1)
            self.callers.add(threading.get_ident())
            if len(self.callers) == self.WORKERS:
                self.everybody.set()
            return self.now


class TestAiralo(ProviderContract):
    wire_type = AiraloWire

    def test_sizes_are_nominal_and_fair_use_is_read(self, provider: Provider) -> None:
        offers = {o.provider_package_id: o for page in provider.catalogue() for o in page.offers}
        unlimited = offers["moshi-fuji-3days-unlimited"]
        assert (unlimited.allowance, unlimited.data_mb) == (Allowance.UNLIMITED, None)
        assert (unlimited.daily_mb, unlimited.throttle_kbps) == (1000, 512)
        assert package_key(unlimited) == "jp-unl-1gb-512k-3d"
        plan = offers["moshi-fuji-7days-1gb"]
        assert (plan.data_mb, plan.networks, plan.supports_top_up) == (1000, ("Fuji Mobile", "Kita Tel"), True)
        assert plan.min_retail == plan.recommended_retail == Cost(Decimal("4.5"), "USD")
        assert package_key(offers["bonjour-plus-15days-2gb"]) == "fr-2gb-15d-30min-20sms"
        assert offers["nordlink-30days-5gb"].coverage.countries == ("DK", "FI", "NO", "SE")
        assert offers["moshi-fuji-7days-1gb-topup"].kind is OfferKind.TOP_UP

    def test_discount_accounts_pay_a_share_of_the_retail_price(
        self, provider: Provider, wire: AiraloWire, stage: Stage
    ) -> None:
        plan = {**package("moshi-fuji-7days-1gb", 1024, 7, "0", "9.50"), "net_price": None}
        pricing = {"model": "discount_pricing", "discount_percentage": 10}
        stage.when(wire.is_catalogue, says({"pricing": pricing, "data": [entry("JP", "Moshi", [plan])], "meta": {}}))
        offers = [o for page in provider.catalogue() for o in page.offers]
        assert [o.cost for o in offers] == [Cost(Decimal("8.55"), "USD")]

    @pytest.mark.parametrize("pricing", [{"model": "auction"}, {"model": "discount_pricing"}, {"model": []}])
    def test_an_unknown_way_of_paying_holds_the_catalogue(
        self, provider: Provider, wire: AiraloWire, stage: Stage, pricing: dict[str, Any]
    ) -> None:
        stage.when(wire.is_catalogue, says({"pricing": pricing, "data": [], "meta": {}}))
        with pytest.raises(MalformedReply):
            list(provider.catalogue())

    def test_entries_that_are_no_countries_become_rejects(
        self, provider: Provider, wire: AiraloWire, stage: Stage
    ) -> None:
        strange: list[object] = [None, {"operators": 5}, {"operators": [7]}, {"operators": [{"packages": {}}]}, *shop()]
        stage.when(wire.is_catalogue, says({"data": strange, "meta": {"current_page": 1, "last_page": 1}}))
        (page,) = provider.catalogue()
        assert (len(page.offers), len(page.rejects)) == (5, 4)

    def test_one_token_serves_every_call(self, provider: Provider, wire: AiraloWire) -> None:
        buy(provider, wire.request)
        provider.balance()
        assert wire.mints == 1

    def test_a_token_is_not_used_for_longer_than_a_day(self, provider: Provider, wire: AiraloWire) -> None:
        provider.balance()
        wire.clock.now += timedelta(hours=24)
        provider.balance()
        assert wire.mints == 2

    def test_an_order_refused_for_its_token_is_sent_again_with_a_fresh_one(
        self, provider: Provider, wire: AiraloWire, stage: Stage
    ) -> None:
        stage.when(wire.spends, says({"data": [], "meta": {"message": "Unauthenticated."}}, 401), times=1)
        outcome, _ = buy(provider, wire.request)
        assert isinstance(outcome, Provisioned)
        assert (stage.sent(wire.spends), len(wire.sold), wire.mints) == (2, 1, 2)

    def test_a_lost_answer_after_a_fresh_token_is_unknown(
        self, provider: Provider, wire: AiraloWire, stage: Stage
    ) -> None:
        stage.when(wire.spends, says({}, 401), times=1)
        stage.when(wire.spends, fails(httpx.ReadTimeout))
        outcome, _ = buy(provider, wire.request)
        assert isinstance(outcome, Unknown)
        assert stage.sent(wire.spends) == 2

    def test_a_fresh_token_refused_too_is_a_matter_of_credentials(
        self, provider: Provider, wire: AiraloWire, stage: Stage
    ) -> None:
        stage.when(wire.spends, says({}, 401))
        outcome, _ = buy(provider, wire.request)
        assert isinstance(outcome, Rejected)
        assert outcome.error_type is ErrorType.AUTH_FAILED

    def test_a_foreign_order_does_not_burn_the_token(self, provider: Provider, wire: AiraloWire, stage: Stage) -> None:
        body = {"data": [], "meta": {"message": "This action is unauthorized."}}
        stage.when(lambda r: "/orders/" in r.url.path, says(body, 401))
        assert isinstance(provider.order_status("9", wire.request), Unknown)
        assert wire.mints == 1

    def test_tokens_are_shared_with_other_processes(self, wire: AiraloWire, stage: Stage) -> None:
        store = MemoryTokenStore()
        wire.build(stage, tokens=store).balance()
        provider = wire.build(stage, tokens=store)
        assert provider.balance() == Cost(Decimal("1250.75"), "USD")
        assert wire.mints == 1

    def test_a_token_is_not_used_at_another_address(self, wire: AiraloWire, stage: Stage) -> None:
        store = MemoryTokenStore()
        wire.build(stage, tokens=store).balance()
        wire.build(stage, tokens=store, url="https://live.test/api").balance()
        assert wire.mints == 2

    @pytest.mark.parametrize("path", ["/balance", "/packages", "/orders", "/sims/" + ICCID])
    def test_only_a_foreign_order_is_foreign(
        self, provider: Provider, wire: AiraloWire, stage: Stage, path: str
    ) -> None:
        body = {"data": [], "meta": {"message": "This action is unauthorized."}}
        stage.when(lambda r: r.url.path.endswith(path), says(body, 401), times=1)
        provider.balance()
        list(provider.catalogue())
        provider.esim_details(wire.esim)
        provider.resolve(wire.request, {}, NOW)
        assert wire.mints == 2

    def test_an_order_refused_with_the_words_for_a_foreign_one_is_sent_again(
        self, provider: Provider, wire: AiraloWire, stage: Stage
    ) -> None:
        body = {"data": [], "meta": {"message": "This action is unauthorized."}}
        stage.when(wire.spends, says(body, 401), times=1)
        outcome, _ = buy(provider, wire.request)
        assert isinstance(outcome, Provisioned)
        assert (stage.sent(wire.spends), len(wire.sold), wire.mints) == (2, 1, 2)

    def test_an_order_is_not_sent_again_late(self, provider: Provider, wire: AiraloWire, stage: Stage) -> None:
        def slow(_: httpx.Request) -> httpx.Response:
            wire.clock.pass_seconds(11)
            return reply({}, 401)

        stage.when(wire.spends, slow, times=1)
        outcome, _ = buy(provider, wire.request)
        assert isinstance(outcome, Rejected)
        assert outcome.retryable
        assert (stage.sent(wire.spends), wire.sold) == (1, [])

    def test_a_fresh_token_is_asked_for_once_while_an_order_waits(
        self, provider: Provider, wire: AiraloWire, stage: Stage
    ) -> None:
        stage.when(wire.spends, says({}, 401))
        prepared = provider.prepare(wire.request)
        assert isinstance(prepared, Prepared)
        stage.when(lambda r: r.url.path.endswith("/token"), says({}, 503))
        before = len(stage.requests)
        assert isinstance(provider.purchase(wire.request, prepared.evidence), Rejected)
        assert len(stage.requests) - before == 2  # the order, and one try for a token

    def test_a_live_order_is_preferred_to_a_failed_one_of_the_same_name(
        self, provider: Provider, wire: AiraloWire, stage: Stage
    ) -> None:
        failed = order(id=100, status={"slug": "failed"})
        unclear = order(id=101, status={"slug": "partially_refunded"})
        for dead in (failed, unclear):
            wire.orders = [dead, order(id=583801)]
            outcome = provider.resolve(wire.request, {}, NOW)
            assert isinstance(outcome, Provisioned)
            assert outcome.provider_order_id == "583801"
        wire.orders = [failed, unclear]
        assert isinstance(provider.resolve(wire.request, {}, NOW), Unknown)

    def test_workers_that_need_one_price_list_read_it_once(self, wire: AiraloWire, stage: Stage) -> None:
        provider, waiting = wire.build(stage), threading.Barrier(8)

        def ask(_: int) -> Cost:
            waiting.wait(10)
            return provider.current_cost(wire.request.provider_package_id, wire.request.hints)

        with ThreadPoolExecutor(8) as pool:
            costs = set(pool.map(ask, range(8)))
        assert costs == {wire.request.expected_cost}
        assert stage.sent(wire.is_catalogue) == 1

    def test_workers_that_waited_for_a_price_list_that_failed_do_not_ask_again(
        self, wire: AiraloWire, stage: Stage
    ) -> None:
        clock = wire.clock = Ticking()
        provider = wire.build(stage)
        provider.balance()
        clock.callers.clear()

        def down(_: httpx.Request) -> httpx.Response:
            assert clock.everybody.wait(10)
            return reply({}, 503)

        def ask(_: int) -> type:
            with pytest.raises(ProviderUnavailable) as caught:
                provider.current_cost(wire.request.provider_package_id, wire.request.hints)
            return caught.type

        stage.when(wire.is_catalogue, down)
        with ThreadPoolExecutor(Ticking.WORKERS) as pool:
            assert set(pool.map(ask, range(Ticking.WORKERS))) == {ProviderUnavailable}
        assert stage.sent(wire.is_catalogue) == 4  # the tries of one of them

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            (says({"data": [], "meta": {"message": "?"}}, 409), CancelUnknown),
            (says(b"<html>", 422), CancelUnknown),
            (says({"code": 43, "reason": "Bad request"}, 422), CancelRefused),
        ],
    )
    def test_an_unclear_answer_to_a_refund_is_not_a_refusal(
        self, provider: Provider, wire: AiraloWire, stage: Stage, answer: Answer, expected: type
    ) -> None:
        stage.when(lambda r: r.url.path.endswith("/refund"), answer)
        assert isinstance(provider.cancel(wire.esim), expected)

    def test_a_token_that_was_refused_is_not_asked_for_again_at_once(
        self, provider: Provider, wire: AiraloWire, stage: Stage
    ) -> None:
        stage.when(lambda r: r.url.path.endswith("/token"), says({"data": {"client_id": "invalid"}}, 422), times=1)
        for _ in range(3):
            assert isinstance(provider.prepare(wire.request), Rejected)
        assert stage.sent() == 1
        wire.clock.pass_seconds(5)
        assert isinstance(provider.prepare(wire.request), Prepared)

    @pytest.mark.parametrize(
        "data", [None, {}, {"access_token": "t"}, {"access_token": "", "expires_in": 9}, {"access_token": 5}]
    )
    def test_a_token_without_substance_is_an_error(self, provider: Provider, stage: Stage, data: object) -> None:
        stage.when(lambda r: r.url.path.endswith("/token"), says({"data": data}))
        with pytest.raises(MalformedReply):
            provider.balance()

    def test_a_page_that_repeats_the_last_one_is_an_error(
        self, provider: Provider, wire: AiraloWire, stage: Stage
    ) -> None:
        stage.when(wire.is_catalogue, lambda r: wire.sheet(shop(), int(r.url.params["page"]), 9))
        with pytest.raises(MalformedReply, match="repeats"):
            list(provider.catalogue())

    def test_a_top_up_that_does_not_fit_is_not_bought(self, provider: Provider, wire: AiraloWire, stage: Stage) -> None:
        outcome, _ = buy(provider, replace(wire.top_up_request, provider_package_id="another-topup"))
        assert isinstance(outcome, Rejected)
        assert stage.sent(wire.spends) == 0

    def test_a_top_up_whose_esim_cannot_be_read_is_pending(
        self, provider: Provider, wire: AiraloWire, stage: Stage
    ) -> None:
        stage.when(lambda r: r.url.path.endswith(f"/sims/{ICCID}"), says({"data": {"iccid": ICCID}}))
        outcome, _ = buy(provider, wire.top_up_request)
        assert isinstance(outcome, Pending)

    def test_an_account_without_credit_has_no_balance(self, provider: Provider, stage: Stage) -> None:
        stage.when(lambda r: r.url.path.endswith("/balance"), says({"data": {"balances": []}}))
        with pytest.raises(ProviderRejected):
            provider.balance()

    def test_net_prices_per_currency_stand_in_for_a_missing_net_price(
        self, provider: Provider, wire: AiraloWire, stage: Stage
    ) -> None:
        plan = {**package("only-prices", 500, 7, "1.53", "3"), "net_price": None}
        body: dict[str, Any] = {
            "data": [{**entry("JP", "Moshi", [plan]), "country_code": ""}],
            "meta": {},
            "links": {"next": None},
        }
        body["data"][0]["operators"][0]["coverages"] = [{"code": "GB-SCT"}]
        stage.when(wire.is_catalogue, says(body))
        ((offer,),) = (page.offers for page in provider.catalogue())
        assert offer.cost == Cost(Decimal("1.53"), "USD")
        assert (offer.data_mb, offer.name) == (500, "Moshi - 0 GB - 7 days")
        assert (offer.coverage.countries, offer.coverage.unmapped) == (("JP",), ("GB-SCT",))

    def test_a_plan_that_left_the_list_is_not_bought(self, provider: Provider, wire: AiraloWire, stage: Stage) -> None:
        outcome, _ = buy(provider, replace(wire.request, provider_package_id="withdrawn"))
        assert isinstance(outcome, Rejected)
        assert outcome.error_type is ErrorType.INVALID_PRODUCT
        assert stage.sent(wire.spends) == 0
        with pytest.raises(ProviderRejected):
            provider.current_cost("withdrawn", {})

    def test_an_asynchronous_order_is_found_by_its_description(self, provider: Provider, wire: AiraloWire) -> None:
        assert isinstance(provider.order_status("3NhR3gKmqCWK7IWppurpDX3Cg", wire.request), Pending)
        buy(provider, wire.request)
        assert isinstance(provider.order_status("3NhR3gKmqCWK7IWppurpDX3Cg", wire.request), Provisioned)

    def test_a_lost_top_up_is_seen_on_the_esim(self, provider: Provider, wire: AiraloWire, stage: Stage) -> None:
        stage.lose_answer(wire.spends)
        outcome, evidence = buy(provider, wire.top_up_request)
        assert isinstance(outcome, Unknown)
        found = provider.resolve(wire.top_up_request, evidence, wire.clock())
        assert isinstance(found, Provisioned)
        assert found.profile.iccid == ICCID

    def test_a_top_up_that_did_not_happen_is_proven_absent(
        self, provider: Provider, wire: AiraloWire, stage: Stage
    ) -> None:
        stage.when(wire.spends, fails(httpx.ReadTimeout))
        _, evidence = buy(provider, wire.top_up_request)
        assert isinstance(provider.resolve(wire.top_up_request, evidence, NOW + timedelta(seconds=60)), Unknown)
        late = provider.resolve(wire.top_up_request, evidence, NOW + timedelta(seconds=121))
        assert isinstance(late, Rejected)

    def test_usage_of_unlimited_plans_has_no_figures(self, provider: Provider, stage: Stage) -> None:
        data = {"remaining": 0, "total": 0, "expired_at": None, "is_unlimited": True, "status": "ACTIVE"}
        stage.when(lambda r: r.url.path.endswith("/usage"), says({"data": data}))
        reading = provider.usage(AiraloWire.esim)
        assert (reading.used_bytes, reading.total_bytes, reading.status) == (None, None, "active")

    def test_a_refused_refund_says_so(self, provider: Provider, stage: Stage) -> None:
        body = {"data": {"iccids": f"{ICCID} does not belong to your company"}}
        stage.when(lambda r: r.url.path.endswith("/refund"), says(body, 422))
        outcome = provider.cancel(AiraloWire.esim)
        assert isinstance(outcome, CancelRefused)
        assert ICCID not in outcome.message
