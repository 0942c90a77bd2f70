"""A drain's notices go out as soon as they are due, unless paid units wait that nobody could work yet."""

from threading import Event

from sqlalchemy import text

from pipelines.aftermath import Aftermath
from resources.db.outbox import enqueue
from tests.pipelines.actors import wait_until
from tests.pipelines.conftest import Shop
from tests.resources.db.shop import paid_order


class Backlog:
    """Says that more units wait than can be worked, and remembers that it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.looked_twice = Event()

    def __call__(self) -> bool:
        self.asked += 1
        if self.asked > 3:
            self.looked_twice.set()
        return True


def a_mail(shop: Shop) -> None:
    order_id = paid_order(shop.engine)
    with shop.engine.begin() as conn:
        conn.execute(text("delete from outbox"))
        enqueue(conn, key="payment_failed:1", channel="mail", kind="payment_failed", order_id=order_id)


def test_notices_are_sent_at_once_while_nothing_else_waits(shop: Shop) -> None:
    with Aftermath(shop.tools, "drain-a", busy=lambda: False):
        a_mail(shop)
        wait_until(lambda: len(shop.mailer.sent) == 1)


def test_beside_a_backlog_notices_wait_until_they_are_late(shop: Shop) -> None:
    a_mail(shop)
    backlog = Backlog()
    with Aftermath(shop.tools, "drain-a", busy=backlog):
        assert backlog.looked_twice.wait(20)
        assert shop.mailer.sent == []
        with shop.engine.begin() as conn:
            conn.execute(text("update outbox set next_attempt_at = now() - interval '21 seconds'"))
        wait_until(lambda: len(shop.mailer.sent) == 1)


def test_a_drain_that_ends_leaves_no_notice_behind(shop: Shop) -> None:
    a_mail(shop)
    with Aftermath(shop.tools, "drain-a", busy=lambda: True):
        pass
    assert len(shop.mailer.sent) == 1
