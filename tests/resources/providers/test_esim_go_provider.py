"""eSIM Go against the provider contract, and what only eSIM Go does."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

import httpx
import pytest

from esim.catalogue import Allowance, OfferKind, package_key
from esim.errors import MalformedReply, ProviderRejected, WebhookRejected
from esim.fakes import MemoryLimiter
from esim.money import Cost
from esim.ports import Provider
from esim.purchase import (
    OTHER_ORDERS,
    Cancelled,
    CancelRefused,
    CancelUnknown,
    ErrorType,
    EsimRef,
    EventKind,
    Pending,
    Provisioned,
    PurchaseRequest,
    Rejected,
    SaleState,
    Unknown,
)
from resources.providers.esim_go import EsimGo
from tests.resources.providers.contract_base import buy
from tests.resources.providers.provider_contract import ProviderContract
from tests.resources.providers.wire import NOW, Answer, Hook, Refusal, Sale, Stage, Wire, fails, reply, says

KEY = "esim-go-api-key"
ICCID = "8943220000000004417"
MATCHING = "QX-55R1TT-8NB2C"
BUNDLE = "esim_1GB_7D_JP_V2"
ORDER = "5d0c1b7e-1111-4a1b-9c10-0000000000"


def area(iso: str, name: str = "", region: str = "Asia") -> dict[str, Any]:
    return {"name": name or iso, "region": region, "iso": iso}


def bundle(name: str, title: str, amount: int, days: int, price: str, areas: list[Any], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "description": f"eSIM, {title}, V2",
        "groups": ["Standard Fixed"],
        "countries": areas[:1],
        "roamingEnabled": areas[1:],
        "dataAmount": amount,
        "duration": days,
        "speed": ["4G", "5G"],
        "autostart": True,
        "unlimited": False,
        "price": Decimal(price),
        "billingType": "FixedCost",
        **more,
    }


def unlimited(code: str, tier: str, price: str, **more: Any) -> dict[str, Any]:
    title = f"Unlimited {tier}, 3 Days, Japan"
    groups = {"groups": [f"Standard Unlimited {tier}"]}
    return bundle(f"esim_{code}_3D_JP_V2", title, -1, 3, price, [area("JP")], unlimited=True, **{**groups, **more})


def shop() -> list[dict[str, Any]]:
    """The catalogue: fixed and unlimited bundles for Japan, Namibia, and a region under its own name."""
    return [
        bundle(BUNDLE, "1GB, 7 Days, Japan", 1000, 7, "2.28", [area("JP", "Japan")]),
        bundle("esim_10GB_30D_JP_V2", "10GB, 30 Days, Japan", 10000, 30, "12.4", [area("JP", "Japan")]),
        unlimited("UL", "Lite", "6.15"),
        unlimited("ULE", "Essential", "7.5"),
        unlimited("ULP", "Plus", "9"),
        bundle("esim_2GB_15D_NA_V2", "2GB, 15 Days, Namibia", 2000, 15, "8.1", [area("NA", "Namibia", "Africa")]),
        bundle(
            "esim_5GB_30D_RAF_V2",
            "5GB, 30 Days, Africa",
            5000,
            30,
            "30.5",
            [area("Africa", "Africa", "Africa"), area("EG"), area("MA"), area("KE")],
        ),
    ]


def esim(**changed: Any) -> dict[str, Any]:
    return {"iccid": ICCID, "matchingId": MATCHING, "smdpAddress": "rsp.esim-go-wire.test", **changed}


def order(number: int = 1, **changed: Any) -> dict[str, Any]:
    line = {
        "type": "bundle",
        "item": BUNDLE,
        "quantity": 1,
        "subTotal": Decimal("2.28"),
        "pricePerUnit": Decimal("2.28"),
        "AllowReassign": False,
        "iccids": [ICCID],
        "esims": [esim()],
    }
    line |= changed.pop("line", {})
    return {
        "order": [line],
        "total": Decimal("2.28"),
        "currency": "USD",
        "status": "completed",
        "statusMessage": "Order completed: 1 eSIMs assigned",
        "orderReference": f"{ORDER}{number:02}",
        "createdDate": "2026-11-20T09:15:31.153875019Z",
        "assigned": True,
        "sourceIP": "203.0.113.10",
        **changed,
    }


def assignment(**changed: Any) -> dict[str, Any]:
    return {
        "id": "215009266",
        "callTypeGroup": "data",
        "initialQuantity": 1_000_000_000,
        "remainingQuantity": 750_000_000,
        "assignmentDateTime": "2026-11-20T09:15:31.34523Z",
        "assignmentReference": f"{ORDER}01-0",
        "bundleState": "queued",
        "unlimited": False,
        **changed,
    }


def signed(body: dict[str, Any], kind: EventKind, *, as_base64: bool = False) -> Hook:
    raw = json.dumps(body).encode()
    digest = hmac.new(KEY.encode(), raw, hashlib.sha256).digest()
    # A trailing "=" would hide a changed last character of base64 from a decoder, but not from a comparison of texts.
    return Hook({"x-signature-sha256": base64.b64encode(digest).decode() if as_base64 else digest.hex()}, raw, kind)


class EsimGoWire(Wire):
    """eSIM Go in small: two pages of bundles, one eSIM, an order list without any reference of ours."""

    slug = "esim_go"
    factory = EsimGo
    credentials: ClassVar[Mapping[str, str]] = {"api_key": KEY}
    secrets = (KEY, ICCID, MATCHING, "organisation-secret", "boss@partner.test")
    request = PurchaseRequest(
        reference="r4k7m2p9x1c5v8b3n6q0w2e4t7",
        provider_package_id=BUNDLE,
        expected_cost=Cost(Decimal("2.28"), "USD"),
        cost_ceiling=Cost(Decimal("2.50"), "USD"),
        started_at=NOW,
    )
    esim = EsimRef(f"{ORDER}01", "", ICCID, BUNDLE)
    top_up_request = replace(request, top_up_of=esim)
    usage = (250_000_000, 1_000_000_000)
    cancel_outcome = Cancelled
    told_states = frozenset({SaleState.FAILED})

    def __init__(self) -> None:
        super().__init__()
        self.orders: list[dict[str, Any]] = [
            order(90, createdDate="2026-11-20T09:10:00Z"),  # the same bundle, bought before ours
            order(91, line={"type": "bundleRefund"}, createdDate="2026-11-20T09:14:00Z"),
        ]
        self.assignments = [assignment()]

    def unauthorised(self) -> httpx.Response:
        return reply({"message": "access denied"}, 403)

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/")
        if request.headers.get("x-api-key") != KEY:
            return self.unauthorised()
        if request.method == "DELETE":
            return reply({"status": "Successfully Revoked Bundle, bundle has been refunded to inventory"})
        if request.method == "POST":
            return self.posted(json.loads(request.content))
        if path == "catalogue":
            return self.page(request.url.params)
        if path == "orders":
            assert request.url.params["createdAt"].startswith("gte:2026-11-20T")
            rows = [o for o in reversed(self.orders)]
            return reply({"orders": rows, "pageCount": 1, "pageSize": 1000, "rows": len(rows)})
        return self.read(path)

    def posted(self, body: dict[str, Any]) -> httpx.Response:
        (line,) = body["order"]
        assert (line["quantity"], line["allowReassign"], body["assign"]) == (1, False, True)
        placed = order(len(self.sold) + 1, line={"item": line["item"]})
        if body["type"] == "validate":
            del placed["order"][0]["esims"], placed["orderReference"], placed["status"]
            return reply({**placed, "valid": True})
        self.sold.append(placed["orderReference"])
        self.orders.append(placed)
        return reply(placed)

    def read(self, path: str) -> httpx.Response:
        names = {b["name"]: b for b in shop()}
        bundles = [{"name": BUNDLE, "description": "", "assignments": self.assignments}]
        organisation = {"currency": "USD", "balance": Decimal("497.72"), "apiKey": "organisation-secret"}
        documents: dict[str, object] = {
            "organisation": {**organisation, "users": [{"email": "boss@partner.test"}]},
            f"esims/{ICCID}": esim(pin="0000", puk="12344567", profileStatus="Installed"),
            f"esims/{ICCID}/bundles": {"bundles": bundles},
            "esims/assignments": esim(profileStatus="Released", appleInstallUrl="https://install.test"),
            **{f"orders/{o['orderReference']}": o for o in self.orders},
            **{f"catalogue/bundle/{name}": row for name, row in names.items()},
            **{f"esims/{ICCID}/compatible/{name}": {"compatible": "UL" not in name} for name in names},
        }
        return reply(documents[path]) if path in documents else reply({"message": "Not found"}, 400)

    def page(self, params: httpx.QueryParams) -> httpx.Response:
        rows = shop()
        if params.get("countries"):
            rows = [row for row in rows if row["countries"][0]["iso"] == params["countries"]]
            return reply({"bundles": rows, "pageCount": 1, "pageSize": 500, "rows": len(rows)})
        number = int(params["page"])
        return reply({"bundles": rows[(number - 1) * 4 : number * 4], "pageCount": 2, "pageSize": 4, "rows": 7})

    def is_statement(self, request: httpx.Request) -> bool:
        return request.method == "GET" and request.url.path.endswith("/orders")

    def statement(self, request: httpx.Request, sales: Sequence[Sale]) -> httpx.Response:
        since = datetime.fromisoformat(request.url.params["createdAt"].removeprefix("gte:"))
        found = [sale for sale in sales if sale.at >= since]
        page, pages = int(request.url.params["page"]), max(1, -(-len(found) // 2))
        rows = [
            order(
                sale.number,
                orderReference=str(sale.number),
                createdDate=f"{sale.at:%Y-%m-%dT%H:%M:%SZ}",
                line={"iccids": [sale.iccid], "esims": None},
                status="failed" if sale.state is SaleState.FAILED else "completed",
            )
            for sale in found[page * 2 - 2 : page * 2]
        ]
        return reply({"orders": rows, "pageCount": pages, "pageSize": 2, "rows": len(found)})

    def unreadable_sales(self) -> Sequence[Callable[[dict[str, Any]], None]]:
        return (
            lambda page: page["orders"][0].pop("orderReference"),
            lambda page: page["orders"][0].pop("createdDate"),
            lambda page: page["orders"][0]["order"][0].update(quantity="some"),
            lambda page: page.update(orders="none"),
        )

    def spends(self, request: httpx.Request) -> bool:
        return request.method == "POST" and b'"transaction"' in request.content

    def validates(self, request: httpx.Request) -> bool:
        return request.method == "POST" and b'"validate"' in request.content

    def is_catalogue(self, request: httpx.Request) -> bool:
        return request.url.path.endswith("/catalogue")

    def plans(self, page: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = page["bundles"]
        return rows

    def spoilt(self) -> Mapping[str, Callable[[dict[str, Any]], None]]:
        return {
            "negative_price": lambda b: b.update(price=-2.28),
            "zero_price": lambda b: b.update(price=0),
            "price_times_10000": lambda b: b.update(price=22800),
            "price_as_words": lambda b: b.update(price="free"),
            "huge_name": lambda b: b.update(description="x" * 10_000_000),
            "no_size": lambda b: b.pop("dataAmount"),
            "minus_one_but_limited": lambda b: b.update(dataAmount=-1),
            "no_id": lambda b: b.pop("name"),
            "not_available": lambda b: b.update(name="NA"),
            "no_countries": lambda b: b.update(countries=[], roamingEnabled=None),
            "only_a_region": lambda b: b.update(countries=[area("Africa", "Africa", "Africa")], roamingEnabled=[]),
            "countries_as_text": lambda b: b.update(countries="JP"),
            "no_term": lambda b: b.update(duration=0),
            "pay_as_you_go": lambda b: b.update(billingType="PayAsYouGo"),
        }

    def endless(self, request: httpx.Request, serial: int) -> httpx.Response:
        rows = [bundle(f"esim_{serial}", "1GB, 7 Days, Japan", 1000, 7, "1", [area("JP")])]
        return reply({"bundles": rows, "pageCount": 10_000, "pageSize": 1, "rows": 10_000})

    def refusals(self) -> Mapping[str, Refusal]:
        def told(message: str, kind: ErrorType, status: int = 400, *, early: bool = False) -> Refusal:
            return Refusal(says({"message": message}, status), kind, self.validates if early else None)

        return {
            "balance": told("Insufficient balance", ErrorType.INSUFFICIENT_BALANCE),
            "balance at the dry run": told("Insufficient balance", ErrorType.INSUFFICIENT_BALANCE, early=True),
            "no payment": told("Order failed, no payment taken", ErrorType.INSUFFICIENT_BALANCE),
            "unknown bundle": told("Bundle not found", ErrorType.INVALID_PRODUCT, early=True),
            "no stock": told("No eSIMs available for this bundle", ErrorType.OUT_OF_STOCK, early=True),
            "malformed": told("quantity must be a number", ErrorType.PROVIDER_API_ERROR),
            "bad key": told("access denied", ErrorType.AUTH_FAILED, 401),
            "address not allowed": told("access denied", ErrorType.AUTH_FAILED, 403),
            "throttled": told("Rate limit exceeded", ErrorType.RATE_LIMITED, 429),
            "failed with 200": Refusal(
                says(order(status="failed", assigned=False, line={"esims": None})), ErrorType.PROVIDER_API_ERROR
            ),
            "in plain text": Refusal(says(b"Insufficient balance", 400), ErrorType.INSUFFICIENT_BALANCE),
            "dry run not valid": Refusal(
                says({"valid": False, "total": 2.28, "currency": "USD"}), ErrorType.INVALID_PRODUCT, self.validates
            ),
            "dry run in euros": Refusal(
                says({"valid": True, "total": 2.28, "currency": "EUR"}), ErrorType.PRICE_CHANGED, self.validates
            ),
        }

    def unclear(self) -> Mapping[str, Answer]:
        return {
            "processing": says({"message": "Processing - please come back later"}, 503, {"Retry-After": "3"}),
            "an error with 200": says({"message": "Internal error"}),
            "no reference": says(order(orderReference=None)),
            "unlisted status": says({"message": "Conflict"}, 409),
            "not found": says({"message": "Not found"}, 404),
            "failed with an eSIM": says(order(status="failed")),
            "redirect": says({}, 307, {"Location": "https://elsewhere.test"}),
        }

    def accepted(self) -> Mapping[str, Answer]:
        return {"processing": says(order(50, status="processing", orderReference="p", line={"esims": None}))}

    def delivered(self) -> Mapping[str, Answer]:
        return {
            "host with scheme": says(order(line={"esims": [esim(smdpAddress="http://rsp.esim-go-wire.test/")]})),
            "eSIMs told elsewhere": says(order(line={"esims": None})),
            "iccid as a number": says(order(line={"esims": [esim(iccid=int(ICCID))]})),
            "no status": says(order(status=None)),
            "text for numbers": says(order(total="2.28", line={"quantity": "1"})),
            "no total": says(order(total=None)),
        }

    def status_answers(self) -> Mapping[str, tuple[Answer, type]]:
        def state(**changed: Any) -> Answer:
            document = order(**changed)
            return lambda r: reply({}, 404) if "assignments" in r.url.path else reply(document)

        return {
            "completed": (state(), Provisioned),
            "failed": (state(status="failed", line={"esims": None}), Rejected),
            "processing": (state(status="processing", line={"esims": None}), Pending),
            "a word we do not know": (state(status="parked", line={"esims": []}), Pending),
            "not found": (says({"message": "Order not found"}, 404), Unknown),
        }

    def hooks(self) -> tuple[Hook, ...]:
        told = {"reference": f"{ORDER}01-0", "name": BUNDLE, "initialQuantity": 10**9, "remainingQuantity": 2 * 10**8}
        return (
            signed({"alertType": "Utilisation", "iccid": ICCID, "bundle": told}, EventKind.USAGE),
            signed({"alertType": "FirstUse", "iccid": ICCID, "bundle": told}, EventKind.ESIM_STATUS),
            signed({"alertType": "FirstAttachment", "iccid": ICCID}, EventKind.ESIM_STATUS, as_base64=True),
            signed({"alertType": "BalanceThreshold", "new": [1]}, EventKind.BALANCE_LOW),
            signed({"alertType": "VoiceExpiry", "iccid": ICCID}, EventKind.EXPIRY),
            signed({"alertType": "SomethingNew"}, EventKind.OTHER),
        )

    def other_sales(self) -> None:
        self.orders += [
            order(60, line={"item": "esim_10GB_30D_JP_V2"}),
            order(61, line={"quantity": 3}),
            order(62, line={"type": "bundleAssignment"}),
            order(63, status="failed", line={"esims": None}),
            {"order": "?", "orderReference": 7},
        ]


class TestEsimGo(ProviderContract):
    wire_type = EsimGoWire

    def test_an_accepted_order_is_pending(self, provider: Provider, wire: Wire, stage: Stage, accepted: Any) -> None:
        stage.when(lambda r: "assignments" in r.url.path, says({"message": "No eSIMs found for reference"}, 404))
        super().test_an_accepted_order_is_pending(provider, wire, stage, accepted)

    def test_the_unlimited_tiers_are_three_products(self, provider: Provider) -> None:
        offers = {o.provider_package_id: o for page in provider.catalogue() for o in page.offers}
        tiers = [package_key(offers[f"esim_{code}_3D_JP_V2"]) for code in ("UL", "ULE", "ULP")]
        assert tiers == ["jp-unl-1gb-512k-3d", "jp-unl-1gb-1250k-3d", "jp-unl-2gb-2000k-3d"]
        assert offers["esim_UL_3D_JP_V2"].allowance is Allowance.UNLIMITED
        assert offers["esim_2GB_15D_NA_V2"].coverage.countries == ("NA",)
        africa = offers["esim_5GB_30D_RAF_V2"]
        assert (africa.coverage.countries, africa.coverage.unmapped) == (("EG", "KE", "MA"), ())
        assert africa.name == "5GB, 30 Days, Africa"

    @pytest.mark.parametrize(
        ("row", "expected"),
        [
            (unlimited("X", "Plus", "9", groups=None), (2000, 2000)),
            (unlimited("ULE", "?", "9", groups=["Hajj Promo"]), (1000, 1250)),
            (unlimited("X", "?", "9", groups=7), (None, None)),
        ],
    )
    def test_a_tier_is_read_from_group_text_or_name(
        self, provider: Provider, wire: EsimGoWire, stage: Stage, row: dict[str, Any], expected: tuple[int | None, ...]
    ) -> None:
        stage.when(wire.is_catalogue, says({"bundles": [row], "pageCount": 1}))
        ((offer,),) = (page.offers for page in provider.catalogue())
        assert (offer.daily_mb, offer.throttle_kbps) == expected

    @pytest.mark.parametrize("rows", [2, 500])
    def test_a_bare_array_whose_pages_are_ignored_is_a_catalogue(
        self, provider: Provider, wire: EsimGoWire, stage: Stage, rows: int
    ) -> None:
        body = [bundle(f"esim_{n}", "1GB", 1000, 7, "1", [area("JP")]) for n in range(rows)]
        stage.when(wire.is_catalogue, says(body))
        assert sum(len(page.offers) for page in provider.catalogue()) == rows
        assert stage.sent(wire.is_catalogue) == 2

    @pytest.mark.parametrize("rows", [0, 99, 100, 250])
    def test_a_bare_array_is_read_to_its_end_however_few_a_page_holds(
        self, provider: Provider, wire: EsimGoWire, stage: Stage, rows: int
    ) -> None:
        every = [bundle(f"esim_{n}", "1GB", 1000, 7, "1", [area("JP")]) for n in range(rows)]

        def hundred(request: httpx.Request) -> httpx.Response:
            page = int(request.url.params["page"])
            return reply(every[(page - 1) * 100 : page * 100])

        stage.when(wire.is_catalogue, hundred)
        assert sum(len(page.offers) for page in provider.catalogue()) == rows

    def test_a_bare_array_without_end_is_an_error(self, provider: Provider, wire: EsimGoWire, stage: Stage) -> None:
        def one_more(request: httpx.Request) -> httpx.Response:
            return reply([bundle(f"esim_{request.url.params['page']}", "1GB", 1000, 7, "1", [area("JP")])])

        stage.when(wire.is_catalogue, one_more)
        with pytest.raises(MalformedReply, match="no end"):
            list(provider.catalogue())

    def test_a_page_of_rejects_is_listed_and_does_not_end_the_catalogue(
        self, provider: Provider, wire: EsimGoWire, stage: Stage
    ) -> None:
        def sick(request: httpx.Request) -> httpx.Response:
            page = json.loads(wire.answer(request).content)
            for row in page["bundles"]:
                row["price"] = -1
            return reply(page)

        stage.when(lambda r: wire.is_catalogue(r) and r.url.params["page"] == "2", sick)
        pages = list(provider.catalogue())
        assert [(len(page.offers), len(page.rejects)) for page in pages] == [(4, 0), (0, 3)]

    def test_an_empty_page_before_the_last_is_passed_over(
        self, provider: Provider, wire: EsimGoWire, stage: Stage
    ) -> None:
        rows = shop()
        sheets = {"1": rows[:4], "2": [], "3": [], "4": rows[4:]}
        stage.when(
            wire.is_catalogue, lambda r: reply({"bundles": sheets[r.url.params["page"]], "pageCount": 4, "rows": 7})
        )
        assert sum(len(page.offers) for page in provider.catalogue()) == len(rows)

    def test_a_page_that_repeats_the_last_one_is_an_error(
        self, provider: Provider, wire: EsimGoWire, stage: Stage
    ) -> None:
        stage.when(wire.is_catalogue, says({"bundles": shop(), "pageCount": 3, "rows": 21}))
        with pytest.raises(MalformedReply, match="repeats"):
            list(provider.catalogue())

    @pytest.mark.parametrize("body", [{"organisations": [{"currency": "gbp", "balance": "12.50"}]}])
    def test_prices_are_in_the_organisations_currency(
        self, provider: Provider, stage: Stage, body: dict[str, Any]
    ) -> None:
        stage.when(lambda r: r.url.path.endswith("/organisation"), says(body))
        offers = [o for page in provider.catalogue() for o in page.offers]
        assert {o.cost.currency for o in offers} == {"GBP"}
        assert stage.sent(lambda r: r.url.path.endswith("/organisation")) == 1

    def test_an_account_without_a_currency_holds_the_catalogue(self, provider: Provider, stage: Stage) -> None:
        stage.when(lambda r: r.url.path.endswith("/organisation"), says({"balance": 3}))
        with pytest.raises(MalformedReply):
            list(provider.catalogue())

    def test_orders_that_existed_before_are_not_ours(self, provider: Provider, wire: EsimGoWire) -> None:
        prepared = provider.prepare(wire.request)
        assert getattr(prepared, "evidence", {})["known_orders"] == [f"{ORDER}90"]

    @pytest.mark.parametrize(
        ("date", "since"),
        [
            ("Fri, 20 Nov 2026 06:15:00 GMT", "2026-11-20T06:05:00Z"),  # our clock is three hours ahead of theirs
            ("yesterday", "2026-11-20T09:05:00Z"),
        ],
    )
    def test_the_window_is_set_by_their_clock(
        self, provider: Provider, wire: EsimGoWire, stage: Stage, date: str, since: str
    ) -> None:
        answer = {"valid": True, "total": "2.28", "currency": "USD"}
        stage.when(wire.validates, says(answer, headers={"Date": date}))
        stage.when(wire.spends, fails(httpx.ReadTimeout))
        _, evidence = buy(provider, wire.request)
        provider.resolve(wire.request, evidence, NOW)
        lists = [r for r in stage.requests if r.method == "GET" and r.url.path.endswith("/orders")]
        assert [r.url.params["createdAt"] for r in lists] == [f"gte:{since}"] * 2

    def test_two_new_orders_of_the_bundle_are_for_a_person(
        self, provider: Provider, wire: EsimGoWire, stage: Stage
    ) -> None:
        stage.lose_answer(wire.spends)
        _, evidence = buy(provider, wire.request)
        wire.orders.append(order(70))
        outcome = provider.resolve(wire.request, evidence, NOW + timedelta(days=1))
        assert isinstance(outcome, Unknown)
        assert "person" in outcome.message

    def test_orders_of_our_other_purchases_are_not_this_one(
        self, provider: Provider, wire: EsimGoWire, stage: Stage
    ) -> None:
        stage.when(wire.spends, fails(httpx.ReadTimeout))
        _, evidence = buy(provider, wire.request)
        wire.orders.append(order(70))
        others = {**evidence, OTHER_ORDERS: {f"{ORDER}70": "2.28 USD"}}
        outcome = provider.resolve(wire.request, others, NOW + timedelta(days=1))
        assert isinstance(outcome, Rejected)
        assert outcome.error_type is ErrorType.NOT_BOUGHT

    def test_a_new_order_that_failed_counts_as_absent_after_the_settle_time(
        self, provider: Provider, wire: EsimGoWire, stage: Stage
    ) -> None:
        stage.when(wire.spends, fails(httpx.ReadTimeout))
        _, evidence = buy(provider, wire.request)
        wire.orders.append(order(70, status="failed", line={"esims": None}))
        assert isinstance(provider.resolve(wire.request, evidence, NOW + timedelta(seconds=90)), Unknown)
        assert isinstance(provider.resolve(wire.request, evidence, NOW + timedelta(seconds=181)), Rejected)

    def test_a_new_order_still_being_worked_on_is_pending(
        self, provider: Provider, wire: EsimGoWire, stage: Stage
    ) -> None:
        stage.when(wire.spends, says({}, 503))
        stage.when(lambda r: "assignments" in r.url.path, says({}, 404))
        _, evidence = buy(provider, wire.request)
        wire.orders.append(order(70, status="processing", line={"esims": None}))
        wire.assignments = [assignment(assignmentReference=f"{ORDER}70-0")]
        outcome = provider.resolve(wire.request, evidence, NOW + timedelta(seconds=9))
        assert isinstance(outcome, Pending)
        assert outcome.provider_order_id == f"{ORDER}70"

    @pytest.mark.parametrize(
        "assignments",
        [
            [],
            [assignment(assignmentReference="an-earlier-order-0"), assignment()],
            [assignment(assignmentReference="an-earlier-order-0")],
            [assignment(assignmentReference=None)],
        ],
        ids=["not assigned yet", "topped up", "another order's", "no reference"],
    )
    @pytest.mark.parametrize("status", ["completed", "processing"])
    def test_a_found_order_whose_esim_is_not_new_is_not_ours(
        self,
        provider: Provider,
        wire: EsimGoWire,
        stage: Stage,
        status: str,
        assignments: list[dict[str, Any]],
    ) -> None:
        stage.when(wire.spends, fails(httpx.ReadTimeout))
        _, evidence = buy(provider, wire.request)
        stage.when(lambda r: "esims/assignments" in r.url.path, says({}, 404))
        line = {} if status == "completed" else {"line": {"esims": None}}
        wire.orders.append(order(1, status=status, **line))
        wire.assignments = assignments
        assert isinstance(provider.resolve(wire.request, evidence, NOW + timedelta(days=1)), Unknown)

    def test_a_found_order_without_any_esim_is_not_taken_for_ours(
        self, provider: Provider, wire: EsimGoWire, stage: Stage
    ) -> None:
        stage.when(wire.spends, fails(httpx.ReadTimeout))
        stage.when(lambda r: "esims/assignments" in r.url.path, says({}, 404))
        _, evidence = buy(provider, wire.request)
        wire.orders.append(order(1, status="processing", line={"esims": None, "iccids": None}))
        assert isinstance(provider.resolve(wire.request, evidence, NOW + timedelta(days=1)), Unknown)

    def test_a_found_order_whose_esim_cannot_be_read_is_unknown(
        self, provider: Provider, wire: EsimGoWire, stage: Stage
    ) -> None:
        stage.lose_answer(wire.spends)
        _, evidence = buy(provider, wire.request)
        stage.when(lambda r: r.url.path.endswith("/bundles"), says({}, 500))
        assert isinstance(provider.resolve(wire.request, evidence, NOW + timedelta(seconds=9)), Unknown)

    def test_orders_keep_their_distance_and_dry_runs_need_not(self, wire: EsimGoWire, stage: Stage) -> None:
        limiter = MemoryLimiter()
        provider = wire.build(stage, limiter=limiter)
        provider.prepare(wire.request)
        assert set(limiter.asked) == {"esim_go:*"}
        provider.purchase(wire.request, {})
        assert limiter.asked[-2:] == ["esim_go:order", "esim_go:*"]

    @pytest.mark.parametrize("shape", ["a bare array", "one order"])
    def test_order_lists_come_in_three_shapes(
        self, provider: Provider, wire: EsimGoWire, stage: Stage, shape: str
    ) -> None:
        stage.lose_answer(wire.spends)
        _, evidence = buy(provider, wire.request)
        ours = wire.orders[-1]
        stage.when(lambda r: r.url.path.endswith("/orders"), says([ours] if shape == "a bare array" else ours))
        assert isinstance(provider.resolve(wire.request, evidence, NOW), Provisioned)

    def test_a_list_of_very_many_pages_proves_nothing(self, provider: Provider, wire: EsimGoWire, stage: Stage) -> None:
        stage.when(
            lambda r: r.method == "GET" and r.url.path.endswith("/orders"), says({"orders": [], "pageCount": 99})
        )
        outcome = provider.resolve(wire.request, {}, NOW + timedelta(days=1))
        assert isinstance(outcome, Unknown)

    def test_a_top_up_on_another_esim_is_for_a_person(self, provider: Provider, wire: EsimGoWire, stage: Stage) -> None:
        stage.when(wire.spends, says(order(line={"esims": [esim(iccid="8943220000000009999")]})))
        outcome, _ = buy(provider, wire.top_up_request)
        assert isinstance(outcome, Unknown)

    def test_top_ups_are_the_bundles_that_fit(self, provider: Provider, wire: EsimGoWire) -> None:
        expected = [BUNDLE, "esim_10GB_30D_JP_V2"]
        assert [offer.provider_package_id for offer in provider.top_ups(wire.esim)] == expected
        nameless = replace(wire.esim, provider_package_id="")
        offers = provider.top_ups(nameless)
        assert [offer.provider_package_id for offer in offers] == expected
        assert {offer.kind for offer in offers} == {OfferKind.TOP_UP}

    def test_callbacks_without_signature_are_refused(self, provider: Provider) -> None:
        with pytest.raises(WebhookRejected, match="version 3"):
            provider.verify_webhook({}, b'{"alertType": "Utilisation"}')

    def test_an_iccid_sent_as_a_number_is_not_trusted(self, provider: Provider) -> None:
        (event,) = provider.parse_webhook(b'{"alertType": "FirstUse", "iccid": 8943220000000004000}')
        assert event.iccid == ""

    @pytest.mark.parametrize(
        ("state", "answer", "expected"),
        [
            ("active", says({}), CancelRefused),
            ("queued", says({"message": "not allowed"}, 400), CancelRefused),
            ("queued", says({"message": "?"}, 500), CancelUnknown),
            ("queued", says({"message": "?"}, 409), CancelUnknown),
            ("queued", fails(httpx.ReadTimeout), CancelUnknown),
            ("queued", says({"status": "refunded to balance"}), Cancelled),
        ],
    )
    def test_only_unused_bundles_are_revoked(
        self, provider: Provider, wire: EsimGoWire, stage: Stage, state: str, answer: Answer, expected: type
    ) -> None:
        rows = [{"name": BUNDLE, "assignments": [assignment(bundleState=state)]}]
        stage.when(lambda r: r.url.path.endswith("/bundles"), says({"bundles": rows}))
        stage.when(lambda r: r.method == "DELETE", answer)
        outcome = provider.cancel(wire.esim)
        assert isinstance(outcome, expected)
        if isinstance(outcome, Cancelled):
            assert outcome.refunded

    def test_usage_is_of_our_bundle_or_of_the_latest(self, provider: Provider, wire: EsimGoWire, stage: Stage) -> None:
        later = assignment(assignmentReference="other-0", assignmentDateTime="2026-11-21T00:00:00Z", unlimited=True)
        rows = [{"name": BUNDLE, "assignments": [assignment(), later]}]
        stage.when(lambda r: r.url.path.endswith("/bundles"), says({"bundles": rows}))
        assert provider.usage(wire.esim).used_bytes == 250_000_000
        assert provider.usage(replace(wire.esim, provider_order_id="")).total_bytes is None

    def test_an_esim_without_bundles_has_no_usage(self, provider: Provider, wire: EsimGoWire, stage: Stage) -> None:
        stage.when(lambda r: r.url.path.endswith("/bundles"), says({"bundles": []}))
        with pytest.raises(ProviderRejected):
            provider.usage(wire.esim)
