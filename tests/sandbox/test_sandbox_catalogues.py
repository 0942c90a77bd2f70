"""Generated and recorded catalogues: believable, repeatable, walkable, and everything in them can be bought."""

import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.config import BadSettingError, SandboxConfig, read_config
from sandbox.faults import SLUGS
from sandbox.geography import POPULAR, countries, destinations
from sandbox.plans import USUAL_COUNT, Plan, provider_plans
from sandbox.providers.ledger import with_luhn
from sandbox.serve import served


def test_the_world_has_some_190_countries_a_dozen_regions_and_the_globe() -> None:
    kinds = Counter(place.kind for place in destinations())
    assert kinds["country"] >= 190
    assert kinds["region"] >= 12
    assert kinds["global"] == 1
    assert all(iso in countries() for place in destinations() for iso in place.members)


@pytest.mark.parametrize("slug", SLUGS)
def test_a_catalogue_is_unique_varied_and_of_real_size(slug: str) -> None:
    plans = provider_plans(slug, 1)
    assert len(plans) == USUAL_COUNT[slug] == len({plan.key for plan in plans})
    assert {"country", "region", "global"} == {plan.destination.kind for plan in plans}
    assert set(POPULAR) <= {plan.destination.code for plan in plans}
    assert min(plan.cents for plan in plans) > 0
    assert all(plan.retail_cents > plan.cents for plan in plans)
    assert {1, 7, 30} <= {plan.shape.days for plan in plans}


def test_the_same_seed_gives_the_same_plans_and_another_seed_others() -> None:
    assert provider_plans("airalo", 1, 200) == provider_plans("airalo", 1, 200)
    assert provider_plans("airalo", 1, 200) != provider_plans("airalo", 2, 200)
    assert len(provider_plans("mobimatter", 1, 5000)) == 5000


def test_every_provider_is_cheapest_somewhere() -> None:
    cheapest: dict[tuple[Any, ...], Plan] = {}
    seen: Counter[tuple[Any, ...]] = Counter()
    for slug in SLUGS:
        for plan in provider_plans(slug, 1):
            key = (plan.coverage, plan.shape)
            seen[key] += 1
            if key not in cheapest or plan.cents < cheapest[key].cents:
                cheapest[key] = plan
    wins = Counter(plan.provider for key, plan in cheapest.items() if seen[key] > 1)
    assert set(wins) == set(SLUGS)
    assert min(wins.values()) > 50


def test_luhn_digits_are_right() -> None:
    assert with_luhn("7992739871") == "79927398713"


def test_settings_that_cannot_be_used_are_named() -> None:
    assert read_config({"SANDBOX_SEED": "7", "SANDBOX_PORT": ""}) == SandboxConfig(seed=7)
    bad = {
        "SEED": "x",
        "PORT": "-1",
        "RATE_LIMITS": "yes",
        "CATALOGUES": "/nowhere",
        "ASYNC_SECONDS": "-2",
        "BALANCE": "NaN",
    }
    for name, value in bad.items():
        with pytest.raises(BadSettingError, match=f"SANDBOX_{name}"):
            read_config({f"SANDBOX_{name}": value})


# --- recorded payloads --------------------------------------------------------------------------------------------


def write(folder: Path, name: str, payload: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(payload))


def airalo_page(slug: str, country: str, *packages: dict[str, Any]) -> dict[str, Any]:
    operator = {"title": f"{slug} op", "type": "local", "packages": list(packages), "coverages": [], "countries": []}
    entry = {"slug": slug, "country_code": country, "title": slug, "operators": [operator]}
    return {"pricing": {"model": "discount_pricing", "discount_percentage": 15}, "data": [entry], "meta": {"total": 99}}


def airalo_package(name: str, kind: str = "sim") -> dict[str, Any]:
    return {"id": name, "type": kind, "price": 10, "amount": 1024, "day": 7, "is_unlimited": False, "title": name}


def esim_go_bundle(name: str, price: float) -> dict[str, Any]:
    place = [{"name": None, "region": None, "iso": "JP"}]
    return {
        "name": name, "description": name, "groups": [], "countries": place, "roamingEnabled": [], "dataAmount": 1000,
        "duration": 7, "unlimited": False, "price": price,
    }  # fmt: skip


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("recorded")
    write(
        root / "airalo", "p1.json", airalo_page("japan", "JP", airalo_package("jp-1"), airalo_package("jp-t", "topup"))
    )
    write(root / "airalo", "p2.json", airalo_page("spain", "ES", airalo_package("es-1")))
    write(root / "airalo", "notes.json", {"something": "else"})
    write(root / "esim_go" / "raw", "a.json", {"bundles": [esim_go_bundle("esim_A", 1.25)], "pageCount": 9})
    write(root / "esim_go" / "raw", "b.json", [esim_go_bundle("esim_B", 2.5)])
    access = [
        {"packageCode": "JC063", "name": "old", "price": 57000, "volume": 1073741824, "duration": 7, "location": "JP"}
    ]
    top = [{**access[0], "packageCode": "TOPUP_JC063"}]
    write(root / "esim_access", "1.json", {"success": True, "obj": {"packageList": access}})
    write(root / "esim_access", "2.json", {"success": True, "obj": {"packageList": top}})
    details = [{"name": "PLAN_TITLE", "value": "Japan"}, {"name": "PLAN_VALIDITY", "value": "720"}]
    product = {"productId": "AB-1", "productCategory": "esim_realtime", "wholesalePrice": 7, "productDetails": details}
    write(root / "mobimatter", "1.json", {"statusCode": 200, "result": [product]})
    (root / "esim_card").mkdir()
    write(root / "esim_card", "places.json", {"status": True, "data": [{"id": 9, "name": "Spain"}]})
    return root


@pytest.fixture(scope="module")
def replaying(recorded: Path) -> Any:
    config = SandboxConfig(plans_per_provider=40, rate_limits=False, async_seconds=0.01, catalogues=recorded)
    with served(config) as sandbox, httpx.Client(base_url=sandbox.base_url, timeout=10) as client:
        client.headers.update({"x-api-key": "sandbox-key", "rt-accesscode": "sandbox", "api-key": "sandbox-key"})
        client.headers["merchantid"] = "00000000-0000-4000-8000-000000000001"
        form = {"client_id": "sandbox", "client_secret": "sandbox-secret", "grant_type": "client_credentials"}
        token = client.post("/airalo/v2/token", data=form).json()["data"]["access_token"]
        client.headers["authorization"] = f"Bearer {token}"
        yield client


def test_recorded_pages_are_walked_one_by_one(replaying: httpx.Client) -> None:
    first = replaying.get("/airalo/v2/packages", params={"limit": 25, "page": 1}).json()
    second = replaying.get("/airalo/v2/packages", params={"limit": 25, "page": 2}).json()
    assert (first["meta"]["last_page"], first["meta"]["total"], second["links"]["next"]) == (2, 2, None)
    assert first["pricing"]["discount_percentage"] == 15
    assert [entry["slug"] for entry in first["data"] + second["data"]] == ["japan", "spain"]
    assert [p["id"] for p in first["data"][0]["operators"][0]["packages"]] == ["jp-1"]
    assert len(replaying.get("/airalo/v2/packages", params={"include": "topup"}).json()["data"]) == 2


def test_recorded_packages_are_bought_at_their_recorded_price(replaying: httpx.Client) -> None:
    airalo = replaying.post("/airalo/v2/orders", json={"package_id": "jp-1", "quantity": 1}).json()["data"]
    assert airalo["unit_paid_price"] == 8.5
    pages = [replaying.get("/esim_go/v2.5/catalogue", params={"page": n, "perPage": 1000}).json() for n in (1, 2)]
    assert [(page["pageCount"], page["bundles"][0]["name"]) for page in pages] == [(2, "esim_A"), (2, "esim_B")]
    body = {"type": "transaction", "assign": True, "order": [{"item": "esim_B", "quantity": 1}]}
    assert replaying.post("/esim_go/v2.5/orders", json=body).json()["total"] == 2.5
    base = "/esim_access/api/v1/open"
    listed = replaying.post(f"{base}/package/list", json={"type": "TOPUP"}).json()["obj"]["packageList"]
    assert [row["packageCode"] for row in listed] == ["TOPUP_JC063"]
    line = {"packageCode": "JC063", "count": 1, "price": 57000}
    order = replaying.post(
        f"{base}/esim/order", json={"transactionId": "x", "packageInfoList": [line], "amount": 57000}
    )
    assert order.json()["success"] is True
    held = replaying.post("/mobimatter/api/v2/order", json={"productId": "ab-1"}).json()["result"]["orderId"]
    done = replaying.put("/mobimatter/api/v2/order/complete", json={"orderId": held}).json()["result"]
    assert done["orderLineItem"]["wholesalePrice"] == 7


def test_a_folder_without_a_catalogue_page_keeps_the_generated_one(replaying: httpx.Client) -> None:
    login = {"email": "sandbox@numnaroad.test", "password": "sandbox-secret"}
    base = "/esim_card/api/developer/reseller"
    token = replaying.post(f"{base}/login", json=login).json()["access_token"]
    page = replaying.get(f"{base}/packages", headers={"authorization": f"Bearer {token}"}).json()
    assert page["meta"]["total"] == 40


# --- state ----------------------------------------------------------------------------------------------------------


def test_state_survives_a_restart(tmp_path: Path) -> None:
    config = SandboxConfig(plans_per_provider=60, rate_limits=False, state=tmp_path / "state" / "sandbox.json")
    go, key = "/esim_go/v2.5", {"x-api-key": "sandbox-key"}
    with served(config) as sandbox, httpx.Client(base_url=sandbox.base_url, headers=key) as client:
        name = client.get(f"{go}/catalogue").json()["bundles"][0]["name"]
        line = {"item": name, "quantity": 2}
        order = client.post(f"{go}/orders", json={"type": "transaction", "assign": True, "order": [line]}).json()
        client.post(f"{go}/orders", json={"type": "transaction", "assign": False, "order": [line]})
        balance = client.get("/sandbox/balances").json()
        purchases = client.get("/sandbox/purchases").json()
    with served(replace(config, port=0)) as sandbox, httpx.Client(base_url=sandbox.base_url, headers=key) as client:
        assert client.get(f"{go}/orders/{order['orderReference']}").json()["order"] == order["order"]
        assert client.get("/sandbox/balances").json() == balance
        assert client.get("/sandbox/purchases").json() == purchases
        applied = client.post(f"{go}/esims/apply", json={"name": name}).json()["esims"][0]["iccid"]
        assert applied not in order["order"][0]["iccids"]
        assert client.get("/sandbox/purchases").json()["counts"] == {"esim_go": {"delivered": 3, "inventory": 1}}


def test_an_order_under_way_is_finished_after_a_restart(tmp_path: Path) -> None:
    config = SandboxConfig(
        plans_per_provider=60, rate_limits=False, state=tmp_path / "sandbox.json", async_seconds=3600
    )
    base, headers = "/esim_access/api/v1/open", {"rt-accesscode": "sandbox"}
    with served(config) as sandbox, httpx.Client(base_url=sandbox.base_url, headers=headers) as client:
        plan = client.post(f"{base}/package/list", json={}).json()["obj"]["packageList"][0]
        fault = {"provider": "esim_access", "call": "order", "kind": "async_late", "params": {"seconds": 0.5}}
        client.put("/sandbox/faults", json=fault)
        line = {"packageCode": plan["packageCode"], "count": 1}
        client.post(f"{base}/esim/order", json={"transactionId": "r", "packageInfoList": [line]})
    with served(config) as sandbox, httpx.Client(base_url=sandbox.base_url, headers=headers) as client:
        deadline = time.monotonic() + 10
        while client.get("/sandbox/purchases").json()["counts"] != {"esim_access": {"delivered": 1}}:
            assert time.monotonic() < deadline
