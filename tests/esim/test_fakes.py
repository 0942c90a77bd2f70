"""The shipped fakes keep the promises of the ports they stand for."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from esim.catalogue import Allowance, OfferKind, ProviderOffer
from esim.errors import NoticeError, PaymentRejected, ProviderRejected, ProviderUnavailable, WebhookRejected
from esim.fakes import (
    EPOCH,
    FakeMailer,
    FakeNotifier,
    FakePaymentGateway,
    FakeProvider,
    MemoryLimiter,
    MemoryTokenStore,
)
from esim.geography import Coverage
from esim.money import Cost, Money
from esim.ports import (
    Capabilities,
    ChatNotifier,
    CheckoutLine,
    CheckoutRequest,
    DisputeMovement,
    Limiter,
    Mail,
    Mailer,
    PaymentGateway,
    Provider,
    RateLimit,
    TokenStore,
)
from esim.purchase import (
    Cancelled,
    CancelRefused,
    ErrorType,
    EsimRef,
    Pending,
    Prepared,
    ProviderPurchase,
    Provisioned,
    PurchaseRequest,
    Rejected,
    SaleState,
    Unknown,
)

PLAN = ProviderOffer(
    provider="fake",
    provider_package_id="jp-1gb",
    name="Japan",
    kind=OfferKind.PLAN,
    coverage=Coverage(("JP",)),
    allowance=Allowance.TOTAL,
    data_mb=1000,
    validity_days=7,
    cost=Cost(Decimal(2), "USD"),
)
TOP_UP = replace(PLAN, kind=OfferKind.TOP_UP, provider_package_id="jp-1gb-more")
REQUEST = PurchaseRequest("r" * 26, "jp-1gb", PLAN.cost, PLAN.cost, EPOCH)
CHECKOUT = CheckoutRequest(
    order_id="o1",
    display_id="OID001",
    lines=(CheckoutLine("Japan", Money(450, "USD"), 2), CheckoutLine("France", Money(100, "USD"), 1)),
    email="traveller@example.test",
    success_url="https://shop.test/ok",
    cancel_url="https://shop.test/no",
    expires_at=EPOCH + timedelta(hours=1),
)


def test_the_fakes_fit_their_ports() -> None:
    provider: Provider = FakeProvider()
    mailer: Mailer = FakeMailer()
    notifier: ChatNotifier = FakeNotifier()
    gateway: PaymentGateway = FakePaymentGateway()
    tokens: TokenStore = MemoryTokenStore()
    limiter: Limiter = MemoryLimiter()
    assert all((provider, mailer, notifier, gateway, tokens, limiter))


def test_a_fake_provider_delivers_and_remembers() -> None:
    provider = FakeProvider(offers=[PLAN, TOP_UP])
    assert [offer for page in provider.catalogue() for offer in page.offers] == [PLAN, TOP_UP]
    assert provider.current_cost("jp-1gb", {}) == PLAN.cost
    prepared = provider.prepare(REQUEST)
    assert isinstance(prepared, Prepared)
    bought = provider.purchase(REQUEST, prepared.evidence)
    assert isinstance(bought, Provisioned)
    assert provider.resolve(REQUEST, {}, EPOCH) == provider.order_status(bought.provider_order_id, REQUEST) == bought
    esim = EsimRef(iccid=bought.profile.iccid)
    assert provider.esim_details(esim) == bought.profile
    assert provider.usage(esim).used_bytes == 0
    assert provider.top_ups(esim) == [TOP_UP]
    assert provider.cancel(esim) == Cancelled(refunded=True)
    assert provider.cancelled == [esim]
    topped_up = provider.purchase(replace(REQUEST, reference="t", top_up_of=esim), {})
    assert isinstance(topped_up, Provisioned)
    assert topped_up.profile.iccid == esim.iccid
    provider.close()


def test_a_fake_provider_does_as_it_is_told() -> None:
    provider = FakeProvider(offers=[PLAN])
    lost = Unknown(ErrorType.PROVIDER_TIMEOUT, "lost")
    provider.will(Rejected(ErrorType.OUT_OF_STOCK, "none left"), lost, Pending("7"))
    assert isinstance(provider.purchase(REQUEST, {}), Rejected)
    assert provider.purchase(REQUEST, {}) is lost
    assert isinstance(provider.resolve(REQUEST, {}, EPOCH), Rejected)
    assert provider.purchase(REQUEST, {}) == Pending("7")
    assert isinstance(provider.order_status("7", REQUEST), Provisioned)
    provider.statuses.append(Pending("7"))
    provider.resolutions.append(lost)
    provider.cancellations.append(CancelRefused("used"))
    provider.prepared.append(Rejected(ErrorType.PRICE_CHANGED, "dearer"))
    assert provider.order_status("7", REQUEST) == Pending("7")
    assert provider.resolve(REQUEST, {}, EPOCH) is lost
    assert provider.cancel(EsimRef()) == CancelRefused("used")
    assert isinstance(provider.prepare(REQUEST), Rejected)
    assert len(provider.requests) == 3


def test_a_lost_answer_may_hide_a_sale() -> None:
    provider = FakeProvider()
    provider.sells_unknown = True
    provider.will(Unknown(ErrorType.PROVIDER_TIMEOUT, "lost"))
    provider.purchase(REQUEST, {})
    assert isinstance(provider.resolve(REQUEST, {}, EPOCH), Provisioned)
    assert isinstance(provider.order_status("7", replace(REQUEST, reference="other")), Pending)


def test_a_fake_provider_that_is_down_answers_no_read() -> None:
    provider = FakeProvider(offers=[PLAN])
    with pytest.raises(ProviderRejected):
        provider.current_cost("gone", {})
    with pytest.raises(ProviderRejected):
        provider.esim_details(EsimRef(iccid="1"))
    provider.down = ProviderUnavailable("maintenance")
    with pytest.raises(ProviderUnavailable):
        provider.balance()
    assert isinstance(provider.prepare(REQUEST), Rejected)


def test_a_fake_provider_checks_webhooks() -> None:
    provider = FakeProvider()
    provider.verify_webhook({"x-fake-signature": "good"}, b"")
    assert provider.parse_webhook(b"") == ()
    with pytest.raises(WebhookRejected):
        provider.verify_webhook({}, b"")


def test_notices_are_kept_once_per_key() -> None:
    mailer, notifier = FakeMailer(), FakeNotifier()
    first, second = Mail("a@example.test", "1", "", ""), Mail("a@example.test", "2", "", "")
    assert mailer.send(first, key="k") == mailer.send(second, key="k") == "mail-1"
    notifier.post("one", key="k")
    notifier.post("two", key="k")
    assert mailer.to("a@example.test") == [first]
    assert notifier.posted == {"k": "one"}
    mailer.failing = notifier.failing = True
    with pytest.raises(NoticeError):
        mailer.send(first, key="l")
    with pytest.raises(NoticeError):
        notifier.post("three", key="l")


def test_a_fake_payment_goes_from_page_to_refund() -> None:
    gateway = FakePaymentGateway()
    session = gateway.create_checkout(CHECKOUT)
    assert session.amount == Money(1000, "USD")
    assert gateway.create_checkout(CHECKOUT) == session
    event = gateway.pay(session.session_id)
    assert gateway.verify_webhook(event.event_id.encode(), "good", EPOCH) == event
    assert list(gateway.sessions_since(EPOCH)) == [gateway.session(session.session_id)]
    assert list(gateway.events_since(EPOCH, ["checkout.session.completed"])) == [event]
    once = gateway.refund(event.payment_intent, Money(450, "USD"), key="u1", reason="not delivered")
    assert gateway.refund(event.payment_intent, Money(450, "USD"), key="u1", reason="not delivered") == once
    assert gateway.fee(event.payment_intent) is None


def test_a_fake_payment_page_expires_unless_paid() -> None:
    gateway = FakePaymentGateway()
    session = gateway.create_checkout(CHECKOUT)
    gateway.expire(session.session_id)
    assert gateway.session(session.session_id).status == "expired"
    paid = gateway.create_checkout(replace(CHECKOUT, order_id="o2"))
    gateway.pay(paid.session_id)
    gateway.expire(paid.session_id)
    assert gateway.session(paid.session_id).status == "complete"
    with pytest.raises(PaymentRejected):
        gateway.session("cs_none")


@pytest.mark.parametrize(("signature", "seconds"), [(None, 0), ("bad", 0), ("good", 301)])
def test_a_payment_event_that_is_not_authentic_is_refused(signature: str | None, seconds: int) -> None:
    gateway = FakePaymentGateway()
    event = gateway.pay(gateway.create_checkout(CHECKOUT).session_id)
    with pytest.raises(WebhookRejected):
        gateway.verify_webhook(event.event_id.encode(), signature, EPOCH + timedelta(seconds=seconds))


def test_tokens_end_and_are_discarded_only_by_who_holds_them() -> None:
    tokens = MemoryTokenStore()
    tokens.put("acme", "one", EPOCH + timedelta(hours=1))
    assert tokens.get("acme", EPOCH) == "one"
    assert tokens.get("acme", EPOCH + timedelta(hours=1)) is None
    tokens.discard("acme", "another")
    assert tokens.get("acme", EPOCH) == "one"
    tokens.discard("acme", "one")
    assert tokens.get("acme", EPOCH) is None


def test_a_limiter_gives_the_slots_it_has() -> None:
    limiter, limit = MemoryLimiter(slots=2), RateLimit("orders", 1, 1.0)
    assert [limiter.acquire("acme:orders", limit, patience_seconds=0) for _ in range(3)] == [True, True, False]
    assert limiter.asked == ["acme:orders"] * 3
    assert MemoryLimiter().acquire("k", limit, patience_seconds=0)


def test_a_provider_states_what_it_was_told_to_have_sold() -> None:
    provider = FakeProvider(capabilities=Capabilities(lists_purchases=True))
    old, new = (ProviderPurchase(str(days), EPOCH + timedelta(days=days), SaleState.SOLD) for days in (1, 2))
    provider.statement = [old, new]
    assert list(provider.purchases_since(new.bought_at)) == [new]
    provider.down = ProviderUnavailable()
    with pytest.raises(ProviderUnavailable):
        list(provider.purchases_since(EPOCH))


def test_the_payment_service_lists_what_it_took_and_paid_back() -> None:
    gateway = FakePaymentGateway()
    paid, _open = gateway.create_checkout(CHECKOUT), gateway.create_checkout(replace(CHECKOUT, order_id="other"))
    event = gateway.pay(paid.session_id)
    gateway.refund(event.payment_intent, Money(1, "USD"), key="k", reason="r")
    (charge,) = gateway.charges_since(EPOCH)
    assert (charge.payment_intent, charge.amount, charge.order_id) == (event.payment_intent, paid.amount, paid.order_id)
    (listed,) = gateway.refunds_since(EPOCH)
    assert listed.refund.amount == Money(1, "USD")
    assert list(gateway.refunds_since(EPOCH + timedelta(days=1))) == []
    gateway.dispute_movements.append(DisputeMovement("txn", "du", "pi", Money(-1, "USD"), Money(0, "USD"), EPOCH))
    assert [moved.transaction_id for moved in gateway.dispute_movements_since(EPOCH)] == ["txn"]
