"""eSIM Go's contract as the sandbox speaks it."""

import time
from typing import Any

import httpx
import pytest


def item_of(esim_go: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = esim_go.get("/catalogue", params={"countries": "JP"}).json()["bundles"][0]
    return found


def buy(esim_go: httpx.Client, item: str, quantity: int = 1, **more: Any) -> httpx.Response:
    line = {"type": "bundle", "item": item, "quantity": quantity, "allowReassign": False} | more.pop("line", {})
    return esim_go.post("/orders", json={"type": "transaction", "assign": True, "order": [line]} | more)


def balance(esim_go: httpx.Client) -> float:
    return float(esim_go.get("/organisation").json()["balance"])


def sold(sandbox: httpx.Client) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = sandbox.get("/sandbox/purchases", params={"provider": "esim_go"}).json()["purchases"]
    return rows


def test_a_wrong_key_is_403_and_401_on_orders(sandbox: httpx.Client) -> None:
    assert sandbox.get("/esim_go/v2.5/catalogue").status_code == 403
    assert sandbox.post("/esim_go/v2.5/orders", json={}).status_code == 401


def test_pages_walk_the_whole_catalogue(esim_go: httpx.Client) -> None:
    names: set[str] = set()
    page, pages = 1, 1
    while page <= pages:
        answer = esim_go.get("/catalogue", params={"page": page, "perPage": 150}).json()
        names |= {bundle["name"] for bundle in answer["bundles"]}
        page, pages = page + 1, answer["pageCount"]
    assert len(names) == answer["rows"] == 400


def test_regional_bundles_have_a_pseudo_country_and_roaming(esim_go: httpx.Client) -> None:
    bundles = esim_go.get("/catalogue", params={"perPage": 1000}).json()["bundles"]
    region = next(bundle for bundle in bundles if bundle["roamingEnabled"])
    assert region["countries"][0]["iso"] == region["countries"][0]["name"]


def test_validate_prices_without_buying(sandbox: httpx.Client, esim_go: httpx.Client) -> None:
    item = item_of(esim_go)
    line = {"type": "bundle", "item": item["name"], "quantity": 1}
    answer = esim_go.post("/orders", json={"type": "validate", "assign": True, "order": [line]}).json()
    assert answer["valid"] is True
    assert answer["total"] == item["price"]
    assert sold(sandbox) == []


def test_transaction_delivers_and_is_found_by_time(sandbox: httpx.Client, esim_go: httpx.Client) -> None:
    before = balance(esim_go)
    answer = buy(esim_go, item_of(esim_go)["name"]).json()
    assert answer["status"] == "completed"
    assert len(answer["createdDate"].split(".")[1]) == 10
    iccid = answer["order"][0]["iccids"][0]
    assert round(before - balance(esim_go), 2) == answer["total"]
    listed = esim_go.get(
        "/orders", params=[("createdAt", "gte:2026-01-01T00:00:00Z"), ("createdAt", "lte:2999-01-01T00:00:00Z")]
    )
    assert listed.json()["orders"][0]["order"][0]["iccids"] == [iccid]
    assert esim_go.get("/orders", params={"createdAt": "lte:2020-01-01T00:00:00Z"}).json()["orders"] == []
    assert esim_go.get(f"/orders/{answer['orderReference']}").json()["order"] == answer["order"]
    assert [row["iccid"] for row in sold(sandbox)] == [iccid]


def test_more_than_five_are_made_in_the_background(sandbox: httpx.Client, esim_go: httpx.Client) -> None:
    answer = buy(esim_go, item_of(esim_go)["name"], 6).json()
    assert answer["status"] == "processing"
    assert "esims" not in answer["order"][0]
    deadline = time.monotonic() + 10
    while (order := esim_go.get(f"/orders/{answer['orderReference']}").json())["status"] != "completed":
        assert time.monotonic() < deadline
    assert len(order["order"][0]["iccids"]) == 6


def test_a_503_order_is_being_worked_on(sandbox: httpx.Client, esim_go: httpx.Client) -> None:
    fault = {"provider": "esim_go", "call": "order", "kind": "async_late", "times": 1, "params": {"seconds": 0.01}}
    sandbox.put("/sandbox/faults", json=fault)
    answer = buy(esim_go, item_of(esim_go)["name"])
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    deadline = time.monotonic() + 10
    while [row["state"] for row in sold(sandbox)] != ["delivered"]:
        assert time.monotonic() < deadline


def test_a_200_may_carry_a_failed_order_that_costs_nothing(sandbox: httpx.Client, esim_go: httpx.Client) -> None:
    before = balance(esim_go)
    sandbox.put(
        "/sandbox/faults", json={"provider": "esim_go", "call": "order", "kind": "fail_after_accept", "times": 1}
    )
    answer = buy(esim_go, item_of(esim_go)["name"])
    assert (answer.status_code, answer.json()["status"]) == (200, "failed")
    assert balance(esim_go) == before


def test_inventory_is_applied_and_refunded(sandbox: httpx.Client, esim_go: httpx.Client) -> None:
    before, item = balance(esim_go), item_of(esim_go)
    assert buy(esim_go, item["name"], 2, assign=False).json()["assigned"] is False
    available = esim_go.get("/inventory").json()["bundles"][0]["available"][0]
    assert available["remaining"] == 2
    applied = esim_go.post("/esims/apply", json={"name": item["name"], "allowReassign": False}).json()
    iccid = applied["esims"][0]["iccid"]
    found = esim_go.get(
        "/esims/assignments", params={"reference": applied["applyReference"]}, headers={"accept": "application/json"}
    )
    assert found.json()["iccid"] == iccid
    refunded = esim_go.post("/inventory/refund", json={"usageId": available["id"], "quantity": 1})
    assert refunded.status_code == 200
    assert esim_go.get("/inventory").json()["bundles"] == []
    assert round(before - balance(esim_go), 2) == item["price"]
    assert sorted(row["state"] for row in sold(sandbox)) == ["delivered", "refunded"]


def test_revoked_bundle_returns_to_the_inventory(esim_go: httpx.Client) -> None:
    name = item_of(esim_go)["name"]
    iccid = buy(esim_go, name).json()["order"][0]["iccids"][0]
    answer = esim_go.delete(f"/esims/{iccid}/bundles/{name}")
    assert "inventory" in answer.json()["status"]
    assert esim_go.get("/inventory").json()["bundles"][0]["available"][0]["remaining"] == 1


def test_top_up_puts_a_second_bundle_on_the_same_esim(sandbox: httpx.Client, esim_go: httpx.Client) -> None:
    name = item_of(esim_go)["name"]
    iccid = buy(esim_go, name).json()["order"][0]["iccids"][0]
    assert esim_go.get(f"/esims/{iccid}/compatible/{name}").json() == {"compatible": True}
    again = buy(esim_go, name, line={"iccids": [iccid]}).json()
    assert again["order"][0]["iccids"] == [iccid]
    assert len(esim_go.get(f"/esims/{iccid}/bundles").json()["bundles"][0]["assignments"]) == 2
    assert [row["kind"] for row in sold(sandbox)] == ["sim", "topup"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"type": "buy"}, "type"),
        ({"type": "transaction", "order": [{"item": "esim_none", "quantity": 1}]}, "Bundle not found"),
        ({"type": "transaction", "order": []}, "Bundle not found"),
    ],
)
def test_bad_orders_are_400(esim_go: httpx.Client, body: dict[str, Any], text: str) -> None:
    answer = esim_go.post("/orders", json=body)
    assert answer.status_code == 400
    assert text in answer.json()["message"]


def test_a_fault_of_the_line_passes_over_the_dry_run(sandbox: httpx.Client, esim_go: httpx.Client) -> None:
    name = item_of(esim_go)["name"]
    sandbox.put("/sandbox/faults", json={"provider": "esim_go", "call": "order", "kind": "reset_after", "times": 1})
    line = {"type": "bundle", "item": name, "quantity": 1}
    assert esim_go.post("/orders", json={"type": "validate", "assign": True, "order": [line]}).status_code == 200
    with pytest.raises(httpx.TransportError):
        buy(esim_go, name)
    assert [row["state"] for row in sold(sandbox)] == ["delivered"]
