"""After the storm: faults off, lost messages healed as in life, and work and leaps until nothing is due any more.

What the product times by the database's own clock cannot be leapt over; `Shop.make_due` brings it forward.
"""

import time

from sqlalchemy import text

from chaos.customers import Basket, Customers
from chaos.stage import Shop
from chaos.tally import Tally

# Settle times, polls and retry delays first; then past the deadline; then past the day for which the payment service
# answers a repeated request with the error it gave the first.
_STEPS = (61.0, 130.0, 310.0, 310.0, 960.0, 1_800.0, 1_800.0, 3_700.0, 3_700.0, 90_000.0, 3_700.0)
_WEBHOOKS_WITHIN = 20.0
_LEFT = """
select (select count(*) from esims where status in ('queued', 'working', 'pending', 'unknown', 'failed')
        or (status = 'attention' and next_attempt_at is not null))
    + (select count(*) from outbox where sent_at is null)
    + (select count(*) from refunds where state = 'requested')
    + (select count(*) from orders where fee_due_at is not null)
    + (select count(*) from inbox_events where work is not null and worked_at is null)
"""
_DUE_NOW = """
select (select count(*) from esims where status in ('queued', 'pending', 'unknown') and next_attempt_at <= :now)
    + (select count(*) from esims where status = 'working')
    + (select count(*) from outbox where sent_at is null)
    + (select count(*) from refunds where state = 'requested')
    + (select count(*) from orders where fee_due_at is not null)
"""


def settle_down(shop: Shop, baskets: list[Basket], customers: Customers, tally: Tally, bug: str = "") -> None:
    """Bring the shop to rest; whatever is not at rest after that is for the rules to find."""
    outside = shop.stage.outside
    outside.clear_faults()
    for basket in baskets:
        customers.trouble(basket)
    shop.stage.leap_to(shop.clock.ahead_seconds + 11)
    _heal_lost_payments(shop, baskets, customers, tally)
    for seconds in _STEPS:
        _work(shop, tally, bug)
        if not _count(shop, _LEFT):
            break
        shop.stage.leap_to(shop.clock.ahead_seconds + seconds)
        tally.add("leaps of the clock")


def _work(shop: Shop, tally: Tally, bug: str) -> None:
    """Let drains work as long as they get something done of what is due now, however slow the machine is."""
    due = _count(shop, _DUE_NOW) + 1
    while True:
        before = due
        shop.make_due()
        shop.start_drain(workers=10, idle_seconds=0.05, max_seconds=1.0, bug=bug)
        shop.end_drains(60.0)
        shop.await_arrivals()
        _heal_lost_events(shop, tally)
        due = _count(shop, _DUE_NOW)
        if due == 0 or due >= before:
            return  # nothing is left, or nothing more gets done now


def _heal_lost_payments(shop: Shop, baskets: list[Basket], customers: Customers, tally: Tally) -> None:
    """Customers whose payment nobody heard of look at their order, which makes the shop ask."""
    pending = _pending(shop)
    for basket in baskets:
        if basket.order_id in pending:
            customers.look(basket)
    until = time.monotonic() + 3.0
    while _pending(shop) == pending and time.monotonic() < until and pending:
        time.sleep(0.05)
    tally.add("lost payments found by the order page", len(pending - _pending(shop)))


def _heal_lost_events(shop: Shop, tally: Tally) -> None:
    """Have every event sent again that was lost or not taken, as the payment service's dashboard can; wait for all."""
    until = time.monotonic() + _WEBHOOKS_WITHIN
    while time.monotonic() < until:
        events = shop.stage.outside.read("/sandbox/stripe/events")["events"]
        for event in events:
            if event["state"] in {"lost", "failed"}:
                shop.stage.outside.http.post(f"/sandbox/stripe/events/{event['id']}/resend").raise_for_status()
                tally.add("lost webhooks sent again from the payment service's dashboard")
        if all(event["state"] == "delivered" for event in events):
            return
        time.sleep(0.05)


def _count(shop: Shop, query: str) -> int:
    with shop.engine.connect() as conn:
        return int(conn.scalar(text(query), {"now": shop.clock()}) or 0)


def _pending(shop: Shop) -> set[str]:
    with shop.engine.connect() as conn:
        return {str(row[0]) for row in conn.execute(text("select order_id from orders where status = 'pending'"))}
