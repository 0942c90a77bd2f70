"""Publishing: one transaction in which a new catalogue version becomes visible whole, or not at all.

unified offers + the store's rows (read under a lock) -> best offers and prices -> only the rows that differ are
written -> one new version. A person's choices (auto mode off) are read in the same transaction, so none is lost.
`publish` takes whole catalogues; `republish` works from the store alone, for changes of health, rules or choices.
"""

from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple

import polars as pl
from sqlalchemy import Connection, Engine

from assets.best_price import PRICED, PriceContext, described, offer_flags, price_packages, with_eligibility
from assets.published_frames import (
    STORED_OFFERS,
    STORED_PACKAGES,
    as_stored,
    changed_rows,
    offers_from_csv,
    offers_to_csv,
    packages_from_csv,
    packages_to_csv,
)
from esim.errors import CatalogueHeld
from resources.db import catalogue_store as store
from resources.db.catalogue_reader import current_version
from resources.db.outages import resting_offers
from resources.db.pricing_rules import rules_in_force
from resources.db.reference_rates import newest_rates

_OFFER_CONTENT = [name for name in STORED_OFFERS if name not in {"offer_id", "auto_mode"}]
_PACKAGE_CONTENT = [name for name in STORED_PACKAGES if name not in {"package_id", "version"}]


@dataclass(frozen=True, slots=True)
class PricedCatalogue:
    """A whole catalogue: packages and offers as the store keeps them, candidates with why they may not win."""

    packages: pl.DataFrame
    offers: pl.DataFrame
    candidates: pl.DataFrame

    @property
    def on_sale(self) -> int:
        """How many packages are on sale."""
        return self.packages.filter("on_sale").height


@dataclass(frozen=True, slots=True)
class Published(PricedCatalogue):
    """What a publication did; `version` is the newest one, new or not."""

    version: int
    is_new: bool
    published_at: datetime | None
    changed_packages: int
    changed_offers: int


class Stored(NamedTuple):
    """The store's offers and packages as they were read."""

    offers: pl.DataFrame
    packages: pl.DataFrame


def price_context(conn: Connection, currencies: tuple[str, ...], now: datetime) -> PriceContext:
    """Read what decides prices besides the offers."""
    return PriceContext(
        store.provider_states(conn, now),
        rules_in_force(conn),
        newest_rates(conn).rates,
        tuple(currencies),
        resting_offers(conn, now),
    )


def publish(
    engine: Engine, unified: pl.DataFrame, currencies: tuple[str, ...], now: datetime, *, run_id: str | None = None
) -> Published:
    """Make `unified` the catalogue on sale; a repeat with nothing changed writes nothing.

    Raises:
        CatalogueHeld: a price would be below its cost floor; nothing was published.
        sqlalchemy.exc.SQLAlchemyError, psycopg.Error: nothing was published.
    """
    with engine.begin() as conn:
        store.lock_publishing(conn)
        context, stored = price_context(conn, currencies, now), _read(conn)
        return _write(conn, _priced(unified, stored, context), stored, context, run_id)


def price_catalogue(
    engine: Engine, unified: pl.DataFrame, currencies: tuple[str, ...], now: datetime
) -> PricedCatalogue:
    """Return what `publish` would publish now, publishing nothing."""
    with engine.connect() as conn:
        return _priced(unified, _read(conn), price_context(conn, currencies, now))


def republish(engine: Engine, currencies: tuple[str, ...], now: datetime, *, run_id: str | None = None) -> Published:
    """Choose and price again from the store's own offers: after a change of health, stock, rules or choices.

    Landed costs, names and networks stay as the last sync left them.

    Raises:
        CatalogueHeld: a price would be below its cost floor; nothing was published.
        sqlalchemy.exc.SQLAlchemyError, psycopg.Error: nothing was published.
    """
    with engine.begin() as conn:
        store.lock_publishing(conn)
        context, stored = price_context(conn, currencies, now), _read(conn)
        return _write(conn, _repriced(stored, context), stored, context, run_id)


def _priced(unified: pl.DataFrame, stored: Stored, context: PriceContext) -> PricedCatalogue:
    candidates = with_eligibility(_with_modes(unified, stored.offers), context)
    priced = price_packages(candidates, context)
    flagged = offer_flags(candidates, priced)
    return PricedCatalogue(
        _with_ended(as_stored(described(priced)), stored.packages),
        _with_withdrawn(_offer_rows(flagged), stored.offers),
        flagged,
    )


def _repriced(stored: Stored, context: PriceContext) -> PricedCatalogue:
    placed = stored.offers.join(stored.packages.select("package_id", "destination_code"), on="package_id")
    offered = placed.filter("on_offer").with_columns(min_retail_micros_usd=pl.col("min_retail_micros"))
    candidates = with_eligibility(offered, context)
    priced = price_packages(candidates, context)
    flagged = offer_flags(candidates, priced)
    kept = stored.packages.drop(*PRICED, "on_sale", "version")
    fresh = kept.join(priced.select("package_id", *PRICED, "on_sale"), on="package_id")
    return PricedCatalogue(
        _with_ended(fresh.select("package_id", *_PACKAGE_CONTENT), stored.packages),
        _with_withdrawn(flagged.select(list(STORED_OFFERS)), stored.offers),
        flagged,
    )


def _read(conn: Connection) -> Stored:
    return Stored(offers_from_csv(store.read_offers(conn)), packages_from_csv(store.read_packages(conn)))


def _with_modes(unified: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """Add each offer's auto mode and switch as the store has them; new offers start in auto mode."""
    modes = stored.select("offer_id", "auto_mode", "is_enabled")
    joined = unified.join(modes, on="offer_id", how="left", maintain_order="left")
    return joined.with_columns(pl.col("auto_mode").fill_null(True), pl.col("is_enabled").fill_null(False))


def _offer_rows(flagged: pl.DataFrame) -> pl.DataFrame:
    rows = flagged.with_columns(min_retail_micros=pl.col("min_retail_micros_usd"), on_offer=pl.lit(True))
    return rows.select(list(STORED_OFFERS))


def _with_withdrawn(offers: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """Add the stored offers that are no longer offered, marked so."""
    gone = stored.join(offers.select("offer_id"), on="offer_id", how="anti")
    enabled = pl.col("is_enabled") & ~pl.col("auto_mode")
    marked = gone.with_columns(on_offer=pl.lit(False), is_best_price=pl.lit(False), is_enabled=enabled)
    return pl.concat([offers, marked.select(offers.columns)])


def _with_ended(packages: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """Add the stored packages nobody offers any more, taken off sale."""
    ended = stored.join(packages.select("package_id"), on="package_id", how="anti")
    off_sale = ended.with_columns(on_sale=pl.lit(False), offer_count=pl.lit(0, dtype=pl.Int64))
    return pl.concat([packages, off_sale.select(packages.columns)])


def _write(
    conn: Connection, catalogue: PricedCatalogue, stored: Stored, context: PriceContext, run_id: str | None
) -> Published:
    """Write the rows that differ; anything but a stock count makes a new version."""
    _refuse_losses(catalogue.packages)
    new_offers = changed_rows(catalogue.offers, stored.offers, "offer_id", _OFFER_CONTENT)
    new_packages = changed_rows(catalogue.packages, stored.packages, "package_id", _PACKAGE_CONTENT)
    stockless = [name for name in _OFFER_CONTENT if name != "stock"]
    material = new_packages.height + changed_rows(new_offers, stored.offers, "offer_id", stockless).height
    version, published_at = current_version(conn), None
    if material:
        version, published_at = store.add_version(
            conn,
            packages=catalogue.on_sale,
            offers=catalogue.offers.filter("on_offer").height,
            changed=material,
            rates_on=date.fromisoformat(context.rates.quoted_on) if context.rates.quoted_on else None,
            run_id=run_id,
        )
    if new_offers.height:
        store.write_offers(conn, offers_to_csv(new_offers))
    if new_packages.height:
        versioned = new_packages.with_columns(version=pl.lit(version, dtype=pl.Int64))
        store.write_packages(conn, packages_to_csv(versioned))
    return Published(
        packages=catalogue.packages,
        offers=catalogue.offers,
        candidates=catalogue.candidates,
        version=version,
        is_new=bool(material),
        published_at=published_at,
        changed_packages=new_packages.height,
        changed_offers=new_offers.height,
    )


def _refuse_losses(packages: pl.DataFrame) -> None:
    """Refuse to publish a price below its cost floor; only a pricing rule with absurd figures can ask for one."""
    losing = packages.filter(pl.col("on_sale") & (pl.col("price_minor_usd") * 10_000 < pl.col("floor_micros")))
    if losing.height:
        package_id, rule_id = losing.select("package_id", "rule_id").row(0)
        raise CatalogueHeld(
            f"{losing.height} packages would be sold below their cost floor ({package_id}, rule {rule_id});"
            " mend the pricing rules; nothing was published"
        )
