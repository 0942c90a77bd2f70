"""The one list of the five providers, and how to build their clients from settings."""

from collections.abc import Callable, Mapping

import httpx

from esim.ports import Clock, Limiter, Provider, TokenStore
from resources.providers.airalo import Airalo
from resources.providers.esim_access import EsimAccess
from resources.providers.esim_card import EsimCard
from resources.providers.esim_go import EsimGo
from resources.providers.mobimatter import MobiMatter
from resources.settings import Settings

Factory = Callable[..., Provider]

# In the order of priority that decides between equal costs.
FACTORIES: Mapping[str, Factory] = {
    "airalo": Airalo,
    "esim_access": EsimAccess,
    "esim_go": EsimGo,
    "mobimatter": MobiMatter,
    "esim_card": EsimCard,
}


def build_provider(
    slug: str,
    settings: Settings,
    *,
    limiter: Limiter,
    tokens: TokenStore,
    clock: Clock,
    transport: httpx.BaseTransport | None = None,
) -> Provider:
    """Return the client of provider `slug`, pointed at its live or sandbox address.

    Raises:
        KeyError: there is no such provider.
    """
    return FACTORIES[slug](
        settings.provider(slug),
        limiter=limiter,
        tokens=tokens,
        clock=clock,
        timeout_seconds=settings.provider_timeout_ms / 1000,
        transport=transport,
    )


def build_providers(settings: Settings, *, limiter: Limiter, tokens: TokenStore, clock: Clock) -> dict[str, Provider]:
    """Return every provider's client by slug."""
    return {slug: build_provider(slug, settings, limiter=limiter, tokens=tokens, clock=clock) for slug in FACTORIES}
