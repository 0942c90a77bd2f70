"""eSIMCard in small, for the contract suite: login, paged packages, a balance, bundles and SIMs, newest first."""

import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar

import httpx

from esim.money import Cost
from esim.purchase import (
    CancelRefused,
    ErrorType,
    EsimRef,
    Pending,
    Provisioned,
    PurchaseRequest,
    SaleState,
    Unknown,
)
from resources.providers.esim_card import EsimCard
from tests.resources.providers.wire import NOW, Answer, Refusal, Sale, Wire, reply, says

ICCID = "8910300000004956777"
MATCHING_ID = "D56C0123C555AA77"
PACKAGE = "99999999-9999-4999-8999-9999999999aa"
SIM = "77777777-7777-4777-8777-7777777777aa"
NAME = "3GB eSIM Data For 30 Days in Portugal"
TOKEN = "2000007|token-for-tests-only"


def package(package_id: str, **changes: Any) -> dict[str, Any]:
    """Return an entry of `packages`."""
    row = {
        "id": package_id,
        "name": NAME,
        "price": "4.15",
        "data_quantity": 3,
        "data_unit": "GB",
        "voice_quantity": 0,
        "voice_unit": "Minutes",
        "sms_quantity": 0,
        "package_validity": 30,
        "package_validity_unit": "Day",
        "package_type": "DATA-ONLY",
        "unlimited": False,
        "coverage": [
            {"id": 9, "country_name": "Portugal", "code": "PT", "iso": "PT", "network_name": "NOS"},
            {"id": 9, "country_name": "Portugal", "code": "PT", "iso": "PT", "network_name": "MEO"},
        ],
    }
    return {**row, **changes}


def sim(sim_id: str = SIM, **changes: Any) -> dict[str, Any]:
    """Return a SIM record."""
    row = {
        "id": sim_id,
        "iccid": ICCID,
        "qr_code_text": f"LPA:1$consumer.example.test${MATCHING_ID}",
        "smdp_address": "consumer.example.test",
        "matching_id": MATCHING_ID,
        "apn": "internet",
        "created_at": "2026-11-20T09:15:26.000000Z",
        "last_bundle": NAME,
        "status": "Released",
        "total_bundles": 1,
        "universal_link": "https://esimsetup.apple.com/?carddata=x",
    }
    return {**row, **changes}


def bundle(bundle_id: str, name: str = NAME) -> dict[str, Any]:
    """Return an entry of `my-bundles`."""
    return {"id": bundle_id, "package": name, "status": "Released", "date_created": "2026-11-20 09:15:26"}


def success(data: object, **more: Any) -> httpx.Response:
    """Return the success envelope."""
    return reply({"status": True, "data": data, **more})


def refuse(message: str, status: int = 200) -> Answer:
    """Return an answerer with the failure envelope."""
    return says({"status": False, "message": message}, status)


def paged(rows: list[dict[str, Any]], page: int, size: int) -> httpx.Response:
    """Return one page of a list."""
    last = max(1, -(-len(rows) // size))
    meta = {"total": len(rows), "perPage": size, "currentPage": page, "lastPage": last}
    return success(rows[(page - 1) * size : page * size], meta=meta)


class EsimCardWire(Wire):
    """eSIMCard on a good day: a SIM bought asynchronously has no activation data at the first look."""

    slug = "esim_card"
    factory = EsimCard
    credentials: ClassVar[Mapping[str, str]] = {"email": "reseller@numnaroad.test", "password": "pass-of-reseller"}
    secrets = ("pass-of-reseller", "reseller@numnaroad.test", TOKEN, ICCID, MATCHING_ID)
    request = PurchaseRequest(
        "k3v9c0q8m1x5z7t2b4n6h8j0da",
        PACKAGE,
        Cost(Decimal("4.15"), "USD"),
        Cost(Decimal("4.50"), "USD"),
        NOW,
        package_name="Portugal 3 GB",
    )
    top_up_request = PurchaseRequest(
        "t0p0u0p0q8m1x5z7t2b4n6h8j0",
        PACKAGE,
        Cost(Decimal("4.15"), "USD"),
        Cost(Decimal("4.50"), "USD"),
        NOW,
        top_up_of=EsimRef(SIM, SIM, ICCID, PACKAGE),
    )
    esim = EsimRef(SIM, SIM, ICCID, PACKAGE)
    usage = ((3 << 30) * 3 // 4, 3 << 30)
    cancel_outcome = CancelRefused
    told_states = frozenset({SaleState.GIVEN_BACK})

    def __init__(self) -> None:
        super().__init__()
        self.balance = Decimal("120.5")
        self.page_size = 15
        self.newest_first = True
        self.bundles = [bundle(f"b-{n}") for n in range(31)]
        self.sims = [sim(), *(sim(f"s-{n}", iccid=f"89103000000000000{n:02}") for n in range(30))]
        self.unfinished: set[str] = set()

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/")
        if path == "login":
            return reply({"status": True, "access_token": TOKEN, "token_type": "Bearer"})
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.unauthorised()
        if request.method == "POST":
            return self._post(path, json.loads(request.content))
        page = int(request.url.params.get("page", 1))
        if path == "packages":
            assert request.url.params["package_type"] == "DATA-ONLY"
            return paged(self._packages(), page, 2)
        if path in {"my-bundles", "my-esims"}:
            rows = self.bundles if path == "my-bundles" else self.sims
            return paged(rows if self.newest_first else rows[::-1], page, self.page_size)
        return self._one(path)

    def is_statement(self, request: httpx.Request) -> bool:
        return request.url.path.endswith("/my-esims")

    def statement(self, request: httpx.Request, sales: Sequence[Sale]) -> httpx.Response:
        rows = [
            sim(
                str(sale.number),
                iccid=sale.iccid,
                created_at=f"{sale.at:%Y-%m-%dT%H:%M:%S}.000000Z",
                status="Revoked" if sale.state is SaleState.GIVEN_BACK else "Released",
            )
            for sale in (sales if self.newest_first else reversed(sales))
        ]
        return paged(rows, int(request.url.params["page"]), 2)

    def unreadable_sales(self) -> Sequence[Callable[[dict[str, Any]], None]]:
        return (
            lambda page: page["data"][0].pop("id"),
            lambda page: page["data"][0].pop("created_at"),
            lambda page: page["data"].insert(0, "a SIM"),
            lambda page: page.pop("meta"),
        )

    def spends(self, request: httpx.Request) -> bool:
        return request.url.path.endswith(("/package/purchase/async", "/package/purchase"))

    def is_catalogue(self, request: httpx.Request) -> bool:
        return request.url.path.endswith("/packages")

    def plans(self, page: Any) -> list[dict[str, Any]]:
        plans: list[dict[str, Any]] = page["data"]
        return plans

    def endless(self, request: httpx.Request, serial: int) -> httpx.Response | None:
        page = int(request.url.params["page"])
        meta = {"total": 10**6, "perPage": 2, "currentPage": page, "lastPage": page + 1}
        return success([package(f"endless-{serial}")], meta=meta)

    def spoilt(self) -> Mapping[str, Callable[[dict[str, Any]], None]]:
        return {
            "negative_price": lambda row: row.update(price="-4.15"),
            "zero_price": lambda row: row.update(price="0.00"),
            "price times ten thousand": lambda row: row.update(price="41500"),
            "no price": lambda row: row.pop("price"),
            "price in words": lambda row: row.update(price="ask us"),
            "astronomical price": lambda row: row.update(price="9e999999999"),
            "foreign currency": lambda row: row.update(currency="EUR"),
            "huge_name": lambda row: row.update(name="x" * 10_000_000),
            "no name": lambda row: row.pop("name"),
            "no_size": lambda row: row.pop("data_quantity"),
            "zero size": lambda row: row.update(data_quantity=0),
            "unknown unit": lambda row: row.update(data_unit="TB"),
            "unlimited as text": lambda row: row.update(unlimited="maybe"),
            "no_id": lambda row: row.pop("id"),
            "region without countries": lambda row: row.update(coverage=[], name="eSIMCard 1GB Europe"),
            "coverage of nowhere": lambda row: row.update(coverage=[{"country_name": "Netherlands Antilles"}]),
            "voice": lambda row: row.update(package_type="DATA-VOICE-SMS", voice_quantity=10000),
            "voice without saying so": lambda row: row.update(voice_quantity=100),
            "fortnights": lambda row: row.update(package_validity_unit="Fortnight"),
            "no term": lambda row: row.pop("package_validity"),
            "term without end": lambda row: row.update(package_validity=99999),
            "listed twice": lambda row: row.update(id=PACKAGE.replace("aa", "cc")),
        }

    def refusals(self) -> Mapping[str, Refusal]:
        invalid = {"message": "The given data was invalid.", "errors": {"package_type_id": ["required"]}}
        return {
            "wallet empty": Refusal(refuse("Insufficient balance"), ErrorType.INSUFFICIENT_BALANCE),
            "credit": Refusal(refuse("Not enough CREDIT left", 400), ErrorType.INSUFFICIENT_BALANCE),
            "out of stock": Refusal(refuse("No eSIM available for this package"), ErrorType.OUT_OF_STOCK),
            "plan gone": Refusal(refuse("Package not found", 404), ErrorType.INVALID_PRODUCT),
            "framework 404": Refusal(says({"message": "No query results"}, 404), ErrorType.INVALID_PRODUCT),
            "validation": Refusal(says(invalid, 422), ErrorType.INVALID_PRODUCT),
            "no reason": Refusal(refuse("Request refused"), ErrorType.PROVIDER_API_ERROR),
            "status as text": Refusal(says({"status": "false", "message": "Out of stock"}), ErrorType.OUT_OF_STOCK),
            "token refused": Refusal(says({"message": "Unauthenticated."}, 401), ErrorType.AUTH_FAILED),
            "address not allowed": Refusal(says(b"<html>Forbidden</html>", 403), ErrorType.AUTH_FAILED),
            "too many calls": Refusal(lambda _: self.throttled(), ErrorType.RATE_LIMITED),
        }

    def unclear(self) -> Mapping[str, Answer]:
        return {
            "bought without any id": lambda _: success({"sim_applied": False, "message": "wait 2 minutes"}),
            "no status": says({"data": {"sim_id": SIM}}),
            "no data": says({"status": True, "message": "fine"}),
            "data as a list": says({"status": True, "data": []}),
            "a page that is not found": says(b"<html>404</html>", 404),
            "a status nobody documented": says({}, 418),
            "redirect to a login page": says(b"", 302, {"Location": "https://elsewhere.test/login"}),
        }

    def accepted(self) -> Mapping[str, Answer]:
        handle = {"sim_applied": False, "sim_id": SIM, "order_id": 100}
        minimal = {"id": SIM, "iccid": ICCID, "status": "Released"}
        return {
            "handle": lambda _: success(handle),
            "handle in text": lambda _: success({**handle, "order_id": "100"}),
            "SIM by a number": lambda _: success({**handle, "sim_id": 4711}),
            "instant without activation data": lambda _: success({"sim_applied": True, "sim": minimal}),
        }

    def delivered(self) -> Mapping[str, Answer]:
        parts = sim(qr_code_text=None, smdp_address="https://consumer.example.test")
        return {
            "instant": lambda _: success({"sim_applied": True, "sim": sim(), "package": {"id": "b-9"}}),
            "instant, SIM by a number": lambda _: success({"sim_applied": True, "sim": sim(id=4711)}),
            "parts instead of the LPA text": lambda _: success({"sim_applied": True, "sim": parts}),
            "handle of a finished SIM": lambda _: success({"sim_applied": False, "sim_id": SIM, "order_id": 1}),
        }

    def status_answers(self) -> Mapping[str, tuple[Answer, type]]:
        def record(**changes: Any) -> Answer:
            return lambda _: success({"sim": sim("583801", **changes), "in_use_packages": []})

        cases: dict[str, tuple[Answer, type]] = {
            "released": (record(), Provisioned),
            "installed": (record(status="Installed"), Provisioned),
            "a state nobody documented": (record(status="Pondering"), Provisioned),
            "not visible yet": (refuse("Sim not found", 404), Pending),
            "refused with 200": (refuse("Sim not found"), Pending),
            "failed": (record(status="FAILED"), Unknown),
            "revoked": (record(status="Revoked", qr_code_text=None), Unknown),
            "no SIM in it": (lambda _: success({}), Unknown),
        }
        return {name: (self._after_login(answer), expected) for name, (answer, expected) in cases.items()}

    def unauthorised(self) -> httpx.Response:
        return reply({"message": "Unauthenticated."}, 401)

    def _after_login(self, answer: Answer) -> Answer:
        return lambda request: self.answer(request) if request.url.path.endswith("/login") else answer(request)

    def _packages(self) -> list[dict[str, Any]]:
        return [
            package(PACKAGE),
            package(PACKAGE.replace("aa", "bb"), name="Unlimited eSIM Data For 10 Days", unlimited=True),
            package(PACKAGE.replace("aa", "cc"), data_quantity=Decimal("0.9313")),
        ]

    def _one(self, path: str) -> httpx.Response:
        head, _, last = path.rpartition("/")
        if path == "balance":
            return reply({"status": True, "balance": self.balance})
        if head == "package/detail":
            found = next((row for row in self._packages() if row["id"] == last.lower()), None)
            return success(found) if found else refuse("Package not found", 404)(httpx.Request("GET", "https://x.test"))
        if head == "my-esims":
            return self._sim(last)
        if head == "order":
            return success([bundle("b-new")])
        assert path == f"my-sim/{SIM}/usage"
        quantities = {"initial_data_quantity": 3, "rem_data_quantity": Decimal("0.75")}
        return success({**quantities, "initial_data_unit": "GB", "rem_data_unit": "GB"})

    def _sim(self, sim_id: str) -> httpx.Response:
        row = next((row for row in self.sims if row["id"] == sim_id), sim(sim_id))
        if sim_id in self.unfinished:
            self.unfinished.discard(sim_id)
            return refuse("Sim not found", 404)(httpx.Request("GET", "https://x.test"))
        package_on_it = {"id": "b-0", "date_expiry": "2026-12-20 09:15:26"}
        return success({"sim": row, "in_use_packages": [package_on_it], "assigned_packages": []})

    def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        if path == "can-topup-esim":
            return success({"topup_available": body == {"iccid": ICCID, "package_type_id": PACKAGE}})
        assert path in {"package/purchase/async", "package/purchase"}
        self.balance -= Decimal("4.15")
        number = f"{len(self.sold) + 1:02}"
        self.sold.append(number)
        self.bundles.insert(0, bundle(f"b-new-{number}"))
        if "iccid" in body:
            return success({"sim_applied": True, "sim": {"id": SIM, "iccid": ICCID, "status": "Installed"}})
        sim_id = f"sim-new-{number}"
        self.sims.insert(0, sim(sim_id, iccid=f"8910300000004900{number}7"))
        self.unfinished.add(sim_id)
        return success({"sim_applied": False, "sim_id": sim_id, "order_id": 100 + len(self.sold)})
