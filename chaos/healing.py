"""How webhooks that were lost come to the shop after all: by the dashboard and the order page, or by the reconciler."""

import time

from sqlalchemy import Engine, select, text

from chaos.customers import Basket, Customers
from chaos.stage import Outside, Shop
from chaos.tally import Tally
from pipelines.reconcile_payments import GRACE, reconcile_payments
from resources.db.tables import inbox_events
from resources.order_operations import OrderTools
from resources.payment_events import HANDLERS, SOURCE

_WEBHOOKS_WITHIN = 20.0
_LOST = frozenset({"lost", "failed"})


def is_reconciled(seed: int) -> bool:
    """Return whether a seed's lost webhooks are left to the shop's own reconciler, as those of every other seed are."""
    return seed % 2 == 0


def heal_lost_payments(engine: Engine, baskets: list[Basket], customers: Customers, tally: Tally) -> None:
    """Customers whose payment nobody heard of look at their order, which makes the shop ask."""
    pending = _pending(engine)
    for basket in baskets:
        if basket.order_id in pending:
            customers.look(basket)
    until = time.monotonic() + 3.0
    while _pending(engine) == pending and time.monotonic() < until and pending:
        time.sleep(0.05)
    tally.add("lost payments found by the order page", len(pending - _pending(engine)))


def heal_lost_events(outside: Outside, tally: Tally, within: float = _WEBHOOKS_WITHIN) -> bool:
    """Have every event sent again that was lost or not taken, as the payment service's dashboard can; wait for all."""
    until, sent = time.monotonic() + within, set[str]()
    while time.monotonic() < until:
        events = outside.read("/sandbox/stripe/events")["events"]
        for event in events:
            if event["state"] in _LOST:
                outside.http.post(f"/sandbox/stripe/events/{event['id']}/resend").raise_for_status()
                tally.add("lost webhooks sent again from the payment service's dashboard", event["id"] not in sent)
                sent.add(event["id"])
        if all(event["state"] == "delivered" for event in events):
            return True
        time.sleep(0.05)
    return False


def reconcile_lost_events(shop: Shop, tally: Tally) -> list[str]:
    """Let the reconciler find what was lost, when its grace for webhooks under way is over; return what it did not.

    What it does not act on is only noted by the webhook too, and stays lost.
    """
    outside = shop.stage.outside
    _await_arrival(outside)
    if not _unheard(shop):
        return []
    shop.stage.leap_to(shop.clock.ahead_seconds + GRACE.total_seconds() + 2)
    tools, pending = OrderTools(shop.settings, clock=shop.clock), _pending(shop.engine)
    try:
        report = reconcile_payments(tools)
    finally:
        tools.close()
    tally.add("looks of the reconciler")
    tally.add("lost webhooks found by the reconciler", report.lost)
    tally.add("lost payments found by the reconciler", len(pending - _pending(shop.engine)))
    for kind in (line.partition(":")[0] for line in report.mended):
        tally.add(f"mended by the reconciler: {kind if kind in HANDLERS else 'a payment page'}")
    return [f"the reconciler cannot apply {line}" for line in report.failed] + [
        f"the reconciler has not found {event_id} ({kind})" for event_id, kind in _unheard(shop).items()
    ]


def _await_arrival(outside: Outside) -> None:
    """Wait until no webhook is on its way any more."""
    until = time.monotonic() + _WEBHOOKS_WITHIN
    while time.monotonic() < until:
        events = outside.read("/sandbox/stripe/events")["events"]
        if all(event["state"] in {"delivered", *_LOST} for event in events):
            return
        time.sleep(0.05)


def _unheard(shop: Shop) -> dict[str, str]:
    """Return the events that the shop acts on and has not heard of, with their kinds."""
    events = shop.stage.outside.read("/sandbox/stripe/events")["events"]
    lost = {event["id"]: event["type"] for event in events if event["state"] in _LOST and event["type"] in HANDLERS}
    known = select(inbox_events.c.event_id).where(
        inbox_events.c.source == SOURCE, inbox_events.c.event_id.in_(list(lost))
    )
    with shop.engine.connect() as conn:
        heard = set(conn.scalars(known))
    return {event_id: kind for event_id, kind in lost.items() if event_id not in heard}


def _pending(engine: Engine) -> set[str]:
    with engine.connect() as conn:
        return {str(row[0]) for row in conn.execute(text("select order_id from orders where status = 'pending'"))}
