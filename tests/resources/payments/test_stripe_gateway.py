"""The Stripe gateway against the sandbox: one page per order, one refund per key, events and fees read back."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from esim.errors import PaymentRejected, PaymentUnavailable
from esim.money import Money
from esim.ports import CheckoutLine, CheckoutRequest, PaymentGateway
from resources.payments.stripe import StripeGateway, stripe_gateway
from resources.payments.stripe_disputes import read_dispute
from resources.settings import Settings

NOW = datetime.now(UTC).replace(microsecond=0)


def request(order_id: str = "0190-a", minor: int = 1999, **changes: Any) -> CheckoutRequest:
    fields: dict[str, Any] = {
        "order_id": order_id,
        "display_id": "OID001",
        "lines": (CheckoutLine("Japan 10 GB", Money(minor, "USD"), 2, "30 days"),),
        "email": "customer@example.com",
        "success_url": "http://shop.test/orders/1",
        "cancel_url": "http://shop.test/",
        "expires_at": NOW + timedelta(hours=1),
        **changes,
    }
    return CheckoutRequest(**fields)


def pay(web: httpx.Client, session_id: str, outcome: str = "succeed", **more: Any) -> str:
    answer = web.post(f"/sandbox/stripe/pay/{session_id}", json={"outcome": outcome, **more})
    answer.raise_for_status()
    return str(answer.json()["payment_intent"])


def refunded(web: httpx.Client) -> list[int]:
    return [row["refunded_minor"] for row in web.get("/sandbox/charges").json()["charges"]]


def fault(web: httpx.Client, kind: str, **params: Any) -> None:
    web.put("/sandbox/stripe/faults", json={"kind": kind, "times": 1, "params": params}).raise_for_status()


def test_it_is_a_payment_gateway(gateway: StripeGateway) -> None:
    port: PaymentGateway = gateway
    assert port is gateway


def test_checkout_opens_a_page_for_the_order(gateway: StripeGateway) -> None:
    session = gateway.create_checkout(request())
    assert session.url is not None
    assert (session.status, session.payment_status, session.payment_intent) == ("open", "unpaid", None)
    assert (session.amount, session.order_id) == (Money(3998, "USD"), "0190-a")
    assert session.expires_at == NOW + timedelta(hours=1)
    assert session.created_at >= NOW
    assert gateway.session(session.session_id) == session


def test_same_order_gets_the_same_page_and_another_body_is_refused(gateway: StripeGateway) -> None:
    first = gateway.create_checkout(request())
    assert gateway.create_checkout(request()).session_id == first.session_id
    with pytest.raises(PaymentRejected, match="IdempotencyError"):
        gateway.create_checkout(request(minor=1))
    assert [s.session_id for s in gateway.sessions_since(NOW - timedelta(minutes=1))] == [first.session_id]


def test_paid_session_tells_intent_and_fee(gateway: StripeGateway, web: httpx.Client) -> None:
    session = gateway.create_checkout(request())
    intent = pay(web, session.session_id)
    read = gateway.session(session.session_id)
    assert (read.status, read.payment_status, read.payment_intent, read.url) == ("complete", "paid", intent, None)
    assert gateway.fee(intent) == Money(146, "USD")


def test_fee_is_unknown_until_the_money_moved(gateway: StripeGateway, web: httpx.Client) -> None:
    session = gateway.create_checkout(request())
    declined = pay(web, session.session_id, "fail")
    assert gateway.fee(declined) is None
    pending = pay(web, session.session_id, "async_succeed", after_s=600)
    assert gateway.fee(pending) is None


def test_refund_is_paid_once_per_key_and_never_beyond_the_charge(gateway: StripeGateway, web: httpx.Client) -> None:
    intent = pay(web, gateway.create_checkout(request()).session_id)
    first = gateway.refund(intent, Money(1000, "USD"), key="unit-1", reason="not delivered")
    assert (first.amount, first.status, first.payment_intent) == (Money(1000, "USD"), "succeeded", intent)
    assert gateway.refund(intent, Money(1000, "USD"), key="unit-1", reason="not delivered") == first
    assert refunded(web) == [1000]
    with pytest.raises(PaymentRejected, match="greater than unrefunded"):
        gateway.refund(intent, Money(2999, "USD"), key="unit-2", reason="duplicate")
    gateway.refund(intent, Money(2998, "USD"), key="unit-3", reason="duplicate")
    assert gateway.refund_made(intent, "unit-1") == first
    assert gateway.refund_made(intent, "unit-2") is None
    assert [(made.amount.minor, made.key) for made in gateway.refunds_of(intent)] == [
        (2998, "unit-3"),
        (1000, "unit-1"),
    ]
    with pytest.raises(PaymentRejected, match="charge_already_refunded"):
        gateway.refund(intent, Money(1, "USD"), key="unit-4", reason="duplicate")
    rows = web.get("/sandbox/charges").json()["charges"][0]["refunds"]
    assert [(r["reason"], r["metadata"]["reason"]) for r in rows] == [(None, "not delivered"), ("duplicate",) * 2]


@pytest.mark.parametrize("kind", ["api_error", "api_timeout"])
def test_refund_whose_answer_was_lost_is_safe_to_repeat(gateway: StripeGateway, web: httpx.Client, kind: str) -> None:
    intent = pay(web, gateway.create_checkout(request()).session_id)
    fault(web, kind, when="after", seconds=0.05, status=502)
    with pytest.raises(PaymentUnavailable):
        gateway.refund(intent, Money(500, "USD"), key="unit-1", reason="x")
    gateway.refund(intent, Money(500, "USD"), key="unit-1", reason="x")
    assert refunded(web) == [500]


def test_a_page_can_be_closed_and_stays_closed(gateway: StripeGateway, web: httpx.Client) -> None:
    session = gateway.create_checkout(request())
    gateway.expire(session.session_id)
    gateway.expire(session.session_id)
    assert gateway.session(session.session_id).status == "expired"
    done = gateway.create_checkout(request("0190-b"))
    pay(web, done.session_id)
    with pytest.raises(PaymentRejected, match="status of complete"):
        gateway.expire(done.session_id)


def test_events_and_sessions_are_listed_beyond_one_page(gateway: StripeGateway, web: httpx.Client) -> None:
    made = [gateway.create_checkout(request(f"0190-{n}")).session_id for n in range(104)]
    listed = [session.session_id for session in gateway.sessions_since(NOW - timedelta(minutes=1))]
    assert listed == made[::-1]
    intent = pay(web, made[0])
    events = list(gateway.events_since(NOW - timedelta(minutes=1), ["checkout.session.completed", "charge.succeeded"]))
    assert [event.type for event in events] == ["checkout.session.completed", "charge.succeeded"]
    assert [(e.order_id, e.payment_intent, e.amount) for e in events] == [("0190-0", intent, Money(3998, "USD"))] * 2
    assert (events[0].session_id, events[0].payment_status) == (made[0], "paid")
    assert list(gateway.events_since(NOW + timedelta(hours=1), [])) == []
    with pytest.raises(PaymentRejected, match="at most 20"):
        list(gateway.events_since(NOW, ["x"] * 21))


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("api_error", {"status": 500}),
        ("api_error", {"status": 503}),
        ("api_error", {"status": 429}),
        ("api_error", {"status": 401}),
        ("api_error", {"status": 409}),
        ("api_timeout", {"seconds": 0.05}),
    ],
)
def test_trouble_on_the_way_is_unavailable(
    gateway: StripeGateway, web: httpx.Client, kind: str, params: dict[str, Any]
) -> None:
    fault(web, kind, **params)
    with pytest.raises(PaymentUnavailable, match=r"open a payment page for order 0190-a"):
        gateway.create_checkout(request())
    assert gateway.create_checkout(request()).status == "open"


def test_lists_name_trouble_too(gateway: StripeGateway, web: httpx.Client) -> None:
    fault(web, "api_error", status=500)
    with pytest.raises(PaymentUnavailable, match="list sessions"):
        list(gateway.sessions_since(NOW))


def test_retries_hide_a_passing_failure(gateway: StripeGateway, web: httpx.Client, sandbox_url: str) -> None:
    patient = StripeGateway(secret_key="sk_test_sandbox", webhook_secret="", api_base=f"{sandbox_url}/stripe")
    fault(web, "api_error", status=500, when="after")
    session = patient.create_checkout(request())
    assert [s.session_id for s in gateway.sessions_since(NOW - timedelta(minutes=1))] == [session.session_id]
    patient.close()


def test_refusals_never_repeat_an_address(gateway: StripeGateway) -> None:
    with pytest.raises(PaymentRejected, match="email_invalid") as refused:
        gateway.create_checkout(request(email="some body@example.com"))
    assert "body" not in str(refused.value)
    assert refused.value.__cause__ is None
    with pytest.raises(PaymentRejected, match="resource_missing"):
        gateway.session("cs_test_none")


def test_settings_lead_to_the_sandbox_until_a_key_is_set() -> None:
    sandbox = stripe_gateway(Settings(_env_file=None, sandbox_port=1))  # type: ignore[call-arg]  # pydantic-settings
    with pytest.raises(PaymentUnavailable):
        sandbox.session("cs_test_1")


def test_charges_and_refunds_are_listed_with_their_times(gateway: StripeGateway, web: httpx.Client) -> None:
    session = gateway.create_checkout(request("0190-paid"))
    intent = pay(web, session.session_id)
    declined = gateway.create_checkout(request("0190-declined"))
    web.post(f"/sandbox/stripe/pay/{declined.session_id}", json={"outcome": "fail"}).raise_for_status()
    made = gateway.refund(intent, Money(100, "USD"), key="refund:1", reason="test")
    (charge,) = gateway.charges_since(NOW)
    assert (charge.payment_intent, charge.amount, charge.order_id) == (intent, Money(3998, "USD"), "0190-paid")
    assert charge.created_at >= NOW
    (listed,) = gateway.refunds_since(NOW)
    assert listed.refund == made
    assert listed.created_at >= NOW
    later = NOW + timedelta(hours=1)
    assert list(gateway.charges_since(later)) == list(gateway.refunds_since(later)) == []


def test_what_disputes_moved_is_listed(gateway: StripeGateway, web: httpx.Client) -> None:
    intent = pay(web, gateway.create_checkout(request("0190-paid")).session_id)
    charge = web.get("/sandbox/charges").json()["charges"][0]["charge_id"]
    made = web.post("/sandbox/stripe/disputes", json={"charge": charge}).json()
    web.post(f"/sandbox/stripe/disputes/{made['id']}/close", json={"outcome": "won"}).raise_for_status()
    back, out = gateway.dispute_movements_since(NOW)
    assert (out.dispute_id, out.payment_intent) == (back.dispute_id, back.payment_intent) == (made["id"], intent)
    assert (out.amount, out.fee) == (Money(-3998, "USD"), Money(1500, "USD"))
    assert (back.amount, back.fee) == (Money(3998, "USD"), Money(0, "USD"))
    assert out.transaction_id == made["balance_transactions"][0]["id"]
    assert list(gateway.dispute_movements_since(NOW + timedelta(hours=1))) == []


def test_a_dispute_is_read_from_its_event(gateway: StripeGateway, web: httpx.Client) -> None:
    intent = pay(web, gateway.create_checkout(request("0190-paid")).session_id)
    charge = web.get("/sandbox/charges").json()["charges"][0]["charge_id"]
    web.post("/sandbox/stripe/disputes", json={"charge": charge}).raise_for_status()
    (event,) = gateway.events_since(NOW, ["charge.dispute.created"])
    dispute = read_dispute(event.raw)
    assert (dispute.payment_intent, dispute.amount, dispute.status) == (intent, Money(3998, "USD"), "needs_response")
    assert dispute.answer_by is not None
    assert list(dispute.movements) == list(gateway.dispute_movements_since(NOW))
    for broken in ({}, {"id": "du_1", "amount": "1", "currency": "usd"}, {**event.raw, "balance_transactions": [{}]}):
        with pytest.raises(PaymentRejected, match="cannot be read"):
            read_dispute(broken)


def test_lists_are_read_over_all_their_pages(gateway: StripeGateway, web: httpx.Client) -> None:
    session = gateway.create_checkout(request("0190-many", minor=200))
    intent = pay(web, session.session_id)
    for number in range(103):
        gateway.refund(intent, Money(1, "USD"), key=f"refund:{number}", reason="test")
    assert len({listed.refund.refund_id for listed in gateway.refunds_since(NOW)}) == 103
    fault(web, "api_error", status=500)
    with pytest.raises(PaymentUnavailable):
        list(gateway.charges_since(NOW))
