"""What is on sale and why it costs what it costs, for operators: packages with their whole list of candidate offers."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, select

from resources.db.tables import offers, packages, providers

Row = Mapping[str, Any]


def listed_packages(
    connection: Connection, destination: str | None, limit: int, *, off_sale: bool = False
) -> Sequence[Row]:
    """Return packages on sale (and others, if wanted), cheapest first, for a country code or region slug, or all."""
    query = select(packages).order_by(packages.c.price_minor_usd, packages.c.package_id)
    if not off_sale:
        query = query.where(packages.c.on_sale)
    if destination is not None:
        wanted = destination.upper() if len(destination) == 2 else destination.lower()
        query = query.where(packages.c.destination_code == wanted)
    return [dict(row) for row in connection.execute(query.limit(limit)).mappings()]


def candidates_of(connection: Connection, package_ids: Sequence[str]) -> dict[str, list[Row]]:
    """Return every offer of each package, cheapest first, with what its provider's state is now.

    `provider_enabled` and `provider_resting` (its circuit is open) stand beside the offer's own columns.
    """
    resting = func.coalesce(providers.c.open_until > func.now(), False)
    query = (
        select(offers, providers.c.enabled.label("provider_enabled"), resting.label("provider_resting"))
        .join(providers, providers.c.slug == offers.c.provider)
        .where(offers.c.package_id.in_(package_ids))
        .order_by(offers.c.package_id, offers.c.landed_micros, offers.c.provider)
    )
    found: dict[str, list[Row]] = {package_id: [] for package_id in package_ids}
    for row in connection.execute(query).mappings():
        found[row["package_id"]].append(dict(row))
    return found
