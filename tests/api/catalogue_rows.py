"""Published packages as the catalogue assets write them."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Engine, insert, update

from resources.db.tables import catalogue_versions, packages

NAMES = {"JP": "Japan", "FR": "France", "RE": "Réunion", "europe": "Europe"}


def package_row(package_id: str, destination: str = "JP", usd: int = 499, **values: Any) -> dict[str, Any]:
    country = len(destination) == 2
    return {
        "package_id": package_id,
        "name": f"{NAMES.get(destination, destination)} {package_id}",
        "destination_code": destination,
        "destination_name": NAMES.get(destination, destination),
        "destination_type": "country" if country else "region",
        "kind": "plan",
        "coverage": [destination] if country else ["DE", "FR"],
        "allowance": "total",
        "data_mb": 5000,
        "validity_days": 30,
        "networks": ["Testnet"],
        "supports_top_up": True,
        "price_minor_usd": usd,
        "prices": {"USD": usd, "EUR": usd - 20},
        "floor_micros": 1_000_000,
        "best_offer_id": f"airalo:{package_id}",
        "best_landed_micros": 2_000_000,
        "offer_count": 1,
        "on_sale": True,
        **values,
    }


def publish(engine: Engine, rows: Sequence[Mapping[str, Any]]) -> int:
    """Make `rows` the whole catalogue, as one new version; return its number."""
    with engine.begin() as conn:
        version: int = conn.execute(
            insert(catalogue_versions)
            .values(packages=len(rows), offers=len(rows), changed=len(rows))
            .returning(catalogue_versions.c.version)
        ).scalar_one()
        conn.execute(update(packages).values(on_sale=False))
        for row in rows:
            conn.execute(packages.delete().where(packages.c.package_id == row["package_id"]))
            conn.execute(insert(packages).values(**row, version=version))
    return version


def shelf_of_japan() -> list[dict[str, Any]]:
    """A small shelf with every kind of plan."""
    return [
        package_row("jp-1gb-7d", usd=299, data_mb=1000, validity_days=7),
        package_row("jp-5gb-30d", usd=899),
        package_row("jp-10gb-30d", usd=1499, data_mb=10_000),
        package_row("jp-1gb-daily-10d", usd=1899, data_mb=1000, allowance="daily", validity_days=10),
        package_row("jp-unl-10d", usd=2999, data_mb=None, allowance="unlimited", validity_days=10),
        package_row("fr-5gb-30d", "FR", usd=699),
        package_row("re-1gb-7d", "RE", usd=499, data_mb=1000, validity_days=7),
        package_row("europe-2-5gb-30d-abc123", "europe", usd=999),
        package_row("jp-1gb-7d-topup", usd=199, kind="top_up"),
    ]
