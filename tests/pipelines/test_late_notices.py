"""When notices count as late: measured from when they were first due, however often the carrier refused them since."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from pipelines.hand_over import send_notices
from pipelines.sensors.operations_watch import troubles
from resources.db.alerts import AlertKind
from resources.db.outbox import MOST_ATTEMPTS, TELL_AFTER_ATTEMPTS, enqueue
from resources.db.watch_figures import store_figures
from resources.order_operations import utc_now
from tests.pipelines.conftest import Shop
from tests.resources.db.shop import paid_order

LIMIT = 60


@pytest.fixture
def mail(shop: Shop) -> str:
    """One mail to send, of an order that waits for nothing else."""
    order_id = paid_order(shop.engine)
    with shop.engine.begin() as conn:
        conn.execute(text("delete from outbox"))
        enqueue(conn, key="payment_failed:1", channel="mail", kind="payment_failed", order_id=order_id)
    return "payment_failed:1"


def change(shop: Shop, values: str) -> None:
    with shop.engine.begin() as conn:
        conn.execute(text(f"update outbox set {values}"))


def alert(shop: Shop, **later: float) -> str | None:
    """Return what operations are told of notices, so much later."""
    limits = shop.settings.model_copy(update={"late_notice_seconds": LIMIT})
    with shop.engine.connect() as conn:
        figures = store_figures(conn, utc_now() + timedelta(**later))
    return troubles(figures, limits).get(AlertKind.NOTICES_LATE)


def test_mails_that_the_carrier_refuses_are_late_though_they_are_tried_on(shop: Shop, mail: str) -> None:
    shop.mailer.failures = 4
    for _ in range(4):
        assert send_notices(shop.tools) == (0, 1)
        assert alert(shop, seconds=LIMIT - 5) is None
        assert str(alert(shop, seconds=LIMIT + 5)).startswith("1 mails and notes are due, the oldest for 6")
        change(shop, "next_attempt_at = now()")
    assert send_notices(shop.tools) == (1, 0)
    assert alert(shop, hours=1) is None


def test_notices_that_wait_behind_a_backlog_are_not_late(shop: Shop, mail: str) -> None:
    change(shop, "next_attempt_at = now() - interval '20 seconds', created_at = now() - interval '20 seconds'")
    assert alert(shop) is None
    assert alert(shop, seconds=LIMIT) is not None


@pytest.mark.parametrize(
    ("tried", "late"),
    [
        (f"attempts = {TELL_AFTER_ATTEMPTS - 1}", True),
        (f"attempts = {TELL_AFTER_ATTEMPTS}", False),  # told of by itself, as refused
        (f"attempts = {TELL_AFTER_ATTEMPTS}, channel = 'slack'", True),  # of which nobody is told
        (f"attempts = {TELL_AFTER_ATTEMPTS}, next_attempt_at = now() - interval '2 minutes'", True),  # nobody sends
        (f"attempts = {MOST_ATTEMPTS}", False),  # given up
        ("attempts = 0, next_attempt_at = now()", False),  # an operator has it sent again
    ],
)
def test_one_bad_address_does_not_hide_a_carrier_that_is_away(shop: Shop, mail: str, tried: str, late: bool) -> None:
    change(shop, "created_at = now() - interval '3 hours', next_attempt_at = now() + interval '1 hour'")
    change(shop, tried)
    assert (alert(shop) is not None) == late
