"""The one list of the sandbox's providers and where each is mounted."""

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Router

from sandbox.providers import airalo, esim_access, esim_card, esim_go, mobimatter
from sandbox.world import World

PREFIXES = {
    "airalo": "/airalo/v2",
    "esim_access": "/esim_access",
    "esim_go": "/esim_go/v2.5",
    "mobimatter": "/mobimatter",
    "esim_card": "/esim_card/api/developer/reseller",
}
BUILDERS: dict[str, Callable[[World], list[BaseRoute]]] = {
    "airalo": airalo.build,
    "esim_access": esim_access.build,
    "esim_go": esim_go.build,
    "mobimatter": mobimatter.build,
    "esim_card": esim_card.build,
}


def mount(app: Starlette, world: World) -> None:
    """Mount every provider under its address."""
    for slug, build in BUILDERS.items():
        app.router.routes.append(Mount(PREFIXES[slug], app=Router(build(world), redirect_slashes=False)))
