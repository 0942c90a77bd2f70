"""eSIMCard's contract as the sandbox speaks it."""

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest


def packages(client: httpx.Client, kind: str = "DATA-ONLY") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    page, last = 1, 1
    while page <= last:
        answer = client.get("/packages", params={"package_type": kind, "page": page, "per_page": 100}).json()
        rows += answer["data"]
        page, last = page + 1, answer["meta"]["lastPage"]
    return rows


def balance(client: httpx.Client) -> float:
    return float(client.get("/balance").json()["balance"])


def sold(sandbox: httpx.Client) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = sandbox.get("/sandbox/purchases", params={"provider": "esim_card"}).json()["purchases"]
    return rows


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline


def test_wrong_login_and_token_answer_401_in_two_shapes(sandbox: httpx.Client) -> None:
    base = "/esim_card/api/developer/reseller"
    wrong = sandbox.post(f"{base}/login", json={"email": "sandbox@numnaroad.test", "password": "no"})
    assert (wrong.status_code, wrong.json()["status"]) == (401, False)
    assert sandbox.get(f"{base}/packages").json() == {"message": "Unauthenticated."}
    assert sandbox.post(f"{base}/login", json={}).status_code == 422


def test_pages_hold_each_package_once_and_ignore_limit(esim_card: httpx.Client) -> None:
    rows = packages(esim_card) + packages(esim_card, "DATA-VOICE-SMS")
    assert len(rows) == len({row["id"] for row in rows}) == 400
    assert len(esim_card.get("/packages", params={"limit": 100, "perPage": 100}).json()["data"]) == 20


def test_prices_are_text_and_countries_repeat_per_network(esim_card: httpx.Client) -> None:
    region = next(row for row in packages(esim_card) if len(row["coverage"]) > 2)
    isos = [row["iso"] for row in region["coverage"]]
    assert len(isos) == 2 * len(set(isos))
    assert isinstance(region["price"], str)
    detail = esim_card.get(f"/package/detail/{region['id']}").json()["data"]
    assert detail["price"] == region["price"]
    assert len(detail["romaing_countries"]) == len(set(isos))


def test_places_list_their_packages(esim_card: httpx.Client) -> None:
    japan = next(row for row in esim_card.get("/packages/country").json()["data"] if row["code"] == "jp")
    rows = esim_card.get(f"/packages/country/{japan['id']}", params={"package_type": "DATA-ONLY"}).json()["data"]
    assert all("JP" in {cover["iso"] for cover in row["coverage"]} for row in rows)
    assert rows
    assert esim_card.get("/packages/global").json()["data"]
    assert esim_card.get("/packages/nowhere").status_code == 404
    assert "jp" in {row["code"] for row in esim_card.get("/pricing").json()["data"]["countries"]}


def test_instant_purchase_delivers_and_takes_the_price(sandbox: httpx.Client, esim_card: httpx.Client) -> None:
    before, package = balance(esim_card), packages(esim_card)[0]
    data = esim_card.post("/package/purchase", json={"package_type_id": package["id"]}).json()["data"]
    sim = data["sim"]
    assert data["sim_applied"] is True
    assert sim["qr_code_text"] == f"LPA:1${sim['smdp_address']}${sim['matching_id']}"
    assert round(before - balance(esim_card), 2) == float(package["price"])
    assert esim_card.get("/my-esims").json()["data"][0]["id"] == sim["id"]
    assert esim_card.get(f"/bundles/{data['package']['id']}").json()["data"][0]["package"] == package["name"]
    assert [(row["iccid"], row["reference"]) for row in sold(sandbox)] == [(sim["iccid"], None)]


def test_async_purchase_gives_a_handle_that_fills_in(sandbox: httpx.Client, esim_card: httpx.Client) -> None:
    data = esim_card.post("/package/purchase/async", json={"package_type_id": packages(esim_card)[0]["id"]}).json()[
        "data"
    ]
    assert data["sim_applied"] is False

    def ready() -> bool:
        return bool(esim_card.get(f"/my-esims/{data['sim_id']}").json()["data"]["sim"].get("qr_code_text"))

    until(ready)
    assert esim_card.get(f"/order/{data['order_id']}").json()["data"][0]["status"] == "Completed"


def test_delayed_purchase_has_no_id_and_turns_up_in_the_list(sandbox: httpx.Client, esim_card: httpx.Client) -> None:
    sandbox.put("/sandbox/faults", json={"provider": "esim_card", "call": "order", "kind": "delayed", "times": 1})
    answer = esim_card.post("/package/purchase", json={"package_type_id": packages(esim_card)[0]["id"]}).json()
    assert set(answer["data"]) == {"sim_applied", "message"}
    until(lambda: bool(esim_card.get("/my-bundles").json()["data"]))


def test_an_order_that_fails_later_shows_it_and_pays_back(sandbox: httpx.Client, esim_card: httpx.Client) -> None:
    before = balance(esim_card)
    sandbox.put("/sandbox/faults", json={"provider": "esim_card", "call": "order", "kind": "fail_after_accept"})
    data = esim_card.post("/package/purchase/async", json={"package_type_id": packages(esim_card)[0]["id"]}).json()[
        "data"
    ]
    until(lambda: esim_card.get(f"/order/{data['order_id']}").json()["data"][0]["status"] == "Failed")
    assert balance(esim_card) == before
    assert [row["state"] for row in sold(sandbox)] == ["failed"]


def test_top_up_by_iccid_and_usage(sandbox: httpx.Client, esim_card: httpx.Client) -> None:
    package = next(row for row in packages(esim_card) if row["data_unit"] == "GB" and not row["unlimited"])
    iccid = esim_card.post("/package/purchase", json={"package_type_id": package["id"]}).json()["data"]["sim"]["iccid"]
    assert esim_card.post("/can-topup-esim", json={"iccid": iccid}).json()["data"] == {"topup_available": True}
    esim_card.post("/package/purchase", json={"package_type_id": package["id"], "iccid": iccid})
    usage = esim_card.get(f"/my-sim/{iccid}/usage").json()["data"]
    assert usage["initial_data_quantity"] == usage["rem_data_quantity"] == 2 * package["data_quantity"]
    assert [row["kind"] for row in sold(sandbox)] == ["sim", "topup"]


def test_unlimited_usage_is_the_word(esim_card: httpx.Client) -> None:
    package = next((row for row in packages(esim_card) if row["unlimited"]), None)
    assert package is not None
    sim = esim_card.post("/package/purchase", json={"package_type_id": package["id"]}).json()["data"]["sim"]
    assert esim_card.get(f"/my-sim/{sim['id']}/usage").json()["data"]["rem_data_quantity"] == "Unlimited"


@pytest.mark.parametrize(
    ("kind", "status", "word"),
    [("out_of_stock", 200, "available"), ("insufficient_balance", 400, "balance"), ("refuse", 200, "refused")],
)
def test_refusals_say_status_false(
    sandbox: httpx.Client, esim_card: httpx.Client, kind: str, status: int, word: str
) -> None:
    sandbox.put("/sandbox/faults", json={"provider": "esim_card", "call": "order", "kind": kind})
    answer = esim_card.post("/package/purchase", json={"package_type_id": "x"})
    assert (answer.status_code, answer.json()["status"]) == (status, False)
    assert word in answer.json()["message"]
    assert sold(sandbox) == []
