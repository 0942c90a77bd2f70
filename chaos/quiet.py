"""After the storm: faults off, lost messages healed as in life, and work and leaps until nothing is due any more.

What the product times by the database's own clock cannot be leapt over; `Shop.make_due` brings it forward.
"""

from collections.abc import Callable

from sqlalchemy import text

from chaos.customers import Basket, Customers
from chaos.healing import heal_lost_events, heal_lost_payments, reconcile_lost_events
from chaos.mischief import Json
from chaos.stage import Outside, Shop
from chaos.tally import Tally

# Settle times, polls and retry delays first; then past the deadline; then past the day for which the payment service
# answers a repeated request with the error it gave the first.
_STEPS = (61.0, 130.0, 310.0, 310.0, 960.0, 1_800.0, 1_800.0, 3_700.0, 3_700.0, 90_000.0, 3_700.0)
_MONEY_BACK_UNTOLD = {
    "kind": "webhook_lost",
    "times": 40,
    "params": {"types": ["charge.refunded", "refund.", "charge.dispute"]},
}
# A unit that was given up is paid back; where the payment service refuses that for good, a person is waited for.
_LEFT = """
select (select count(*) from esims where status in ('queued', 'working', 'pending', 'unknown')
        or (status = 'attention' and next_attempt_at is not null))
    + (select count(*) from esims e where e.status = 'failed' and not exists (
        select from refunds r where r.order_id = e.order_id and r.esim_n = e.n and r.state = 'failed'))
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


def settle_down(
    shop: Shop,
    baskets: list[Basket],
    customers: Customers,
    tally: Tally,
    bug: str = "",
    *,
    reconciled: bool = False,
    gust: tuple[list[Json], Json] | None = None,
) -> list[str]:
    """Bring the shop to rest; whatever is not at rest after that is for the rules to find.

    Where lost webhooks are `reconciled`, return what the reconciler did not find or could not apply. A `gust` is put
    in force when all other faults end: what providers refuse a few times, and what goes wrong with refunds then.
    """
    outside = shop.stage.outside
    _last_troubles(outside, baskets, customers, untold=reconciled)
    if gust is not None:
        outside.put_faults(gust[0])
        outside.put_other_faults("stripe", gust[1])
    shop.stage.leap_to(shop.clock.ahead_seconds + 11)
    missed: list[str] = []

    def heal() -> None:
        if reconciled:
            missed.extend(reconcile_lost_events(shop, tally))
        else:
            heal_lost_events(outside, tally)

    if not reconciled:
        heal_lost_payments(shop.engine, baskets, customers, tally)
    for seconds in _STEPS:
        _work(shop, heal, bug)
        if not _count(shop, _LEFT):
            break
        shop.stage.leap_to(shop.clock.ahead_seconds + seconds)
        tally.add("leaps of the clock")
    return missed


def _last_troubles(outside: Outside, baskets: list[Basket], customers: Customers, *, untold: bool) -> None:
    """End the faults and let everybody who still wants money back have it, `untold` without a webhook that says so."""
    outside.clear_faults()
    if untold:
        outside.put_other_faults("stripe", _MONEY_BACK_UNTOLD)
    for basket in baskets:
        customers.trouble(basket)
    outside.clear_faults()


def _work(shop: Shop, heal: Callable[[], None], bug: str) -> None:
    """Let drains work as long as they get something done of what is due now, however slow the machine is."""
    due = _count(shop, _DUE_NOW) + 1
    while True:
        before = due
        shop.make_due()
        shop.start_drain(workers=10, idle_seconds=0.05, max_seconds=1.0, bug=bug)
        shop.end_drains(60.0)
        shop.await_arrivals()
        heal()
        due = _count(shop, _DUE_NOW)
        if due == 0 or due >= before:
            return  # nothing is left, or nothing more gets done now


def _count(shop: Shop, query: str) -> int:
    with shop.engine.connect() as conn:
        return int(conn.scalar(text(query), {"now": shop.clock()}) or 0)
