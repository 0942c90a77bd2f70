"""Dagster resource over the lake; reads the settings when it is first used, not when it is defined."""

from functools import lru_cache

import dagster as dg

from resources.db.databases import databases
from resources.settings import load_settings
from resources.warehouse.lake import Lake


@lru_cache(maxsize=4)
def open_lake(catalogue_url: str, data_path: str) -> Lake:
    """Return this process's one handle on the lake at `catalogue_url`."""
    return Lake(catalogue_url, data_path)


class LakeResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # dagster leaves the parameter unbound
    """The lake for assets. Without an address of its own it is the one the settings name."""

    catalogue_url: str | None = None
    data_path: str | None = None

    def lake(self) -> Lake:
        """Return the lake."""
        if self.catalogue_url and self.data_path:
            return open_lake(self.catalogue_url, self.data_path)
        settings = load_settings()
        return open_lake(databases(settings).lake, settings.lake_path)
