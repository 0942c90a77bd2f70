"""Offers that rest because a purchase was refused as sold out, and providers whose balance did not suffice.

Both are noted by whoever bought, at once, and end by themselves: an offer after half an hour or when a newer catalogue
tells a stock, a provider when a reading of its balance covers what could not be bought. Candidates and prices heed
them; the price sensor sees both.
"""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from esim.money import Cost
from esim.provisioning import BuyableOffer
from esim.purchase import ErrorType, Outcome, Rejected
from resources.db.alerts import AlertKind, raise_alert
from resources.db.provider_events import Event, note_event
from resources.db.tables import offer_outages, offers, providers, purchase_attempts

REST = timedelta(minutes=30)

# An outage x of an offer at provider p that still holds: a catalogue read since then that tells a stock ends it.
HOLDS = "x.until > :now and not (coalesce({offer}.stock, 0) > 0 and coalesce(p.synced_at > x.since, false))"
_OF_OFFERS = (
    "select x.offer_id from offer_outages x join offers o on o.offer_id = x.offer_id"
    " join providers p on p.slug = o.provider where "
)
_RESTING = text(_OF_OFFERS + HOLDS.format(offer="o"))


def note_refusal(engine: Engine, offer: BuyableOffer, outcome: Outcome, now: datetime) -> None:
    """Note what a refused purchase says about its offer (sold out) or our balance; any other outcome says neither."""
    if not isinstance(outcome, Rejected):
        return
    if outcome.error_type is ErrorType.OUT_OF_STOCK:
        with engine.begin() as conn:
            rest_offer(conn, offer.offer_id, "a purchase was refused: sold out", now)
    elif outcome.error_type is ErrorType.INSUFFICIENT_BALANCE:
        with engine.begin() as conn:
            note_unfunded(conn, offer.provider, offer.landed_micros, now)


def note_late_refusal(engine: Engine, attempt: Row[Any], outcome: Outcome, now: datetime) -> None:
    """Do what `note_refusal` does for a purchase whose refusal was learnt afterwards, by looking it up.

    A catalogue that was read since the purchase knows better.
    """
    if not isinstance(outcome, Rejected):
        return
    if outcome.error_type is ErrorType.OUT_OF_STOCK:
        with engine.begin() as conn:
            rest_offer(conn, attempt.offer_id, "a purchase was refused later on: sold out", now, attempt.sent_at)
    elif outcome.error_type is ErrorType.INSUFFICIENT_BALANCE:
        with engine.begin() as conn:
            landed = conn.scalar(select(offers.c.landed_micros).where(offers.c.offer_id == attempt.offer_id))
            note_unfunded(conn, attempt.provider, int(landed or 0), now)


def rest_offer(conn: Connection, offer_id: str, reason: str, now: datetime, since: datetime | None = None) -> None:
    """Take an offer off sale for half an hour from now; it is known since `since`, or just now."""
    x = offer_outages.c
    fresh = insert(offer_outages).values(offer_id=offer_id, since=since or now, until=now + REST, reason=reason)
    newest = {name: func.greatest(x[name], fresh.excluded[name]) for name in ("since", "until")}
    conn.execute(fresh.on_conflict_do_update(index_elements=[x.offer_id], set_={**newest, "reason": reason}))


def end_rests_of(conn: Connection, esim_id: UUID) -> None:
    """Put the offers that a unit was refused for back on sale: an operator has it tried again."""
    tried = select(purchase_attempts.c.offer_id).where(purchase_attempts.c.esim_id == esim_id)
    conn.execute(delete(offer_outages).where(offer_outages.c.offer_id.in_(tried)))


def resting_offers(conn: Connection, now: datetime) -> frozenset[str]:
    """Return the offers that rest."""
    return frozenset(conn.scalars(_RESTING, {"now": now}))


def note_unfunded(conn: Connection, slug: str, needed_micros: int, now: datetime) -> None:
    """Note that our balance at a provider did not suffice for a purchase of `needed_micros` micro-USD; tell once."""
    p = providers.c
    short = update(providers).where(p.slug == slug, p.unfunded_at.is_(None))
    if conn.scalar(short.values(unfunded_at=now, unfunded_micros=needed_micros).returning(p.slug)) is None:
        dearer = update(providers).where(p.slug == slug, p.unfunded_micros < needed_micros)
        conn.execute(dearer.values(unfunded_micros=needed_micros))
        return
    dollars = Cost(Decimal(needed_micros).scaleb(-6), "USD")
    reason = f"a purchase of {dollars} was refused for want of balance"
    note_event(conn, slug, Event.UNFUNDED, reason, now)
    text_ = f"{slug}: {reason}. It is not bought from until its balance covers that; top it up."
    raise_alert(conn, AlertKind.PROVIDER_UNFUNDED, slug, text_, now)


def unfunded_providers(conn: Connection, read_before: datetime) -> list[str]:
    """Return the unfunded providers whose balance was not read since a moment."""
    p = providers.c
    stale = p.balance_at.is_(None) | (p.balance_at < read_before)
    return list(conn.scalars(select(p.slug).where(p.enabled, p.unfunded_at.is_not(None), stale).order_by(p.slug)))
