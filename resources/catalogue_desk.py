"""What a catalogue sync works with, opened from the settings: store, lake, provider clients and reference rates."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Engine

from esim.ports import Clock, Provider
from resources.db.databases import databases, make_engine
from resources.db.limiter import PostgresLimiter
from resources.db.tokens import PostgresTokenStore
from resources.db.vault import Vault
from resources.providers.registry import build_providers
from resources.rates import ReferenceRates
from resources.settings import Settings
from resources.warehouse.lake import Lake

_CONNECTIONS = 12  # five providers at once, each noting its state and asking the shared limiter


def utc_now() -> datetime:
    """Return the present time."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class CatalogueDesk:
    """Everything a sync needs; parts may be replaced one by one, by fakes in tests say."""

    engine: Engine
    lake: Lake
    providers: Mapping[str, Provider]
    rates: ReferenceRates
    currencies: tuple[str, ...] = ("USD", "EUR", "GBP")
    clock: Clock = utc_now


@contextmanager
def catalogue_desk(settings: Settings, *, lake: Lake | None = None) -> Iterator[CatalogueDesk]:
    """Open a desk on what the settings name, and give its connections back; `lake` is used when it is open already."""
    urls = databases(settings)
    engine = make_engine(urls.operational, pool_size=_CONNECTIONS)
    tokens = PostgresTokenStore(engine, Vault.from_settings(settings))
    providers = build_providers(settings, limiter=PostgresLimiter(engine), tokens=tokens, clock=utc_now)
    opened = lake or Lake(urls.lake, settings.lake_path)
    try:
        yield CatalogueDesk(
            engine, opened, providers, ReferenceRates(settings.rates.url), tuple(settings.sell_currencies)
        )
    finally:
        for provider in providers.values():
            provider.close()
        if lake is None:
            opened.close()
        engine.dispose()
