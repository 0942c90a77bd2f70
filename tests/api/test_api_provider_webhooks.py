"""Providers' webhooks are hints: verified, noted once, believed never."""

import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Engine, insert, select, text

from resources.db.tables import esims, inbox_events, purchase_attempts
from resources.settings import PROVIDERS, Settings
from tests.api.baskets import placed
from tests.api.serving import ServedApi, served_api
from tests.api.test_api_catalogue import assert_problem


def inbox(engine: Engine) -> list[Any]:
    with engine.connect() as conn:
        return list(conn.execute(select(inbox_events).order_by(inbox_events.c.event_id)).all())


@pytest.fixture
def purchase(api: ServedApi, engine: Engine) -> str:
    """An open purchase at eSIM Access with the provider's order number B2400."""
    order = placed(api.client)
    with engine.begin() as conn:
        conn.execute(
            insert(purchase_attempts).values(
                esim_id=conn.scalar(select(esims.c.esim_id)),
                order_id=UUID(order["order_id"]),
                number=1,
                failover_step=0,
                provider="esim_access",
                offer_id="esim_access:P1",
                provider_package_id="P1",
                reference="abcdefghijklmnopqrstuvwx12",
                fence=1,
                expected_cost=1,
                ceiling_cost=2,
                currency="USD",
                state="pending",
                provider_order_id="B2400",
                started_at=datetime.now(UTC),
            )
        )
    return str(order["order_id"])


def ready(order_no: str, notify_id: str = "n1") -> dict[str, Any]:
    content = {"orderNo": order_no, "transactionId": "abcdefghijklmnopqrstuvwx12", "orderStatus": "GOT_RESOURCE"}
    return {"notifyType": "ORDER_STATUS", "notifyId": notify_id, "content": content}


def post(api: ServedApi, slug: str, body: Any, headers: dict[str, str] | None = None) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return api.client.post(f"/webhooks/providers/{slug}", content=content, headers=headers or {})


def test_a_hint_about_our_purchase_is_noted_once_and_left_to_be_read_again(
    api: ServedApi, engine: Engine, purchase: str
) -> None:
    for _ in range(2):
        assert post(api, "esim_access", ready("B2400")).status_code == 200
    (row,) = inbox(engine)
    assert (row.source, row.order_id, row.worked_at) == ("esim_access", UUID(purchase), None)
    assert row.work["provider"] == "esim_access"
    assert (row.work["reference"], row.work["provider_order_id"]) == ("abcdefghijklmnopqrstuvwx12", "B2400")
    with engine.connect() as conn:
        assert conn.scalar(select(purchase_attempts.c.state)) == "pending"  # nothing is believed


def test_a_hint_that_cannot_be_kept_is_a_5xx_so_that_the_provider_sends_it_again(
    api: ServedApi, engine: Engine, purchase: str
) -> None:
    with engine.begin() as conn:
        conn.exec_driver_sql("alter table inbox_events rename to inbox_away")
    assert_problem(post(api, "esim_access", ready("B2400")), 500)
    with engine.begin() as conn:
        conn.exec_driver_sql("alter table inbox_away rename to inbox_events")
    assert post(api, "esim_access", ready("B2400")).status_code == 200
    assert len(inbox(engine)) == 1


def test_a_stranger_cannot_fill_the_inbox_of_a_provider_that_does_not_sign(api: ServedApi, engine: Engine) -> None:
    for n in range(3):
        body = ready(f"B{n}", f"n{n}")
        body["content"]["transactionId"] = f"x\x00{n}"
        assert post(api, "esim_access", body).status_code == 200
    assert inbox(engine) == []


@pytest.mark.parametrize("odd", ["\\ud800", "\\u0000", "B2400\\udfff"])
@pytest.mark.parametrize("field", ["transactionId", "orderNo", "iccid", "orderStatus"])
def test_a_text_that_no_database_holds_is_heard_like_any_other(
    api: ServedApi, purchase: str, field: str, odd: str
) -> None:
    event = ready("B2400", "odd")
    event["content"][field] = "ODD"
    raw = json.dumps(event).replace("ODD", odd)
    assert post(api, "esim_access", raw.encode()).status_code == 200
    assert post(api, "esim_access", json.dumps(ready("B2400", "ODD")).replace("ODD", odd).encode()).status_code == 200


def test_a_health_check_is_answered_200(api: ServedApi) -> None:
    check = {"notifyType": "CHECK_HEALTH", "notifyId": "h1", "content": {}}
    assert post(api, "esim_access", check).status_code == 200


def test_airalo_probes_with_head_and_signs_its_bodies(api: ServedApi, engine: Engine) -> None:
    assert api.client.head("/webhooks/providers/airalo").status_code == 200
    body = json.dumps({"data": {"request_id": "r1"}, "meta": {"message": "success"}}).encode()
    good = hmac.new(b"sandbox-secret", body, hashlib.sha512).hexdigest()
    assert_problem(post(api, "airalo", body), 400)
    assert_problem(post(api, "airalo", body, {"airalo-signature": "0" * 128}), 400)
    assert_problem(post(api, "airalo", body + b" ", {"airalo-signature": good}), 400)
    assert inbox(engine) == []
    assert post(api, "airalo", body, {"airalo-signature": good}).status_code == 200


def test_what_is_no_event_changes_nothing(api: ServedApi, engine: Engine) -> None:
    for slug in PROVIDERS:
        for body in (b"", b"<html>", b"[]", b"\xff", b"{" * 5000):
            assert_problem(post(api, slug, body), 400)
    assert inbox(engine) == []


def test_an_unknown_provider_is_not_found(api: ServedApi) -> None:
    assert_problem(post(api, "monty", {}), 404)
    assert api.client.head("/webhooks/providers/monty").status_code == 404


def test_known_addresses_keep_strangers_away_from_an_unsigned_provider(shop_settings: Settings, shelf: int) -> None:
    with served_api(shop_settings, provider_webhook_ips=("3.1.131.226",)) as api:
        assert_problem(post(api, "esim_access", ready("B1")), 403)
    with served_api(shop_settings, provider_webhook_ips=("127.0.0.1",)) as api:
        assert post(api, "esim_access", ready("B1")).status_code == 200


def test_no_iccid_is_kept_in_the_clear(api: ServedApi, engine: Engine, purchase: str) -> None:
    body = ready("B2400")
    body["content"]["iccid"] = "8981100000000000017"
    post(api, "esim_access", body)
    with engine.connect() as conn:
        assert "8981100000000000017" not in str(conn.execute(text("select i::text from inbox_events i")).all())
