"""The catalogue over HTTP: contract, filters, order, paging, caching and swapping of versions."""

import gzip
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from resources.settings import Settings
from tests.api.catalogue_rows import package_row, publish
from tests.api.serving import ServedApi, served_api, wait_until

PACKAGE_FIELDS = {
    *("id", "name", "destination", "coverage", "data_mb", "unlimited", "validity_days", "networks", "top_up"),
    *("price", "best_price", "updated_at"),
}


def ids(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [row["id"] for row in response.json()["packages"]]


def assert_problem(response: httpx.Response, status: int, field: str | None = None) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "instance", "errors"} <= document.keys()
    assert document["status"] == status
    if field is not None:
        assert field in [error["field"] for error in document["errors"]]
    return document


def test_packages_carry_exactly_the_public_fields(api: ServedApi) -> None:
    rows = api.client.get("/v1/packages", params={"destination": "JP"}).json()["packages"]
    assert all(set(row) == PACKAGE_FIELDS for row in rows)
    assert rows[0] | {"updated_at": ""} == {
        "id": "jp-1gb-7d",
        "name": "Japan jp-1gb-7d",
        "destination": {"code": "JP", "name": "Japan", "type": "country"},
        "coverage": ["JP"],
        "data_mb": 1000,
        "unlimited": False,
        "validity_days": 7,
        "networks": ["Testnet"],
        "top_up": True,
        "price": {"amount_minor": 299, "currency": "USD"},
        "best_price": True,
        "updated_at": "",
    }


def test_a_daily_plan_states_the_data_of_its_whole_term(api: ServedApi) -> None:
    daily = api.client.get("/v1/packages/jp-1gb-daily-10d").json()
    assert (daily["data_mb"], daily["unlimited"]) == (10_000, False)


def test_a_package_beaten_by_a_cheaper_one_is_not_the_best_price(api: ServedApi) -> None:
    rows = api.client.get("/v1/packages", params={"destination": "JP"}).json()["packages"]
    assert {row["id"] for row in rows if not row["best_price"]} == {"jp-1gb-daily-10d"}


FILTERS = [
    ("destination=jp", ["jp-1gb-7d", "jp-5gb-30d", "jp-10gb-30d", "jp-1gb-daily-10d", "jp-unl-10d"]),
    ("destination=europe", ["europe-2-5gb-30d-abc123"]),
    ("destination=JP&min_data_mb=6000", ["jp-10gb-30d", "jp-1gb-daily-10d", "jp-unl-10d"]),
    ("destination=JP&unlimited=true", ["jp-unl-10d"]),
    ("destination=JP&unlimited=false&min_days=10&max_days=10", ["jp-1gb-daily-10d"]),
    ("destination=JP&max_price_minor=899", ["jp-1gb-7d", "jp-5gb-30d"]),
    ("destination=JP&max_price_minor=879&currency=eur", ["jp-1gb-7d", "jp-5gb-30d"]),
    ("destination=JP&sort=data&limit=3", ["jp-unl-10d", "jp-10gb-30d", "jp-1gb-daily-10d"]),
    ("destination=JP&sort=days&limit=2", ["jp-5gb-30d", "jp-10gb-30d"]),
    ("destination=JP&sort=value&limit=2", ["jp-10gb-30d", "jp-unl-10d"]),
    ("destination=ZZ", []),
    ("destination=atlantis", []),
]


def test_filters_and_order(api: ServedApi) -> None:
    for query, expected in FILTERS:
        assert ids(api.client.get(f"/v1/packages?{query}")) == expected, query


def test_pages_join_to_the_whole_list(api: ServedApi) -> None:
    for sort in ("price", "data", "days", "value"):
        _walk_pages(api, sort)


def _walk_pages(api: ServedApi, sort: str) -> None:
    whole = ids(api.client.get("/v1/packages", params={"sort": sort}))
    assert len(whole) == 8
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(8):
        params = {"sort": sort, "limit": "3"} | ({"cursor": cursor} if cursor else {})
        page = api.client.get("/v1/packages", params=params)
        seen += ids(page)
        cursor = page.json()["next_cursor"]
        if cursor is None:
            break
    assert seen == whole


MALFORMED = [
    ("min_data_mb=lots", "min_data_mb"),
    ("min_days=0", "min_days"),
    ("min_days=9&max_days=3", "min_days"),
    ("max_price_minor=-1", "max_price_minor"),
    ("unlimited=perhaps", "unlimited"),
    ("sort=random", "sort"),
    ("limit=0", "limit"),
    ("limit=1001", "limit"),
    ("currency=JPY", "currency"),
    ("currency=dollars", "currency"),
    ("cursor=nonsense", "cursor"),
    ("destination=J%27P", "destination"),
    ("min_data=5", "min_data"),
]


def test_a_malformed_filter_is_named(api: ServedApi) -> None:
    for query, field in MALFORMED:
        assert_problem(api.client.get(f"/v1/packages?{query}"), 422, field)


def test_a_cursor_of_another_order_is_refused(api: ServedApi) -> None:
    cursor = api.client.get("/v1/packages?limit=1").json()["next_cursor"]
    assert_problem(api.client.get("/v1/packages", params={"cursor": cursor, "sort": "data"}), 422, "cursor")


def test_an_unknown_package_is_not_found(api: ServedApi) -> None:
    assert_problem(api.client.get("/v1/packages/jp-1tb-1d"), 404)
    assert_problem(api.client.get("/v1/packages/jp-1gb-7d-topup"), 404)


def test_destinations_carry_price_and_count(api: ServedApi) -> None:
    rows = api.client.get("/v1/destinations").json()["destinations"]
    assert [row["code"] for row in rows] == ["europe", "FR", "JP", "RE"]
    assert rows[2] == {
        "code": "JP",
        "name": "Japan",
        "type": "country",
        "from_price": {"amount_minor": 299, "currency": "USD"},
        "package_count": 5,
    }


def test_destinations_are_found_without_case_and_accents(api: ServedApi) -> None:
    for q, codes in [("jap", ["JP"]), ("REUNION", ["RE"]), ("fr", ["FR"]), ("xyz", [])]:
        rows = api.client.get("/v1/destinations", params={"q": q}).json()["destinations"]
        assert [row["code"] for row in rows] == codes, q


@pytest.mark.parametrize("path", ["/v1/packages?destination=JP", "/v1/destinations", "/v1/packages/jp-5gb-30d"])
def test_the_second_answer_comes_from_ready_bytes_and_is_the_same(api: ServedApi, path: str) -> None:
    first = api.client.get(path)
    before = api.shop.metrics.ready_answers
    second = api.client.get(path)
    assert api.shop.metrics.ready_answers == before + 1
    assert (second.content, second.headers["etag"]) == (first.content, first.headers["etag"])
    assert second.headers["cache-control"] == first.headers["cache-control"] == "public, max-age=300"
    assert second.headers["vary"] == first.headers["vary"] == "Origin, Accept-Encoding"
    assert second.headers["x-content-type-options"] == first.headers["x-content-type-options"] == "nosniff"


def test_an_unchanged_answer_is_304_without_a_body(api: ServedApi) -> None:
    cold = "/v1/packages?destination=JP"
    etag = api.client.get(cold).headers["etag"]
    assert not etag.startswith("W/")
    respelt = "/v1/packages?destination=jp"  # the same answer by another spelling: not ready yet
    for path, sent in [(cold, etag), (cold, f'"other", W/{etag}'), (cold, "*"), (respelt, etag)]:
        answer = api.client.get(path, headers={"If-None-Match": sent})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert api.client.get(cold, headers={"If-None-Match": '"0-00"'}).status_code == 200


def test_a_compressed_answer_has_its_own_strong_tag(api: ServedApi) -> None:
    path = "/v1/packages?destination=JP"
    with httpx.Client(base_url=api.url) as client:
        plain = client.get(path, headers={"Accept-Encoding": "identity"})
        packed = client.get(path, headers={"Accept-Encoding": "gzip"})
        refused = client.get(path, headers={"Accept-Encoding": "gzip;q=0"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.content == refused.content
    assert packed.headers["etag"] != plain.headers["etag"]
    assert "content-encoding" not in refused.headers
    stored = api.shop.shelf.current.ready.get("/v1/packages", b"destination=JP")
    assert stored is not None
    assert gzip.decompress(stored.compressed.body["body"]) == plain.content


def test_head_has_the_headers_and_no_body(api: ServedApi) -> None:
    path = "/v1/packages?destination=FR"
    cold = api.client.head(path)
    warm = api.client.head(path)
    whole = api.client.get(path)
    for head in (cold, warm):
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["etag"] == whole.headers["etag"]


def test_a_published_version_replaces_the_shelf_at_once_and_whole(api: ServedApi, engine: Engine) -> None:
    path = "/v1/packages?destination=JP"
    old = api.client.get(path)
    version = publish(engine, [package_row("jp-new", usd=1234)])
    wait_until(lambda: api.shop.shelf.current.snapshot.version == version, "the new version is on the shelf")
    new = api.client.get(path, headers={"If-None-Match": old.headers["etag"]})
    assert ids(new) == ["jp-new"]
    assert new.headers["etag"] != old.headers["etag"]
    assert_problem(api.client.get("/v1/packages/jp-5gb-30d"), 404)


def test_the_shelf_survives_a_lost_database_connection(api: ServedApi, engine: Engine) -> None:
    with engine.begin() as conn:
        conn.exec_driver_sql(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'numnaroad-api-listener'"
            " and datname = current_database()"
        )
    version = publish(engine, [package_row("jp-new")])
    wait_until(lambda: api.shop.shelf.current.snapshot.version == version, "the listener is back")
    assert ids(api.client.get("/v1/packages?destination=JP")) == ["jp-new"]


def test_an_empty_shop_answers_with_empty_lists(settings: Settings) -> None:
    with served_api(settings) as api:
        assert api.client.get("/v1/destinations").json() == {"destinations": []}
        assert api.client.get("/v1/packages").json() == {"packages": [], "next_cursor": None}
        assert api.client.get("/readyz").json()["packages"] == 0


def test_a_client_over_the_limit_is_told_when_to_come_back(settings: Settings, shelf: int) -> None:
    with served_api(settings, rate_limit_per_minute=5) as api:
        answers = [api.client.get("/v1/destinations") for _ in range(7)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
        assert_problem(answers[-1], 429)
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 12
        assert api.client.get("/healthz").status_code == 200


def test_only_configured_origins_may_read_answers(settings: Settings, shelf: int) -> None:
    with served_api(settings, storefront_origins=("https://shop.example",)) as api:
        for _ in range(2):  # cold, then from ready bytes
            own = api.client.get("/v1/destinations", headers={"Origin": "https://shop.example"})
            other = api.client.get("/v1/destinations", headers={"Origin": "https://evil.example"})
            assert own.headers["access-control-allow-origin"] == "https://shop.example"
            assert "access-control-allow-origin" not in other.headers
        asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
        preflight = api.client.options("/v1/checkout", headers=asked)
        assert preflight.status_code == 204
        assert "Idempotency-Key" in preflight.headers["access-control-allow-headers"]


def test_unknown_paths_and_methods_are_problems(api: ServedApi) -> None:
    assert_problem(api.client.get("/v1/nothing"), 404)
    refused = api.client.delete("/v1/packages")
    assert_problem(refused, 405)
    assert "GET" in refused.headers["allow"]


def test_health_readiness_and_metrics(api: ServedApi) -> None:
    assert api.client.get("/healthz").json() == {"status": "ok"}
    assert api.client.get("/readyz").json()["packages"] == 8
    api.client.get("/v1/destinations")
    text = api.client.get("/metrics").text
    assert 'numnaroad_http_requests_total{method="GET",route="/v1/destinations",status="200"} 1.0' in text
    assert "numnaroad_catalogue_packages 8.0" in text
    assert "numnaroad_store_up 1.0" in text
    assert "numnaroad_store_watch_age_seconds -1.0" in text  # no daemon has looked yet
