"""Whatever a stranger sends, the answer is a refusal of his, never an error of ours."""

import json
import socket
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as rules
from hypothesis import strategies as st

from tests.api.baskets import basket
from tests.api.serving import ServedApi
from tests.api.test_api_catalogue import assert_problem

ORDER = "/v1/orders/0193a1c2-5b7e-7c11-9d0e-2f6f0a1b2c3d"
PATHS = (*("/", "/readyz", "/v1/packages", ORDER, f"{ORDER}/events", f"{ORDER}/esims/1/qr.svg", "/static/shop.js"),)
BELOW = ("/", "/v1/packages/", "/v1/orders/", f"{ORDER}/esims/", "/orders/", "/static/", "/webhooks/providers/")
WORDS = (
    "%00",
    "%ff%fe",
    "%ed%a0%80",
    "%F0%9F%8F%9D",
    "a" * 3000,
    "9" * 4500,
    "..%2f..",
    "%0d%0a",
    "{}",
    "[",
    "-1",
    "\u0130",
)
ASKED = (
    *("q", "destination", "currency", "sort", "cursor", "limit", "min_data_mb", "min_days", "max_days", "unlimited"),
    *("max_price_minor", "v", ""),
)
HEADERS = (
    *("Authorization", "Last-Event-ID", "Idempotency-Key", "If-None-Match", "If-Modified-Since", "Range", "Origin"),
    *("Accept-Encoding", "X-Request-ID", "X-Forwarded-For", "X-Forwarded-Proto", "Stripe-Signature", "Cookie"),
    *("Content-Type", "Host"),
)
BYTES = (b"\xe9", b"\xff\xfe", b"[", b"t=1,v1=\xe9", b"Bearer \xe9.\xe9", b"9" * 4500, b"bytes=9-1,x", b"%00", b"::1%")
VERBS = ("GET", "HEAD", "POST", "BREW")
NASTY: list[tuple[dict[str, Any], str]] = [
    ({"items": [{"package_id": "jp-5gb-30d", "expected_price_minor": 10**23}]}, "items.0.expected_price_minor"),
    ({"items": [{"package_id": "jp-5gb-30d", "quantity": 10**23}]}, "items.0.quantity"),
    ({"items": [{"package_id": "a\u0000b"}]}, "items.0.package_id"),
    ({"items": [{"package_id": "\ud800"}]}, "items.0.package_id"),
    ({"email": "a\u0000@example.com"}, "email"),
    ({"email": "\udfff@example.com"}, "email"),
    ({"phone": "+49\u00001234567"}, "phone"),
    ({"currency": "U\u0000D"}, "currency"),
    ({"success_url": "http://\ud800/"}, "success_url"),
    ({"cancel_url": "http://[/"}, "cancel_url"),
]


def test_nasty_members_are_refused_by_name(api: ServedApi) -> None:
    for more, field in NASTY:
        body = json.dumps({**basket(), **more}).encode()
        answer = _post(api.client, body)
        assert_problem(answer, 422, field)


def test_a_member_whose_name_no_text_can_hold_is_refused(api: ServedApi) -> None:
    answer = _post(api.client, b'{"\\ud800": 1}')
    assert answer.status_code == 422, answer.text


def _post(client: httpx.Client, body: bytes) -> httpx.Response:
    headers = {"Idempotency-Key": "a", "Content-Type": "application/json"}
    return client.post("/v1/checkout", content=body, headers=headers)


@pytest.mark.parametrize("signature", ["t=1,v1=\xe9", "t=1", "v1=", "t=x,v1=x", "t=1,v1=", "\xe9", "t=" + "9" * 4500])
def test_a_signature_that_is_none_is_refused(api: ServedApi, signature: str) -> None:
    headers = {b"Stripe-Signature": signature.encode("latin-1")}
    assert_problem(api.client.post("/webhooks/stripe", content=b"{}", headers=headers), 400)


def test_no_query_is_an_error_of_ours(api: ServedApi) -> None:
    for path in ("/", "/v1/destinations", "/v1/packages", "/v1/packages/jp-5gb-30d", "/static/shop.js"):
        for name in ASKED:
            for word in WORDS:
                _check(api, "GET", f"{path}?{name}={word}")


def test_no_path_is_an_error_of_ours(api: ServedApi) -> None:
    for path in BELOW:
        for word in WORDS:
            for verb in VERBS:
                _check(api, verb, path + word)


def test_no_header_is_an_error_of_ours(api: ServedApi) -> None:
    for path in (*PATHS, "/nowhere", "/v1/checkout", "/webhooks/stripe", "/webhooks/providers/airalo"):
        for name in HEADERS:
            for value in BYTES:
                verb = "POST" if "webhooks" in path or "checkout" in path else "GET"
                _check(api, verb, path, {name: value})


def test_no_line_is_an_error_of_ours(api: ServedApi) -> None:
    for line in (b"GET /\xe9 HTTP/1.1", b"GET //[ HTTP/1.1", b"GET http://[/ HTTP/1.1", b"GET * HTTP/1.1", b"\x00"):
        with socket.create_connection(("127.0.0.1", api.shop.settings.api_port), 10) as wire:
            wire.sendall(line + b"\r\nHost: [\r\nContent-Length: 99999999999999999999\r\nConnection: close\r\n\r\n")
            assert not wire.recv(100).startswith(b"HTTP/1.1 5"), line


def _check(api: ServedApi, verb: str, target: str, headers: dict[str, bytes] | None = None) -> None:
    answer = api.client.request(verb, target, headers=list((headers or {}).items()))
    assert answer.status_code < 500, (verb, target[:80], headers, answer.text)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec=None)), inner, max_size=3),
    max_leaves=8,
)
text = st.text(st.characters(codec=None), max_size=40)
members = st.fixed_dictionaries(
    {},
    optional={
        "items": anything | st.lists(st.fixed_dictionaries({"package_id": text | st.just("jp-5gb-30d")}), max_size=2),
        "email": anything | st.builds(lambda name, host: f"{name}@{host}.example", text, text),
        **dict.fromkeys(("phone", "currency", "success_url", "cancel_url", "more"), anything),
    },
)


@rules(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(members | anything)
def test_no_body_is_an_error_of_ours(api: ServedApi, body: Any) -> None:
    sent = json.dumps(body).encode()
    for path in ("/v1/checkout", "/webhooks/stripe"):
        answer = api.client.post(
            path, content=sent, headers={"Idempotency-Key": "a", "Content-Type": "application/json"}
        )
        assert answer.status_code < 500, (body, answer.text)


@rules(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(members)
def test_no_member_of_a_good_basket_is_an_error_of_ours(api: ServedApi, more: dict[str, Any]) -> None:
    answer = _post(api.client, json.dumps({**basket("jp-1tb-1d"), **more}).encode())
    assert answer.status_code < 500, (more, answer.text)


@pytest.mark.parametrize("slug", ["airalo", "esim_access", "esim_go", "mobimatter", "esim_card"])
def test_no_provider_webhook_is_an_error_of_ours(api: ServedApi, slug: str) -> None:
    for body in (
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"[[]]",
        b'{"a": NaN}',
        b'"\\ud800"',
        b"[" * 9000,
        b"9" * 5000,
        b'{"data": 1}',
    ):
        answer = api.client.post(f"/webhooks/providers/{slug}", content=body)
        assert answer.status_code < 500, (slug, body[:50], answer.text)
