"""What is on sale and why it costs what it costs, for operators: packages with their whole list of candidate offers."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from resources.db.tables import offers, packages

Row = Mapping[str, Any]


def packages_on_sale(connection: Connection, destination: str | None, limit: int) -> Sequence[Row]:
    """Return packages on sale, cheapest first, for a country code or region slug (all destinations when None)."""
    query = select(packages).where(packages.c.on_sale).order_by(packages.c.price_minor_usd, packages.c.package_id)
    if destination is not None:
        wanted = destination.upper() if len(destination) == 2 else destination.lower()
        query = query.where(packages.c.destination_code == wanted)
    return [dict(row) for row in connection.execute(query.limit(limit)).mappings()]


def candidates_of(connection: Connection, package_ids: Sequence[str]) -> dict[str, list[Row]]:
    """Return every offer of each package, cheapest first, with why it is not bought where it is not."""
    query = (
        select(offers)
        .where(offers.c.package_id.in_(package_ids))
        .order_by(offers.c.package_id, offers.c.landed_micros, offers.c.provider)
    )
    found: dict[str, list[Row]] = {package_id: [] for package_id in package_ids}
    for row in connection.execute(query).mappings():
        found[row["package_id"]].append(dict(row))
    return found
