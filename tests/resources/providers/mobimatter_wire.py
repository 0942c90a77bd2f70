"""MobiMatter in small, for the contract suite: reserve, complete, cancel, refund and signed webhooks."""

import base64
import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, ClassVar

import httpx
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from esim.money import Cost
from esim.purchase import (
    Cancelled,
    ErrorType,
    EsimRef,
    EventKind,
    Pending,
    Provisioned,
    PurchaseRequest,
    Rejected,
    Unknown,
)
from resources.providers.mobimatter import MobiMatter
from tests.resources.providers.wire import NOW, Answer, Hook, Refusal, Wire, reply, says

ICCID = "8985203103000004711"
MATCHING_ID = "K2-77AA88BB99CC00DD"
MERCHANT = "5b1e2c3d-0000-4000-8000-00000000beef"
PRODUCT = "A1B2C3D4-1111-4111-8111-111111111111"
ADDON = "44444444-4444-4444-8444-444444444444"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC_KEY = (
    KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
)
LPA = f"LPA:1$smdp.example.test${MATCHING_ID}"


def product(product_id: str, details: Mapping[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    """Return an entry of `GET products`; `details` are laid over the usual ones, None removes one."""
    pairs = {
        "PLAN_TITLE": "Chile 20 GB",
        "PLAN_DATA_LIMIT": "20",
        "PLAN_DATA_UNIT": "GB",
        "PLAN_VALIDITY": "720",
        "PLAN_DETAILS ": None
        if "PLAN_DETAILS" in (details or {})
        else json.dumps({"heading": "Data only", "description": None, "items": ["Hotspot works"]}),
        "TOPUP": "1",
        "HAS_DATA": "1",
        "EXTERNALLY_SHOWN": "1",
        **(details or {}),
    }
    row = {
        "merchantId": MERCHANT,
        "uniqueId": product_id,
        "productId": product_id,
        "productFamilyId": 77,
        "productCategory": "esim_realtime",
        "providerName": "3",
        "retailPrice": Decimal("12.99"),
        "wholesalePrice": Decimal("8.4"),
        "currencyCode": "USD",
        "updated": "2026-11-02T05:14:28.4377038Z",
        "regions": [],
        "countries": ["CL"],
        "productDetails": [{"name": name, "value": value} for name, value in pairs.items() if value is not None],
    }
    return {**row, **changes}


def order(order_id: str, state: str, **changes: Any) -> dict[str, Any]:
    """Return an order; completed ones carry activation data."""
    done = {
        "ICCID": ICCID,
        "SMDP_ADDRESS": "smdp.example.test",
        "ACTIVATION_CODE": MATCHING_ID,
        "LOCAL_PROFILE_ASSISTANT": LPA,
        "ACCESS_POINT_NAME": "internet",
        "CONF_CODE": "",
        "RECHARGABLE": "True",
    }
    pairs = changes.pop("pairs", done if state == "Completed" else {})
    line = {
        "productId": PRODUCT,
        "productCategory": "esim_realtime",
        "productFamilyId": "77",
        "title": "Chile 20 GB",
        "providerName": "Entel",
        "retailPrice": Decimal("12.99"),
        "wholesalePrice": Decimal("8.4"),
        "lineItemDetails": [{"name": name, "value": value} for name, value in pairs.items()],
        "oneClickInstall": {"ios": f"https://esimsetup.apple.com/?carddata={LPA}"} if pairs else None,
        **changes.pop("line", {}),
    }
    return {
        "orderId": order_id,
        "orderState": state,
        "merchantId": MERCHANT,
        "currencyCode": "USD",
        "created": "2026-11-20T09:15:00.767",
        "orderLineItem": line,
        "label": "a label",
        **changes,
    }


def success(result: object, status: int = 200) -> httpx.Response:
    """Return the success envelope."""
    return reply({"statusCode": status, "result": result}, status)


def failure(status: int, body_status: int | None = None, message: str = "no") -> Answer:
    """Return an answerer with the failure envelope."""
    return says({"statusCode": body_status or status, "message": message}, status)


def signed(event_type: str, about: Mapping[str, Any]) -> bytes:
    """Return a webhook body as MobiMatter signs it."""
    text = f"{about['orderId']}.{about['merchantId']}.{about['orderLineItem']['providerName']}"
    signature = KEY.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    event = {"eventType": event_type, "signature": base64.b64encode(signature).decode(), "eventData": dict(about)}
    return json.dumps(event, default=float).encode()


class MobiMatterWire(Wire):
    """MobiMatter on a good day."""

    slug = "mobimatter"
    factory = MobiMatter
    credentials: ClassVar[Mapping[str, str]] = {
        "api_key": "mm-key-secret",
        "merchant_id": MERCHANT,
        "webhook_public_key": PUBLIC_KEY,
    }
    secrets = ("mm-key-secret", ICCID, MATCHING_ID)
    request = PurchaseRequest(
        "k3v9c0q8m1x5z7t2b4n6h8j0da",
        PRODUCT,
        Cost(Decimal("8.4"), "USD"),
        Cost(Decimal("9"), "USD"),
        NOW,
        hints={"product_category": "esim_realtime", "product_family_id": "77"},
    )
    top_up_request = PurchaseRequest(
        "t0p0u0p0q8m1x5z7t2b4n6h8j0",
        ADDON,
        Cost(Decimal("8.4"), "USD"),
        Cost(Decimal("9"), "USD"),
        NOW,
        hints={"product_category": "esim_addon", "product_family_id": "77"},
        top_up_of=EsimRef("MM-1", "MM-1", ICCID, PRODUCT),
    )
    esim = EsimRef("MM-1", "MM-1", ICCID, PRODUCT)
    usage = (2828 << 20, 20480 << 20)
    cancel_outcome = Cancelled

    def __init__(self) -> None:
        super().__init__()
        self.orders = {"MM-1": order("MM-1", "Completed")}
        self.wholesale = Decimal("8.4")  # what reservations hold, which may differ from the list

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.partition("/api/v2/")[2]
        assert request.headers["merchantId"] == MERCHANT
        if request.method == "GET":
            return self._read(path, request)
        body = json.loads(request.content)
        handlers: Mapping[str, Callable[[dict[str, Any]], httpx.Response]] = {
            "order": self._create,
            "order/complete": self._complete,
            "order/cancel": self._cancel,
            "order/refund": lambda _: success("marked", 202),
        }
        return handlers[path](body)

    def spends(self, request: httpx.Request) -> bool:
        return request.url.path.endswith("/order/complete")

    def is_catalogue(self, request: httpx.Request) -> bool:
        return request.url.path.endswith("/products")

    def plans(self, page: Any) -> list[dict[str, Any]]:
        plans: list[dict[str, Any]] = page["result"]
        return plans

    def spoilt(self) -> Mapping[str, Callable[[dict[str, Any]], None]]:
        def detail(name: str, value: object) -> Callable[[dict[str, Any]], None]:
            def change(row: dict[str, Any]) -> None:
                kept = [pair for pair in row["productDetails"] if pair["name"].strip() != name]
                row["productDetails"] = kept + ([{"name": name, "value": value}] if value is not None else [])

            return change

        return {
            "negative_price": lambda row: row.update(wholesalePrice=-8.4),
            "zero_price": lambda row: row.update(wholesalePrice=0),
            "price times ten thousand": lambda row: row.update(wholesalePrice=84000),
            "no price": lambda row: row.pop("wholesalePrice"),
            "astronomical price": lambda row: row.update(wholesalePrice="9e999999999"),
            "foreign currency": lambda row: row.update(currencyCode="EUR"),
            "huge_name": detail("PLAN_TITLE", "x" * 10_000_000),
            "no title": detail("PLAN_TITLE", None),
            "no_size": detail("PLAN_DATA_LIMIT", None),
            "voice only": detail("PLAN_DATA_LIMIT", "0"),
            "size in words": detail("PLAN_DATA_LIMIT", "plenty"),
            "unknown unit": detail("PLAN_DATA_UNIT", "TB"),
            "no_id": lambda row: row.update(productId=None, uniqueId=None),
            "no countries": lambda row: row.update(countries=[]),
            "countries as text": lambda row: row.update(countries="CL"),
            "no term": detail("PLAN_VALIDITY", None),
            "twelve hours": detail("PLAN_VALIDITY", "12"),
            "term without end": detail("PLAN_VALIDITY", "99999999"),
            "hidden": detail("EXTERNALLY_SHOWN", "0"),
            "needs papers": lambda row: row.update(productCategory="esim_delayed"),
            "replacement": lambda row: row.update(productCategory="esim_replacement"),
            "physical": lambda row: row.update(productCategory="physical_sim"),
            "a category of tomorrow": lambda row: row.update(productCategory="esim_quantum"),
            "no details": lambda row: row.pop("productDetails"),
            "details as texts": lambda row: row.update(productDetails=["PLAN_TITLE"]),
        }

    def throttled(self) -> httpx.Response:
        return failure(429)(httpx.Request("GET", "https://provider.test"))

    def refusals(self) -> Mapping[str, Refusal]:
        def creates(request: httpx.Request) -> bool:
            return request.method == "POST" and request.url.path.endswith("/order")

        both = {
            "out of stock": Refusal(failure(429), ErrorType.OUT_OF_STOCK),
            "wallet empty": Refusal(failure(402, 400, "Unable to authorize funds"), ErrorType.INSUFFICIENT_BALANCE),
            "product gone": Refusal(failure(400), ErrorType.INVALID_PRODUCT),
            "problem details": Refusal(says({"title": "Bad Request", "status": 400}, 400), ErrorType.INVALID_PRODUCT),
            "unknown key": Refusal(failure(401), ErrorType.AUTH_FAILED),
            "not enabled": Refusal(failure(403), ErrorType.AUTH_FAILED),
        }
        on_create = {
            f"{name}, at the reservation": Refusal(refusal.answer, refusal.error_type, creates)
            for name, refusal in both.items()
        }
        more = {
            "network down, at the reservation": Refusal(failure(455), ErrorType.PROVIDER_API_ERROR, creates),
            "unheard of, at the reservation": Refusal(failure(418), ErrorType.PROVIDER_API_ERROR, creates),
            "server error, at the reservation": Refusal(failure(503), ErrorType.PROVIDER_API_ERROR, creates),
            "no id, at the reservation": Refusal(says({"result": {}}), ErrorType.PROVIDER_API_ERROR, creates),
            "html, at the reservation": Refusal(says(b"<html>"), ErrorType.PROVIDER_API_ERROR, creates),
        }
        return {**both, **on_create, **more}

    def unclear(self) -> Mapping[str, Answer]:
        return {
            "network down while the order stands": failure(455),
            "unknown order": failure(404),
            "a status nobody documented": failure(418),
            "an error inside 200": failure(200, 400),
            "still created": says({"statusCode": 200, "result": {"orderId": "MM-1001", "orderState": "Created"}}),
            "failed": says({"statusCode": 200, "result": {"orderId": "MM-1001", "orderState": "Failed"}}),
            "another order": lambda _: success(order("MM-9", "Completed")),
            "redirect": says(b"", 302, {"Location": "https://elsewhere.test/"}),
        }

    def accepted(self) -> Mapping[str, Answer]:
        return {
            "processing": lambda _: success(order("MM-1001", "Processing", pairs={"KYC_URL": "https://kyc.test/1"})),
            "completed without activation data": lambda _: success(order("MM-1001", "Completed", pairs={})),
        }

    def delivered(self) -> Mapping[str, Answer]:
        parts = {"ICCID ": ICCID, "SMDP_ADDRESS": "https://smdp.example.test", "ACTIVATION_CODE": MATCHING_ID}
        return {
            "parts instead of the LPA text": lambda _: success(order("MM-1001", "Completed", pairs=parts)),
            "no install links": lambda _: success(order("MM-1001", "Completed", line={"oneClickInstall": None})),
            "no price": lambda _: success(order("MM-1001", "Completed", line={"wholesalePrice": None})),
            "extra fields": lambda _: reply(
                {"statusCode": 200, "isSuccess": True, "result": order("MM-1001", "Completed")}
            ),
        }

    def status_answers(self) -> Mapping[str, tuple[Answer, type]]:
        def state(name: str, **changes: Any) -> Answer:
            return lambda _: success(order("583801", name, **changes))

        return {
            "completed": (state("Completed"), Provisioned),
            "completed without data": (state("Completed", pairs={}), Pending),
            "processing": (state("Processing"), Pending),
            "cancelled": (state("Cancelled"), Rejected),
            "expired": (state("Expired"), Rejected),
            "created": (state("Created"), Unknown),
            "failed": (state("Failed"), Unknown),
            "no state": (state(""), Unknown),
            "another order": (lambda _: success(order("1", "Completed")), Unknown),
            "unknown": (failure(404), Unknown),
        }

    def hooks(self) -> tuple[Hook, ...]:
        def hook(state: str, kind: EventKind) -> Hook:
            return Hook({}, signed("order.esim_delayed.completed", order("MM-1", state)), kind)

        return (
            hook("Completed", EventKind.ORDER_READY),
            hook("Cancelled", EventKind.ORDER_FAILED),
            hook("Processing", EventKind.OTHER),
        )

    def _read(self, path: str, request: httpx.Request) -> httpx.Response:
        if path == "products":
            return self._products(request.url.params)
        if path == "merchant/balance":
            return success({"balance": 52.8})
        if path.endswith("/refund/eligibility"):
            return success({"isEligible": True, "fee": None, "reason": None})
        if path.startswith("provider/info/"):
            package = {"totalAllowanceMb": 20480, "usedMb": 2828, "expirationDate": "2026-12-20T06:41:00Z"}
            return success({"esim": {"status": "Installed", "iccid": ICCID}, "packages": [package]})
        found = self.orders.get(path.removeprefix("order/"))
        return success(found) if found else failure(404)(request)

    def _products(self, params: httpx.QueryParams) -> httpx.Response:
        rows = [
            product(PRODUCT),
            product("22222222-2222-4222-8222-222222222222", {"PLAN_TITLE": "Peru Unlimited", "UNLIMITED": "1"}),
            product(ADDON, {"PLAN_TITLE": "TopUp Chile"}, productCategory="esim_addon"),
        ]
        if wanted := params.get("productId"):
            rows = [row for row in rows if row["productId"].lower() == wanted.lower()]
        if category := params.get("category"):
            rows = [row for row in rows if row["productCategory"] == category]
        return success(rows)

    def _create(self, body: dict[str, Any]) -> httpx.Response:
        order_id = f"MM-{1001 + len(self.orders) - 1}"
        line = {"wholesalePrice": self.wholesale, "productCategory": body["productCategory"]}
        self.orders[order_id] = order(order_id, "Created", label=body["label"], line=line)
        if "addOnOrderIdentifier" in body:
            assert body["addOnOrderIdentifier"] == "MM-1"
        return success({"orderId": order_id, "productCategory": body["productCategory"]})

    def _complete(self, body: dict[str, Any]) -> httpx.Response:
        held = self.orders[body["orderId"]]
        if held["orderState"] != "Created":
            return failure(400)(httpx.Request("PUT", "https://provider.test"))
        self.sold.append(body["orderId"])
        done = order(body["orderId"], "Completed", label=held["label"])
        if held["orderLineItem"]["productCategory"] == "esim_addon":
            done["orderLineItem"]["lineItemDetails"] = [{"name": "ICCID", "value": ICCID}]
        self.orders[body["orderId"]] = done
        return success(done)

    def _cancel(self, body: dict[str, Any]) -> httpx.Response:
        held = self.orders[body["orderId"]]
        if held["orderState"] != "Created":
            return failure(400)(httpx.Request("PUT", "https://provider.test"))
        held["orderState"] = "Cancelled"
        return success("Order cancelled")
