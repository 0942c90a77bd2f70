"""The attention queue: what waits for a person, with commands that mend it when they are typed as they stand."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from sqlalchemy import text

from esim.errors import PaymentRejected, PaymentUnavailable
from esim.money import Money
from esim.ports import Capabilities
from esim.purchase import ErrorType, Outcome, PurchaseRequest
from pipelines.aftermath import pay_refunds
from resources.db.attention import Item, attention, items_of_order
from resources.db.operator_refunds import RefundOptions
from resources.db.operator_resolve import Doubt
from resources.db.order_advice import Urgency
from resources.db.payments import Booking, Payment, record_payment
from resources.db.refunds import request_refund
from resources.db.transitions import hold_order, lock_order
from resources.operator_desk import OperatorDesk
from tests.cli.typed import parse
from tests.pipelines.actors import ScriptedProvider, never_hears, rejects, sells_without_answer
from tests.pipelines.conftest import Shop
from tests.pipelines.operating import Counter
from tests.resources.db.shop import paid_order, place_order

Rows = Callable[[str], list[dict[str, object]]]


def queue(shop: Shop) -> list[Item]:
    with shop.engine.connect() as conn:
        return attention(conn, shop.clock.now)


def only(shop: Shop) -> Item:
    [item] = queue(shop)
    assert_typable(item)
    return item


def assert_typable(item: Item) -> None:
    """Every suggested command names a command and options that exist."""
    assert item.commands, item
    for line in item.commands:
        parse(line)


def refuse_all(shop: Shop, error_type: ErrorType, times: int = 1) -> None:
    for provider in (shop.cheap, shop.dear):
        provider.script.extend([rejects(error_type)] * times)


def unclear(shop: Shop) -> UUID:
    shop.cheap.capabilities = Capabilities(reference_lookup=True, settle_seconds=0.0)
    shop.cheap.script.append(sells_without_answer)
    shop.cheap.on_resolve = never_hears
    order_id = paid_order(shop.engine)
    shop.drain(max_seconds=0.3)
    return order_id


def test_nothing_waits_where_the_machine_sees_to_everything(shop: Shop) -> None:
    paid_order(shop.engine)
    shop.drain()
    refuse_all(shop, ErrorType.OUT_OF_STOCK)
    paid_order(shop.engine)
    shop.drain()
    unclear(shop)
    assert queue(shop) == []


def test_unclear_purchase_past_the_deadline_names_what_to_ask_the_provider(shop: Shop) -> None:
    order_id = unclear(shop)
    shop.clock.advance(minutes=74)
    item = only(shop)
    assert (item.kind, item.urgency, item.order_id) == ("unclear_purchase", Urgency.NOW, order_id)
    assert f"airalo (our reference {next(iter(shop.cheap.sold))})" in item.reason
    display_id = item.subject.removeprefix("order ").removesuffix(", eSIM 1")
    assert item.commands == (
        f'numnaroad order resolve {display_id} --unit 1 --attempt 1 --bought PROVIDER_ORDER_ID --reason "…"',
        f'numnaroad order resolve {display_id} --unit 1 --attempt 1 --not-bought --reason "…"',
        f'numnaroad order resolve {display_id} --unit 1 --attempt 1 --abandon --reason "…"',
    )


def test_given_up_unit_that_nobody_refunds_waits(shop: Shop) -> None:
    refuse_all(shop, ErrorType.INVALID_PRODUCT)
    order_id = paid_order(shop.engine)
    shop.drain(tools=shop.tools_with(enable_auto_refund=False))
    item = only(shop)
    assert (item.kind, item.order_id) == ("not_refunded", order_id)
    assert "--extend-deadline" not in item.commands[1]
    with shop.engine.connect() as conn:
        told = conn.scalar(text("select payload ->> 'text' from outbox where kind = 'order_failed'"))
    assert str(told).count("given up") == 1, told
    shop.clock.advance(minutes=80)
    assert "--extend-deadline 60" in only(shop).commands[1]


def test_refused_refund_waits_with_its_order_held(shop: Shop) -> None:
    shop.gateway.failures.append(PaymentRejected("charge disputed"))
    refuse_all(shop, ErrorType.INVALID_PRODUCT)
    order_id = paid_order(shop.engine)
    shop.drain()
    items = queue(shop)
    assert [item.kind for item in items] == ["refund_failed"], "once, not as held too"
    for item in items:
        assert_typable(item)
    [failed] = [item for item in items if item.kind == "refund_failed"]
    assert failed.reason == "its refund failed: charge disputed"
    assert all("--release-hold" in line for line in failed.commands)
    Counter(shop).once(lambda desk, who: desk.refund(order_id, who, RefundOptions((1,), release_hold=True, again=True)))
    assert queue(shop) == []


def test_refund_that_stripe_keeps_putting_off_waits(shop: Shop) -> None:
    refuse_all(shop, ErrorType.INVALID_PRODUCT)
    order_id = paid_order(shop.engine)
    shop.gateway.failures.extend([PaymentUnavailable("away")] * 6)
    shop.drain()
    for _ in range(5):
        with shop.engine.begin() as conn:
            conn.execute(text("update refunds set next_attempt_at = now()"))
        pay_refunds(shop.tools, "test")
    item = only(shop)
    assert (item.kind, item.order_id, item.reason.endswith("it is tried on: away")) == ("refund_late", order_id, True)


def test_second_payment_that_cannot_be_paid_back_waits_until_it_is(shop: Shop) -> None:
    order_id = paid_order(shop.engine)
    shop.drain()
    shop.gateway.failures.append(PaymentRejected("no such charge"))
    with shop.engine.begin() as conn:
        request_refund(
            conn,
            key="second:pi_2",
            order_id=order_id,
            payment_intent="pi_2",
            amount=Money(499, "USD"),
            reason="second",
            esim_n=None,
        )
    pay_refunds(shop.tools, "test")
    assert [item.kind for item in queue(shop)] == ["refund_failed"]


def test_disputed_order_waits_once(shop: Shop) -> None:
    order_id = paid_order(shop.engine)
    with shop.engine.begin() as conn:
        hold_order(conn, lock_order(conn, order_id), reason="a dispute", actor="stripe", now=shop.clock.now)
    item = only(shop)
    assert (item.kind, item.reason) == ("held", "a dispute")


def test_payment_that_does_not_fit_waits(shop: Shop) -> None:
    with shop.engine.begin() as conn:
        order_id = place_order(conn)
        payment = Payment(order_id, "pi_odd", "cs_1", Money(900, "USD"), "evt_1")
        record_payment(conn, payment, Booking("stripe", shop.clock.now, 70))
    item = only(shop)
    assert (item.kind, item.order_id) == ("undecided", order_id)


def test_esim_that_another_order_has_waits(shop: Shop) -> None:
    paid_order(shop.engine)
    shop.drain()

    def first_again(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
        first = next(iter(provider.sold))
        provider.sold[request.reference] = provider.sold[first]
        return provider.found(request)

    shop.cheap.script.append(first_again)
    paid_order(shop.engine)
    shop.drain()
    assert only(shop).kind == "duplicate_esim"


def test_late_arrival_and_the_open_purchase_it_came_from_wait(shop: Shop) -> None:
    order_id = unclear(shop)
    desk, who = OperatorDesk(shop.tools), Counter(shop).who()
    desk.abandon(order_id, who, Doubt(1))
    pay_refunds(shop.tools, "test")
    item = only(shop)
    assert (item.kind, item.urgency) == ("open_purchase", Urgency.SOMETIME)
    desk.bought(order_id, who, Doubt(1), "airalo-order-1")
    item = only(shop)
    assert (item.kind, item.commands[0]) == ("late_purchase", 'numnaroad stock return 1 --reason "…"')
    desk.write_off_stock(1, who)
    assert queue(shop) == []
    with shop.engine.connect() as conn:
        changed = conn.scalar(text("select details -> 'changes' from audit_events order by audit_id desc limit 1"))
    assert changed == ["eSIM 1 in stock: written off; its cost is a loss"]


def test_mail_that_keeps_failing_waits(shop: Shop) -> None:
    shop.mailer.failures = 1
    paid_order(shop.engine)
    shop.drain()
    with shop.engine.begin() as conn:
        conn.execute(text("update outbox set attempts = 10 where sent_at is null"))
    item = only(shop)
    assert (item.kind, item.reason) == ("mail_refused", "1 to mail not handed over: NoticeError: the carrier is away")


def test_held_catalogue_and_open_circuit_wait(shop: Shop) -> None:
    with shop.engine.begin() as conn:
        conn.execute(text("update providers set held_reason = 'it shrank', held_at = now() where slug = 'airalo'"))
        conn.execute(
            text("update providers set failures = 5, open_until = now(), last_error = 'x' where slug = 'esim_go'")
        )
    items = queue(shop)
    assert {item.kind for item in items} == {"catalogue_held", "circuit_open"}
    for item in items:
        assert_typable(item)
    [held] = [item for item in items if item.kind == "catalogue_held"]
    assert held.commands[1] == 'numnaroad sync --provider airalo --accept airalo --reason "…"'


def test_stuck_order_waits_and_the_oldest_comes_first(shop: Shop) -> None:
    first, second = (paid_order(shop.engine, now=shop.clock.now - timedelta(hours=age)) for age in (3, 2))
    items = queue(shop)
    assert [(item.kind, item.order_id) for item in items] == [("stuck", first), ("stuck", second)]
    for item in items:
        assert_typable(item)
    with shop.engine.connect() as conn:
        assert [item.order_id for item in items_of_order(conn, second, shop.clock.now)] == [second]


def test_unit_without_a_purchase_is_tried_again_or_paid_back(shop: Shop) -> None:
    order_id = paid_order(shop.engine)
    with shop.engine.begin() as conn:
        conn.execute(text("update esims set status = 'attention'"))
    item = only(shop)
    assert (item.kind, item.order_id) == ("attention", order_id)
    assert ["retry" in item.commands[0], "refund" in item.commands[1]] == [True, True]
