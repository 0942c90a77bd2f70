"""Best-price packages and the published catalogue, and the list of all catalogue assets.

`staging.unified_offers` -> `marts.best_price_packages` (checked) -> `published_catalogue`: one transaction in the
operational store, after which the price history in the lake is brought up to date.
"""

import dagster as dg

from assets.best_price import PACKAGES
from assets.catalogue import (
    FRESH,
    GROUP,
    OWNERS,
    provider_catalogues,
    reference_rates,
    staging_unified_offers,
)
from assets.catalogue_figures import price_figures, table_schema
from assets.catalogue_sync import tell_low_stock
from assets.catalogue_tables import BEST_COMMENT, BEST_EXTRA, BEST_NOTES, best_prices, read_unified
from assets.price_history import history_rows
from assets.publishing import price_catalogue, publish
from resources.lake import LakeResource
from resources.provider_clients import ProviderClients
from resources.warehouse.writes import write_tables

BEST_KEY = dg.AssetKey(["marts", "best_price_packages"])
PUBLISHED_KEY = dg.AssetKey(["published_catalogue"])


@dg.asset(
    key=BEST_KEY,
    deps=[staging_unified_offers],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"polars", "ducklake"},
    freshness_policy=FRESH,
    description=f"{BEST_COMMENT} The best offer is the cheapest that may win; ties by provider priority, then id.",
    metadata={
        "dagster/column_schema": table_schema({**PACKAGES, **BEST_EXTRA}, BEST_NOTES, BEST_COMMENT),
        "dagster/table_name": "lake.marts.best_price_packages",
    },
)
def best_price_packages(providers: ProviderClients, lake: LakeResource) -> dg.MaterializeResult:  # type: ignore[type-arg]  # dagster leaves it unbound
    """Choose the best offer of every package and price it by the most specific rule."""
    with providers.desk(lake.lake()) as desk:
        priced = price_catalogue(desk.engine, read_unified(desk.lake), desk.currencies, desk.clock())
        write_tables(desk.lake, [best_prices(priced)])
    return dg.MaterializeResult(metadata=price_figures(priced))


@dg.asset(
    key=PUBLISHED_KEY,
    deps=[best_price_packages],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    freshness_policy=FRESH,
    description="One row per package in the operational store: what customers see, published as one version.",
    metadata={"dagster/table_name": "packages"},
)
def published_catalogue(
    context: dg.AssetExecutionContext, providers: ProviderClients, lake: LakeResource
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # dagster leaves it unbound
    """Publish in one transaction what changed, then append the changes to the price history."""
    with providers.desk(lake.lake()) as desk:
        now = desk.clock()
        done = publish(desk.engine, read_unified(desk.lake), desk.currencies, now, run_id=context.run.run_id)
        tell_low_stock(desk, now)
        history = history_rows(desk.lake, done, now)
        write_tables(desk.lake, history)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": done.on_sale,
            "version": done.version,
            "new_version": done.is_new,
            "packages_changed": done.changed_packages,
            "offers_changed": done.changed_offers,
            "history_rows": sum(table.rows.height for table in history),
        }
    )


catalogue_assets: list[dg.AssetsDefinition] = [
    provider_catalogues,
    reference_rates,
    staging_unified_offers,
    best_price_packages,
    published_catalogue,
]
