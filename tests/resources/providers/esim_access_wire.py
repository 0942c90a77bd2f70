"""eSIM Access in small, for the contract suite: plans, orders, top-ups, cancellation, as its documentation says."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar

import httpx

from esim.money import Cost
from esim.purchase import (
    Cancelled,
    ErrorType,
    EsimRef,
    EventKind,
    Pending,
    Provisioned,
    PurchaseRequest,
    SaleState,
    Unknown,
)
from resources.providers.esim_access import EsimAccess
from tests.resources.providers.wire import NOW, Answer, Hook, Refusal, Sale, Wire, reply, says

ICCID = "8910300000009876501"
MATCHING_ID = "A1B2C3D4E5F60718293A4B5C6D7E8F90"
REFERENCE = "k3v9c0q8m1x5z7t2b4n6h8j0da"
GIB = 1 << 30


def plan(code: str, **changes: Any) -> dict[str, Any]:
    """Return a row of `package/list`."""
    row = {
        "packageCode": code,
        "slug": "PT_3_30",
        "name": "Portugal 3GB 30Days",
        "price": 17500,
        "currencyCode": "USD",
        "volume": 3 * GIB,
        "smsStatus": 0,
        "dataType": 1,
        "unusedValidTime": 180,
        "duration": 30,
        "durationUnit": "DAY",
        "location": "PT",
        "locationCode": "PT",
        "description": "Portugal 3GB 30Days",
        "activeType": 2,
        "retailPrice": 35000,
        "supportTopUpType": 2,
        "fupPolicy": "",
        "locationNetworkList": [
            {
                "locationName": "Portugal",
                "locationCode": "PT",
                "operatorList": [
                    {"operatorName": "NOS", "networkType": "5G"},
                    {"operatorName": "MEO", "networkType": "4G"},
                ],
            }
        ],
    }
    return {**row, **changes}


def success(payload: object) -> httpx.Response:
    """Return the success envelope."""
    return reply({"success": True, "errorCode": "0", "errorMsg": None, "obj": payload})


def failure(code: str, message: str = "no", status: int = 200) -> Answer:
    """Return an answerer with the failure envelope."""
    return says({"success": False, "errorCode": code, "errorMsg": message, "obj": None}, status)


def orders(request: httpx.Request) -> bool:
    """Match orders, the probe of a look-up among them."""
    return request.url.path.endswith("/esim/order")


def esim_row(reference: str, order_no: str, **changes: Any) -> dict[str, Any]:
    """Return a row of `esim/query`."""
    number = order_no.removeprefix("B")
    row = {
        "esimTranNo": number,
        "orderNo": order_no,
        "transactionId": reference,
        "iccid": ICCID,
        "ac": f"LPA:1$rsp.example.test${MATCHING_ID}",
        "shortUrl": "https://p.qrsim.example/0001",
        "smdpStatus": "RELEASED",
        "esimStatus": "GOT_RESOURCE",
        "dataType": 1,
        "expiredTime": "2027-05-20T10:15:04+0000",
        "totalVolume": 3 * GIB,
        "orderUsage": 0,
        "apn": "isp",
        "packageList": [{"packageCode": "PTX101", "esimTranNo": number, "transactionId": reference}],
    }
    return {**row, **changes}


class EsimAccessWire(Wire):
    """eSIM Access on a good day: an order is allocating at the first look and delivered at the second."""

    slug = "esim_access"
    factory = EsimAccess
    credentials: ClassVar[Mapping[str, str]] = {"client_id": "acc-0042", "client_secret": "very-secret-key"}
    secrets = ("very-secret-key", ICCID, MATCHING_ID)
    request = PurchaseRequest(
        REFERENCE, "PTX101", Cost(Decimal("1.75"), "USD"), Cost(Decimal("1.90"), "USD"), NOW, package_name="Portugal"
    )
    top_up_request = PurchaseRequest(
        "t0p0u0p0q8m1x5z7t2b4n6h8j0",
        "TOPUP_PTX101",
        Cost(Decimal("1.75"), "USD"),
        Cost(Decimal("1.75"), "USD"),
        NOW,
        top_up_of=EsimRef("B26112009150077", "26112009150077", ICCID, "PTX101"),
    )
    esim = EsimRef("B26112009150077", "26112009150077", ICCID, "PTX101")
    usage = (734003200, 3 * GIB)
    cancel_outcome = Cancelled
    told_states = frozenset({SaleState.GIVEN_BACK})

    def __init__(self) -> None:
        super().__init__()
        self.esims = [esim_row("somebody-else", "B26112009150077")]
        self.allocating: set[str] = set()
        self.accepted_orders: dict[str, dict[str, Any]] = {}
        self.allocates = True

    def answer(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        handlers: Mapping[str, Callable[[dict[str, Any]], httpx.Response]] = {
            "package/list": self._packages,
            "esim/order": self._order,
            "esim/query": self._query,
            "esim/usage/query": self._usage,
            "esim/topup": self._topup,
            "esim/cancel": lambda _: success({}),
            "balance/query": lambda _: success({"balance": 940000}),
        }
        return handlers[request.url.path.partition("/api/v1/open/")[2]](body)

    def is_statement(self, request: httpx.Request) -> bool:
        return request.url.path.endswith("/esim/query") and b"startTime" in request.content

    def statement(self, request: httpx.Request, sales: Sequence[Sale]) -> httpx.Response:
        body = json.loads(request.content)
        start, end = (datetime.fromisoformat(body[key]) for key in ("startTime", "endTime"))
        found = [sale for sale in sales if start <= sale.at <= end]
        page = body["pager"]["pageNum"]
        rows = [
            esim_row(
                f"ours-{sale.number}",
                str(sale.number),
                iccid=sale.iccid,
                esimStatus="CANCEL" if sale.state is SaleState.GIVEN_BACK else "GOT_RESOURCE",
                packageList=[{"packageCode": "PTX101", "createTime": f"{sale.at:%Y-%m-%dT%H:%M:%S+0000}"}],
            )
            for sale in found[page * 2 - 2 : page * 2]
        ]
        return success({"esimList": rows, "pager": {"pageSize": 2, "pageNum": page, "total": len(found)}})

    def unreadable_sales(self) -> Sequence[Callable[[dict[str, Any]], None]]:
        return (
            lambda page: page["obj"]["esimList"][0].pop("orderNo"),
            lambda page: page["obj"]["esimList"][0].update(packageList=[]),
            lambda page: page["obj"]["esimList"].insert(0, "an eSIM"),
            lambda page: page["obj"]["pager"].update(total=99),
        )

    def spends(self, request: httpx.Request) -> bool:
        return orders(request) and json.loads(request.content)["amount"] == 17500  # any other price is refused

    def is_catalogue(self, request: httpx.Request) -> bool:
        return request.url.path.endswith("/package/list")

    def plans(self, page: Any) -> list[dict[str, Any]]:
        plans: list[dict[str, Any]] = page["obj"]["packageList"]
        return plans

    def spoilt(self) -> Mapping[str, Callable[[dict[str, Any]], None]]:
        return {
            "negative_price": lambda row: row.update(price=-17500),
            "zero_price": lambda row: row.update(price=0),
            "price times ten thousand": lambda row: row.update(price=175_000_000),
            "fractional price": lambda row: row.update(price=17500.5),
            "price as an object": lambda row: row.update(price={"amount": 1}),
            "astronomical price": lambda row: row.update(price="9e999999999"),
            "foreign currency": lambda row: row.update(currencyCode="EUR"),
            "currency in numbers": lambda row: row.update(currencyCode=840.5),
            "huge_name": lambda row: row.update(name="x" * 10_000_000),
            "huge operator": lambda row: row.update(location="", locationNetworkList="y" * 100_000),
            "no_size": lambda row: row.pop("volume"),
            "tiny_size": lambda row: row.update(volume=1024),
            "no_id": lambda row: row.pop("packageCode"),
            "no country": lambda row: row.update(location="", locationNetworkList=None),
            "unknown country": lambda row: row.update(location="TRNC,QQ-X"),
            "months": lambda row: row.update(durationUnit="MONTH"),
            "no term": lambda row: row.pop("duration"),
            "endless term": lambda row: row.update(duration=100_000),
            "new kind of day pass": lambda row: row.update(dataType=9),
        }

    def refusals(self) -> Mapping[str, Refusal]:
        return {
            "out of stock": Refusal(failure("200011"), ErrorType.OUT_OF_STOCK),
            "wallet empty": Refusal(failure("200007"), ErrorType.INSUFFICIENT_BALANCE),
            "unit price moved": Refusal(failure("200005"), ErrorType.PRICE_CHANGED),
            "total moved": Refusal(failure("200006"), ErrorType.PRICE_CHANGED),
            "unknown plan": Refusal(failure("310241"), ErrorType.INVALID_PRODUCT),
            "plan missing": Refusal(failure("310243", status=400), ErrorType.INVALID_PRODUCT),
            "order parameters": Refusal(failure("200008"), ErrorType.INVALID_PRODUCT),
            "bad json": Refusal(failure("000104"), ErrorType.PROVIDER_API_ERROR),
            "signature": Refusal(failure("101003"), ErrorType.AUTH_FAILED),
            "clock": Refusal(failure("101001", status=401), ErrorType.AUTH_FAILED),
            "address not allowed": Refusal(failure("101002"), ErrorType.AUTH_FAILED),
            "success as text": Refusal(
                says({"success": "false", "errorCode": "200011", "errorMessage": "none left"}), ErrorType.OUT_OF_STOCK
            ),
            "too many calls": Refusal(lambda _: self.throttled(), ErrorType.RATE_LIMITED),
            "forbidden without a body": Refusal(says(b"", 403), ErrorType.AUTH_FAILED),
        }

    def unclear(self) -> Mapping[str, Answer]:
        return {
            "server error inside": failure("000001"),
            "busy": failure("900001"),
            "duplicate reference": failure("310402"),
            "still allocating": failure("200010"),
            "code nobody documented": failure("777777"),
            "success without a payload": says({"success": True, "errorCode": "0", "obj": None}),
            "success without an order number": says({"success": True, "errorCode": "0", "obj": {"orderNo": None}}),
            "not found page": says(b"<html>404</html>", 404),
            "redirect": says(b"", 302, {"Location": "https://elsewhere.test/"}),
        }

    def accepted(self) -> Mapping[str, Answer]:
        payload = {"orderNo": "B1", "transactionId": REFERENCE}
        return {
            "code null": says({"success": True, "errorCode": None, "errorMsg": None, "obj": payload}),
            "success as text": says({"success": "true", "errorCode": "0", "errorMsg": "", "obj": payload}),
        }

    def delivered(self) -> Mapping[str, Answer]:
        known = {"orderNo": "B26112009150077", "transactionId": REFERENCE}
        return {"numbers and nulls": says({"success": "true", "errorCode": 0, "errorMessage": None, "obj": known})}

    def status_answers(self) -> Mapping[str, tuple[Answer, type]]:
        def listed(*rows: dict[str, Any]) -> Answer:
            return lambda _: success({"esimList": list(rows), "pager": {"pageNum": 1, "total": len(rows)}})

        mine = esim_row(REFERENCE, "583801")
        return {
            "allocating": (failure("200010"), Pending),
            "nothing listed yet": (listed(), Pending),
            "getting resource": (listed({**mine, "esimStatus": "GETTING_RESOURCE", "ac": ""}), Pending),
            "getting resource, with a code": (listed({**mine, "esimStatus": "GETTING_RESOURCE"}), Pending),
            "ready without a code": (listed({**mine, "ac": None}), Pending),
            "ready": (listed(mine), Provisioned),
            "in use already": (listed({**mine, "esimStatus": "IN_USE"}), Provisioned),
            "a state nobody documented": (listed({**mine, "esimStatus": "PONDERING"}), Provisioned),
            "cancelled": (listed({**mine, "esimStatus": "CANCEL"}), Unknown),
            "revoked": (listed({**mine, "esimStatus": "REVOKED"}), Unknown),
            "two for one unit": (listed(mine, {**mine, "esimTranNo": "2"}), Unknown),
            "unknown order": (failure("310272"), Unknown),
            "fewer than the total": (
                lambda _: success({"esimList": [], "pager": {"pageNum": 1, "total": 3}}),
                Unknown,
            ),
        }

    def hooks(self) -> tuple[Hook, ...]:
        def hook(kind: str, expected: EventKind, **content: object) -> Hook:
            ids = {"orderNo": "B26112110150001", "transactionId": REFERENCE}
            event = {"notifyType": kind, "notifyId": f"id-{kind}", "content": {**ids, **content}}
            return Hook({}, json.dumps(event).encode(), expected)

        return (
            hook("ORDER_STATUS", EventKind.ORDER_READY, orderStatus="GOT_RESOURCE"),
            hook("ORDER_STATUS", EventKind.OTHER, orderStatus="SOMETHING_NEW"),
            hook("ESIM_STATUS", EventKind.ESIM_STATUS, esimStatus="IN_USE", iccid=ICCID),
            hook("SMDP_EVENT", EventKind.ESIM_STATUS, smdpStatus="INSTALLATION", iccid=ICCID),
            hook("DATA_USAGE", EventKind.USAGE, remain=1),
            hook("VALIDITY_USAGE", EventKind.EXPIRY, remain=1),
            hook("CHECK_HEALTH", EventKind.HEALTH_CHECK),
            hook("WHAT_COMES_NEXT", EventKind.OTHER),
        )

    def unauthorised(self) -> httpx.Response:
        return failure("101003", "Signature mismatch")(httpx.Request("POST", "https://provider.test"))

    def other_sales(self) -> None:
        self.esims += [esim_row(f"other-{n}", f"B900{n}", iccid=f"89103000000000000{n}") for n in range(3)]

    def _packages(self, body: dict[str, Any]) -> httpx.Response:
        if body["type"] == "TOPUP":
            rows = [plan("TOPUP_PTX101")]
        else:
            rows = [
                plan("PTX101"),
                plan("PXD2", name="Georgia 1GB/Day", dataType=2, volume=GIB, duration=1, fupPolicy="1 Mbps"),
                plan("9ca948d271", slug=None, dataType=None, supportTopUpType=None, locationNetworkList=None),
            ]
        code = body.get("packageCode")
        return success({"packageList": [row for row in rows if code in {None, "", row["packageCode"]}]})

    def _order(self, body: dict[str, Any]) -> httpx.Response:
        line = body["packageInfoList"][0]
        known = self.accepted_orders.get(body["transactionId"])
        known = known or next((row for row in self.esims if row["transactionId"] == body["transactionId"]), None)
        if known is None and (line["price"], body["amount"]) != (17500, 17500):
            return failure("200005")(httpx.Request("POST", "https://provider.test"))
        if known is None:
            order_no = f"B2611200915{len(self.sold) + 1:04}"
            known = esim_row(body["transactionId"], order_no)
            self.sold.append(order_no)
            self.accepted_orders[body["transactionId"]] = known
            if self.allocates:
                self.esims.append(known)
            self.allocating.add(order_no)
        return success({"orderNo": known["orderNo"], "transactionId": body["transactionId"]})

    def _query(self, body: dict[str, Any]) -> httpx.Response:
        size, page = body["pager"]["pageSize"], body["pager"]["pageNum"]
        if body.get("orderNo") in self.allocating:
            self.allocating.discard(body["orderNo"])
            return failure("200010")(httpx.Request("POST", "https://provider.test"))
        if "startTime" in body:
            start, end = (datetime.fromisoformat(body[key]) for key in ("startTime", "endTime"))
            rows = self.esims if start <= NOW <= end and start.tzinfo == UTC else []
        else:
            key = next(key for key in ("orderNo", "iccid", "esimTranNo") if body.get(key))
            rows = [row for row in self.esims if row[key] == body[key]]
        part = rows[(page - 1) * size : page * size]
        return success({"esimList": part, "pager": {"pageSize": size, "pageNum": page, "total": len(rows)}})

    def _usage(self, body: dict[str, Any]) -> httpx.Response:
        reading = {"dataUsage": 734003200, "totalData": 3 * GIB, "lastUpdateTime": "2026-11-20T06:00:00+0000"}
        return success({"esimUsageList": [{"esimTranNo": number, **reading} for number in body["esimTranNoList"]]})

    def _topup(self, body: dict[str, Any]) -> httpx.Response:
        self.sold.append(body["transactionId"])
        esim = next(row for row in self.esims if row["esimTranNo"] == body["esimTranNo"])
        esim["packageList"].append({"packageCode": body["packageCode"], "transactionId": body["transactionId"]})
        payload = {"transactionId": body["transactionId"], "iccid": ICCID, "topUpEsimTranNo": "26112009300001"}
        return success(payload)
