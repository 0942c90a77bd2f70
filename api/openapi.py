"""The description of the API: OpenAPI 3.1 that client generators accept, with problem documents where errors are."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.errors import INVALID_REQUEST, MEDIA_TYPE, ProblemKind
from api.schemas.shared import Problem

DESCRIPTION = """Plans, checkout and orders of the NumnaRoad eSIM shop.

Amounts are integers in minor units of their currency (499 with USD is $4.99). Times are UTC. Errors are problem
documents (RFC 9457): `type` says which kind, `errors` names the fields. Every client may ask 100 times a minute
unless agreed otherwise; a 429 says in `Retry-After` how long to wait. Catalogue answers carry an `ETag`: send it back
in `If-None-Match` and pay nothing for what has not changed.
"""
TAGS = [
    {"name": "catalogue", "description": "What can be bought. Answers come from memory and may be cached 5 minutes."},
    {"name": "checkout", "description": "Turning a basket into an order that waits for its payment."},
    {"name": "orders", "description": "Following an order and installing its eSIMs, with the token from checkout."},
    {"name": "webhooks", "description": "For the payment service and the providers; signed."},
    {"name": "operations", "description": "For machines that watch over this one."},
]

Responses = dict[int | str, dict[str, Any]]


def problems(*kinds: ProblemKind) -> Responses:
    """Return the documentation of problem answers, for a route's `responses`."""
    found: Responses = {}
    for kind in kinds:
        entry = found.setdefault(
            kind.status, {"description": kind.title, "content": {MEDIA_TYPE: {"schema": _REF, "examples": {}}}}
        )
        if kind.title not in entry["description"]:
            entry["description"] += f"; or: {kind.title.lower()}"
        entry["content"][MEDIA_TYPE]["examples"][kind.name] = {"value": _example(kind)}
    return found


# A signed body is read as bytes, never through a model.
RAW_JSON = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
_REF = {"$ref": "#/components/schemas/Problem"}


def _example(kind: ProblemKind) -> dict[str, object]:
    example: dict[str, object] = {
        "type": f"https://shop.example/docs#problem-{kind.name}",
        "title": kind.title,
        "status": kind.status,
        "detail": _DETAILS.get(kind.name, kind.title + "."),
        "instance": "/v1/…",
        "errors": [],
    }
    if kind.name == "invalid-request":
        example["errors"] = [{"field": "items.0.quantity", "message": "Input should be less than or equal to 30"}]
    if kind.name == "price-changed":
        price = {"amount_minor": 949, "currency": "USD"}
        example["items"] = [
            {"package_id": "jp-5gb-30d", "expected_price_minor": 899, "available": True, "price": price}
        ]
    return example


_DETAILS = {
    "invalid-request": "items.0.quantity: Input should be less than or equal to 30",
    "price-changed": "jp-5gb-30d now costs 9.49 USD. Show the new price and ask again.",
    "sold-out": "jp-5gb-30d is not on sale any more. Choose another package.",
}


def install(app: FastAPI, server_url: str) -> None:
    """Make `app.openapi()` describe our problems instead of the framework's own validation errors."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build(app, server_url)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the schema


def _build(app: FastAPI, server_url: str) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title,
        version=app.version,
        description=DESCRIPTION,
        routes=app.routes,
        tags=TAGS,
        servers=[{"url": server_url}],
    )
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    components |= problem.pop("$defs", {})
    components["Problem"] = problem
    for unused in ("HTTPValidationError", "ValidationError"):
        components.pop(unused, None)
    ours = problems(INVALID_REQUEST)[INVALID_REQUEST.status]
    for operation in (entry for entries in schema["paths"].values() for entry in entries.values()):
        told = operation["responses"].get(str(INVALID_REQUEST.status), {})
        if MEDIA_TYPE not in told.get("content", {MEDIA_TYPE: {}}):  # the framework's own validation error
            operation["responses"][str(INVALID_REQUEST.status)] = ours
    return schema
