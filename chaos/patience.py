"""The end of a campaign on the running platform: waiting in real time until everything that was paid has its end.

Nobody helps: the sensors, schedules, drains and the daemon do all of it. Two things are the outside's: webhooks that
were lost are sent again, and customers whose payment was not heard of look at their order. One is not waited for: the
fee of a payment that could not be read is asked for again after ten minutes, and this is brought forward.
"""

from contextlib import suppress
from time import monotonic, sleep

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from chaos.customers import Basket, Customers
from chaos.healing import heal_lost_events, heal_lost_payments
from chaos.stage import Outside
from chaos.tally import Tally

_MOST_SECONDS = 900.0
_WEBHOOKS_WITHIN = 150.0  # the payment service tries again after a minute at most
_LOOK_SECONDS = 1.0
# A unit that was given up is paid back; where the payment service refuses that for good, a person is waited for.
_LEFT = text(
    """
    select (select count(*) from esims where status in ('queued', 'working', 'pending', 'unknown'))
        + (select count(*) from esims e where e.status = 'failed' and not exists (
            select from refunds r where r.order_id = e.order_id and r.esim_n = e.n and r.state = 'failed'))
        + (select count(*) from outbox where sent_at is null)
        + (select count(*) from refunds where state = 'requested')
        + (select count(*) from orders where fee_due_at is not null)
        + (select count(*) from inbox_events where work is not null and worked_at is null)
    """
)
_FEES_NOW = text(
    "update orders set fee_due_at = now() where fee_due_at > now() and fee_due_at < now() + interval '9 minutes'"
)


def rest(engine: Engine, outside: Outside, customers: Customers, baskets: list[Basket], tally: Tally) -> float:
    """Wait until nothing is left to do; return how long that took. What is left then is for the rules to find."""
    started = monotonic()
    heal_lost_payments(engine, baskets, customers, tally)
    if not heal_lost_events(outside, tally, _WEBHOOKS_WITHIN):
        tally.add("webhooks still on their way when the wait began")
    while monotonic() - started < _MOST_SECONDS:
        with suppress(SQLAlchemyError):
            tally.add("fees that waited for their next reading, brought forward", _bring_fees_forward(engine))
            if _left(engine) == 0 and heal_lost_events(outside, tally, _WEBHOOKS_WITHIN) and _left(engine) == 0:
                break
        sleep(_LOOK_SECONDS)
    else:
        tally.add("waits that were given up")
    tally.add("seconds waited with nobody's help", round(monotonic() - started))
    return monotonic() - started


def _left(engine: Engine) -> int:
    with engine.connect() as conn:
        return int(conn.scalar(_LEFT) or 0)


def _bring_fees_forward(engine: Engine) -> int:
    with engine.begin() as conn:
        return conn.execute(_FEES_NOW).rowcount
