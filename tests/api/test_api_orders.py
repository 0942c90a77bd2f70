"""Orders for whoever holds the token: what is shown, to whom, live, and as QR codes."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import Engine, select, text, update

from esim.orders import UnitStatus
from resources.db.order_links import mail_token
from resources.db.tables import orders
from resources.settings import Settings
from tests.api.baskets import basket, placed
from tests.api.deliver import PROFILE, work
from tests.api.serving import ServedApi, served_api, wait_until
from tests.api.stripe_events import send, session_event
from tests.api.test_api_catalogue import assert_problem


@pytest.fixture
def order(api: ServedApi) -> dict[str, Any]:
    return placed(api.client, basket(quantity=2))


def bearer(order: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {order['order_token']}"}


def path(order: dict[str, Any]) -> str:
    return f"/v1/orders/{order['order_id']}"


def read(api: ServedApi, order: dict[str, Any]) -> dict[str, Any]:
    answer = api.client.get(path(order), headers=bearer(order))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def pay(api: ServedApi, order: dict[str, Any]) -> None:
    paid = session_event("checkout.session.completed", order["order_id"], amount=order["amount_minor"])
    assert send(api.client, paid).status_code == 204


def test_an_unpaid_order_shows_what_was_ordered_and_no_codes(api: ServedApi, order: dict[str, Any]) -> None:
    found = read(api, order)
    assert (found["status"], found["payment_status"], found["display_id"]) == ("pending", "unpaid", "OID001")
    assert found["items"] == [
        {
            "package_id": "jp-5gb-30d",
            "name": "Japan jp-5gb-30d",
            "quantity": 2,
            "unit_price": {"amount_minor": 899, "currency": "USD"},
        }
    ]
    assert [(esim["n"], esim["status"], esim["lpa"]) for esim in found["esims"]] == [
        (1, "unpaid", None),
        (2, "unpaid", None),
    ]


def test_a_delivered_esim_shows_its_activation_data(api: ServedApi, engine: Engine, order: dict[str, Any]) -> None:
    pay(api, order)
    assert [esim["status"] for esim in read(api, order)["esims"]] == ["preparing", "preparing"]
    work(engine, order["order_id"], UnitStatus.DELIVERED, api.shop.vault, only=1)
    work(engine, order["order_id"], UnitStatus.UNKNOWN, only=2)
    found = read(api, order)
    first, second = found["esims"]
    assert first["status"] == "delivered"
    assert first["iccid"] == PROFILE.iccid
    assert first["lpa"] == "LPA:1$rsp.example.com$MATCH-0001"
    assert (first["smdp_address"], first["activation_code"], first["apn"]) == (
        "rsp.example.com",
        "MATCH-0001",
        "internet",
    )
    assert first["qr_url"] == f"{api.url}{path(order)}/esims/1/qr.svg"
    assert first["install_url"].startswith("https://esimsetup.apple.com/")
    assert (second["status"], second["iccid"]) == ("preparing", None)  # an unclear purchase is our concern


def test_a_refunded_esim_shows_no_codes_any_more(api: ServedApi, engine: Engine, order: dict[str, Any]) -> None:
    pay(api, order)
    work(engine, order["order_id"], UnitStatus.DELIVERED, api.shop.vault)
    work(engine, order["order_id"], UnitStatus.REFUNDED, only=1)
    first, second = read(api, order)["esims"]
    assert (first["status"], first["lpa"]) == ("refunded", None)
    assert second["status"] == "delivered"


def test_history_tells_the_customer_no_provider_and_no_reason(
    api: ServedApi, engine: Engine, order: dict[str, Any]
) -> None:
    pay(api, order)
    work(engine, order["order_id"], UnitStatus.DELIVERED, api.shop.vault)
    answer = api.client.get(path(order), headers=bearer(order))
    assert "airalo" not in answer.text
    events = answer.json()["events"]
    assert [(event["esim"], event["status"]) for event in events] == [
        (None, "pending"),
        (1, "preparing"),
        (2, "preparing"),
        (None, "paid"),
        (1, "delivered"),
        (2, "delivered"),
        (None, "completed"),
    ]


def test_without_the_orders_own_token_nothing_is_shown(api: ServedApi, order: dict[str, Any]) -> None:
    other = placed(api.client)
    for suffix in ("", "/events", "/esims/1/qr.svg", "/esims/1/qr.png"):
        target = path(order) + suffix
        for header in (
            {},
            {"Authorization": ""},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer nonsense"},
            {"Authorization": f"Basic {order['order_token']}"},
            {"Authorization": f"Bearer {order['order_token'][:-1]}"},
            {"Authorization": f"Bearer {order['order_token'][:23]}AAAA"},
        ):
            refused = api.client.get(target, headers=header)
            assert_problem(refused, 401)
            assert refused.headers["www-authenticate"].startswith("Bearer")
        existing = api.client.get(target, headers=bearer(other))
        missing = api.client.get(target.replace(order["order_id"], str(uuid4())), headers=bearer(other))
        assert_problem(existing, 404)
        assert {k: v for k, v in existing.json().items() if k not in {"instance", "request_id"}} == {
            k: v for k, v in missing.json().items() if k not in {"instance", "request_id"}
        }


def test_the_token_of_a_mail_opens_its_own_order_and_nothing_else(api: ServedApi, order: dict[str, Any]) -> None:
    other = placed(api.client)
    token = mail_token(UUID(order["order_id"]), api.shop.vault)
    answer = api.client.get(path(order), headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json()["order_id"]) == (200, order["order_id"])
    assert_problem(api.client.get(path(other), headers={"Authorization": f"Bearer {token}"}), 404)
    head, _, seal = token.partition(".")
    swapped = other["order_token"].partition(".")[0]
    for forged in (token[:-2] + "AA", f"{swapped}.{seal}", f"{head}.{other['order_token'].partition('.')[2]}", head):
        for target in (path(order), path(other), f"{path(order)}/esims/1/qr.svg"):
            assert_problem(api.client.get(target, headers={"Authorization": f"Bearer {forged}"}), 401)
    unknown = mail_token(uuid4(), api.shop.vault)
    assert_problem(api.client.get(path(order), headers={"Authorization": f"Bearer {unknown}"}), 401)


def test_answers_about_orders_are_never_stored(api: ServedApi, order: dict[str, Any]) -> None:
    assert api.client.get(path(order), headers=bearer(order)).headers["cache-control"] == "no-store"
    assert api.client.get(path(order)).headers["cache-control"] == "no-store"


def test_qr_codes_come_as_pictures_once_delivered(api: ServedApi, engine: Engine, order: dict[str, Any]) -> None:
    target = f"{path(order)}/esims/1/qr"
    assert_problem(api.client.get(f"{target}.svg", headers=bearer(order)), 404)
    pay(api, order)
    work(engine, order["order_id"], UnitStatus.DELIVERED, api.shop.vault)
    svg = api.client.get(f"{target}.svg", headers=bearer(order))
    png = api.client.get(f"{target}.png", headers=bearer(order))
    assert (svg.headers["content-type"], svg.content[:4]) == ("image/svg+xml", b"<svg")
    assert (png.headers["content-type"], png.content[:8]) == ("image/png", b"\x89PNG\r\n\x1a\n")
    assert svg.headers["cache-control"] == "no-store"
    assert_problem(api.client.get(f"{path(order)}/esims/3/qr.svg", headers=bearer(order)), 404)
    assert_problem(api.client.get(f"{path(order)}/esims/0/qr.svg", headers=bearer(order)), 422, "n")


class Stream:
    """A reader of server-sent events in a thread of its own."""

    def __init__(self, response: httpx.Response) -> None:
        self.events: list[tuple[str, dict[str, Any], int | None]] = []
        self.ended = threading.Event()
        self._response = response
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with suppress(httpx.HTTPError):  # the test left before the end
            self._take()
        self.ended.set()

    def _take(self) -> None:
        fields: dict[str, str] = {}
        for line in self._response.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                number = int(fields["id"]) if "id" in fields else None
                self.events.append((fields["event"], json.loads(fields["data"]), number))
                fields = {}
            else:
                fields = {}

    def leave(self) -> None:
        """Hang up; closing alone would wait for the reader, which waits for the server."""
        with suppress(OSError):  # the server hung up first
            self._response.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    @property
    def statuses(self) -> list[str]:
        return [data["status"] for kind, data, _ in self.events if kind == "status" and data["esim"] is None]


@contextmanager
def stream(api: ServedApi, order: dict[str, Any], after: int | None = None) -> Iterator[Stream]:
    headers = bearer(order) | ({"Last-Event-ID": str(after)} if after is not None else {})
    with api.client.stream("GET", f"{path(order)}/events", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        seen = Stream(response)
        try:
            yield seen
        finally:
            seen.leave()


def test_an_order_is_followed_live_to_its_end(api: ServedApi, engine: Engine, order: dict[str, Any]) -> None:
    with stream(api, order) as seen:
        wait_until(lambda: seen.statuses == ["pending"], "the past is told")
        pay(api, order)
        wait_until(lambda: seen.statuses == ["pending", "paid"], "the payment is told")
        work(engine, order["order_id"], UnitStatus.DELIVERED, api.shop.vault)
        assert seen.ended.wait(15)
    assert seen.statuses == ["pending", "paid", "completed"]
    assert seen.events[-1] == ("end", {"status": "completed"}, None)
    assert api.shop.metrics.streams_open == 0


def test_a_stream_resumes_after_the_last_event_seen(api: ServedApi, engine: Engine, order: dict[str, Any]) -> None:
    pay(api, order)
    work(engine, order["order_id"], UnitStatus.DELIVERED, api.shop.vault)
    with stream(api, order) as whole:
        assert whole.ended.wait(15)
    numbers = [number for _, _, number in whole.events if number is not None]
    assert numbers == sorted(set(numbers))
    with stream(api, order, after=numbers[2]) as rest:
        assert rest.ended.wait(15)
    assert rest.events == whole.events[3:]
    refused = api.client.get(f"{path(order)}/events", headers=bearer(order) | {"Last-Event-ID": "x"})
    assert_problem(refused, 422, "Last-Event-ID")


def test_a_lost_webhook_is_made_good_by_looking_at_the_order(
    api: ServedApi, engine: Engine, order: dict[str, Any], stripe_sandbox: str
) -> None:
    with engine.connect() as conn:
        session_id = conn.scalar(select(orders.c.session_id))
    httpx.post(
        f"{stripe_sandbox}/sandbox/stripe/pay/{session_id}", json={"webhooks": {"lost": True}}
    ).raise_for_status()
    assert read(api, order)["status"] == "pending"  # too early to doubt the webhook
    with engine.begin() as conn:
        conn.execute(update(orders).values(created_at=datetime.now(UTC) - timedelta(minutes=1)))
    read(api, order)
    wait_until(lambda: read(api, order)["status"] == "paid", "Stripe was asked")
    with engine.connect() as conn:
        row = conn.execute(select(orders)).one()
    assert row.payment_intent.startswith("pi_")
    late = session_event(
        "checkout.session.completed",
        order["order_id"],
        amount=order["amount_minor"],
        payment_intent=row.payment_intent,
        session_id=row.session_id,
    )
    assert send(api.client, late).status_code == 204
    assert read(api, order)["status"] == "paid"


@pytest.fixture
def slow_stripe(stripe_sandbox: str) -> Iterator[None]:
    """Stripe takes every question and answers none for longer than a test lasts."""
    fault = {"kind": "api_timeout", "params": {"seconds": 15, "paths": ["/v1/checkout/sessions/"]}}
    httpx.put(f"{stripe_sandbox}/sandbox/stripe/faults", json=fault).raise_for_status()
    yield
    httpx.delete(f"{stripe_sandbox}/sandbox/stripe/faults").raise_for_status()


def _age(engine: Engine) -> None:
    with engine.begin() as conn:
        conn.execute(update(orders).values(created_at=datetime.now(UTC) - timedelta(minutes=1)))


def test_a_slow_payment_service_holds_up_neither_order_pages_nor_webhooks(
    api: ServedApi, engine: Engine, request: pytest.FixtureRequest
) -> None:
    waiting = [placed(api.client) for _ in range(50)]
    _age(engine)
    request.getfixturevalue("slow_stripe")
    began = time.monotonic()
    for order in waiting:
        read(api, order)
    pay(api, waiting[0])
    assert read(api, waiting[0])["status"] == "paid"
    assert time.monotonic() - began < 10


def test_a_payment_is_told_while_the_payment_service_is_still_being_asked(
    api: ServedApi, engine: Engine, order: dict[str, Any], slow_stripe: None
) -> None:
    _age(engine)
    with stream(api, order) as seen:
        wait_until(lambda: seen.statuses == ["pending"], "the past is told")
        pay(api, order)
        wait_until(lambda: seen.statuses == ["pending", "paid"], "the payment is told", 5)


def test_nothing_personal_or_secret_is_kept_in_the_clear(api: ServedApi, engine: Engine, order: dict[str, Any]) -> None:
    pay(api, order)
    work(engine, order["order_id"], UnitStatus.DELIVERED, api.shop.vault)
    with engine.connect() as conn:
        for table in ("esims", "order_events", "inbox_events", "outbox", "ledger_entries"):
            dump = str(conn.execute(text(f"select t::text from {table} t")).all())
            assert PROFILE.iccid not in dump
            assert "MATCH-0001" not in dump
            assert "traveller@example.com" not in dump


def test_only_so_many_streams_are_open_at_once(shop_settings: Settings, shelf: int) -> None:
    with served_api(shop_settings) as api:
        order = placed(api.client)
        api.shop.metrics.streams_open = 1000
        refused = api.client.get(f"{path(order)}/events", headers=bearer(order))
        assert_problem(refused, 503)
        assert "retry-after" in refused.headers
        assert read(api, order)["order_id"] == str(UUID(order["order_id"]))


def test_one_order_takes_only_a_few_of_the_streams(api: ServedApi, order: dict[str, Any]) -> None:
    with ExitStack() as open_streams:
        for _ in range(5):
            open_streams.enter_context(stream(api, order))
        wait_until(lambda: api.shop.metrics.streams_open == 5, "five are open")
        refused = api.client.get(f"{path(order)}/events", headers=bearer(order))
        assert assert_problem(refused, 503)["type"].endswith("#problem-too-many-streams")
        assert "retry-after" in refused.headers
        open_streams.enter_context(stream(api, placed(api.client)))
    wait_until(lambda: api.shop.metrics.streams_open == 0, "all are given back")
    with stream(api, order) as seen:
        wait_until(lambda: seen.statuses == ["pending"], "there is room again")


def test_asking_for_the_head_of_a_stream_opens_none(api: ServedApi, order: dict[str, Any]) -> None:
    answer = api.client.head(f"{path(order)}/events", headers=bearer(order))
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")
    wait_until(lambda: api.shop.metrics.streams_open == 0, "nothing stays open")


def test_open_streams_are_counted_and_given_back_when_the_customer_leaves(
    api: ServedApi, order: dict[str, Any]
) -> None:
    with stream(api, order) as seen:
        wait_until(lambda: seen.statuses == ["pending"], "the past is told")
        assert api.shop.metrics.streams_open == 1
        assert "numnaroad_event_streams_open 1.0" in httpx.get(f"{api.url}/metrics").text
    wait_until(lambda: api.shop.metrics.streams_open == 0, "the stream is given back")
