"""The corners of the Stripe sandbox: odd parameters, expansion, lists, control routes, deliveries that fail."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from sandbox.config import BadSettingError, SandboxConfig
from sandbox.serve import Served, served
from sandbox.stripe.state import state_of
from sandbox.world import World

LINE = {
    "line_items[0][price_data][currency]": "usd",
    "line_items[0][price_data][unit_amount]": "1000",
    "line_items[0][price_data][product_data][name]": "Japan",
    "line_items[0][quantity]": "2",
}
SESSION = {**LINE, "success_url": "http://shop.test/ok"}


@pytest.fixture(scope="module")
def served_stripe() -> Iterator[Served]:
    with served(replace(SandboxConfig(plans_per_provider=10), api_url="http://127.0.0.1:9")) as sandbox:
        yield sandbox


@pytest.fixture
def web(served_stripe: Served) -> Iterator[httpx.Client]:
    key = {"Authorization": "Bearer sk_test_sandbox"}
    with httpx.Client(base_url=served_stripe.base_url, timeout=10, headers=key) as client:
        client.post("/sandbox/reset").raise_for_status()
        yield client


def create(web: httpx.Client, **changes: str) -> httpx.Response:
    fields = {**SESSION, **changes}
    return web.post("/stripe/v1/checkout/sessions", data={k: v for k, v in fields.items() if v != "-"})


def paid(web: httpx.Client) -> str:
    session = create(web).json()
    return str(web.post(f"/sandbox/stripe/pay/{session['id']}", json={}).json()["payment_intent"])


def error(answer: httpx.Response) -> tuple[int, str | None, str | None]:
    told = answer.json()["error"]
    return answer.status_code, told.get("code"), told.get("param")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"line_items": "x", **dict.fromkeys(LINE, "-")}, (400, None, "line_items")),
        ({"line_items[0][price]": "price_1"}, (400, "resource_missing", "line_items[0][price]")),
        (
            {"line_items[0][price_data][currency]": "-"},
            (400, "parameter_missing", "line_items[0][price_data][currency]"),
        ),
        ({"line_items[0][price_data][currency]": "dollar"}, (400, None, "line_items[0][price_data][currency]")),
        ({"line_items[0][quantity]": "two"}, (400, "parameter_invalid_integer", "line_items[0][quantity]")),
        ({"line_items[0][quantity]": "1000000"}, (400, "parameter_invalid_integer", "line_items[0][quantity]")),
        ({"line_items[0][quantity]": "999999"}, (400, "amount_too_large", None)),
        ({"line_items[0][price_data][unit_amount]": "10.5"}, (400, "parameter_invalid_integer", None)),
        ({"client_reference_id": "x" * 201}, (400, None, "client_reference_id")),
        ({"metadata": "x"}, (400, None, "metadata")),
        ({"metadata[a]": "x" * 501}, (400, None, "metadata[a]")),
        ({"metadata[a][b]": "x"}, (400, None, "metadata[a]")),
        ({f"metadata[k{n}]": "v" for n in range(51)}, (400, None, "metadata")),
        ({"payment_intent_data": "x"}, (400, None, "payment_intent_data")),
        ({"payment_method_types": "card"}, (400, None, "payment_method_types")),
        ({"mode": "gift"}, (400, None, "mode")),
        ({"success_url[a]": "x", "success_url": "-"}, (400, None, "success_url")),
    ],
)
def test_odd_parameters_are_refused_by_name(
    web: httpx.Client, changes: dict[str, str], expected: tuple[int, str | None, str | None]
) -> None:
    status, code, param = error(create(web, **changes))
    assert (status, code) == expected[:2]
    assert expected[2] is None or param == expected[2]


def test_lines_must_share_a_currency(web: httpx.Client) -> None:
    other = {key.replace("[0]", "[1]"): value for key, value in LINE.items()}
    other["line_items[1][price_data][currency]"] = "eur"
    assert error(create(web, **other)) == (400, None, "line_items")
    other["line_items[1][price_data][currency]"] = "USD"
    assert create(web, **other).json()["amount_total"] == 4000


def test_numbered_metadata_keys_are_kept(web: httpx.Client) -> None:
    assert create(web, **{"metadata[0]": "a", "metadata[1]": "b"}).json()["metadata"] == {"0": "a", "1": "b"}


def test_lists_expand_what_they_hold(web: httpx.Client) -> None:
    intent = paid(web)
    web.post("/stripe/v1/refunds", data={"payment_intent": intent}).raise_for_status()
    path = "data.payment_intent.latest_charge"
    listed = web.get("/stripe/v1/checkout/sessions", params={"expand[]": path}).json()["data"][0]
    assert listed["payment_intent"]["latest_charge"]["amount"] == 2000
    charge = web.get(
        f"/stripe/v1/charges/{listed['payment_intent']['latest_charge']['id']}", params={"expand[]": "refunds"}
    )
    assert [row["amount"] for row in charge.json()["refunds"]["data"]] == [2000]
    unpaid = create(web).json()["id"]
    nothing = web.get(f"/stripe/v1/checkout/sessions/{unpaid}", params={"expand[]": "payment_intent.latest_charge"})
    assert nothing.json()["payment_intent"] is None
    refused = web.get(f"/stripe/v1/checkout/sessions/{unpaid}", params={"expand[]": "url"})
    assert "cannot be expanded" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("payment_intents", 1),
        ("charges", 1),
        ("refunds", 1),
        ("balance_transactions", 2),
        ("balance_transactions?type=refund", 1),
        ("disputes", 0),
        ("events?limit=100", 6),
        ("events?type=charge.refunded", 1),
        ("checkout/sessions?customer_details[email]=customer@example.com", 1),
        ("checkout/sessions?customer_details[email]=other@example.com", 0),
        ("checkout/sessions?created=1", 0),
    ],
)
def test_every_kind_is_listed_and_read_one_by_one(web: httpx.Client, path: str, count: int) -> None:
    web.post("/stripe/v1/refunds", data={"payment_intent": paid(web)}).raise_for_status()
    rows = web.get(f"/stripe/v1/{path}").json()["data"]
    assert len(rows) == count
    for row in rows[:1]:
        assert web.get(f"/stripe/v1/{path.partition('?')[0]}/{row['id']}").json()["id"] == row["id"]


def test_unknown_things_are_404(web: httpx.Client) -> None:
    for path in ("charges/ch_none", "refunds/re_none", "events/evt_none", "checkout/sessions/cs_none"):
        assert error(web.get(f"/stripe/v1/{path}"))[:2] == (404, "resource_missing")
    for path in ("customers", "customers/cus_1", "a/b/c"):
        assert "Unrecognized request URL" in web.get(f"/stripe/v1/{path}").json()["error"]["message"]
    assert web.get("/stripe/pay/cs_none").status_code == 404
    assert error(web.get("/stripe/v1/events?type=a&types[]=b"))[0] == 400
    assert error(web.get("/stripe/v1/events?created[eq]=1"))[1] == "parameter_unknown"


def test_refunds_need_a_charge_that_succeeded(web: httpx.Client) -> None:
    def refund(**fields: str) -> tuple[int, str | None, str | None]:
        return error(web.post("/stripe/v1/refunds", data=fields))

    session = create(web).json()["id"]
    failed = web.post(f"/sandbox/stripe/pay/{session}", json={"outcome": "fail"}).json()["payment_intent"]
    good = paid(web)
    assert refund() == (400, "parameter_missing", None)
    assert refund(payment_intent="pi_none") == (404, "resource_missing", "payment_intent")
    assert refund(charge="ch_none") == (404, "resource_missing", "charge")
    assert refund(payment_intent=failed) == (400, None, "payment_intent")
    assert refund(payment_intent=good, charge="ch_other") == (400, None, "charge")
    assert refund(payment_intent=good, reason="bored") == (400, None, "reason")
    assert refund(payment_intent=good, amount="0") == (400, "parameter_invalid_integer", "amount")


def test_idempotency_keys_have_an_end(web: httpx.Client, served_stripe: Served) -> None:
    key = {"Idempotency-Key": "key-1"}
    first = web.post("/stripe/v1/checkout/sessions", data=SESSION, headers=key).json()["id"]
    too_long = web.post("/stripe/v1/checkout/sessions", data=SESSION, headers={"Idempotency-Key": "k" * 256})
    assert too_long.status_code == 400
    other_path = web.post("/stripe/v1/refunds", data=SESSION, headers=key)
    assert other_path.json()["error"]["type"] == "idempotency_error"
    world = served_stripe.app.world
    usual = world.clock
    world.clock = lambda: datetime.now(UTC) + timedelta(hours=25)
    try:
        assert web.post("/stripe/v1/checkout/sessions", data=SESSION, headers=key).json()["id"] != first
    finally:
        world.clock = usual


def test_a_stored_error_is_replayed(web: httpx.Client) -> None:
    web.put("/sandbox/stripe/faults", json={"kind": "session_error", "times": 1, "params": {"when": "stored"}})
    key = {"Idempotency-Key": "key-2"}
    answers = [web.post("/stripe/v1/checkout/sessions", data=SESSION, headers=key) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [500, 500]
    assert answers[1].headers["Idempotent-Replayed"] == "true"


def test_broken_credentials_and_bodies_are_answered(web: httpx.Client) -> None:
    basic = web.get("/stripe/v1/balance", headers={"Authorization": "Basic !!!"})
    assert basic.status_code == 401
    raw = web.post("/stripe/v1/refunds", content=b"\xff\xfe", headers={"Content-Type": "text/plain"})
    assert raw.status_code == 400
    assert web.get("/stripe/v1/account").json()["charges_enabled"] is True


@pytest.mark.parametrize(
    "asked",
    [
        {"outcome": "steal"},
        {"email": "nobody"},
        {"after_s": -1},
        {"after_s": True},
        {"webhooks": {"colour": "red"}},
        {"webhooks": [1]},
        [1],
    ],
)
def test_control_routes_say_what_is_wrong(web: httpx.Client, asked: Any) -> None:
    session = create(web).json()["id"]
    answer = web.post(f"/sandbox/stripe/pay/{session}", json=asked)
    assert answer.status_code == 422
    assert answer.json()["detail"]


def test_disputes_and_resends_by_control_route(web: httpx.Client) -> None:
    paid(web)
    charge = web.get("/sandbox/charges").json()["charges"][0]["charge_id"]
    assert web.post("/sandbox/stripe/disputes", json={"charge": charge, "amount": 2001}).status_code == 400
    assert web.post("/sandbox/stripe/disputes", json={"charge": charge, "amount": "x"}).status_code == 422
    assert web.post("/sandbox/stripe/disputes", json={"charge": charge}).json()["amount"] == 2000
    assert web.post("/sandbox/stripe/disputes", json={"charge": charge}).status_code == 400
    assert web.post("/sandbox/stripe/disputes", json={"charge": "ch_none"}).status_code == 404
    assert web.post("/sandbox/stripe/disputes", content=b"{").status_code == 422
    assert web.post("/sandbox/stripe/events/evt_none/resend").status_code == 404
    event = web.get("/sandbox/stripe/events").json()["events"][0]["id"]
    assert web.post(f"/stripe/events/{event}/resend").status_code == 303
    assert web.delete("/sandbox/stripe/faults").json()["faults"] == []


def test_a_webhook_nobody_takes_is_given_up(web: httpx.Client, served_stripe: Served) -> None:
    state = state_of(served_stripe.app.world)
    usual, state.webhook_retries = state.webhook_retries, 1
    try:
        create_id = create(web).json()["id"]
        web.post(f"/stripe/v1/checkout/sessions/{create_id}/expire").raise_for_status()
        until(lambda: web.get("/sandbox/stripe/events").json()["events"][0]["state"] == "failed")
    finally:
        state.webhook_retries = usual
    row = web.get("/sandbox/stripe/events").json()["events"][0]
    assert (row["attempts"], row["last_result"]) == (2, "ConnectError")
    assert len(web.get("/stripe/v1/events?delivery_success=false").json()["data"]) == 1


def test_unreadable_retry_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_WEBHOOK_RETRIES", "many")
    with pytest.raises(BadSettingError, match="SANDBOX_WEBHOOK_RETRIES"):
        state_of(World(SandboxConfig()))


def test_signing_secret_is_the_first_of_a_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_new,whsec_old")
    monkeypatch.setenv("STRIPE_SECRET_KEY", "sk_test_mine")
    state = state_of(World(SandboxConfig()))
    assert (state.webhook_secret, state.secret_key) == ("whsec_new", "sk_test_mine")


def until(happened: Callable[[], bool], seconds: float = 10) -> None:
    deadline = datetime.now(UTC) + timedelta(seconds=seconds)
    pause = threading.Event()
    while not happened():
        assert datetime.now(UTC) < deadline, "the condition did not come true in time"
        pause.wait(0.02)
