"""The Stripe sandbox as the official SDK, a person on the pay page, and a webhook receiver see it."""

import http.server
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import stripe
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.config import SandboxConfig
from sandbox.serve import Served, served
from sandbox.stripe import form
from sandbox.stripe.errors import StripeError
from sandbox.stripe.payment_objects import fee_minor
from sandbox.world import utc_now

Hook = tuple[bytes, str]


class Receiver:
    """Takes webhooks; answers the given statuses first, then 200."""

    def __init__(self) -> None:
        self.hooks: queue.Queue[Hook] = queue.Queue()
        self.statuses: list[int] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.hooks.put((body, self.headers["Stripe-Signature"]))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def events(self, count: int, timeout: float = 10) -> list[stripe.Event]:
        """The next events, each proven genuine by the SDK."""
        found = (self.hooks.get(timeout=timeout) for _ in range(count))
        return [stripe.Webhook.construct_event(body, sig, "whsec_sandbox", api_key="sk_test") for body, sig in found]

    def types(self, count: int) -> list[str]:
        return [event.type for event in self.events(count)]


def client_of(base_url: str, key: str = "sk_test_sandbox") -> stripe.StripeClient:
    return stripe.StripeClient(key, base_addresses={"api": f"{base_url}/stripe"}, max_network_retries=0)


@pytest.fixture(scope="module")
def running_stripe() -> Iterator[tuple[Served, Receiver]]:
    receiver = Receiver()
    with served(replace(SandboxConfig(plans_per_provider=10), api_url=receiver.url)) as sandbox:
        yield sandbox, receiver
    receiver.server.shutdown()
    receiver.server.server_close()


@pytest.fixture
def receiver(running_stripe: tuple[Served, Receiver]) -> Receiver:
    found = running_stripe[1]
    found.hooks, found.statuses = queue.Queue(), []
    return found


@pytest.fixture
def web(running_stripe: tuple[Served, Receiver], receiver: Receiver) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running_stripe[0].base_url, timeout=10) as client:
        client.post("/sandbox/reset").raise_for_status()
        yield client
        until(
            lambda: "waiting" not in client.get("/sandbox/stripe/events").text
        )  # no webhook strays into the next test


@pytest.fixture
def shop(web: httpx.Client, running_stripe: tuple[Served, Receiver]) -> stripe.StripeClient:
    return client_of(running_stripe[0].base_url)


@pytest.fixture
def clock(running_stripe: tuple[Served, Receiver]) -> Iterator[Callable[[timedelta], None]]:
    world = running_stripe[0].app.world

    def advance(by: timedelta) -> None:
        world.clock = lambda: utc_now() + by

    yield advance
    world.clock = utc_now


def order(amount: int = 1999, order_id: str = "order-1", **changes: Any) -> dict[str, Any]:
    product = {"name": "Japan 10 GB <30 days>"}
    line = {"quantity": 1, "price_data": {"currency": "usd", "unit_amount": amount, "product_data": product}}
    return {
        "mode": "payment",
        "line_items": [line],
        "success_url": "http://shop.test/thanks?session={CHECKOUT_SESSION_ID}",
        "cancel_url": "http://shop.test/cancelled",
        "client_reference_id": order_id,
        "customer_email": "customer@example.com",
        "metadata": {"order_id": order_id},
        "payment_intent_data": {"metadata": {"order_id": order_id}},
        **changes,
    }


def open_session(shop: stripe.StripeClient, **changes: Any) -> Any:
    params: Any = order(**changes)
    return shop.v1.checkout.sessions.create(params)


def pay(web: httpx.Client, session_id: str, outcome: str = "succeed", **extra: Any) -> dict[str, Any]:
    answer = web.post(f"/sandbox/stripe/pay/{session_id}", json={"outcome": outcome, **extra})
    answer.raise_for_status()
    done: dict[str, Any] = answer.json()
    return done


def paid(shop: stripe.StripeClient, web: httpx.Client, **changes: Any) -> tuple[Any, str]:
    session = open_session(shop, **changes)
    return session, str(pay(web, session.id)["payment_intent"])


def test_session_says_what_was_asked(shop: stripe.StripeClient) -> None:
    session = open_session(shop)
    assert session.id.startswith("cs_test_")
    assert (session.amount_total, session.currency, session.status) == (1999, "usd", "open")
    assert (session.payment_status, session.payment_intent) == ("unpaid", None)
    assert session.client_reference_id == "order-1"
    assert session.metadata["order_id"] == "order-1"
    assert session.expires_at - session.created == 24 * 3600
    lines = shop.v1.checkout.sessions.line_items.list(session.id).data
    assert [(line.description, line.amount_total) for line in lines] == [("Japan 10 GB <30 days>", 1999)]


def test_paying_on_the_page_sends_the_customer_back_and_tells_the_shop(
    shop: stripe.StripeClient, web: httpx.Client, receiver: Receiver
) -> None:
    session = open_session(shop)
    page = web.get(session.url).text
    assert "Japan 10 GB &lt;30 days&gt;" in page
    assert all(f'id="{button}"' in page for button in ("pay", "pay-fail", "pay-async", "cancel"))
    assert "http://shop.test/cancelled" in page
    answer = web.post(session.url, data={"outcome": "succeed", "email": "customer@example.com"})
    assert answer.status_code == 303
    assert answer.headers["location"] == f"http://shop.test/thanks?session={session.id}"
    events = receiver.events(3)
    assert [e.type for e in events] == ["charge.succeeded", "payment_intent.succeeded", "checkout.session.completed"]
    told = events[2].data.object
    assert (told["id"], told["payment_status"], told["client_reference_id"]) == (session.id, "paid", "order-1")
    assert told["customer_details"]["email"] == "customer@example.com"
    assert web.post(session.url, data={"outcome": "succeed"}).status_code == 200  # told that it is paid already
    assert len(web.get("/sandbox/charges").json()["charges"]) == 1


def test_declined_card_leaves_the_session_open(
    shop: stripe.StripeClient, web: httpx.Client, receiver: Receiver
) -> None:
    session = open_session(shop)
    answer = web.post(session.url, data={"outcome": "fail", "email": "customer@example.com"}, follow_redirects=True)
    assert 'id="declined"' in answer.text
    assert receiver.types(2) == ["charge.failed", "payment_intent.payment_failed"]
    assert shop.v1.checkout.sessions.retrieve(session.id).status == "open"
    done = pay(web, session.id)
    intent = shop.v1.payment_intents.retrieve(done["payment_intent"], {"expand": ["latest_charge"]})
    assert intent.status == "succeeded"
    assert len(shop.v1.charges.list({"payment_intent": intent.id}).data) == 2
    assert [c["amount_minor"] for c in web.get("/sandbox/charges").json()["charges"]] == [1999]


@pytest.mark.parametrize(
    ("outcome", "last", "status"),
    [
        ("async_succeed", "checkout.session.async_payment_succeeded", "paid"),
        ("async_fail", "checkout.session.async_payment_failed", "unpaid"),
    ],
)
def test_bank_payment_is_complete_first_and_settled_later(
    shop: stripe.StripeClient, web: httpx.Client, receiver: Receiver, outcome: str, last: str, status: str
) -> None:
    session = open_session(shop)
    now = pay(web, session.id, outcome, after_s=0)
    assert (now["status"], now["payment_status"]) == ("complete", "unpaid")
    events = receiver.events(6)
    assert events[2].type == "checkout.session.completed"
    assert events[2].data.object["payment_status"] == "unpaid"
    assert events[5].type == last
    assert shop.v1.checkout.sessions.retrieve(session.id).payment_status == status


def test_reordered_bank_payment_tells_the_end_first(
    shop: stripe.StripeClient, web: httpx.Client, receiver: Receiver
) -> None:
    pay(web, open_session(shop).id, "async_succeed", after_s=0, webhooks={"reorder": True})
    types = receiver.types(6)
    assert types.index("checkout.session.async_payment_succeeded") < types.index("checkout.session.completed")


def test_fee_and_charge_are_found_by_expanding_the_session(shop: stripe.StripeClient, web: httpx.Client) -> None:
    session, _ = paid(shop, web)
    path = "payment_intent.latest_charge.balance_transaction"
    read: Any = shop.v1.checkout.sessions.retrieve(session.id, {"expand": [path, "line_items"]})
    moved = read.payment_intent.latest_charge.balance_transaction
    assert (moved.fee, moved.net, moved.amount) == (88, 1911, 1999)
    assert len(read.line_items.data) == 1
    listed = shop.v1.checkout.sessions.list({"payment_intent": read.payment_intent.id})
    assert [row.id for row in listed.data] == [session.id]


@given(st.integers(min_value=50, max_value=99_999_999))
def test_fee_is_the_nearest_minor_unit(amount: int) -> None:
    assert abs((fee_minor(amount) - 30) * 1000 - amount * 29) <= 500


def test_partial_refunds_add_up_and_never_exceed_the_charge(
    shop: stripe.StripeClient, web: httpx.Client, receiver: Receiver
) -> None:
    _, intent = paid(shop, web)
    receiver.events(3)
    first = shop.v1.refunds.create({"payment_intent": intent, "amount": 500, "reason": "requested_by_customer"})
    assert (first.amount, first.status, first.reason) == (500, "succeeded", "requested_by_customer")
    assert receiver.types(3) == ["refund.created", "charge.refunded", "refund.updated"]
    with pytest.raises(stripe.InvalidRequestError, match=r"greater than unrefunded amount"):
        shop.v1.refunds.create({"payment_intent": intent, "amount": 1500})
    shop.v1.refunds.create({"payment_intent": intent})
    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.v1.refunds.create({"payment_intent": intent, "amount": 1})
    assert refused.value.code == "charge_already_refunded"
    row = web.get("/sandbox/charges").json()["charges"][0]
    assert (row["amount_minor"], row["refunded_minor"], row["status"]) == (1999, 1999, "refunded")
    assert shop.v1.balance.retrieve().pending[0].amount == -88


@settings(max_examples=15, deadline=None)
@given(parts=st.lists(st.integers(min_value=1, max_value=1200), min_size=1, max_size=6))
def test_refunds_never_exceed_the_charge(
    shop_for_properties: tuple[stripe.StripeClient, httpx.Client], parts: list[int]
) -> None:
    shop, web = shop_for_properties
    _, intent = paid(shop, web)
    given_back = 0
    for part in parts:
        try:
            given_back += shop.v1.refunds.create({"payment_intent": intent, "amount": part}).amount
        except stripe.InvalidRequestError:
            assert given_back + part > 1999
    charge = shop.v1.charges.list({"payment_intent": intent}).data[0]
    assert charge.amount_refunded == given_back <= 1999


@pytest.fixture(scope="module")
def shop_for_properties(
    running_stripe: tuple[Served, Receiver],
) -> Iterator[tuple[stripe.StripeClient, httpx.Client]]:
    base = running_stripe[0].base_url
    with httpx.Client(base_url=base) as web:
        yield client_of(base), web


def test_same_key_and_parameters_replay_the_first_answer(shop: stripe.StripeClient, web: httpx.Client) -> None:
    options: Any = {"idempotency_key": "order-7"}
    params: Any = order()
    first: Any = shop.v1.checkout.sessions.create(params, options)
    again: Any = shop.v1.checkout.sessions.create(params, options)
    assert again.id == first.id
    assert again.last_response.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.last_response.headers
    changed: Any = {**params, "client_reference_id": "another"}
    with pytest.raises(stripe.IdempotencyError) as refused:
        shop.v1.checkout.sessions.create(changed, options)
    assert refused.value.http_status == 400
    assert len(shop.v1.checkout.sessions.list().data) == 1


def test_a_refusal_of_an_executed_call_is_replayed_too(shop: stripe.StripeClient, web: httpx.Client) -> None:
    _, intent = paid(shop, web)
    for _ in range(2):
        with pytest.raises(stripe.InvalidRequestError, match="greater than"):
            shop.v1.refunds.create({"payment_intent": intent, "amount": 2000}, {"idempotency_key": "refund-9"})
    with pytest.raises(stripe.IdempotencyError):
        shop.v1.refunds.create({"payment_intent": intent, "amount": 10}, {"idempotency_key": "refund-9"})


def test_a_key_is_free_again_after_bad_parameters(shop: stripe.StripeClient) -> None:
    options: Any = {"idempotency_key": "order-8"}
    with pytest.raises(stripe.InvalidRequestError):
        shop.v1.checkout.sessions.create({"mode": "payment"}, options)
    params: Any = order()
    assert shop.v1.checkout.sessions.create(params, options).status == "open"


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"success_url": ""}, "success_url", "parameter_missing"),
        ({"success_url": "/thanks"}, "success_url", "url_invalid"),
        ({"line_items": []}, "line_items", "parameter_missing"),
        ({"customer_email": "nobody"}, "customer_email", "email_invalid"),
        ({"expires_at": 1}, "expires_at", None),
        ({"colour": "red"}, "colour", "parameter_unknown"),
        ({"amount": 49}, None, "amount_too_small"),
        ({"amount": -1}, "line_items[0][price_data][unit_amount]", "parameter_invalid_integer"),
        ({"metadata": {"k" * 41: "v"}}, f"metadata[{'k' * 41}]", None),
        ({"mode": "subscription"}, "mode", None),
    ],
)
def test_bad_session_parameters_are_named(
    shop: stripe.StripeClient, changes: dict[str, Any], param: str | None, code: str | None
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        open_session(shop, **changes)
    assert (refused.value.param, refused.value.code) == (param, code)


def test_wrong_or_missing_key_is_401(web: httpx.Client, running_stripe: tuple[Served, Receiver]) -> None:
    intruder = client_of(running_stripe[0].base_url, "sk_test_wrong_key_of_somebody")
    with pytest.raises(stripe.AuthenticationError, match="Invalid API Key provided: sk_test_"):
        intruder.v1.balance.retrieve()
    assert web.get("/stripe/v1/balance").status_code == 401
    assert web.get("/stripe/v1/balance", auth=("sk_test_sandbox", "")).status_code == 200


def test_lists_are_paged_and_filtered(shop: stripe.StripeClient, web: httpx.Client) -> None:
    ids = [open_session(shop, order_id=f"order-{number}").id for number in range(5)]
    assert [s.id for s in shop.v1.checkout.sessions.list({"limit": 2}).auto_paging_iter()] == ids[::-1]
    page = shop.v1.checkout.sessions.list({"limit": 2, "starting_after": ids[2]})
    assert [s.id for s in page.data] == [ids[1], ids[0]]
    assert page.has_more is False
    assert [s.id for s in shop.v1.checkout.sessions.list({"limit": 2, "ending_before": ids[1]}).data] == ids[3:1:-1]
    now = int(datetime.now(UTC).timestamp())
    assert shop.v1.checkout.sessions.list({"created": {"gte": now + 60}}).data == []
    assert len(shop.v1.checkout.sessions.list({"created": {"gte": now - 60}, "status": "open"}).data) == 5
    with pytest.raises(stripe.InvalidRequestError, match=r"No such checkout\.session"):
        shop.v1.checkout.sessions.list({"starting_after": "cs_test_none"})


def test_events_are_listed_by_type_and_delivery(
    shop: stripe.StripeClient, web: httpx.Client, receiver: Receiver
) -> None:
    session, _ = paid(shop, web)
    events = receiver.events(3)
    found = shop.v1.events.list({"types": ["checkout.session.completed", "checkout.session.expired"]}).data
    assert [event.id for event in found] == [events[2].id]
    assert shop.v1.events.retrieve(found[0].id).data.object["id"] == session.id
    assert len(shop.v1.events.list({"type": "payment_intent.*"}).data) == 1
    until(lambda: not shop.v1.events.list({"delivery_success": False}).data)


def test_an_expired_session_cannot_be_paid(shop: stripe.StripeClient, web: httpx.Client, receiver: Receiver) -> None:
    session = open_session(shop)
    assert shop.v1.checkout.sessions.expire(session.id).status == "expired"
    assert receiver.types(1) == ["checkout.session.expired"]
    assert web.get(session.url).status_code == 410
    assert web.post(f"/sandbox/stripe/pay/{session.id}", json={"outcome": "succeed"}).status_code == 400
    with pytest.raises(stripe.InvalidRequestError, match="status of expired"):
        shop.v1.checkout.sessions.expire(session.id)


def test_sessions_expire_by_themselves(
    shop: stripe.StripeClient, receiver: Receiver, clock: Callable[[timedelta], None]
) -> None:
    session = open_session(shop)
    clock(timedelta(hours=25))
    found = receiver.hooks.get(timeout=10)  # signed by a clock a day ahead, so the SDK's own check would refuse it
    assert b"checkout.session.expired" in found[0]
    assert shop.v1.checkout.sessions.retrieve(session.id).url is None


def test_undelivered_events_are_sent_again_until_taken(
    shop: stripe.StripeClient, web: httpx.Client, receiver: Receiver
) -> None:
    receiver.statuses = [500, 200, 200, 302, 200]
    paid(shop, web)
    types = receiver.types(5)
    assert types[:3] == ["charge.succeeded", "payment_intent.succeeded", "checkout.session.completed"]
    assert types[3:] == ["charge.succeeded", "charge.succeeded"]
    until(lambda: all(row["state"] == "delivered" for row in web.get("/sandbox/stripe/events").json()["events"]))


def test_lost_doubled_and_delayed_webhooks(shop: stripe.StripeClient, web: httpx.Client, receiver: Receiver) -> None:
    switch(web, kind="webhook_lost", times=1, params={"types": ["checkout."]})
    switch(web, kind="webhook_duplicate", times=1, params={"types": ["charge."]})
    switch(web, kind="webhook_delay", times=1, params={"types": ["payment_intent."], "seconds": 3600})
    paid(shop, web)
    assert receiver.types(2) == ["charge.succeeded", "charge.succeeded"]
    assert web.get("/sandbox/stripe/faults").json()["faults"] == []

    def states() -> dict[str, str]:
        return {row["type"]: row["state"] for row in web.get("/sandbox/stripe/events").json()["events"]}

    until(lambda: states()["charge.succeeded"] == "delivered")
    assert states()["checkout.session.completed"] == "lost"
    assert states()["payment_intent.succeeded"] == "waiting"
    ids = {row["type"]: row["id"] for row in web.get("/sandbox/stripe/events").json()["events"]}
    for kind in ("checkout.session.completed", "payment_intent.succeeded"):
        web.post(f"/sandbox/stripe/events/{ids[kind]}/resend").raise_for_status()
        assert receiver.types(1) == [kind]


def test_a_delayed_webhook_comes_by_itself(shop: stripe.StripeClient, web: httpx.Client, receiver: Receiver) -> None:
    switch(web, kind="webhook_delay", times=1, params={"types": ["charge."], "seconds": 0.2})
    paid(shop, web)
    assert "charge.succeeded" in receiver.types(3)


def test_failed_calls_do_nothing_or_all_as_asked(shop: stripe.StripeClient, web: httpx.Client) -> None:
    switch(web, kind="session_error", times=1)
    with pytest.raises(stripe.APIError):
        open_session(shop)
    assert shop.v1.checkout.sessions.list().data == []
    _, intent = paid(shop, web)
    switch(web, kind="refund_error", times=1, params={"when": "after", "status": 503})
    options: Any = {"idempotency_key": "refund-1"}
    with pytest.raises(stripe.APIError):
        shop.v1.refunds.create({"payment_intent": intent}, options)
    assert shop.v1.refunds.create({"payment_intent": intent}, options).amount == 1999
    assert web.get("/sandbox/charges").json()["totals"]["USD"]["refunded_minor"] == 1999


def test_a_call_can_time_out_after_it_was_done(shop: stripe.StripeClient, web: httpx.Client) -> None:
    switch(web, kind="api_timeout", times=1, params={"when": "after", "seconds": 0.05, "paths": ["/v1/checkout"]})
    with pytest.raises(stripe.APIConnectionError):
        open_session(shop)
    assert len(shop.v1.checkout.sessions.list().data) == 1


def test_deleting_all_faults_ends_stripe_faults(web: httpx.Client) -> None:
    switch(web, kind="api_error", times=5)
    web.delete("/sandbox/faults").raise_for_status()
    assert web.get("/sandbox/stripe/faults").json()["faults"] == []
    refused = web.put("/sandbox/stripe/faults", json={"kind": "meteor"})
    assert refused.status_code == 422
    assert "webhook_lost" in refused.json()["detail"]


def test_dispute_takes_the_money_and_forbids_refunds(
    shop: stripe.StripeClient, web: httpx.Client, receiver: Receiver
) -> None:
    _, intent = paid(shop, web)
    receiver.events(3)
    charge = shop.v1.charges.list({"payment_intent": intent}).data[0].id
    assert web.post(f"/stripe/charges/{charge}/dispute").status_code == 303
    assert receiver.types(1) == ["charge.dispute.created"]
    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.v1.refunds.create({"payment_intent": intent})
    assert refused.value.code == "charge_disputed"
    assert web.get("/sandbox/charges").json()["charges"][0]["status"] == "disputed"


@pytest.mark.parametrize(("outcome", "left"), [("won", 1500), ("lost", 3499)])
def test_a_dispute_moves_money_until_its_end(
    shop: stripe.StripeClient, web: httpx.Client, receiver: Receiver, outcome: str, left: int
) -> None:
    _, intent = paid(shop, web)
    receiver.events(3)
    before = shop.v1.balance.retrieve().pending[0].amount
    charge = shop.v1.charges.list({"payment_intent": intent}).data[0].id
    dispute = web.post("/sandbox/stripe/disputes", json={"charge": charge}).json()
    assert shop.v1.balance.retrieve().pending[0].amount == before - 3499
    closing = f"/sandbox/stripe/disputes/{dispute['id']}/close"
    assert web.post(closing, json={"outcome": "drawn"}).status_code == 422
    assert web.post(closing, json={"outcome": outcome}).json()["status"] == outcome
    assert web.post(closing, json={"outcome": outcome}).status_code == 400
    assert web.post("/sandbox/stripe/disputes/du_none/close", json={"outcome": outcome}).status_code == 404
    assert shop.v1.balance.retrieve().pending[0].amount == before - left
    row = web.get("/sandbox/charges").json()["charges"][0]
    assert (row["disputed_minor"] + row["dispute_fee_minor"], row["dispute_fee_minor"]) == (left, 1500)
    told = {e.type.rpartition(".")[2] for e in receiver.events(3 if outcome == "lost" else 4)}
    assert told == {"created", "funds_withdrawn", "closed"} | ({"funds_reinstated"} if outcome == "won" else set())
    if outcome == "won":
        assert shop.v1.refunds.create({"payment_intent": intent}).status == "succeeded"


def test_dashboard_shows_everything_escaped_and_refunds(shop: stripe.StripeClient, web: httpx.Client) -> None:
    session, intent = paid(shop, web, order_id="<script>alert(1)</script>")
    charge = shop.v1.charges.list({"payment_intent": intent}).data[0].id
    page = web.get("/stripe/").text
    assert charge in page
    assert session.id[:18] in page
    assert "<script>" not in page
    assert web.post(f"/stripe/charges/{charge}/refund", data={"amount": "100"}).status_code == 303
    refused = web.post(f"/stripe/charges/{charge}/refund", data={"amount": "99999"}, follow_redirects=True)
    assert 'id="notice"' in refused.text
    assert shop.v1.refunds.list({"charge": charge}).data[0].amount == 100


def test_payments_outlive_a_restart_and_undelivered_events_go_on(receiver: Receiver, tmp_path: Path) -> None:
    config = replace(SandboxConfig(plans_per_provider=10), api_url=receiver.url, state=tmp_path / "state.json")
    receiver.statuses = [500] * 1000  # whatever comes before the restart is refused, retries too
    with served(config) as first, httpx.Client(base_url=first.base_url) as web:
        _, intent = paid(client_of(first.base_url), web)
        receiver.events(3)
    receiver.hooks, receiver.statuses = queue.Queue(), []
    with served(config) as second:
        refund = client_of(second.base_url).v1.refunds.create({"payment_intent": intent})
        assert refund.amount == 1999
        assert any(kind == "charge.succeeded" for kind in (receiver.types(1)[0] for _ in range(10)))


def switch(web: httpx.Client, **fault: Any) -> None:
    web.put("/sandbox/stripe/faults", json=fault).raise_for_status()


def until(happened: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for a condition, with a bound; raises AssertionError when it does not come true."""
    deadline = datetime.now(UTC) + timedelta(seconds=seconds)
    pause = threading.Event()
    while not happened():
        assert datetime.now(UTC) < deadline, "the condition did not come true in time"
        pause.wait(0.02)


def test_form_encoding_is_read_as_nested_parameters() -> None:
    read = form.decode("a[b][0][c]=1&a[b][1][c]=2&expand[]=x&expand[]=y&empty=&m[k%20k]=v%26w")
    assert read == {
        "a": {"b": [{"c": "1"}, {"c": "2"}]},
        "expand": ["x", "y"],
        "empty": "",
        "m": {"k k": "v&w"},
    }
    for broken in ("a=1&a[b]=2", "a[b=1", "a" + "[b]" * 20 + "=1"):
        with pytest.raises(StripeError):
            form.decode(broken)
