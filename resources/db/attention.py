"""The attention queue: everything that waits for a person, since when, why, and the commands that mend it.

It is read afresh from the state of things each time; nothing has to be ticked off.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, text

from resources.db import operator_returns
from resources.db.alerts import AlertKind, open_alerts
from resources.db.attention_disputes import DisputeFacts, advise_dispute, disputes_that_wait
from resources.db.attention_orders import WaitingOrder, advise_order, release_command, waiting_orders
from resources.db.attention_providers import provider_facts
from resources.db.attention_units import waiting_units
from resources.db.operator_providers import Circuit
from resources.db.order_advice import MINUTES_MORE, Advice, UnitFacts, Urgency, advise, command
from resources.db.order_money import money_of
from resources.db.outbox import TELL_AFTER_ATTEMPTS
from resources.db.stuck import stuck_orders

STUCK_AFTER = timedelta(hours=1)
_TRIED_OFTEN = 5


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that waits: `kind` is its section in docs/operations.md, `commands` are typed as they stand."""

    kind: str
    urgency: Urgency
    since: datetime
    subject: str
    reason: str
    commands: tuple[str, ...]
    order_id: UUID | None = None


_FAILED_REFUNDS = text(
    """
    select r.order_id, o.display_id, r.payment_intent, r.refund_key, r.last_error, r.state,
        coalesce(r.finished_at, r.created_at) as since
    from refunds r join orders o using (order_id)
    where (r.state = 'failed' and r.esim_n is null and not exists (
            select 1 from refunds b where b.payment_intent = r.payment_intent and b.refund_key like 'external:%'))
        or (r.state = 'requested' and r.attempts >= :often)
    order by since
    """
)
_NOTICES = text(
    """
    select b.order_id, o.display_id, b.channel, count(*) as notices, min(b.created_at) as since,
        max(b.last_error) as error
    from outbox b left join orders o using (order_id)
    where b.sent_at is null and b.attempts >= :often
    group by b.order_id, o.display_id, b.channel
    order by since
    """
)


def attention(conn: Connection, now: datetime) -> list[Item]:
    """Return what waits for a person, the most urgent and oldest first."""
    disputed, orders = disputes_that_wait(conn), waiting_orders(conn)
    items = [
        *_of_disputes(conn, disputed, orders, now),
        *_of_units(waiting_units(conn, now), now, disputed),
        *_refunds(conn, orders, now, disputed),
        *_notices(conn),
        *_providers(conn, now),
        *_stock(conn),
    ]
    # A refund that failed says what to do about the hold, and so does a dispute.
    told = {item.order_id for item in items if item.kind == "refund_failed"}
    told |= {facts.order_id for facts in disputed if facts.tells_all or (facts.refund_failed and facts.stops_refunds)}
    items += _held(orders, now, disputed, told)
    known = {item.order_id for item in items if item.kind not in {"late_purchase", "mail_refused"}}
    items += [item for item in _stuck(conn, now) if item.order_id not in known]
    return sorted(items, key=lambda item: (item.urgency, item.since))


def items_of_order(conn: Connection, order_id: UUID, now: datetime) -> list[Item]:
    """Return what one order waits for: its part of the queue."""
    return [item for item in attention(conn, now) if item.order_id == order_id]


def _held(
    orders: Mapping[UUID, WaitingOrder], now: datetime, disputed: Sequence[DisputeFacts], told: Collection[UUID | None]
) -> Iterator[Item]:
    """Yield the orders that wait as a whole, besides those that are told of already."""
    banks = {facts.order_id: facts.status for facts in disputed if facts.stops_refunds}
    for order in (order for order in orders.values() if order.order_id not in told):
        advice = advise_order(order, now, banks.get(order.order_id))
        yield _item(advice, order.since, f"order {order.display_id}", order.order_id)


def _of_disputes(
    conn: Connection, disputed: Sequence[DisputeFacts], orders: Mapping[UUID, WaitingOrder], now: datetime
) -> Iterator[Item]:
    paid_back = {m.order_id for m in money_of(conn, {facts.order_id for facts in disputed}) if m.is_all_back}
    with_the_bank = {facts.order_id for facts in disputed if facts.stops_refunds}
    for facts in disputed:
        order, of_bank = orders.get(facts.order_id), facts.order_id in with_the_bank
        release = None if order is None else release_command(order, now)
        advice = advise_dispute(facts, release, bank_has_it=of_bank, paid_back=facts.order_id in paid_back)
        yield _item(advice, facts.since, f"order {facts.display_id}", facts.order_id)


def _of_units(units: list[tuple[UnitFacts, bool]], now: datetime, disputed: Sequence[DisputeFacts]) -> Iterator[Item]:
    with_the_bank = {facts.order_id for facts in disputed if facts.stops_refunds}
    for unit, held in units:
        advice = advise(unit, now, held=held)
        if advice is None or (held and advice.kind == "attention"):  # the order says so already
            continue
        if advice.kind not in {"refund_failed", "not_refunded"} or unit.order_id not in with_the_bank:
            yield _item(advice, unit.since, f"order {unit.display_id}, eSIM {unit.n}", unit.order_id)


def _item(advice: Advice, since: datetime, subject: str, order_id: UUID) -> Item:
    return Item(advice.kind, advice.urgency, since, subject, advice.reason, advice.commands, order_id)


def _refunds(
    conn: Connection, orders: Mapping[UUID, WaitingOrder], now: datetime, disputed: Sequence[DisputeFacts]
) -> Iterator[Item]:
    with_the_bank = {facts.order_id for facts in disputed if facts.stops_refunds}
    for row in conn.execute(_FAILED_REFUNDS, {"often": _TRIED_OFTEN}):
        if row.state == "failed" and row.order_id in with_the_bank:
            continue
        show, subject = f"numnaroad order show {row.display_id}", f"order {row.display_id}"
        if row.state == "failed":
            reason = f"refund {row.refund_key} failed ({row.last_error}): pay {row.payment_intent} back in Stripe"
            order = orders.get(row.order_id)
            commands: tuple[str, ...] = (show,) if order is None else (show, release_command(order, now))
            yield Item("refund_failed", Urgency.NOW, row.since, subject, reason, commands, row.order_id)
        else:
            reason = f"refund {row.refund_key} is not paid yet, it is tried on: {row.last_error}"
            commands = (show, "numnaroad doctor", command(f"refunds retry --order {row.display_id}"))
            yield Item("refund_late", Urgency.TODAY, row.since, subject, reason, commands, row.order_id)


def _notices(conn: Connection) -> Iterator[Item]:
    for row in conn.execute(_NOTICES, {"often": TELL_AFTER_ATTEMPTS}):
        subject = f"order {row.display_id}" if row.display_id else row.channel
        order = f"--order {row.display_id}" if row.display_id else ""
        reason = f"{row.notices} to {row.channel} not handed over: {row.error}"
        urgency = Urgency.TODAY if row.channel == "mail" else Urgency.SOMETIME
        commands = ("numnaroad doctor", command("notices resend", order))
        yield Item("mail_refused", urgency, row.since, subject, reason, commands, row.order_id)


def _providers(conn: Connection, now: datetime) -> Iterator[Item]:
    low = {alert.subject: alert for alert in open_alerts(conn) if alert.kind == AlertKind.LOW_BALANCE}
    for each in provider_facts(conn, now):
        subject = f"provider {each.slug}"
        look = (f"numnaroad provider show {each.slug}", command(f"provider disable {each.slug}"))
        if each.enabled and each.unfunded_at is not None:
            reason = f"{each.why}: it is not bought from; top it up in its portal"
            yield Item("provider_unfunded", Urgency.TODAY, each.unfunded_at, subject, reason, look)
        elif each.enabled and each.slug in low:
            yield Item("low_balance", Urgency.TODAY, low[each.slug].since, subject, low[each.slug].text, look[:1])
        if each.held_reason is not None:
            commands = (
                f"numnaroad sync --provider {each.slug}",
                command(f"sync --provider {each.slug} --accept {each.slug}"),
            )
            yield Item("catalogue_held", Urgency.TODAY, each.held_at or now, subject, each.held_reason, commands)
        if each.enabled and each.circuit is not Circuit.CLOSED:
            reason = f"its circuit is {each.circuit} after {each.failures} failures: {each.last_error}"
            commands = (f"numnaroad provider show {each.slug}", command(f"provider reset {each.slug}"))
            yield Item("circuit_open", Urgency.TODAY, each.last_error_at or now, subject, reason, commands)


def _stock(conn: Connection) -> Iterator[Item]:
    for each in operator_returns.stock(conn):
        commands = (command(f"stock return {each.stock_id}"), command(f"stock write-off {each.stock_id}"))
        subject = f"stock {each.stock_id}, bought for order {each.display_id}"
        reason = f"{each.provider} order {each.provider_order_id}: {each.reason}"
        yield Item("late_purchase", Urgency.SOMETIME, each.created_at, subject, reason, commands, each.order_id)


def _stuck(conn: Connection, now: datetime) -> Iterator[Item]:
    rows = text(
        "select order_id, display_id, paid_at, deadline_at <= :now as late"
        " from orders where order_id = any(:ids) order by paid_at"
    )
    for row in conn.execute(rows, {"ids": stuck_orders(conn, now - STUCK_AFTER, now), "now": now}):
        deadline = f"--extend-deadline {MINUTES_MORE}" if row.late else ""
        commands = (f"numnaroad order show {row.display_id}", command(f"order retry {row.display_id}", deadline))
        reason = "paid over an hour ago and not done"
        yield Item("stuck", Urgency.NOW, row.paid_at, f"order {row.display_id}", reason, commands, row.order_id)
