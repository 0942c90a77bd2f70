"""Airalo's contract as the sandbox speaks it."""

import hashlib
import hmac
import json
from typing import Any

import httpx
import pytest

from sandbox.config import SandboxConfig
from sandbox.serve import served


def luhn_holds(iccid: str) -> bool:
    digits = [int(digit) for digit in reversed(iccid)]
    return sum(d if n % 2 == 0 else (2 * d - 9 if d > 4 else 2 * d) for n, d in enumerate(digits)) % 10 == 0


def japan(airalo: httpx.Client) -> list[dict[str, Any]]:
    page = airalo.get("/packages", params={"filter[country]": "JP", "include": "topup"}).json()
    return [package for operator in page["data"][0]["operators"] for package in operator["packages"]]


def first_sim(airalo: httpx.Client) -> str:
    return str(next(package["id"] for package in japan(airalo) if package["type"] == "sim"))


def sold(sandbox: httpx.Client, reference: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = sandbox.get("/sandbox/purchases", params={"reference": reference}).json()["purchases"]
    return rows


def test_wrong_credentials_get_the_documented_answers(sandbox: httpx.Client) -> None:
    form = {"client_id": "sandbox", "client_secret": "no", "grant_type": "client_credentials"}
    assert sandbox.post("/airalo/v2/token", data=form).status_code == 401
    assert sandbox.post("/airalo/v2/token", data={**form, "client_id": "no"}).json()["data"]["client_id"]
    assert sandbox.get("/airalo/v2/packages").status_code == 401


def test_pages_walk_the_whole_catalogue_in_both_shapes(airalo: httpx.Client) -> None:
    whole = {entry["slug"] for entry in airalo.get("/packages").json()["data"]}
    walked, shapes, page, last = set(), set(), 1, 1
    while page <= last:
        answer = airalo.get("/packages", params={"limit": 20, "page": page}).json()
        shapes.add(type(answer["data"]))
        entries = answer["data"].values() if isinstance(answer["data"], dict) else answer["data"]
        walked |= {entry["slug"] for entry in entries}
        last, page = answer["meta"]["last_page"], page + 1
        assert isinstance(answer["meta"]["per_page"], str)
    assert walked == whole
    assert shapes == {dict, list}


def test_top_ups_appear_only_when_asked_for(airalo: httpx.Client) -> None:
    assert {package["type"] for package in japan(airalo)} == {"sim", "topup"}
    page = airalo.get("/packages", params={"filter[country]": "JP"}).json()
    assert {p["type"] for o in page["data"][0]["operators"] for p in o["packages"]} == {"sim"}


def test_order_delivers_esims_and_takes_the_net_price(sandbox: httpx.Client, airalo: httpx.Client) -> None:
    before = airalo.get("/balance").json()["data"]["balances"]["availableBalance"]["amount"]
    order = airalo.post("/orders", json={"package_id": first_sim(airalo), "quantity": 2, "description": "r-1"}).json()
    sims = order["data"]["sims"]
    assert order["data"]["quantity"] == "2"
    assert len({sim["iccid"] for sim in sims}) == 2
    assert all(luhn_holds(sim["iccid"]) and sim["iccid"].startswith("89") for sim in sims)
    assert sims[0]["qrcode"] == f"LPA:1${sims[0]['lpa']}${sims[0]['matching_id']}"
    after = airalo.get("/balance").json()["data"]["balances"]["availableBalance"]["amount"]
    assert round(before - after, 2) == round(2 * order["data"]["net_price"], 2)
    assert {row["iccid"] for row in sold(sandbox, "r-1")} == {sim["iccid"] for sim in sims}


def test_description_filter_is_like_and_amounts_are_text_in_lists(airalo: httpx.Client) -> None:
    for reference in ("like-1", "like-10"):
        airalo.post("/orders", json={"package_id": first_sim(airalo), "quantity": 1, "description": reference})
    found = airalo.get("/orders", params={"filter[description]": "like-1", "include": "sims,status"}).json()
    assert {row["description"] for row in found["data"]} == {"like-1", "like-10"}
    assert isinstance(found["data"][0]["price"], str)
    assert found["data"][0]["status"]["slug"] == "completed"
    assert airalo.get("/orders/1").status_code == 401


@pytest.mark.parametrize(
    ("body", "field"), [({"quantity": 1}, "package_id"), ({"package_id": "x", "quantity": 1}, "package_id")]
)
def test_unknown_package_is_a_validation_error(airalo: httpx.Client, body: dict[str, Any], field: str) -> None:
    answer = airalo.post("/orders", json=body)
    assert answer.status_code == 422
    assert field in answer.json()["data"]


def test_quantity_over_fifty_is_refused(airalo: httpx.Client) -> None:
    answer = airalo.post("/orders", data={"package_id": first_sim(airalo), "quantity": "51"})
    assert "quantity" in answer.json()["data"]


def test_top_up_of_a_foreign_package_is_refused_and_a_right_one_booked(
    airalo: httpx.Client, sandbox: httpx.Client
) -> None:
    order = airalo.post("/orders", json={"package_id": first_sim(airalo), "quantity": 1}).json()["data"]
    iccid = order["sims"][0]["iccid"]
    wrong = airalo.post("/orders/topups", json={"package_id": order["package_id"], "iccid": iccid})
    assert wrong.json()["data"]["package_id"] == "invalid topup package"
    choice = airalo.get(f"/sims/{iccid}/topups").json()["data"][0]["id"]
    done = airalo.post("/orders/topups", json={"package_id": choice, "iccid": iccid, "description": "t-1"}).json()
    assert done["data"]["type"] == "topup"
    assert len(airalo.get(f"/sims/{iccid}/packages").json()["data"]) == 2
    assert [(row["kind"], row["iccid"]) for row in sold(sandbox, "t-1")] == [("topup", iccid)]


def test_unknown_iccid_answers_404(airalo: httpx.Client) -> None:
    assert airalo.get("/sims/8900000000000000000/usage").status_code == 404


def test_async_order_comes_by_signed_webhook(airalo: httpx.Client, sandbox: httpx.Client, receiver: Any) -> None:
    body = {"package_id": first_sim(airalo), "quantity": 1, "description": "as-1", "webhook_url": receiver.url}
    accepted = airalo.post("/orders-async", json=body)
    assert accepted.status_code == 202
    headers, raw = receiver.next()
    assert headers["airalo-signature"] == hmac.new(b"sandbox-secret", raw, hashlib.sha512).hexdigest()
    assert json.loads(raw)["data"]["request_id"] == accepted.json()["data"]["request_id"]
    assert [row["state"] for row in sold(sandbox, "as-1")] == ["delivered"]


def test_async_order_that_fails_later_gives_the_money_back(
    airalo: httpx.Client, sandbox: httpx.Client, receiver: Any
) -> None:
    sandbox.put("/sandbox/faults", json={"provider": "airalo", "call": "order", "kind": "fail_after_accept"})
    airalo.post(
        "/orders-async",
        json={"package_id": first_sim(airalo), "quantity": 1, "description": "f", "webhook_url": receiver.url},
    )
    assert "reason" in json.loads(receiver.next()[1])
    assert [row["state"] for row in sold(sandbox, "f")] == ["failed"]


def test_opt_in_asks_the_address_with_head(airalo: httpx.Client, receiver: Any) -> None:
    good = airalo.post("/notifications/opt-in", json={"type": "async_orders", "webhook_url": receiver.url})
    assert good.json()["data"]["notification"]["contact_point"] == receiver.url
    dead = airalo.post("/notifications/opt-in", json={"type": "async_orders", "webhook_url": "http://127.0.0.1:9/"})
    assert dead.status_code == 422


def test_token_is_limited_to_three_a_minute() -> None:
    with served(SandboxConfig(plans_per_provider=10)) as sandbox, httpx.Client(base_url=sandbox.base_url) as client:
        form = {"client_id": "sandbox", "client_secret": "sandbox-secret", "grant_type": "client_credentials"}
        codes = [client.post("/airalo/v2/token", data=form).status_code for _ in range(8)]
    assert 429 in codes
    assert codes[0] == 200
