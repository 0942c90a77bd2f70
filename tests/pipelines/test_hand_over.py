"""Notices that waited: none is sent by two, and none says what is no longer so."""

from collections.abc import Callable
from itertools import count
from threading import Lock
from uuid import UUID

from sqlalchemy import text

from pipelines.aftermath import pay_refunds
from pipelines.hand_over import NEEDLESS, send_notices
from resources.db.audit import Operator
from resources.db.operator_refunds import RefundOptions
from resources.db.outbox import claim_notices, renew_claims
from resources.operator_desk import OperatorDesk
from tests.pipelines.conftest import Shop
from tests.resources.db.shop import paid_order, unit_states

Rows = Callable[[str], list[dict[str, object]]]
DUE = text("update outbox set next_attempt_at = now() - interval '1 second' where sent_at is null")


def make_due(shop: Shop) -> None:
    with shop.engine.begin() as conn:
        conn.execute(DUE)


def with_refused_mails(shop: Shop, units: int) -> UUID:
    """An order that is delivered while the carrier is down."""
    shop.mailer.failures = 10**6
    order_id = paid_order(shop.engine, units=units)
    shop.drain()
    shop.mailer.failures = 0
    return order_id


def refund(shop: Shop, order_id: UUID, unit: int) -> None:
    who = Operator("mia", "customer asked", shop.clock.now)
    OperatorDesk(shop.tools).refund(order_id, who, RefundOptions(units=(unit,)))
    pay_refunds(shop.tools, "test")


def test_an_esim_that_was_paid_back_since_is_not_confirmed(shop: Shop, rows: Rows) -> None:
    order_id = with_refused_mails(shop, units=1)
    refund(shop, order_id, 1)
    assert unit_states(shop.engine, order_id) == ["refunded"]
    make_due(shop)
    send_notices(shop.tools)
    assert [key.split(":")[0] for key, _ in shop.mailer.sent] == ["refunded"]
    (left,) = rows("select sent_at is not null as done, last_error from outbox where kind = 'order_confirmation'")
    assert left == {"done": True, "last_error": NEEDLESS}


def test_the_other_esims_of_the_order_are_confirmed(shop: Shop) -> None:
    order_id = with_refused_mails(shop, units=2)
    refund(shop, order_id, 1)
    make_due(shop)
    send_notices(shop.tools)
    (confirmation,) = [mail for key, mail in shop.mailer.sent if key.startswith("confirmation")]
    assert len(confirmation.images) == 1


def test_a_claim_that_another_sender_took_over_is_not_renewed(shop: Shop) -> None:
    with_refused_mails(shop, units=1)
    make_due(shop)
    slow = claim_notices(shop.engine, 24)
    make_due(shop)
    quick = claim_notices(shop.engine, 24)
    assert slow
    assert renew_claims(shop.engine, slow) == []
    assert renew_claims(shop.engine, quick) == quick


def test_what_another_sender_took_over_behind_a_slow_carrier_is_left_to_it(shop: Shop) -> None:
    for _ in range(12):
        with_refused_mails(shop, units=1)
    make_due(shop)
    seconds, lock, taken = count(step=30.0), Lock(), []

    def timer() -> float:
        with lock:
            now = next(seconds)
            if now == 30.0:  # the first turn's age is looked at: by now all claims have run out
                make_due(shop)
                taken.extend(claim_notices(shop.engine, 24))
            return now

    assert send_notices(shop.tools, timer=timer) == (0, 0)
    assert (len(taken), shop.mailer.sent) == (12, [])
