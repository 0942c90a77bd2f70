"""Checkouts as a storefront asks for them."""

from typing import Any
from uuid import uuid4

import httpx


def basket(package_id: str = "jp-5gb-30d", quantity: int = 1, **more: Any) -> dict[str, Any]:
    return {"items": [{"package_id": package_id, "quantity": quantity}], "email": "traveller@example.com", **more}


def check_out(client: httpx.Client, body: dict[str, Any] | None = None, key: str | None = None) -> httpx.Response:
    return client.post("/v1/checkout", json=body or basket(), headers={"Idempotency-Key": key or str(uuid4())})


def placed(client: httpx.Client, body: dict[str, Any] | None = None) -> dict[str, Any]:
    answer = check_out(client, body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found
