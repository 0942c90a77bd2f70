"""Read the published catalogue: whole and consistent for the API's snapshot, row by row for a checkout.

Only plans are sold on their own; a top-up needs an eSIM that exists, so it is never among them.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, func, select

from esim.catalogue import OfferKind
from resources.db.tables import catalogue_versions, packages, reference_rates


@dataclass(frozen=True, slots=True)
class SoldPackage:
    """A package as customers may know it, with its price in minor units per currency.

    `data_mb` is what the table says: per day for daily allowances, None for unlimited ones.
    """

    package_id: str
    name: str
    destination_code: str
    destination_name: str
    destination_type: str
    coverage: tuple[str, ...]
    allowance: str
    data_mb: int | None
    daily_mb: int | None
    throttle_kbps: int | None
    validity_days: int
    voice_minutes: int
    sms: int
    networks: tuple[str, ...]
    supports_top_up: bool | None
    prices: Mapping[str, int]
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class PricedPackage:
    """What a checkout needs of one package: the public part, whether it is on sale, and what it costs us."""

    sold: SoldPackage
    on_sale: bool
    best_landed_micros: int


@dataclass(frozen=True, slots=True)
class PublishedCatalogue:
    """One catalogue version, whole."""

    version: int
    published_at: datetime | None
    packages: tuple[SoldPackage, ...]


_PUBLIC = tuple(packages.c[name] for name in SoldPackage.__slots__)


def current_version(conn: Connection) -> int:
    """Return the newest catalogue version, 0 before the first was published."""
    return int(conn.scalar(select(func.coalesce(func.max(catalogue_versions.c.version), 0))) or 0)


def published_catalogue(engine: Engine) -> PublishedCatalogue:
    """Return the newest version with all its packages on sale, as of one moment."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn, conn.begin():
        newest = conn.execute(
            select(catalogue_versions.c.version, catalogue_versions.c.published_at)
            .order_by(catalogue_versions.c.version.desc())
            .limit(1)
        ).one_or_none()
        on_sale = select(*_PUBLIC).where(packages.c.on_sale, packages.c.kind == OfferKind.PLAN)
        rows = conn.execute(on_sale.order_by(packages.c.package_id)).all()
    version, published_at = (int(newest[0]), newest[1]) if newest else (0, None)
    return PublishedCatalogue(version, published_at, tuple(_sold(row) for row in rows))


def priced_packages(conn: Connection, package_ids: Collection[str]) -> dict[str, PricedPackage]:
    """Return those of the packages that exist, on sale or not."""
    query = select(*_PUBLIC, packages.c.on_sale, packages.c.best_landed_micros).where(
        packages.c.package_id.in_(sorted(package_ids)), packages.c.kind == OfferKind.PLAN
    )
    return {
        row.package_id: PricedPackage(_sold(row), bool(row.on_sale), int(row.best_landed_micros))
        for row in conn.execute(query)
    }


def usd_micros_per_unit(conn: Connection, currency: str) -> int | None:
    """Return the newest reference rate of `currency` in micro-USD per unit; None where none is known."""
    newest = (
        select(reference_rates.c.usd_micros)
        .where(reference_rates.c.currency == currency)
        .order_by(reference_rates.c.quoted_on.desc())
        .limit(1)
    )
    found: int | None = conn.scalar(newest)
    return found


def _sold(row: Any) -> SoldPackage:
    values = {name: getattr(row, name) for name in SoldPackage.__slots__}
    values["coverage"], values["networks"] = tuple(row.coverage), tuple(row.networks)
    return SoldPackage(**values)
