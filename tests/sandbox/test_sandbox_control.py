"""Control routes: faults asked for and refused, purchases listed, reset, use of eSIMs, pages."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from sandbox.config import SandboxConfig
from sandbox.serve import served


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ({"provider": "nobody", "kind": "slow"}, "esim_access"),
        ({"provider": "airalo", "kind": "nothing"}, "reset_after"),
        ({"provider": "airalo", "call": "dance", "kind": "slow"}, "catalogue"),
        ({"kind": "slow", "times": 0}, "times"),
        ({"kind": "slow", "probability": 2}, "probability"),
        ({"kind": "slow", "params": []}, "params"),
        ({"kind": "slow", "colour": "red"}, "colour"),
        ("slow", "object"),
    ],
)
def test_a_fault_that_cannot_be_is_refused_with_what_can(sandbox: httpx.Client, fault: Any, word: str) -> None:
    answer = sandbox.put("/sandbox/faults", json=fault)
    assert answer.status_code == 422
    assert word in answer.json()["detail"]


def test_what_struck_is_counted_when_the_fault_is_over_too(sandbox: httpx.Client, airalo: httpx.Client) -> None:
    def struck() -> int:
        return int(sandbox.get("/sandbox/faults").json()["struck"].get("airalo balance error_status", 0))

    before = struck()
    sandbox.put("/sandbox/faults", json={"provider": "airalo", "call": "balance", "kind": "error_status", "times": 1})
    assert airalo.get("balance").status_code == 500
    assert airalo.get("balance").status_code == 200
    assert struck() == before + 1


def test_the_clock_can_be_put_ahead_and_back(sandbox: httpx.Client) -> None:
    real = datetime.fromisoformat(sandbox.put("/sandbox/clock", json={"ahead_seconds": 0}).json()["now"])
    ahead = datetime.fromisoformat(sandbox.put("/sandbox/clock", json={"ahead_seconds": 3_600}).json()["now"])
    assert ahead - real >= timedelta(hours=1)
    back = datetime.fromisoformat(sandbox.put("/sandbox/clock", json={"ahead_seconds": 0}).json()["now"])
    assert back < ahead


@pytest.mark.parametrize("body", [{}, {"ahead_seconds": -1}, {"ahead_seconds": "soon"}, {"ahead_seconds": True}, []])
def test_a_clock_that_cannot_be_is_refused(sandbox: httpx.Client, body: Any) -> None:
    answer = sandbox.put("/sandbox/clock", json=body)
    assert answer.status_code == 422
    assert "ahead_seconds" in answer.json()["detail"]


def test_a_list_is_taken_whole_or_not_at_all(sandbox: httpx.Client) -> None:
    good = {"provider": "airalo", "call": "order", "kind": "refuse"}
    assert sandbox.put("/sandbox/faults", json=[good, {"kind": "nothing"}]).status_code == 422
    assert sandbox.get("/sandbox/faults").json()["faults"] == []
    twice = sandbox.put("/sandbox/faults", json=[good, good | {"times": 3}]).json()["faults"]
    assert [fault["times"] for fault in twice] == [3]
    assert sandbox.put("/sandbox/faults", content=b"{").status_code == 422
    assert sandbox.delete("/sandbox/faults").json()["faults"] == []


def test_a_fault_counts_down_only_where_it_strikes(sandbox: httpx.Client, airalo: httpx.Client) -> None:
    sandbox.put("/sandbox/faults", json={"provider": "airalo", "call": "balance", "kind": "error_status", "times": 1})
    assert airalo.get("/packages", params={"limit": 1}).status_code == 200
    assert airalo.get("/balance").status_code == 500
    assert airalo.get("/balance").status_code == 200


@pytest.mark.parametrize(
    ("kind", "params", "bought"),
    [
        ("timeout_before", {"seconds": 0.05}, 0),
        ("reset_before", {}, 0),
        ("timeout_after", {"seconds": 0.05}, 1),
        ("reset_after", {}, 1),
    ],
)
def test_a_broken_line_gives_no_answer_and_the_books_tell_the_truth(
    sandbox: httpx.Client, airalo: httpx.Client, kind: str, params: dict[str, float], bought: int
) -> None:
    package = airalo.get("/packages", params={"limit": 1}).json()["data"][0]["operators"][0]["packages"][0]["id"]
    sandbox.put("/sandbox/faults", json={"provider": "airalo", "call": "order", "kind": kind, "params": params})
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        airalo.post("/orders", json={"package_id": package, "quantity": 1, "description": kind})
    assert sandbox.get("/sandbox/purchases", params={"reference": kind}).json()["total"] == bought


def test_a_client_that_gives_up_first_ends_the_hang(sandbox: httpx.Client, airalo: httpx.Client) -> None:
    sandbox.put("/sandbox/faults", json={"provider": "airalo", "call": "balance", "kind": "timeout_before"})
    with pytest.raises(httpx.ReadTimeout):
        airalo.get("/balance", timeout=0.05)


@pytest.mark.parametrize(
    ("kind", "status"), [("malformed", 200), ("html", 200), ("html_after", 200), ("error_after", 503)]
)
def test_answers_that_are_no_answers(sandbox: httpx.Client, airalo: httpx.Client, kind: str, status: int) -> None:
    sandbox.put("/sandbox/faults", json={"provider": "airalo", "call": "balance", "kind": kind, "times": 1})
    answer = airalo.get("/balance")
    assert answer.status_code == status
    if status == 200:
        with pytest.raises(json.JSONDecodeError):
            answer.json()


@pytest.mark.parametrize(
    "kind", ["empty_catalogue", "delisted", "price_change", "zero_price", "broken_plan", "foreign_currency"]
)
@pytest.mark.parametrize("slug", ["airalo", "esim_access", "esim_go", "mobimatter", "esim_card"])
def test_every_catalogue_can_be_bent_and_is_straight_again(
    sandbox: httpx.Client, request: pytest.FixtureRequest, slug: str, kind: str
) -> None:
    client: httpx.Client = request.getfixturevalue(slug)

    def read() -> bytes:
        if slug == "esim_access":
            return client.post("/package/list", json={}).content
        path = {"esim_go": "/catalogue", "mobimatter": "/products"}.get(slug, "/packages")
        return client.get(path, params={"limit": 5} if slug == "airalo" else {}).content

    straight = read()
    sandbox.put("/sandbox/faults", json={"provider": slug, "call": "catalogue", "kind": kind})
    assert read() != straight
    assert json.loads(read())
    sandbox.delete("/sandbox/faults")
    assert read() == straight


def test_purchases_are_filtered_by_provider_and_time(sandbox: httpx.Client, esim_card: httpx.Client) -> None:
    package = esim_card.get("/packages").json()["data"][0]["id"]
    esim_card.post("/package/purchase", json={"package_type_id": package})
    found = sandbox.get("/sandbox/purchases").json()
    assert found["counts"] == {"esim_card": {"delivered": 1}}
    assert sandbox.get("/sandbox/purchases", params={"since": "2999-01-01T00:00:00Z"}).json()["total"] == 0
    assert sandbox.get("/sandbox/purchases", params={"provider": "airalo"}).json()["total"] == 0
    assert sandbox.get("/sandbox/purchases", params={"provider": "x"}).status_code == 422
    assert sandbox.get("/sandbox/purchases", params={"since": "soon"}).status_code == 422
    sandbox.post("/sandbox/reset")
    assert sandbox.get("/sandbox/purchases").json()["total"] == 0


def test_home_page_links_everything(sandbox: httpx.Client) -> None:
    page = sandbox.get("/", follow_redirects=True).text
    for link in ("/inbox", "/slack", "/rates", "/sandbox/purchases", "/sandbox/charges", "/sandbox/faults"):
        assert f'href="{link}"' in page
        assert sandbox.get(link).status_code == 200
    assert sandbox.get("/healthz").json() == {"status": "ok"}


def test_wallets_can_be_emptied(sandbox: httpx.Client, esim_card: httpx.Client) -> None:
    assert sandbox.put("/sandbox/balances", json={"esim_card": "0.01"}).json()["esim_card"] == "0.01"
    package = esim_card.get("/packages").json()["data"][0]["id"]
    assert "balance" in esim_card.post("/package/purchase", json={"package_type_id": package}).json()["message"]
    assert sandbox.put("/sandbox/balances", json={"nobody": "1"}).status_code == 422


@pytest.fixture
def hooked(receiver: Any) -> Iterator[tuple[httpx.Client, Any]]:
    """A sandbox whose webhooks go to the receiver."""
    config = replace(
        SandboxConfig(plans_per_provider=60, async_seconds=0.01, rate_limits=False),
        api_url=receiver.url.removesuffix("/hook"),
    )
    with served(config) as sandbox, httpx.Client(base_url=sandbox.base_url, timeout=10) as client:
        yield client, receiver


def test_use_of_an_esim_go_esim_sends_signed_callbacks(hooked: tuple[httpx.Client, Any]) -> None:
    client, receiver = hooked
    client.headers["x-api-key"] = "sandbox-key"
    name = client.get("/esim_go/v2.5/catalogue").json()["bundles"][0]["name"]
    body = {"type": "transaction", "assign": True, "order": [{"item": name, "quantity": 1}]}
    iccid = client.post("/esim_go/v2.5/orders", json=body).json()["order"][0]["iccids"][0]
    assert client.put(f"/sandbox/esims/{iccid}", json={"used_percent": 85}).json()["state"] == "active"
    kinds = set()
    for _ in range(5):
        headers, raw = receiver.next()
        digest = hmac.new(b"sandbox-key", raw, hashlib.sha256)
        assert headers["x-signature-sha256"] in {digest.hexdigest(), base64.b64encode(digest.digest()).decode()}
        kinds.add(json.loads(raw)["alertType"])
    assert kinds == {"FirstAttachment", "FirstUse", "Utilisation"}
    state = client.get(f"/esim_go/v2.5/esims/{iccid}/bundles/{name}").json()["assignments"][0]
    assert state["bundleState"] == "active"
    assert state["remainingQuantity"] < state["initialQuantity"]


def test_use_of_an_esim_access_esim_sends_events_and_ends_cancelling(hooked: tuple[httpx.Client, Any]) -> None:
    client, receiver = hooked
    client.headers["rt-accesscode"] = "sandbox"
    base = "/esim_access/api/v1/open"
    plan = client.post(f"{base}/package/list", json={}).json()["obj"]["packageList"][0]
    line = {"packageCode": plan["packageCode"], "count": 1}
    client.post(f"{base}/esim/order", json={"transactionId": "t", "packageInfoList": [line]})
    event = json.loads(receiver.next()[1])
    assert (event["notifyType"], event["content"]["transactionId"]) == ("ORDER_STATUS", "t")
    query = {"orderNo": event["content"]["orderNo"], "pager": {"pageNum": 1, "pageSize": 5}}
    esim = client.post(f"{base}/esim/query", json=query).json()["obj"]["esimList"][0]
    client.put(f"/sandbox/esims/{esim['iccid']}", json={"used_percent": 60})
    got = {json.loads(receiver.next()[1])["notifyType"] for _ in range(2)}
    assert got == {"ESIM_STATUS", "DATA_USAGE"}
    refused = client.post(f"{base}/esim/cancel", json={"esimTranNo": esim["esimTranNo"]}).json()
    assert refused["errorCode"] == "200002"


@pytest.mark.parametrize(("kind", "times"), [("webhook_duplicate", 2), ("webhook_lost", 0)])
def test_webhooks_can_be_doubled_and_lost(hooked: tuple[httpx.Client, Any], kind: str, times: int) -> None:
    client, receiver = hooked
    client.headers["rt-accesscode"] = "sandbox"
    client.put("/sandbox/faults", json={"provider": "esim_access", "call": "webhook", "kind": kind, "times": 1})
    base = "/esim_access/api/v1/open"
    plan = client.post(f"{base}/package/list", json={}).json()["obj"]["packageList"][0]
    for reference in ("w-1", "w-2"):
        line = {"packageCode": plan["packageCode"], "count": 1}
        client.post(f"{base}/esim/order", json={"transactionId": reference, "packageInfoList": [line]})
    got = [json.loads(receiver.next()[1])["content"]["transactionId"] for _ in range(times + 1)]
    assert sorted(got) == ["w-1"] * times + ["w-2"]


def test_webhooks_can_come_out_of_order(hooked: tuple[httpx.Client, Any]) -> None:
    client, receiver = hooked
    client.headers["rt-accesscode"] = "sandbox"
    fault = {
        "provider": "esim_access",
        "call": "webhook",
        "kind": "webhook_reorder",
        "times": 1,
        "params": {"seconds": 5},
    }
    client.put("/sandbox/faults", json=fault)
    base = "/esim_access/api/v1/open"
    plan = client.post(f"{base}/package/list", json={}).json()["obj"]["packageList"][0]
    for reference in ("o-1", "o-2"):
        line = {"packageCode": plan["packageCode"], "count": 1}
        client.post(f"{base}/esim/order", json={"transactionId": reference, "packageInfoList": [line]})
    got = [json.loads(receiver.next()[1])["content"]["transactionId"] for _ in range(2)]
    assert got == ["o-2", "o-1"]


def test_a_fault_of_top_ups_leaves_orders_alone(
    sandbox: httpx.Client, esim_go: httpx.Client, esim_card: httpx.Client, mobimatter: httpx.Client
) -> None:
    sandbox.put("/sandbox/faults", json={"provider": "*", "call": "topup", "kind": "refuse"})
    name = esim_go.get("/catalogue").json()["bundles"][0]["name"]
    body = {"type": "transaction", "assign": True, "order": [{"item": name, "quantity": 1}]}
    iccid = esim_go.post("/orders", json=body).json()["order"][0]["iccids"][0]
    body["order"] = [{"item": name, "quantity": 1, "iccids": [iccid]}]
    assert esim_go.post("/orders", json=body).status_code == 400
    package = {"package_type_id": esim_card.get("/packages").json()["data"][0]["id"]}
    iccid = esim_card.post("/package/purchase", json=package).json()["data"]["sim"]["iccid"]
    assert esim_card.post("/package/purchase", json=package | {"iccid": iccid}).json()["status"] is False
    product = mobimatter.get("/products", params={"category": "esim_realtime"}).json()["result"][0]["productId"]
    root = mobimatter.post("/order", json={"productId": product}).json()["result"]["orderId"]
    assert mobimatter.put("/order/complete", json={"orderId": root}).status_code == 200
    assert mobimatter.post("/order", json={"productId": product, "addOnOrderIdentifier": root}).status_code == 400
