"""The API's description: valid OpenAPI 3.1, complete enough for client generators, and true."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import validate

from api.app import create_app
from api.errors import KINDS
from api.schemas.catalogue import DestinationList, Package, PackagePage
from resources.settings import Settings
from tests.api.serving import ServedApi

ROUTES = {
    ("get", "/v1/destinations"),
    ("get", "/v1/packages"),
    ("get", "/v1/packages/{package_id}"),
    ("post", "/v1/checkout"),
    ("get", "/v1/orders/{order_id}"),
    ("get", "/v1/orders/{order_id}/events"),
    ("get", "/v1/orders/{order_id}/esims/{n}/qr.svg"),
    ("get", "/v1/orders/{order_id}/esims/{n}/qr.png"),
    ("post", "/webhooks/stripe"),
    ("post", "/webhooks/providers/{slug}"),
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
}


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return create_app(Settings()).openapi()


def operations(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, entries in schema["paths"].items():
        for verb, entry in entries.items():
            yield verb, path, entry


def test_the_description_is_valid_openapi_3_1(schema: dict[str, Any]) -> None:
    assert schema["openapi"].startswith("3.1")
    validate(schema)


def test_it_describes_exactly_the_routes_of_version_1(schema: dict[str, Any]) -> None:
    assert {(verb, path) for verb, path, _ in operations(schema)} == ROUTES


def test_operation_ids_are_unique_names_a_generator_can_use(schema: dict[str, Any]) -> None:
    ids = [entry["operationId"] for _, _, entry in operations(schema)]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z][A-Za-z]+", name) for name in ids)


def test_every_operation_has_words_one_tag_and_documented_answers(schema: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in schema["tags"]}
    for _, path, entry in operations(schema):
        assert entry["summary"], path
        assert entry["description"], path
        assert set(entry["tags"]) <= tags
        assert len(entry["tags"]) == 1, path
        assert any(code.startswith("2") for code in entry["responses"]), path


def test_every_error_is_a_problem_document(schema: dict[str, Any]) -> None:
    for _, path, entry in operations(schema):
        for code, answer in entry["responses"].items():
            if code[0] in "45":
                content = answer["content"]
                assert set(content) == {"application/problem+json"}, (path, code)
                assert content["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}
    assert "HTTPValidationError" not in schema["components"]["schemas"]


def test_every_reference_leads_somewhere(schema: dict[str, Any]) -> None:
    found = set(re.findall(r"#/components/schemas/(\w+)", str(schema)))
    assert found <= set(schema["components"]["schemas"])


def test_bodies_come_with_examples(schema: dict[str, Any]) -> None:
    for name in ("Package", "Destination", "CheckoutRequest", "Checkout", "Order"):
        assert schema["components"]["schemas"][name]["examples"], name


def test_a_missing_key_and_a_missing_token_are_told_by_the_description(schema: dict[str, Any]) -> None:
    checkout = schema["paths"]["/v1/checkout"]["post"]
    key = next(each for each in checkout["parameters"] if each["name"] == "Idempotency-Key")
    assert key["required"] is True
    assert {"400", "409", "422", "429", "503"} <= set(checkout["responses"])
    order = schema["paths"]["/v1/orders/{order_id}"]["get"]
    assert order["security"] == [{"orderToken": []}]
    assert schema["components"]["securitySchemes"]["orderToken"]["scheme"] == "bearer"


def test_every_route_that_takes_a_body_tells_how_a_large_one_is_refused(schema: dict[str, Any]) -> None:
    for verb, path, entry in operations(schema):
        if verb == "post":
            assert "413" in entry["responses"], path


def test_problem_kinds_have_names_of_their_own() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)


def test_catalogue_answers_are_what_the_description_says(api: ServedApi) -> None:
    PackagePage.model_validate(api.client.get("/v1/packages").json(), strict=False)
    DestinationList.model_validate(api.client.get("/v1/destinations").json(), strict=False)
    Package.model_validate(api.client.get("/v1/packages/jp-unl-10d").json(), strict=False)
