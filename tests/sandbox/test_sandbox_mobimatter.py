"""MobiMatter's contract as the sandbox speaks it."""

import base64
import json
import time
from decimal import Decimal
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from sandbox.config import SandboxConfig
from sandbox.serve import served


def products(client: httpx.Client, **filters: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = client.get("/products", params=filters).json()["result"]
    return rows


def plan(client: httpx.Client) -> dict[str, Any]:
    return next(row for row in products(client, country="JP", category="esim_realtime") if row["countries"] == ["JP"])


def create(client: httpx.Client, product: dict[str, Any], label: str = "", **more: Any) -> httpx.Response:
    return client.post("/order", json={"productId": product["productId"], "label": label, **more})


def complete(client: httpx.Client, order_id: str) -> httpx.Response:
    return client.put("/order/complete", json={"orderId": order_id})


def balance(client: httpx.Client) -> float:
    return float(client.get("/merchant/balance").json()["result"]["balance"])


def sold(sandbox: httpx.Client) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = sandbox.get("/sandbox/purchases", params={"provider": "mobimatter"}).json()[
        "purchases"
    ]
    return rows


def details(order: dict[str, Any]) -> dict[str, str]:
    return {row["name"]: row["value"] for row in order["orderLineItem"]["lineItemDetails"]}


def test_a_wrong_merchant_is_401(mobimatter: httpx.Client) -> None:
    answer = mobimatter.get("/merchant/balance", headers={"merchantId": "someone"})
    assert (answer.status_code, answer.json()["statusCode"]) == (401, 401)


def test_products_are_one_list_with_text_values(mobimatter: httpx.Client) -> None:
    rows = products(mobimatter)
    assert len(rows) == len({row["productId"] for row in rows}) == 400
    names = {row["name"] for row in rows[0]["productDetails"]}
    assert "PLAN_DETAILS " in names
    assert all(isinstance(row["value"], str) for row in rows[0]["productDetails"])
    one = products(mobimatter, productId=rows[0]["productId"].upper())
    assert [row["productId"] for row in one] == [rows[0]["productId"]]
    assert products(mobimatter, productId="nothing") == []


def test_create_holds_and_complete_delivers(sandbox: httpx.Client, mobimatter: httpx.Client) -> None:
    before, product = balance(mobimatter), plan(mobimatter)
    order_id = create(mobimatter, product, "m-1").json()["result"]["orderId"]
    assert [(row["state"], row["reference"]) for row in sold(sandbox)] == [("reserved", "m-1")]
    assert mobimatter.get(f"/order/{order_id}").json()["result"]["orderState"] == "Created"
    order = complete(mobimatter, order_id).json()["result"]
    found = details(order)
    assert found["LOCAL_PROFILE_ASSISTANT"] == f"LPA:1${found['SMDP_ADDRESS']}${found['ACTIVATION_CODE']}"
    assert round(before - balance(mobimatter), 2) == round(product["wholesalePrice"], 2)
    assert [row["iccid"] for row in sold(sandbox)] == [found["ICCID"]]
    assert complete(mobimatter, order_id).status_code == 400
    by_iccid = mobimatter.get("/order", params={"iccid": found["ICCID"]}).json()["result"]
    assert by_iccid["orderId"] == order_id


def test_cancel_releases_the_hold_and_only_a_hold(sandbox: httpx.Client, mobimatter: httpx.Client) -> None:
    before = balance(mobimatter)
    order_id = create(mobimatter, plan(mobimatter)).json()["result"]["orderId"]
    assert mobimatter.put("/order/cancel", json={"orderId": order_id, "reason": "x"}).status_code == 200
    assert mobimatter.put("/order/cancel", json={"orderId": order_id}).status_code == 400
    assert balance(mobimatter) == before
    assert [row["state"] for row in sold(sandbox)] == ["cancelled"]


def test_a_hold_expires_by_itself() -> None:
    config = SandboxConfig(plans_per_provider=50, hold_seconds=0, rate_limits=False)
    with served(config) as sandbox, httpx.Client(base_url=sandbox.base_url) as client:
        client.headers.update({"api-key": "sandbox-key", "merchantId": "00000000-0000-4000-8000-000000000001"})
        rows = client.get("/mobimatter/api/v2/products").json()["result"]
        order = client.post("/mobimatter/api/v2/order", json={"productId": rows[0]["productId"]}).json()["result"]
        assert client.get("/sandbox/purchases").json()["counts"] == {"mobimatter": {"expired": 1}}
        state = client.get(f"/mobimatter/api/v2/order/{order['orderId']}").json()["result"]["orderState"]
        assert state == "Expired"
        assert client.get("/mobimatter/api/v2/merchant/balance").json()["result"]["balance"] == 1_000_000


@pytest.mark.parametrize(
    ("kind", "status", "inside"),
    [("out_of_stock", 429, 429), ("insufficient_balance", 402, 400), ("upstream_down", 455, 455), ("refuse", 400, 400)],
)
@pytest.mark.parametrize("step", ["create", "complete"])
def test_refusals_leave_nothing_held(
    sandbox: httpx.Client, mobimatter: httpx.Client, kind: str, status: int, inside: int, step: str
) -> None:
    before, product = balance(mobimatter), plan(mobimatter)
    fault = {"provider": "mobimatter", "call": "order", "kind": kind, "times": 1, "params": {"step": step}}
    sandbox.put("/sandbox/faults", json=fault)
    answer = create(mobimatter, product)
    if step == "complete":
        answer = complete(mobimatter, answer.json()["result"]["orderId"])
    assert (answer.status_code, answer.json()["statusCode"]) == (status, inside)
    assert balance(mobimatter) == before
    assert [row["state"] for row in sold(sandbox)] in ([], ["cancelled"])


def raised(sandbox: httpx.Client, percent: int) -> None:
    fault = {"provider": "mobimatter", "call": "order", "kind": "price_change", "params": {"percent": percent}}
    sandbox.put("/sandbox/faults", json=fault).raise_for_status()


@pytest.mark.parametrize("at_first", [True, False])
def test_completing_takes_the_price_of_now_whatever_was_held(
    sandbox: httpx.Client, mobimatter: httpx.Client, at_first: bool
) -> None:
    before, product = balance(mobimatter), plan(mobimatter)
    if at_first:
        raised(sandbox, 20)
    order_id = create(mobimatter, product).json()["result"]["orderId"]
    held = round(before - balance(mobimatter), 2)
    sandbox.delete("/sandbox/faults")
    if not at_first:
        raised(sandbox, 20)
    done = complete(mobimatter, order_id).json()["result"]
    paid = round(before - balance(mobimatter), 2)
    assert (held > paid) is at_first
    assert done["orderLineItem"]["wholesalePrice"] == paid
    assert (paid == round(product["wholesalePrice"], 2)) is at_first


def test_completing_at_a_price_the_wallet_does_not_hold_is_402_and_buys_nothing() -> None:
    config = SandboxConfig(plans_per_provider=50, balance=Decimal(30), rate_limits=False)
    with served(config) as world, httpx.Client(base_url=world.base_url) as client:
        client.headers.update({"api-key": "sandbox-key", "merchantId": "00000000-0000-4000-8000-000000000001"})
        with httpx.Client(base_url=f"{world.base_url}/mobimatter/api/v2", headers=client.headers) as mobimatter:
            product = min(products(mobimatter, category="esim_realtime"), key=lambda row: row["wholesalePrice"])
            order_id = create(mobimatter, product).json()["result"]["orderId"]
            raised(client, 100_000)
            answer = complete(mobimatter, order_id)
            assert (answer.status_code, answer.json()["statusCode"]) == (402, 400)
            assert mobimatter.get(f"/order/{order_id}").json()["result"]["orderState"] == "Cancelled"
            assert balance(mobimatter) == 30


def test_a_lost_answer_to_complete_is_found_by_reading_the_order(
    sandbox: httpx.Client, mobimatter: httpx.Client
) -> None:
    sandbox.put("/sandbox/faults", json={"provider": "mobimatter", "call": "order", "kind": "reset_after", "times": 1})
    order_id = create(mobimatter, plan(mobimatter)).json()["result"]["orderId"]
    with pytest.raises(httpx.TransportError):
        complete(mobimatter, order_id)
    assert mobimatter.get(f"/order/{order_id}").json()["result"]["orderState"] == "Completed"


def test_top_up_needs_the_root_order_and_its_family(sandbox: httpx.Client, mobimatter: httpx.Client) -> None:
    product = plan(mobimatter)
    addon = products(mobimatter, category="esim_addon", familyId=str(product["productFamilyId"]))[0]
    assert create(mobimatter, addon).status_code == 400
    root = create(mobimatter, product).json()["result"]["orderId"]
    complete(mobimatter, root)
    top = create(mobimatter, addon, addOnOrderIdentifier=root).json()["result"]["orderId"]
    order = complete(mobimatter, top).json()["result"]
    assert details(order)["PARENT_ORDER"] == root
    assert mobimatter.get(f"/order/{root}/linked").json()["result"] == [top]
    assert len(mobimatter.get(f"/provider/info/{root}").json()["result"]["packages"]) == 2
    assert [row["kind"] for row in sold(sandbox)] == ["sim", "topup"]


def test_kyc_order_calls_back_with_an_rsa_signature(mobimatter: httpx.Client, receiver: Any) -> None:
    product = products(mobimatter, category="esim_delayed")[0]
    order_id = create(mobimatter, product, callbackUrl=receiver.url).json()["result"]["orderId"]
    order = complete(mobimatter, order_id).json()["result"]
    assert order["orderState"] == "Processing"
    assert "KYC_URL" in details(order)
    event = json.loads(receiver.next()[1])
    data = event["eventData"]
    text = f"{order_id}.{data['merchantId']}.{data['orderLineItem']['providerName']}".encode()
    pem = mobimatter.get(mobimatter.base_url.copy_with(path="/mobimatter/public_key.pem")).content
    key = serialization.load_pem_public_key(pem)
    assert isinstance(key, rsa.RSAPublicKey)
    key.verify(base64.b64decode(event["signature"]), text, padding.PKCS1v15(), hashes.SHA256())
    assert data["orderState"] == "Completed"


def test_a_late_order_is_processing_until_it_is_done(sandbox: httpx.Client, mobimatter: httpx.Client) -> None:
    fault = {"provider": "mobimatter", "call": "order", "kind": "async_late", "times": 1, "params": {"seconds": 0.01}}
    sandbox.put("/sandbox/faults", json=fault)
    order_id = create(mobimatter, plan(mobimatter)).json()["result"]["orderId"]
    assert complete(mobimatter, order_id).json()["result"]["orderState"] == "Processing"
    deadline = time.monotonic() + 10
    while mobimatter.get(f"/order/{order_id}").json()["result"]["orderState"] != "Completed":
        assert time.monotonic() < deadline


def test_refund_gives_the_money_back_while_unused(sandbox: httpx.Client, mobimatter: httpx.Client) -> None:
    before = balance(mobimatter)
    order_id = create(mobimatter, plan(mobimatter)).json()["result"]["orderId"]
    complete(mobimatter, order_id)
    assert mobimatter.get(f"/order/{order_id}/refund/eligibility").json()["result"]["isEligible"] is True
    assert mobimatter.put("/order/refund", json={"orderId": order_id}).status_code == 202
    assert balance(mobimatter) == before
    assert [row["state"] for row in sold(sandbox)] == ["refunded"]
