"""Checkout: prices by the server, once per key, healed by a retry, nothing lost when payments are down."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import Engine, insert, select, text, update

from esim.ports import CheckoutRequest, CheckoutSession, PaymentGateway
from resources.db.tables import (
    esims,
    idempotency_keys,
    order_events,
    order_items,
    orders,
    packages,
    reference_rates,
)
from resources.settings import Settings
from tests.api.baskets import basket, check_out, placed
from tests.api.serving import ServedApi, served_api
from tests.api.test_api_catalogue import assert_problem


def count(engine: Engine, table: Any) -> int:
    with engine.connect() as conn:
        return int(conn.execute(text(f"select count(*) from {table.name}")).scalar_one())


def test_a_checkout_answers_as_documented(api: ServedApi, engine: Engine) -> None:
    answer = check_out(api.client, basket(quantity=2))
    body = answer.json()
    assert answer.status_code == 201
    assert set(body) == {
        *("order_id", "display_id", "order_token", "checkout_url", "amount_minor", "currency", "expires_at")
    }
    assert (body["display_id"], body["amount_minor"], body["currency"]) == ("OID001", 1798, "USD")
    assert answer.headers["location"] == f"/v1/orders/{body['order_id']}"
    assert answer.headers["cache-control"] == "no-store"
    assert httpx.get(body["checkout_url"]).status_code == 200
    with engine.connect() as conn:
        order = conn.execute(select(orders)).one()
        item = conn.execute(select(order_items)).one()
        units = conn.execute(select(esims.c.n, esims.c.status).order_by(esims.c.n)).all()
        event = conn.execute(select(order_events)).one()
    assert (order.status, order.payment_status, order.order_id) == ("pending", "unpaid", UUID(body["order_id"]))
    assert order.session_id.startswith("cs_")
    assert (item.unit_price_minor, item.unit_price_micros_usd, item.expected_landed_micros) == (
        899,
        8_990_000,
        2_000_000,
    )
    assert item.package["name"] == "Japan jp-5gb-30d"
    assert [tuple(unit) for unit in units] == [(1, "unpaid"), (2, "unpaid")]
    assert (event.from_status, event.to_status) == (None, "pending")


def test_only_a_hash_of_the_token_is_kept_and_the_kept_answer_is_encrypted(api: ServedApi, engine: Engine) -> None:
    token = placed(api.client)["order_token"]
    secret = token.partition(".")[2]
    assert len(secret) >= 22  # 128 bits
    with engine.connect() as conn:
        rows = conn.execute(text("select o::text, k::text from orders o cross join idempotency_keys k")).one()
    assert all(secret not in row and secret.encode().hex() not in row for row in rows)


def test_the_same_key_and_body_get_the_same_answer(api: ServedApi, engine: Engine) -> None:
    key = str(uuid4())
    first, second = check_out(api.client, key=key), check_out(api.client, key=key)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.content == first.content
    assert second.headers["idempotent-replayed"] == "true"
    assert count(engine, orders) == 1


def test_the_same_key_with_another_body_is_a_conflict(api: ServedApi, engine: Engine) -> None:
    key = str(uuid4())
    check_out(api.client, key=key)
    document = assert_problem(check_out(api.client, basket(quantity=2), key), 409)
    assert document["type"].endswith("#problem-idempotency-mismatch")
    assert count(engine, orders) == 1


def test_one_key_from_many_at_once_makes_one_order(api: ServedApi, engine: Engine, stripe_sandbox: str) -> None:
    key = str(uuid4())
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: check_out(api.client, key=key), range(8)))
    assert {answer.status_code for answer in answers} <= {201, 503}
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 503)
    assert count(engine, orders) == 1
    assert check_out(api.client, key=key).status_code == 201


def test_a_missing_key_is_a_400_that_names_the_header(api: ServedApi) -> None:
    document = assert_problem(api.client.post("/v1/checkout", json=basket()), 400, "Idempotency-Key")
    assert document["type"].endswith("#problem-idempotency-key-missing")


BAD_INPUT: list[tuple[Any, str]] = [
    (basket(quantity=0), "items.0.quantity"),
    (basket(quantity=31), "items.0.quantity"),
    ({**basket(), "items": basket()["items"] * 31}, "items"),
    ({**basket(), "items": basket(quantity=20)["items"] * 2}, "items"),
    ({**basket(), "items": []}, "items"),
    (basket(email="nobody"), "email"),
    (basket(email="a@b@c.example"), "email"),
    (basket(phone="call me"), "phone"),
    (basket(currency="JPY"), "currency"),
    (basket(package_id="jp-1tb-1d"), "items.0.package_id"),
    (basket(package_id="jp-1gb-7d-topup"), "items.0.package_id"),
    (basket(price_minor=1), "price_minor"),
    ({**basket(), "items": [{"package_id": "jp-5gb-30d", "quantity": 1, "price": 1}]}, "items.0.price"),
    (basket(success_url="https://evil.example/thanks"), "success_url"),
    (basket(cancel_url="javascript:alert(1)"), "cancel_url"),
    ([], "body"),
]


def test_bad_input_names_the_field_and_orders_nothing(api: ServedApi, engine: Engine) -> None:
    for body, field in BAD_INPUT:
        answer = api.client.post("/v1/checkout", json=body, headers={"Idempotency-Key": "a"})
        assert_problem(answer, 422, field)
    assert (count(engine, orders), count(engine, idempotency_keys)) == (0, 0)


def test_a_body_that_is_not_json_is_a_problem(api: ServedApi) -> None:
    headers = {"Idempotency-Key": "a", "Content-Type": "application/json"}
    assert_problem(api.client.post("/v1/checkout", content=b'{"items":', headers=headers), 422, "body")


def test_an_oversized_body_is_refused(api: ServedApi) -> None:
    answer = check_out(api.client, basket(success_url="x" * 100_000))
    assert_problem(answer, 413)

    def chunks() -> Any:
        for _ in range(20):
            yield b" " * 10_000

    headers = {"Idempotency-Key": "a", "Content-Type": "application/json"}
    assert_problem(api.client.post("/v1/checkout", content=chunks(), headers=headers), 413)


def test_a_return_address_must_have_a_configured_origin_exactly(shop_settings: Settings, shelf: int) -> None:
    with served_api(shop_settings, storefront_origins=("https://shop.example",)) as api:
        good = basket(success_url="https://shop.example/thanks?s={CHECKOUT_SESSION_ID}", cancel_url=f"{api.url}/")
        assert check_out(api.client, good).status_code == 201
        for bad in (
            "https://shop.example.evil.example/",
            "https://shop.example@evil.example/",
            "https://shop.example:8443/",
            "http://shop.example/",
            "//shop.example/",
            "https://shop.example\\@evil.example/",
            "/thanks",
        ):
            assert_problem(check_out(api.client, basket(success_url=bad)), 422, "success_url")


def test_a_changed_price_is_a_409_with_the_new_price_and_the_key_stays_free(api: ServedApi, engine: Engine) -> None:
    key = str(uuid4())
    with engine.begin() as conn:
        conn.execute(update(packages).values(prices={"USD": 949}).where(packages.c.package_id == "jp-5gb-30d"))
    asked = basket()
    asked["items"][0]["expected_price_minor"] = 899
    document = assert_problem(check_out(api.client, asked, key), 409)
    assert document["type"].endswith("#problem-price-changed")
    assert document["items"] == [
        {
            "package_id": "jp-5gb-30d",
            "expected_price_minor": 899,
            "available": True,
            "price": {"amount_minor": 949, "currency": "USD"},
        }
    ]
    asked["items"][0]["expected_price_minor"] = 949
    again = check_out(api.client, asked, key)
    assert (again.status_code, again.json()["amount_minor"]) == (201, 949)


def test_a_package_taken_off_sale_is_a_409(api: ServedApi, engine: Engine) -> None:
    with engine.begin() as conn:
        conn.execute(update(packages).values(on_sale=False).where(packages.c.package_id == "jp-5gb-30d"))
    document = assert_problem(check_out(api.client), 409)
    assert document["type"].endswith("#problem-sold-out")
    assert document["items"][0] | {"expected_price_minor": None} == {
        "package_id": "jp-5gb-30d",
        "expected_price_minor": None,
        "available": False,
        "price": None,
    }
    assert count(engine, orders) == 0


def test_another_currency_is_sold_at_its_own_price_and_booked_at_the_days_rate(api: ServedApi, engine: Engine) -> None:
    assert_problem(check_out(api.client, basket(currency="EUR")), 422, "currency")  # no rate yet
    with engine.begin() as conn:
        day = datetime.now(UTC).date()
        conn.execute(insert(reference_rates).values(currency="EUR", quoted_on=day, usd_micros=1_100_001))
    assert placed(api.client, basket(currency="eur"))["amount_minor"] == 879
    with engine.connect() as conn:
        item = conn.execute(select(order_items)).one()
    assert (item.currency, item.unit_price_micros_usd) == ("EUR", 9_669_009)
    assert_problem(check_out(api.client, basket(currency="GBP")), 422, "currency")  # sold, but not this package


def test_payments_down_is_a_503_and_the_same_key_heals_it(shop_settings: Settings, shelf: int, engine: Engine) -> None:
    key = str(uuid4())
    with served_api(shop_settings, stripe_api_base="http://127.0.0.1:9/stripe") as down:
        answer = check_out(down.client, key=key)
        assert_problem(answer, 503)
        assert int(answer.headers["retry-after"]) > 0
    with engine.connect() as conn:
        waiting = conn.execute(select(orders)).one()
    assert (waiting.status, waiting.session_id) == ("pending", None)
    with served_api(shop_settings) as up:
        healed = check_out(up.client, key=key)
        assert healed.status_code == 201
        assert healed.json()["order_id"] == str(waiting.order_id)
        assert check_out(up.client, key=key).content == healed.content
    assert count(engine, orders) == 1


def test_a_crash_after_the_page_was_opened_is_healed_with_the_same_page(
    api: ServedApi, engine: Engine, stripe_sandbox: str
) -> None:
    key = str(uuid4())
    fault = {"kind": "api_timeout", "times": 3, "params": {"when": "after", "seconds": 0.05}}
    httpx.put(f"{stripe_sandbox}/sandbox/stripe/faults", json=fault).raise_for_status()
    assert_problem(check_out(api.client, key=key), 503)
    httpx.delete(f"{stripe_sandbox}/sandbox/stripe/faults").raise_for_status()
    healed = check_out(api.client, key=key)
    assert healed.status_code == 201, healed.text
    listed = httpx.get(f"{stripe_sandbox}/stripe/v1/checkout/sessions?limit=100", auth=("sk_test_sandbox", "")).json()[
        "data"
    ]
    assert [row["id"] for row in listed if row["client_reference_id"] == healed.json()["order_id"]] == [
        session_of(engine, healed.json()["order_id"])
    ]


@pytest.mark.parametrize("when", ["stored", "before", "after"])
def test_a_failure_that_stripe_repeats_for_a_day_does_not_stop_the_next_try(
    api: ServedApi, engine: Engine, stripe_sandbox: str, when: str
) -> None:
    key = str(uuid4())
    fault = {"kind": "session_error", "times": 3, "params": {"when": when, "status": 500}}
    httpx.put(f"{stripe_sandbox}/sandbox/stripe/faults", json=fault).raise_for_status()
    assert_problem(check_out(api.client, key=key), 503)
    httpx.delete(f"{stripe_sandbox}/sandbox/stripe/faults").raise_for_status()
    healed = check_out(api.client, key=key)
    assert healed.status_code == 201, healed.text
    assert check_out(api.client, key=key).content == healed.content
    assert session_of(engine, healed.json()["order_id"]) in healed.json()["checkout_url"]
    assert count(engine, orders) == 1


class SlowGateway:
    """The real payment service, whose first page is told of only after something else has happened."""

    def __init__(self, real: PaymentGateway, meanwhile: Callable[[], None]) -> None:
        self._real, self._meanwhile = real, [meanwhile]
        self.opened: list[str] = []

    def create_checkout(self, request: CheckoutRequest) -> CheckoutSession:
        session = self._real.create_checkout(request)
        self.opened.append(session.session_id)
        if self._meanwhile:
            self._meanwhile.pop()()
        return session

    def close(self) -> None:
        """Nothing: the real one is the shop's."""


def test_of_two_pages_that_were_opened_only_one_is_ever_shown(
    api: ServedApi, engine: Engine, stripe_sandbox: str
) -> None:
    key, shown = str(uuid4()), []

    def meanwhile() -> None:
        fault = {"kind": "session_error", "times": 3, "params": {"when": "before", "status": 500}}
        httpx.put(f"{stripe_sandbox}/sandbox/stripe/faults", json=fault).raise_for_status()
        assert_problem(check_out(api.client, key=key), 503)
        shown.append(check_out(api.client, key=key))

    slow = SlowGateway(api.shop.gateway, meanwhile)
    api.shop.gateway = cast(PaymentGateway, slow)
    late = check_out(api.client, key=key)
    assert late.content == shown[0].content
    assert len(set(slow.opened)) == 2
    assert session_of(engine, late.json()["order_id"]) == slow.opened[1]
    assert late.json()["checkout_url"].endswith(slow.opened[1])


def session_of(engine: Engine, order_id: str) -> str:
    with engine.connect() as conn:
        return str(conn.scalar(select(orders.c.session_id).where(orders.c.order_id == UUID(order_id))))


def test_a_retry_that_comes_too_late_is_told_to_start_again(
    shop_settings: Settings, shelf: int, engine: Engine
) -> None:
    key = str(uuid4())
    with served_api(shop_settings, stripe_api_base="http://127.0.0.1:9/stripe") as down:
        assert check_out(down.client, key=key).status_code == 503
    with engine.begin() as conn:
        conn.execute(update(orders).values(expires_at=datetime.now(UTC) + timedelta(minutes=20)))
    with served_api(shop_settings) as up:
        document = assert_problem(check_out(up.client, key=key), 409)
        assert document["type"].endswith("#problem-checkout-expired")
        assert check_out(up.client).status_code == 201


def test_problems_never_leak_a_provider_or_a_trace(api: ServedApi) -> None:
    answers = [check_out(api.client, basket(email="x")), api.client.get("/v1/packages/nope")]
    for answer in answers:
        assert not any(word in answer.text for word in ("airalo", "Traceback", "landed", "floor"))
        json.loads(answer.text)
