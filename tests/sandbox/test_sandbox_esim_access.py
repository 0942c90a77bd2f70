"""eSIM Access's contract as the sandbox speaks it."""

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest


def call(client: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    answer: dict[str, Any] = client.post(f"/{path}", json=body).json()
    return answer


def plans(client: httpx.Client, **filters: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = call(client, "package/list", **filters)["obj"]["packageList"]
    return rows


def order(client: httpx.Client, reference: str, plan: dict[str, Any], count: int = 1, **more: Any) -> dict[str, Any]:
    line = {"packageCode": plan["packageCode"], "count": count, "price": plan["price"]}
    return call(
        client, "esim/order", transactionId=reference, packageInfoList=[line], amount=plan["price"] * count, **more
    )


def profiles(client: httpx.Client, order_no: str) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 10
    while True:
        answer = call(client, "esim/query", orderNo=order_no, pager={"pageNum": 1, "pageSize": 50})
        if answer["success"]:
            found: list[dict[str, Any]] = answer["obj"]["esimList"]
            return found
        assert answer["errorCode"] == "200010"
        assert time.monotonic() < deadline


def sold(sandbox: httpx.Client, reference: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = sandbox.get("/sandbox/purchases", params={"reference": reference}).json()["purchases"]
    return rows


def signed(body: bytes, secret: bytes = b"sandbox-secret", age: float = 0) -> dict[str, str]:
    stamp, request_id = str(int((time.time() - age) * 1000)), "4ce9d9cdac9e4e17b3a2c66c358c1ce2"
    digest = hmac.new(secret, (stamp + request_id + "sandbox").encode() + body, hashlib.sha256).hexdigest()
    return {"rt-timestamp": stamp, "rt-requestid": request_id, "rt-signature": digest}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        (lambda: signed(b"{}"), "0"),
        (lambda: signed(b'{"a":1}'), "101003"),
        (lambda: signed(b"{}", secret=b"other"), "101003"),
        (lambda: signed(b"{}", age=3600), "101001"),
        (lambda: {"rt-signature": "x"}, "000101"),
        (lambda: {"rt-accesscode": "someone"}, "000102"),
        (lambda: {"rt-accesscode": ""}, "000101"),
    ],
)
def test_signature_time_and_code_are_checked(
    esim_access: httpx.Client, headers: Callable[[], dict[str, str]], code: str
) -> None:
    answer = esim_access.post("/balance/query", content=b"{}", headers=headers())  # signed now, not at collection
    assert answer.status_code == 200
    assert answer.json()["errorCode"] == code


def test_catalogue_is_one_reply_of_base_plans(esim_access: httpx.Client) -> None:
    rows = plans(esim_access)
    topups = plans(esim_access, type="TOPUP")
    assert len(rows) + len(topups) == 400
    assert all(row["packageCode"].startswith("TOPUP_") for row in topups)
    assert len({row["slug"] for row in rows}) == len(rows)
    assert all(isinstance(row["price"], int) and row["currencyCode"] == "USD" for row in rows)
    assert {row["locationCode"] for row in plans(esim_access, locationCode="JP")} == {"JP"}
    assert all("," in row["location"] for row in plans(esim_access, locationCode="!RG"))
    assert plans(esim_access, packageCode="NOPE") == []


def test_order_is_asynchronous_and_repeats_give_it_back(sandbox: httpx.Client, esim_access: httpx.Client) -> None:
    plan = plans(esim_access, locationCode="JP")[0]
    before = call(esim_access, "balance/query")["obj"]["balance"]
    first = order(esim_access, "pay-1", plan, 2)
    again = order(esim_access, "pay-1", plan, 2)
    assert first["obj"] == again["obj"]
    made = profiles(esim_access, first["obj"]["orderNo"])
    assert len({esim["iccid"] for esim in made}) == 2
    assert made[0]["ac"].startswith("LPA:1$")
    assert made[0]["transactionId"] == "pay-1"
    assert before - call(esim_access, "balance/query")["obj"]["balance"] == 2 * plan["price"]
    assert len(sold(sandbox, "pay-1")) == 2


def test_duplicate_code_fault_refuses_the_repeat(sandbox: httpx.Client, esim_access: httpx.Client) -> None:
    plan = plans(esim_access, locationCode="JP")[0]
    order(esim_access, "dup-1", plan)
    sandbox.put("/sandbox/faults", json={"provider": "esim_access", "call": "order", "kind": "duplicate_code"})
    assert order(esim_access, "dup-1", plan)["errorCode"] == "310402"


def test_guard_first_fault_checks_the_price_before_the_reference(
    sandbox: httpx.Client, esim_access: httpx.Client
) -> None:
    plan = plans(esim_access, locationCode="JP")[0]
    made = order(esim_access, "first-1", plan)
    probe = {**plan, "price": 1}
    assert order(esim_access, "first-1", probe)["obj"] == made["obj"]
    sandbox.put("/sandbox/faults", json={"provider": "esim_access", "call": "order", "kind": "guard_first"})
    assert order(esim_access, "first-1", probe)["errorCode"] == "200005"
    assert order(esim_access, "first-1", plan)["obj"] == made["obj"]
    assert len(sold(sandbox, "first-1")) == 1


@pytest.mark.parametrize("refund", [True, False])
def test_a_failed_allocation_is_paid_back_or_not(
    sandbox: httpx.Client, esim_access: httpx.Client, refund: bool
) -> None:
    plan = plans(esim_access, locationCode="JP")[0]
    before = call(esim_access, "balance/query")["obj"]["balance"]
    params = {} if refund else {"refund": False}
    fault = {"provider": "esim_access", "call": "order", "kind": "fail_after_accept", "params": params}
    sandbox.put("/sandbox/faults", json=fault)
    order(esim_access, "fail-1", plan)
    deadline = time.monotonic() + 10
    while sold(sandbox, "fail-1")[0]["state"] != "failed":
        assert time.monotonic() < deadline
    assert before - call(esim_access, "balance/query")["obj"]["balance"] == (0 if refund else plan["price"])


def test_price_and_amount_guard(sandbox: httpx.Client, esim_access: httpx.Client) -> None:
    plan = plans(esim_access, locationCode="JP")[0]
    line = {"packageCode": plan["slug"], "count": 1, "price": plan["price"] + 100}
    assert call(esim_access, "esim/order", transactionId="g-1", packageInfoList=[line])["errorCode"] == "200005"
    line["price"] = plan["price"]
    assert (
        call(esim_access, "esim/order", transactionId="g-1", packageInfoList=[line], amount=1)["errorCode"] == "200006"
    )
    assert sold(sandbox, "g-1") == []


def test_a_price_change_is_caught_by_the_guard(sandbox: httpx.Client, esim_access: httpx.Client) -> None:
    plan = plans(esim_access, locationCode="JP")[0]
    fault = {"provider": "esim_access", "call": "order", "kind": "price_change", "params": {"percent": 50}}
    sandbox.put("/sandbox/faults", json=fault)
    assert order(esim_access, "pc-1", plan)["errorCode"] == "200005"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"packageInfoList": []}, "000105"),
        ({"transactionId": "x" * 51, "packageInfoList": []}, "000107"),
        ({"transactionId": "b-1", "packageInfoList": []}, "200008"),
        ({"transactionId": "b-1", "packageInfoList": [{"packageCode": "NOPE_1_7", "count": 1}]}, "310241"),
        ({"transactionId": "b-1", "packageInfoList": [{"packageCode": "NOPE_1_7", "count": 31}]}, "200008"),
    ],
)
def test_bad_orders_carry_the_documented_codes(esim_access: httpx.Client, body: dict[str, Any], code: str) -> None:
    assert call(esim_access, "esim/order", **body)["errorCode"] == code


def test_cancelled_esim_returns_the_price_and_its_iccid_is_used_again(
    sandbox: httpx.Client, esim_access: httpx.Client
) -> None:
    plan = plans(esim_access, locationCode="JP")[0]
    first = profiles(esim_access, order(esim_access, "c-1", plan)["obj"]["orderNo"])[0]
    before = call(esim_access, "balance/query")["obj"]["balance"]
    assert call(esim_access, "esim/cancel", esimTranNo=first["esimTranNo"])["success"] is True
    assert call(esim_access, "balance/query")["obj"]["balance"] - before == plan["price"]
    assert call(esim_access, "esim/cancel", esimTranNo=first["esimTranNo"])["errorCode"] == "200002"
    second = profiles(esim_access, order(esim_access, "c-2", plan)["obj"]["orderNo"])[0]
    assert second["iccid"] == first["iccid"]
    assert second["esimTranNo"] != first["esimTranNo"]
    assert [row["state"] for row in sold(sandbox, "c-1")] == ["cancelled"]


def test_query_by_time_window_finds_the_transaction(esim_access: httpx.Client) -> None:
    plan = plans(esim_access, locationCode="JP")[0]
    profiles(esim_access, order(esim_access, "w-1", plan)["obj"]["orderNo"])
    window = {"startTime": "2020-01-01T00:00:00Z", "endTime": "2999-01-01T00:00:00Z"}
    found = call(esim_access, "esim/query", pager={"pageNum": 1, "pageSize": 5}, **window)
    assert "w-1" in {esim["transactionId"] for esim in found["obj"]["esimList"]}
    assert call(esim_access, "esim/query", orderNo="B0", pager={"pageNum": 1, "pageSize": 5})["errorCode"] == "310272"
    assert call(esim_access, "esim/query", orderNo="B0")["errorCode"] == "000105"


def test_top_up_adds_volume_once_per_reference(sandbox: httpx.Client, esim_access: httpx.Client) -> None:
    plan = plans(esim_access, locationCode="JP")[0]
    esim = profiles(esim_access, order(esim_access, "u-1", plan)["obj"]["orderNo"])[0]
    choice = plans(esim_access, type="TOPUP", iccid=esim["iccid"])[0]
    body = {"esimTranNo": esim["esimTranNo"], "packageCode": choice["packageCode"], "transactionId": "u-2"}
    first, again = call(esim_access, "esim/topup", **body), call(esim_access, "esim/topup", **body)
    assert first["obj"] == again["obj"]
    assert first["obj"]["totalVolume"] == esim["totalVolume"] + choice["volume"]
    assert [row["kind"] for row in sold(sandbox, "u-2")] == ["topup"]


def test_day_passes_are_priced_per_day(esim_access: httpx.Client) -> None:
    daily = plans(esim_access, dataType="2")[0]
    before = call(esim_access, "balance/query")["obj"]["balance"]
    line = {"packageCode": daily["packageCode"], "count": 1, "price": daily["price"], "periodNum": 5}
    done = call(esim_access, "esim/order", transactionId="d-1", packageInfoList=[line], amount=daily["price"] * 5)
    assert done["success"] is True
    assert before - call(esim_access, "balance/query")["obj"]["balance"] == daily["price"] * 5


def test_a_catalogue_that_never_ends_keeps_streaming(sandbox: httpx.Client, esim_access: httpx.Client) -> None:
    sandbox.put("/sandbox/faults", json={"provider": "esim_access", "call": "catalogue", "kind": "endless_pages"})
    read = 0
    with esim_access.stream("POST", "/package/list", json={}) as answer:
        for chunk in answer.iter_raw():
            read += len(chunk)
            if read > 3_000_000:
                break
    assert read > 3_000_000


def test_huge_name_and_negative_price_bend_the_list_only_while_asked(
    sandbox: httpx.Client, esim_access: httpx.Client
) -> None:
    faults = [
        {"provider": "esim_access", "call": "catalogue", "kind": "huge_name", "params": {"bytes": 100_000}, "times": 1},
        {"provider": "esim_access", "call": "catalogue", "kind": "negative_price", "times": 1},
    ]
    sandbox.put("/sandbox/faults", json=faults)
    bent = plans(esim_access)
    assert len(bent[0]["name"]) == 100_000
    assert bent[0]["price"] < 0
    assert json.dumps(plans(esim_access)[0]).count("A" * 100) == 0
