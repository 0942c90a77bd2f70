"""What the warehouse declares to Dagster: copies, models, the published file. Their checks come with the assets."""

import dagster as dg

from assets.analytics_file import analytics_file
from assets.lake_maintenance import lake_maintenance
from assets.operational_copies import operational_copies
from assets.sql_models import sql_assets

refreshed_assets: list[dg.AssetsDefinition] = [operational_copies, *sql_assets, analytics_file]
warehouse_assets: list[dg.AssetsDefinition] = [*refreshed_assets, lake_maintenance]
