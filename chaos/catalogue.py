"""A small catalogue: real plans of all five sandbox providers, grouped so that each package has candidates from all."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from random import Random

from sqlalchemy import Engine, insert

from esim.catalogue import OfferKind
from resources.db.tables import catalogue_versions, offers, packages
from resources.providers.base import Unlimited
from resources.providers.registry import FACTORIES, build_provider
from resources.settings import Settings

PACKAGES = 5
PRICE_MINOR = 4_999
_DEAREST = Decimal(20)
_ENOUGH = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """One plan of a provider, as its catalogue has it."""

    provider: str
    provider_package_id: str
    name: str
    cost: Decimal
    hints: Mapping[str, str]


class _NoTokens:
    """A token store for one reading."""

    def get(self, provider: str, now: object) -> None:
        """Have none."""

    def put(self, provider: str, token: str, expires_at: object) -> None:
        """Keep none."""

    def discard(self, provider: str, token: str) -> None:
        """Forget none."""


def read_plans(settings: Settings) -> dict[str, list[Plan]]:
    """Read a few affordable plans from each provider's catalogue, over its real wire."""
    from resources.order_operations import utc_now

    found: dict[str, list[Plan]] = {}
    for slug in FACTORIES:
        provider = build_provider(slug, settings, limiter=Unlimited(), tokens=_NoTokens(), clock=utc_now)
        plans: list[Plan] = []
        for page in provider.catalogue():
            for offer in page.offers:
                if offer.kind is OfferKind.PLAN and offer.cost.currency == "USD" and offer.cost.amount <= _DEAREST:
                    plan_id, hints = offer.provider_package_id, dict(offer.order_hints)
                    plans.append(Plan(slug, plan_id, offer.name, offer.cost.amount, hints))
        provider.close()
        found[slug] = plans[:_ENOUGH]
    return found


def put_on_sale(engine: Engine, plans: Mapping[str, list[Plan]], name: str) -> list[str]:
    """Put packages on sale that every provider can serve, each provider being the first choice of one of them.

    That the plans are equivalent is our say; what is bought, and what it costs, is the provider's.
    """
    rng, slugs = Random(f"catalogue {name}"), list(plans)  # noqa: S311 - repeatable, not secret
    ids = [f"chaos-{n}" for n in range(PACKAGES)]
    with engine.begin() as conn:
        version = conn.scalar(
            insert(catalogue_versions)
            .values(packages=PACKAGES, offers=PACKAGES * len(slugs), changed=0)
            .returning(catalogue_versions.c.version)
        )
        for n, package_id in enumerate(ids):
            first = slugs[n % len(slugs)]
            order = [first, *rng.sample([slug for slug in slugs if slug != first], len(slugs) - 1)]
            rows = [_offer(plans[slug][n % len(plans[slug])], package_id, rank) for rank, slug in enumerate(order)]
            conn.execute(insert(offers), rows)
            conn.execute(insert(packages).values(**_package(package_id, rows[0], int(version or 0))))
    return ids


def _offer(plan: Plan, package_id: str, rank: int) -> dict[str, object]:
    return {
        "offer_id": f"{plan.provider}:{plan.provider_package_id}:{package_id}",
        "provider": plan.provider,
        "provider_package_id": plan.provider_package_id,
        "package_id": package_id,
        "name": plan.name,
        "kind": OfferKind.PLAN,
        "coverage_key": package_id,
        "allowance": "total",
        "data_mb": 1000,
        "validity_days": 7,
        "cost_amount": plan.cost,
        "cost_currency": "USD",
        "landed_micros": 1_000_000 * (rank + 1),  # the order of trial is what we want it to be
        "order_hints": dict(plan.hints),
    }


def _package(package_id: str, best: Mapping[str, object], version: int) -> dict[str, object]:
    return {
        "package_id": package_id,
        "name": f"Campaign {package_id}",
        "destination_code": "JP",
        "destination_name": "Japan",
        "destination_type": "country",
        "kind": OfferKind.PLAN,
        "coverage": ["JP"],
        "allowance": "total",
        "data_mb": 1000,
        "validity_days": 7,
        "networks": [],
        "price_minor_usd": PRICE_MINOR,
        "prices": {"USD": PRICE_MINOR},
        "floor_micros": 0,
        "best_offer_id": best["offer_id"],
        "best_landed_micros": 1_000_000,
        "offer_count": len(FACTORIES),
        "on_sale": True,
        "version": version,
    }
