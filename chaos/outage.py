"""How soon a package's best price leaves a provider that goes down, and how soon it is back when the provider is up.

a provider answers nothing but errors -> an order finds out, its circuit opens -> its price moves to the next provider
-> the fault ends -> a harmless read finds the provider up -> its price moves back.

The outage lasts until a read has found the provider away: a shorter one would wait for the rest of its circuit, which
is a minute whatever happens outside. Only a provider that sells to many at a time is taken down: where lost answers
have to be settled one after the other, five of them take longer than any minute.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, sleep

from sqlalchemy import Engine, Row, TextClause, text
from sqlalchemy.exc import SQLAlchemyError

from chaos.customers import PROMPT, SUCCEED, Basket, Buyer, Customers
from chaos.platform_recovery import WITHIN_SECONDS, Back
from chaos.stage import Outside
from resources.db.provider_events import Event
from resources.db.provider_state import FAILURES_TO_OPEN

DONE = "the best price of its package moved"
_LOOK_SECONDS = 0.1
SELL_TO_MANY = ("airalo", "esim_access", "mobimatter")
# One that was degraded lately may rest for longer than a minute, which is not what is timed.
_CHOSEN = text(
    """
    select p.package_id, o.provider, now() as at
    from packages p join offers o on o.offer_id = p.best_offer_id
    where p.on_sale and p.package_id = any(:package_ids) and o.provider = any(:sell_to_many)
    order by (
        select count(*) from provider_events e
        where e.provider = o.provider and e.event = :degraded and e.at > now() - interval '1 hour'
    ), p.package_id
    limit 1
    """
)
_BEST = "from packages p join offers o on o.offer_id = p.best_offer_id where p.package_id = :package_id and p.on_sale"
_MOVED = text(f"select exists (select {_BEST} and o.provider <> :provider)")
_BACK = text(f"select exists (select {_BEST} and o.provider = :provider)")
_FOUND_AWAY = text(
    "select exists (select from provider_events where provider = :provider and event = :failed and at > :at)"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long is waited for a price to move, and for a read to find that the provider is away."""

    moved: float = WITHIN_SECONDS
    found_away: float = 180.0


def time_an_outage(
    engine: Engine,
    outside: Outside,
    customers: Customers,
    package_ids: list[str],
    say: Callable[[str], None],
    limits: Limits | None = None,
) -> tuple[list[Back], list[Basket]]:
    """Take a best price's provider down and up again; return the time each way took, and what was ordered meanwhile."""
    limits = limits or Limits()
    with engine.connect() as conn:
        values = {"package_ids": package_ids, "sell_to_many": list(SELL_TO_MANY), "degraded": Event.DEGRADED}
        chosen = conn.execute(_CHOSEN, values).one()
    outside.put_faults([_down(chosen.provider)])
    started = monotonic()
    basket = customers.buy(Buyer("outage", ((chosen.package_id, FAILURES_TO_OPEN + 1),), SUCCEED, PROMPT))
    moved = _seconds_until(engine, _MOVED, chosen, started, limits.moved)
    _seconds_until(engine, _FOUND_AWAY, chosen, monotonic(), limits.found_away)
    outside.clear_faults()
    back = None if moved is None else _seconds_until(engine, _BACK, chosen, monotonic(), limits.moved)
    found = [Back("provider down", moved, DONE), Back("provider up again", back, DONE)]
    for each in found:
        say(f"platform recovery, {each.killed}: {'never' if each.seconds is None else f'{each.seconds:.1f} s'}")
    return found, [basket] if basket is not None else []


def _down(provider: str) -> dict[str, object]:
    return {
        "provider": provider,
        "call": "*",
        "kind": "error_status",
        "times": None,
        "probability": 1.0,
        "params": {"status": 503},
    }


def _seconds_until(
    engine: Engine, statement: TextClause, chosen: "Row[tuple[object, ...]]", started: float, within: float
) -> float | None:
    """Return the seconds from the start until the statement is true; None where it was not in time."""
    values = {**chosen._mapping, "failed": Event.PROBE_FAILED}
    while True:
        late = monotonic() - started > within
        with suppress(SQLAlchemyError), engine.connect() as conn:
            if conn.scalar(statement, values):
                return monotonic() - started
        if late:
            return None
        sleep(_LOOK_SECONDS)
