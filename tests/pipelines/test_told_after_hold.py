"""Who was delivered part of an order that is held is told of it once, however and whenever the hold ends."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from esim.ports import Capabilities
from pipelines.aftermath import pay_refunds
from pipelines.hand_over import send_notices
from resources.db.audit import Operator
from resources.db.leases import reclaim_expired
from resources.db.notices import hold_and_tell
from resources.db.operator_refunds import RefundOptions
from resources.db.operator_resolve import Doubt
from resources.db.operator_retry import RetryOptions
from resources.db.order_store import claim_units
from resources.db.transitions import lock_order
from resources.operator_desk import OperatorDesk
from tests.pipelines.actors import never_hears, sells, sells_without_answer
from tests.pipelines.conftest import Shop
from tests.resources.db.shop import paid_order, unit_states

Rows = Callable[[str], list[dict[str, object]]]
MINUTE = timedelta(minutes=1)
End = Callable[[OperatorDesk, UUID, Operator], object]
EndOfDoubt = Callable[[OperatorDesk, UUID, Operator, Doubt], object]
SECOND = RefundOptions((2,), release_hold=True)
OF_QUEUED: Mapping[str, End] = {
    "tried again": lambda desk, order, who: desk.retry(order, who, RetryOptions(release_hold=True)),
    "the rest paid back": lambda desk, order, who: desk.refund(order, who, SECOND),
    "the rest paid back elsewhere": lambda desk, order, who: desk.paid_elsewhere(order, who, SECOND),
    "cancelled": lambda desk, order, who: desk.cancel(order, who, release_hold=True),
}
OF_UNCLEAR: Mapping[str, EndOfDoubt] = {
    "not bought": lambda desk, order, who, doubt: desk.not_bought(order, who, doubt),
    "bought": lambda desk, order, who, doubt: desk.bought(order, who, doubt, "airalo-order-2"),
    "abandoned": lambda desk, order, who, doubt: desk.abandon(order, who, doubt, release_hold=True),
}


def mails(rows: Rows) -> list[object]:
    return [
        row["payload"]
        for row in rows("select payload from outbox where kind = 'order_confirmation' order by outbox_id")
    ]


def told_units(rows: Rows) -> list[int]:
    return [n for payload in mails(rows) for n in payload["esims"]]  # type: ignore[index]


def hold(shop: Shop, order_id: UUID) -> None:
    with shop.engine.begin() as conn:
        order = lock_order(conn, order_id)
        assert hold_and_tell(conn, order, reason="a refund was refused", actor="test", now=shop.clock.now)


def settle(shop: Shop) -> None:
    shop.clock.advance(minutes=3)
    shop.drain()
    pay_refunds(shop.tools, "test")
    send_notices(shop.tools)


@pytest.mark.parametrize("end", OF_QUEUED)
def test_a_delivered_unit_is_told_of_when_the_other_waits_in_the_hold(shop: Shop, rows: Rows, end: str) -> None:
    order_id = paid_order(shop.engine, units=2)
    with shop.engine.begin() as conn:
        soon = {"soon": shop.clock.now + timedelta(seconds=90)}
        conn.execute(text("update esims set next_attempt_at = :soon where n = 2"), soon)
    shop.drain()
    assert (unit_states(shop.engine, order_id), told_units(rows)) == (["delivered", "queued"], [])
    hold(shop, order_id)
    assert told_units(rows) == [1]
    OF_QUEUED[end](OperatorDesk(shop.tools), order_id, Operator("mia", "decided", shop.clock.now))
    settle(shop)
    delivered = [n for n, state in enumerate(unit_states(shop.engine, order_id), 1) if state == "delivered"]
    assert sorted(told_units(rows)) == delivered
    assert len(shop.mailer.sent) == len({key for key, _ in shop.mailer.sent}) == 2


@pytest.mark.parametrize("end", OF_UNCLEAR)
def test_a_delivered_unit_is_told_of_when_the_other_is_unclear_in_the_hold(shop: Shop, rows: Rows, end: str) -> None:
    shop.cheap.capabilities = Capabilities(reference_lookup=True, settle_seconds=0.0)
    shop.cheap.script.extend([sells, sells_without_answer])
    shop.cheap.on_resolve = never_hears
    order_id = paid_order(shop.engine, units=2)
    shop.drain(max_seconds=0.5)
    states = unit_states(shop.engine, order_id)
    assert sorted(states) == ["delivered", "unknown"]  # whichever was quicker
    doubt = Doubt(states.index("unknown") + 1)
    hold(shop, order_id)
    shop.cheap.on_status = sells
    shop.clock.advance(seconds=30)
    OF_UNCLEAR[end](OperatorDesk(shop.tools), order_id, Operator("mia", "decided", shop.clock.now), doubt)
    settle(shop)
    delivered = [n for n, state in enumerate(unit_states(shop.engine, order_id), 1) if state == "delivered"]
    assert sorted(told_units(rows)) == delivered


def test_a_delivered_unit_is_told_of_when_the_worker_of_the_other_is_lost_in_the_hold(shop: Shop, rows: Rows) -> None:
    order_id = paid_order(shop.engine, units=2)
    with shop.engine.begin() as conn:
        conn.execute(text("update esims set next_attempt_at = :later where n = 2"), {"later": shop.clock.now + MINUTE})
    shop.drain()
    shop.clock.advance(minutes=1)
    assert len(claim_units(shop.engine, "lost", 1, shop.clock.now, deadline_minutes=70)) == 1
    hold(shop, order_id)
    assert (unit_states(shop.engine, order_id), told_units(rows)) == (["delivered", "working"], [])
    shop.clock.advance(minutes=2)
    assert reclaim_expired(shop.engine, "drain", shop.clock.now) == 1
    assert (unit_states(shop.engine, order_id), told_units(rows)) == (["delivered", "attention"], [1])
