"""Dagster resource over the provider clients; opens them from the settings when they are first used."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from resources.catalogue_desk import CatalogueDesk, catalogue_desk
from resources.settings import load_settings
from resources.warehouse.lake import Lake

__all__ = ["CatalogueDesk", "ProviderClients", "catalogue_desk"]


class ProviderClients(dg.ConfigurableResource):  # type: ignore[type-arg]  # dagster leaves the parameter unbound
    """The outside the catalogue is read from, with the store it is published in, for assets."""

    @contextmanager
    def desk(self, lake: Lake) -> Iterator[CatalogueDesk]:
        """Open what a sync works with."""
        with catalogue_desk(load_settings(), lake=lake) as desk:
            yield desk
