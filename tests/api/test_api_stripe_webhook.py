"""Stripe's webhook: forged events change nothing, real ones change everything once, in any order, at any speed."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import Engine, select, text, update

from esim.money import Money
from resources.db import ledger
from resources.db.books import check_books
from resources.db.refunds import request_refund
from resources.db.tables import esims, inbox_events, ledger_entries, order_events, orders, outbox, refunds
from resources.payment_events import HANDLERS
from resources.settings import Settings
from tests.api.baskets import basket, placed
from tests.api.serving import ServedApi, served_api
from tests.api.stripe_events import event, send, session_event, sign
from tests.api.test_api_catalogue import assert_problem

PAID = "checkout.session.completed"


def order_row(engine: Engine, order: dict[str, Any]) -> Any:
    with engine.connect() as conn:
        return conn.execute(select(orders).where(orders.c.order_id == UUID(order["order_id"]))).one()


def unit_states(engine: Engine, order: dict[str, Any]) -> list[str]:
    with engine.connect() as conn:
        query = select(esims.c.status).where(esims.c.order_id == UUID(order["order_id"])).order_by(esims.c.n)
        return list(conn.scalars(query))


def rows(engine: Engine, table: Any) -> list[Any]:
    with engine.connect() as conn:
        return list(conn.execute(select(table)).all())


def whole_database(engine: Engine) -> list[str]:
    with engine.connect() as conn:
        tables = ("orders", "esims", "order_events", "inbox_events", "outbox", "refunds", "ledger_entries")
        return [str(conn.execute(text(f"select t::text from {t} t order by 1")).all()) for t in tables]


@pytest.fixture
def order(api: ServedApi) -> dict[str, Any]:
    return placed(api.client, basket(quantity=2))


def paid_event(order: dict[str, Any], **more: Any) -> dict[str, Any]:
    return session_event(PAID, order["order_id"], **{"amount": order["amount_minor"], **more})


def test_a_payment_makes_the_order_paid_and_its_units_wait_for_a_worker(
    api: ServedApi, engine: Engine, order: dict[str, Any]
) -> None:
    answer = send(api.client, paid_event(order))
    assert (answer.status_code, answer.content) == (204, b"")
    row = order_row(engine, order)
    assert (row.status, row.payment_status, row.payment_intent) == ("paid", "paid", "pi_1")
    assert (row.deadline_at - row.paid_at).total_seconds() == 70 * 60
    assert unit_states(engine, order) == ["queued", "queued"]
    with engine.connect() as conn:
        assert ledger.balance(conn, row.order_id) == {"cash": 17_980_000, "customer_payment": -17_980_000}
        assert conn.scalar(select(esims.c.next_attempt_at).limit(1)) is not None
    history = [(e.from_status, e.to_status) for e in rows(engine, order_events) if e.esim_n is None]
    assert history == [(None, "pending"), ("pending", "paid")]
    assert rows(engine, inbox_events)[0].handled == "paid"


def test_forged_altered_stale_and_unsigned_events_change_nothing(
    api: ServedApi, engine: Engine, order: dict[str, Any]
) -> None:
    body = json.dumps(paid_event(order), indent=2).encode()
    good = sign(body)
    before = whole_database(engine)
    attempts: list[tuple[bytes, dict[str, str]]] = [
        (body, {}),
        (body, {"Stripe-Signature": ""}),
        (body, {"Stripe-Signature": "t=1,v1=00"}),
        (body, {"Stripe-Signature": "nonsense"}),
        (body, sign(body, secret="whsec_other")),
        (body, sign(body, at=int(time.time()) - 301)),
        (body.replace(b'"amount_total": 1798', b'"amount_total": 1'), good),
        (json.dumps(json.loads(body)).encode(), good),  # the same JSON, re-serialised
        (body + b" ", good),
        (b"", sign(b"")),
        (b"not json", sign(b"not json")),
        (b'{"object":"event"}', sign(b'{"object":"event"}')),
        (b"\xff\xfe", sign(b"\xff\xfe")),
    ]
    for content, headers in attempts:
        assert_problem(api.client.post("/webhooks/stripe", content=content, headers=headers), 400)
    assert whole_database(engine) == before
    assert api.client.post("/webhooks/stripe", content=body, headers=good).status_code == 204


def test_a_replayed_event_changes_nothing(api: ServedApi, engine: Engine, order: dict[str, Any]) -> None:
    what = paid_event(order)
    send(api.client, what)
    before = whole_database(engine)
    for _ in range(3):
        assert send(api.client, what).status_code == 204
    assert send(api.client, {**what, "id": "evt_other"}).status_code == 204  # the same payment, told again
    after = whole_database(engine)
    assert after[:3] + after[4:] == before[:3] + before[4:]


def test_one_event_many_times_at_once_is_applied_once(api: ServedApi, engine: Engine, order: dict[str, Any]) -> None:
    what = paid_event(order)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda n: send(api.client, what if n % 2 else {**what, "id": f"evt_{n}"}), range(12)))
    assert {answer.status_code for answer in answers} == {204}
    assert [e.to_status for e in rows(engine, order_events) if e.esim_n is None] == ["pending", "paid"]
    assert unit_states(engine, order) == ["queued", "queued"]
    assert rows(engine, refunds) == []


@pytest.mark.parametrize(("amount", "currency"), [(1, "usd"), (1799, "usd"), (1798, "eur")])
def test_another_amount_or_currency_delivers_nothing_and_calls_a_person(
    api: ServedApi, engine: Engine, order: dict[str, Any], amount: int, currency: str
) -> None:
    assert send(api.client, paid_event(order, amount=amount, currency=currency)).status_code == 204
    row = order_row(engine, order)
    assert (row.status, row.payment_intent) == ("attention", "pi_1")
    assert unit_states(engine, order) == ["unpaid", "unpaid"]
    assert [(notice.channel, notice.kind) for notice in rows(engine, outbox)] == [("slack", "amount_mismatch")]
    cash = [
        (row.original_amount, row.original_currency) for row in rows(engine, ledger_entries) if row.account == "cash"
    ]
    assert cash == ([(Decimal(amount) / 100, "USD")] if currency == "usd" else [])  # no rate for the other one
    assert send(api.client, paid_event(order)).status_code == 204  # the same payment in another event
    assert order_row(engine, order).status == "attention"


def test_a_second_payment_is_refunded_and_delivers_nothing(
    api: ServedApi, engine: Engine, order: dict[str, Any]
) -> None:
    send(api.client, paid_event(order))
    second = paid_event(order, payment_intent="pi_2", session_id="cs_test_2")
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: send(api.client, {**second, "id": f"evt_second_{n}"}), range(6)))
    asked = rows(engine, refunds)
    assert [(r.refund_key, r.payment_intent, r.amount_minor, r.state) for r in asked] == [
        ("second:pi_2", "pi_2", 1798, "requested")
    ]
    row = order_row(engine, order)
    assert (row.status, row.payment_intent, row.refunded_minor) == ("paid", "pi_1", 0)
    assert unit_states(engine, order) == ["queued", "queued"]
    assert [notice.kind for notice in rows(engine, outbox)] == ["second_payment"]


def test_a_payment_for_nobody_is_kept_and_told(api: ServedApi, engine: Engine) -> None:
    for named in (str(uuid4()), "not-a-uuid", ""):
        assert send(api.client, session_event(PAID, named, amount=100)).status_code == 204
    assert {row.handled for row in rows(engine, inbox_events)} == {"no such order"}
    assert [notice.kind for notice in rows(engine, outbox)] == ["unknown_payment"] * 3


def test_an_event_without_our_metadata_is_found_by_its_session(
    api: ServedApi, engine: Engine, order: dict[str, Any]
) -> None:
    session_id = order_row(engine, order).session_id
    what = paid_event(order, session_id=session_id)
    what["data"]["object"] |= {"client_reference_id": None, "metadata": {}}
    send(api.client, what)
    assert order_row(engine, order).status == "paid"


def test_a_bank_payment_is_delivered_when_the_bank_confirms_it(
    api: ServedApi, engine: Engine, order: dict[str, Any]
) -> None:
    send(api.client, paid_event(order, payment_status="unpaid"))
    assert (order_row(engine, order).status, unit_states(engine, order)) == ("pending", ["unpaid", "unpaid"])
    confirmed = session_event("checkout.session.async_payment_succeeded", order["order_id"], amount=1798)
    send(api.client, confirmed)
    assert (order_row(engine, order).status, unit_states(engine, order)) == ("paid", ["queued", "queued"])


def test_a_bank_payment_that_fails_ends_the_order_and_tells_the_customer(
    api: ServedApi, engine: Engine, order: dict[str, Any]
) -> None:
    send(api.client, paid_event(order, payment_status="unpaid"))
    failed = session_event(
        "checkout.session.async_payment_failed", order["order_id"], amount=1798, payment_status="unpaid"
    )
    send(api.client, failed)
    row = order_row(engine, order)
    assert (row.status, row.payment_status) == ("failed", "failed")
    assert unit_states(engine, order) == ["cancelled", "cancelled"]
    assert [(notice.channel, notice.kind) for notice in rows(engine, outbox)] == [
        ("mail", "payment_failed"),
        ("slack", "payment_failed"),
    ]
    told = api.client.get(
        f"/v1/orders/{order['order_id']}", headers={"Authorization": f"Bearer {order['order_token']}"}
    ).json()
    assert told["events"][-1]["message"] == "Your payment did not go through; nothing was charged."
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn, conn.begin():
        assert list(check_books(conn).findings) == []
    send(api.client, paid_event(order))  # a bank may change its mind
    assert (order_row(engine, order).status, unit_states(engine, order)) == ("paid", ["queued", "queued"])


def test_a_declined_card_is_noted_and_may_be_followed_by_a_payment(
    api: ServedApi, engine: Engine, order: dict[str, Any]
) -> None:
    intent = {
        "id": "pi_1",
        "object": "payment_intent",
        "amount": 1798,
        "currency": "usd",
        "status": "requires_payment_method",
        "metadata": {"order_id": order["order_id"]},
    }
    send(api.client, event("payment_intent.payment_failed", intent))
    assert (order_row(engine, order).status, order_row(engine, order).payment_status) == ("pending", "failed")
    send(api.client, paid_event(order))
    send(api.client, event("payment_intent.payment_failed", intent))  # late
    assert (order_row(engine, order).status, order_row(engine, order).payment_status) == ("paid", "paid")
    assert rows(engine, outbox) == []


def test_an_expired_checkout_cancels_and_a_late_payment_still_counts(
    api: ServedApi, engine: Engine, order: dict[str, Any]
) -> None:
    expired = session_event(
        "checkout.session.expired", order["order_id"], amount=1798, payment_status="unpaid", payment_intent=""
    )
    send(api.client, expired)
    assert (order_row(engine, order).status, unit_states(engine, order)) == ("cancelled", ["cancelled"] * 2)
    send(api.client, paid_event(order))
    assert (order_row(engine, order).status, unit_states(engine, order)) == ("paid", ["queued"] * 2)
    send(api.client, {**expired, "id": "evt_late"})  # reordered: expiry told after the payment
    assert order_row(engine, order).status == "paid"


def test_a_dispute_calls_a_person(api: ServedApi, engine: Engine, order: dict[str, Any]) -> None:
    send(api.client, paid_event(order))
    dispute = {"id": "du_1", "object": "dispute", "amount": 1798, "currency": "usd", "payment_intent": "pi_1"}
    send(api.client, event("charge.dispute.created", dispute))
    row = order_row(engine, order)
    assert (row.status, row.attention_reason) == ("attention", "the customer's bank opened a dispute")
    assert [notice.kind for notice in rows(engine, outbox)] == ["dispute"]


def test_money_for_an_order_that_waits_for_a_person_is_booked_and_not_delivered(
    api: ServedApi, engine: Engine, order: dict[str, Any]
) -> None:
    with engine.begin() as conn:
        conn.execute(update(orders).values(status="attention"))
    send(api.client, paid_event(order))
    row = order_row(engine, order)
    assert (row.status, row.payment_status) == ("attention", "paid")
    assert unit_states(engine, order) == ["unpaid", "unpaid"]
    assert [notice.kind for notice in rows(engine, outbox)] == ["payment_held"]


def test_events_we_do_not_act_on_are_noted(api: ServedApi, engine: Engine) -> None:
    assert send(api.client, event("customer.created", {"id": "cus_1", "object": "customer"})).status_code == 204
    assert rows(engine, inbox_events)[0].handled == "not on the list"


def test_an_error_of_ours_is_a_5xx_and_leaves_the_event_to_be_sent_again(
    api: ServedApi, engine: Engine, order: dict[str, Any]
) -> None:
    what = paid_event(order)
    with engine.begin() as conn:
        conn.exec_driver_sql("alter table ledger_entries rename to ledger_away")
    before = rows(engine, inbox_events)
    refused = send(api.client, what)
    assert_problem(refused, 500)
    assert "ledger" not in refused.text
    with engine.begin() as conn:
        conn.exec_driver_sql("alter table ledger_away rename to ledger_entries")
    assert (rows(engine, inbox_events), order_row(engine, order).status) == (before, "pending")
    assert send(api.client, what).status_code == 204
    assert order_row(engine, order).status == "paid"


def test_without_a_secret_there_is_no_webhook(shop_settings: Settings, shelf: int) -> None:
    live_without_secret = {"stripe_secret_key": "sk_test_sandbox"}
    settings = Settings.model_validate(shop_settings.model_dump() | live_without_secret)
    with served_api(settings) as api:
        assert_problem(send(api.client, session_event(PAID, str(uuid4()), amount=1)), 404)


def test_every_event_on_the_list_is_documented(api: ServedApi) -> None:
    described = api.client.get("/openapi.json").json()["paths"]["/webhooks/stripe"]["post"]["description"]
    assert set(HANDLERS) == {part for part in described.split("`") if "." in part and " " not in part}


def test_webhooks_are_outside_the_rate_limit(shop_settings: Settings, shelf: int) -> None:
    with served_api(shop_settings, rate_limit_per_minute=2) as api:
        answers = [send(api.client, session_event(PAID, str(uuid4()), amount=1)) for _ in range(6)]
        assert {answer.status_code for answer in answers} == {204}
        assert httpx.get(f"{api.url}/healthz").status_code == 200


def refund_event(refund_id: str, amount: int, status: str, key: str = "", intent: str = "pi_1") -> dict[str, Any]:
    subject = {
        "id": refund_id,
        "object": "refund",
        "amount": amount,
        "currency": "usd",
        "status": status,
        "payment_intent": intent,
        "metadata": {"refund_key": key} if key else {},
    }
    return event("refund.updated", subject)


def charge_event(refunded: int, intent: str = "pi_1") -> dict[str, Any]:
    subject = {
        "id": "ch_1",
        "object": "charge",
        "amount": 1798,
        "amount_refunded": refunded,
        "currency": "usd",
        "payment_intent": intent,
    }
    return event("charge.refunded", subject)


def ask_refund_of_unit_1(engine: Engine, order: dict[str, Any]) -> str:
    key = f"refund:{order['order_id']}:1"
    with engine.begin() as conn:
        conn.execute(update(esims).values(status="failed"))
        request_refund(
            conn,
            key=key,
            order_id=UUID(order["order_id"]),
            payment_intent="pi_1",
            amount=Money(899, "USD"),
            reason="not delivered",
            esim_n=1,
        )
    return key


def test_a_refund_whose_payer_died_is_recorded_by_the_webhook(
    api: ServedApi, engine: Engine, order: dict[str, Any]
) -> None:
    send(api.client, paid_event(order))
    key = ask_refund_of_unit_1(engine, order)
    send(api.client, charge_event(899))  # told first: it is ours, so nothing was refunded by hand
    for _ in range(2):
        send(api.client, refund_event("re_1", 899, "pending", key))
    assert [(r.state, r.stripe_refund_id) for r in rows(engine, refunds)] == [("sent", "re_1")]
    row = order_row(engine, order)
    assert (row.refunded_minor, row.payment_status) == (899, "partially_refunded")
    send(api.client, refund_event("re_1", 899, "succeeded", key))
    assert [r.state for r in rows(engine, refunds)] == ["succeeded"]
    with engine.connect() as conn:
        assert ledger.balance(conn, row.order_id)["refunds"] == 8_990_000


def test_a_refund_that_fails_after_all_is_taken_back_and_calls_a_person(
    api: ServedApi, engine: Engine, order: dict[str, Any]
) -> None:
    send(api.client, paid_event(order))
    key = ask_refund_of_unit_1(engine, order)
    send(api.client, refund_event("re_1", 899, "succeeded", key))
    for _ in range(2):
        send(api.client, refund_event("re_1", 899, "failed", key))
    row = order_row(engine, order)
    assert (row.status, row.refunded_minor, row.payment_status) == ("attention", 0, "paid")
    with engine.connect() as conn:
        assert ledger.balance(conn, row.order_id)["refunds"] == 0
        assert ledger.unbalanced_postings(conn) == []


def test_old_news_of_a_refund_that_failed_is_settled_by_asking(
    api: ServedApi, engine: Engine, order: dict[str, Any]
) -> None:
    send(api.client, paid_event(order))
    key = ask_refund_of_unit_1(engine, order)
    send(api.client, refund_event("re_1", 899, "failed", key))
    assert send(api.client, charge_event(899)).status_code == 204
    assert [(r.state, r.stripe_refund_id) for r in rows(engine, refunds)] == [("failed", "re_1")]
    assert (order_row(engine, order).refunded_minor, rows(engine, inbox_events)[-1].handled) == (0, "known already")


def test_an_event_is_sent_again_where_the_payment_service_cannot_be_asked(
    shop_settings: Settings, engine: Engine, api: ServedApi, order: dict[str, Any]
) -> None:
    send(api.client, paid_event(order))
    key = ask_refund_of_unit_1(engine, order)
    send(api.client, refund_event("re_1", 899, "failed", key))
    before = whole_database(engine)
    with served_api(shop_settings, stripe_api_base="http://127.0.0.1:9/stripe") as cut_off:
        assert send(cut_off.client, charge_event(899)).status_code >= 500
    assert whole_database(engine) == before


def test_a_refund_by_hand_is_booked_once_and_told(api: ServedApi, engine: Engine, order: dict[str, Any]) -> None:
    send(api.client, paid_event(order))
    for _ in range(2):
        send(api.client, charge_event(500))
    assert order_row(engine, order).refunded_minor == 500
    send(api.client, charge_event(1798))
    row = order_row(engine, order)
    assert (row.refunded_minor, row.payment_status) == (1798, "refunded")
    assert [(r.amount_minor, r.state) for r in rows(engine, refunds)] == [(500, "succeeded"), (1298, "succeeded")]
    assert [notice.kind for notice in rows(engine, outbox)] == ["external_refund"] * 2
    send(api.client, refund_event("re_hand", 500, "succeeded"))
    assert order_row(engine, order).refunded_minor == 1798


def test_an_order_paid_back_by_hand_before_its_payment_was_heard_of_is_not_bought(
    api: ServedApi, engine: Engine, order: dict[str, Any]
) -> None:
    back = charge_event(1798)
    back["data"]["object"]["metadata"] = {"order_id": order["order_id"]}
    send(api.client, back)
    send(api.client, paid_event(order))
    row = order_row(engine, order)
    assert (row.status, row.payment_status, row.refunded_minor) == ("attention", "refunded", 1798)
    assert "all of it" in row.hold_reason
    assert unit_states(engine, order) == ["attention", "attention"]
    with engine.connect() as conn:
        assert ledger.balance(conn, row.order_id) == {"cash": 0, "customer_payment": -17_980_000, "refunds": 17_980_000}


def test_operations_hear_once_and_truly_of_an_order_paid_back_by_hand_before_its_payment(
    api: ServedApi, engine: Engine, order: dict[str, Any]
) -> None:
    back = charge_event(1798)
    back["data"]["object"]["metadata"] = {"order_id": order["order_id"]}
    for what in (refund_event("re_hand", 1798, "succeeded"), back, {**back, "id": "evt_again"}):
        send(api.client, what)
    [note] = rows(engine, outbox)
    assert note.kind == "external_refund"
    assert "Its payment is not heard of yet" in note.payload["text"]
    assert "go on" not in note.payload["text"]


def test_a_refund_of_money_that_is_nobodys_is_told_by_its_charge(api: ServedApi, engine: Engine) -> None:
    send(api.client, refund_event("re_stranger", 500, "succeeded", intent="pi_stranger"))
    assert rows(engine, outbox) == []
    send(api.client, charge_event(500, "pi_stranger"))
    [note] = rows(engine, outbox)
    assert note.kind == "unknown_payment"
    assert "for a payment that no order of ours is known to have" in note.payload["text"]


def test_a_part_paid_back_by_hand_before_the_payment_was_heard_of_is_booked_with_it(
    api: ServedApi, engine: Engine, order: dict[str, Any]
) -> None:
    back = charge_event(500)
    back["data"]["object"]["metadata"] = {"order_id": order["order_id"]}
    send(api.client, back)
    send(api.client, paid_event(order))
    row = order_row(engine, order)
    assert (row.status, row.payment_status, row.refunded_minor) == ("paid", "partially_refunded", 500)
    assert unit_states(engine, order) == ["queued", "queued"]
    with engine.connect() as conn:
        assert ledger.balance(conn, row.order_id)["cash"] == 12_980_000


def test_a_second_payment_that_somebody_paid_back_already_is_not_paid_back_again(
    api: ServedApi, engine: Engine, order: dict[str, Any]
) -> None:
    send(api.client, paid_event(order))
    back = charge_event(1798, "pi_2")
    back["data"]["object"]["metadata"] = {"order_id": order["order_id"]}
    send(api.client, back)
    second = paid_event(order, payment_intent="pi_2", session_id="cs_test_2")
    for n in range(2):
        send(api.client, {**second, "id": f"evt_second_{n}"})
    assert [(r.refund_key, r.state) for r in rows(engine, refunds)] == [("external:pi_2:1798", "succeeded")]
    with engine.connect() as conn:
        assert ledger.balance(conn, UUID(order["order_id"]))["cash"] == 17_980_000
    assert (order_row(engine, order).status, unit_states(engine, order)) == ("paid", ["queued", "queued"])
