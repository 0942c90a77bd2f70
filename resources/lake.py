"""Dagster resource over the lake, what feeds it and what is published from it; reads the settings on first use only."""

from functools import lru_cache
from os import getpid
from pathlib import Path

import dagster as dg
from sqlalchemy import Engine

from resources.db.databases import databases, make_engine
from resources.settings import load_settings
from resources.warehouse.lake import Lake
from resources.warehouse.publish import FILE_NAME


@lru_cache(maxsize=4)
def open_lake(catalogue_url: str, data_path: str) -> Lake:
    """Return this process's one handle on the lake at `catalogue_url`."""
    return Lake(catalogue_url, data_path)


@lru_cache(maxsize=4)
def _engine(url: str, _process: int) -> Engine:
    return make_engine(url, pool_size=2)


class LakeResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # dagster leaves the parameter unbound
    """The lake for assets. Without addresses of its own it is the one the settings name."""

    catalogue_url: str | None = None
    data_path: str | None = None
    operational_url: str | None = None
    published_folder: str | None = None

    def lake(self) -> Lake:
        """Return the lake."""
        if self.catalogue_url and self.data_path:
            return open_lake(self.catalogue_url, self.data_path)
        settings = load_settings()
        return open_lake(databases(settings).lake, settings.lake_path)

    def operational_store(self) -> Engine:
        """Return an engine on the operational store the lake is loaded from."""
        # A run is a forked child where runs start warm: it must not use its parent's connections.
        return _engine(self.operational_url or databases(load_settings()).operational, getpid())

    def published_file(self) -> Path:
        """Return where `analytics.duckdb` is published."""
        return Path(self.published_folder or load_settings().data_dir).absolute() / FILE_NAME
