"""Offers that run out, as their catalogues tell: one alert an offer and episode, one note a provider.

What is watched is what matters to the shop: offers that are sold, and sold-out ones that would be the best.
"""

from collections import defaultdict
from datetime import datetime

from sqlalchemy import Connection, text

from resources.db.alerts import AlertKind, watch_together

LOW_STOCK = 10

_LOW = text(
    "select o.offer_id, o.provider, o.stock from offers o join packages p on p.package_id = o.package_id"
    " where o.on_offer and o.stock < :low and o.excluded_reason is null and (o.auto_mode or o.is_enabled)"
    " and (o.is_enabled or (o.stock <= 0 and (not p.on_sale or o.landed_micros <= p.best_landed_micros)))"
    " order by o.stock, o.offer_id"
)
_RESTOCKED = text(
    "select a.subject from alerts a where a.kind = :kind and a.ended_at is null and not exists ("
    "select 1 from offers o where o.offer_id = a.subject and o.on_offer and o.stock < :low)"
)


def watch_stock(conn: Connection, now: datetime) -> dict[str, list[str]]:
    """Begin and end the episodes of offers that run out; return those that began, by provider."""
    low: dict[str, dict[str, str]] = defaultdict(dict)
    for row in conn.execute(_LOW, {"low": LOW_STOCK}):
        left = f"{row.stock} left" if row.stock > 0 else "sold out, off sale"
        low[row.provider][row.offer_id] = f"{row.offer_id} ({left})"
    kind = AlertKind.LOW_STOCK
    gone = list(conn.scalars(_RESTOCKED, {"kind": kind, "low": LOW_STOCK}))
    watch_together(conn, kind, {}, gone, now, "")
    found = {
        slug: watch_together(conn, kind, offers, (), now, f"{slug}: fewer than {LOW_STOCK} left of offers on sale")
        for slug, offers in sorted(low.items())
    }
    return {slug: begun for slug, begun in found.items() if begun}
