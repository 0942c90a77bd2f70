"""The attention queue: everything that waits for a person, since when, why, and the commands that mend it.

It is read afresh from the state of things each time; nothing has to be ticked off.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, text

from resources.db import operator_returns
from resources.db.attention_disputes import DisputeFacts, advise_dispute, disputes_that_wait
from resources.db.attention_units import WaitingOrder, units_of_order, waiting_orders, waiting_units
from resources.db.operator_providers import Circuit, provider_reports
from resources.db.order_advice import Advice, OrderState, UnitFacts, Urgency, advise, command
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


@dataclass(frozen=True, slots=True)
class _Waiting:
    """What waits of orders, and where their money is: with a bank, or all of it with the customer."""

    disputes: Sequence[DisputeFacts]
    orders: Sequence[WaitingOrder]
    units: Sequence[tuple[UnitFacts, bool]]
    with_the_bank: frozenset[UUID]
    paid_back: frozenset[UUID]


def attention(conn: Connection, now: datetime) -> list[Item]:
    """Return what waits for a person, the most urgent and oldest first."""
    waiting = _waiting(conn, disputes_that_wait(conn), waiting_orders(conn), waiting_units(conn, now))
    items = [
        *_of_orders(waiting, now),
        *_refunds(conn, waiting),
        *_notices(conn),
        *_providers(conn, now),
        *_stock(conn),
    ]
    known = {item.order_id for item in items}
    items += [item for item in _stuck(conn, now) if item.order_id not in known]
    return sorted(items, key=lambda item: (item.urgency, item.since))


def items_of_order(conn: Connection, order_id: UUID, now: datetime) -> list[Item]:
    """Return what one order waits for."""
    disputed = [facts for facts in disputes_that_wait(conn) if facts.order_id == order_id]
    held = [order for order in waiting_orders(conn) if order.order_id == order_id]
    return list(_of_orders(_waiting(conn, disputed, held, units_of_order(conn, order_id)), now))


def _waiting(
    conn: Connection,
    disputes: Sequence[DisputeFacts],
    orders: Sequence[WaitingOrder],
    units: Sequence[tuple[UnitFacts, bool]],
) -> _Waiting:
    ids = {facts.order_id for facts in disputes} | {order.order_id for order in orders}
    ids |= {unit.order_id for unit, _ in units}
    paid_back = frozenset(money.order_id for money in money_of(conn, ids) if money.is_all_back)
    with_the_bank = frozenset(facts.order_id for facts in disputes if facts.stops_refunds)
    return _Waiting(disputes, orders, units, with_the_bank, paid_back)


def _of_orders(waiting: _Waiting, now: datetime) -> Iterator[Item]:
    """Yield disputes, orders that wait as a whole (not those told of with their dispute), and units."""
    told = {facts.order_id for facts in waiting.disputes if facts.tells_all}
    yield from (_of_dispute(facts, waiting) for facts in waiting.disputes)
    yield from (_of_order(order, waiting) for order in waiting.orders if order.order_id not in told)
    yield from _of_units(waiting, now)


def _of_dispute(facts: DisputeFacts, waiting: _Waiting) -> Item:
    of_bank, paid_back = facts.order_id in waiting.with_the_bank, facts.order_id in waiting.paid_back
    advice = advise_dispute(facts, bank_has_it=of_bank, paid_back=paid_back)
    return _item(advice, facts.since, f"order {facts.display_id}", facts.order_id)


def _of_units(waiting: _Waiting, now: datetime) -> Iterator[Item]:
    for unit, held in waiting.units:
        advice = advise(unit, now, OrderState(held, unit.order_id in waiting.paid_back))
        if advice is None or (held and advice.kind == "attention"):  # the order says so already
            continue
        if advice.kind not in {"refund_failed", "not_refunded"} or unit.order_id not in waiting.with_the_bank:
            yield _item(advice, unit.since, f"order {unit.display_id}, eSIM {unit.n}", unit.order_id)


def _item(advice: Advice, since: datetime, subject: str, order_id: UUID) -> Item:
    return Item(advice.kind, advice.urgency, since, subject, advice.reason, advice.commands, order_id)


def _of_order(order: WaitingOrder, waiting: _Waiting) -> Item:
    commands = (f"numnaroad order show {order.display_id}", *_ways_out(order, waiting))
    kind = "held" if order.is_held else "undecided"
    return Item(kind, Urgency.NOW, order.since, f"order {order.display_id}", order.reason, commands, order.order_id)


def _ways_out(order: WaitingOrder, waiting: _Waiting) -> Iterator[str]:
    """Yield what may be done about an order that waits; while a bank has its money that is told with the dispute."""
    retry, refund = f"order retry {order.display_id}", f"order refund {order.display_id} --all"
    if order.order_id in waiting.with_the_bank:
        return
    if order.order_id in waiting.paid_back:
        yield command(refund, "--paid-elsewhere --release-hold")
        yield command(retry, "--release-hold --goodwill")
        return
    yield command(retry, "--release-hold")
    yield command(refund, "--release-hold")
    yield command(refund, "--paid-elsewhere --release-hold")


def _refunds(conn: Connection, waiting: _Waiting) -> Iterator[Item]:
    for row in conn.execute(_FAILED_REFUNDS, {"often": _TRIED_OFTEN}):
        if row.state == "failed" and row.order_id in waiting.with_the_bank:
            continue
        show, subject = f"numnaroad order show {row.display_id}", f"order {row.display_id}"
        if row.state == "failed":
            reason = f"refund {row.refund_key} failed ({row.last_error}): pay {row.payment_intent} back in Stripe"
            release = command(f"order retry {row.display_id}", "--release-hold")
            commands: tuple[str, ...] = (show,) if row.order_id in waiting.paid_back else (show, release)
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
    for each in provider_reports(conn, now):
        subject = f"provider {each.slug}"
        if each.held_reason is not None:
            commands = (
                f"numnaroad sync --provider {each.slug}",
                f"numnaroad sync --provider {each.slug} --accept {each.slug}",
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
        yield Item("late_purchase", Urgency.SOMETIME, each.created_at, subject, reason, commands)


def _stuck(conn: Connection, now: datetime) -> Iterator[Item]:
    rows = text("select order_id, display_id, paid_at from orders where order_id = any(:ids) order by paid_at")
    for row in conn.execute(rows, {"ids": stuck_orders(conn, now - STUCK_AFTER, now)}):
        commands = (f"numnaroad order show {row.display_id}", command(f"order retry {row.display_id}"))
        reason = "paid over an hour ago and not done"
        yield Item("stuck", Urgency.NOW, row.paid_at, f"order {row.display_id}", reason, commands, row.order_id)
